//! Posting, waiting, and the ways in which a wait ends.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use wharf_port::{ErrorKind, Event, Key, Packet, Wait, Waiter};

use crate::rig::case::{Case, Inapplicable, Where, case, linux, real_time, several_waiters};
use crate::rig::crew::crew;
use crate::rig::system;
use crate::rig::{Rig, lock};

pub(crate) const CASES: &[Case] = &[
    case!(
        a_post_comes_back_bit_exact,
        [C1, C16],
        "wine kernel32 file.c"
    ),
    case!(
        five_posts_come_in_one_batch_in_order,
        [C16],
        "wine kernel32 file.c"
    ),
    case!(
        a_batch_of_one_leaves_the_rest_queued,
        [C4, C16],
        "wine ntdll file.c"
    ),
    case!(
        a_wait_of_zero_on_an_empty_port_times_out,
        [C5],
        "wine kernel32 file.c, ws2_32 sock.c"
    ),
    case!(
        keys_and_values_are_full_width,
        [C1, C16],
        "wine ntdll file.c, golang/go #44538"
    ),
    case!(
        a_post_of_nothing_is_a_packet,
        [C1, C16],
        "wepoll #32, libuv core.c"
    ),
    case!(
        many_threads_get_each_post_once,
        [C2, C4, C16],
        "polling windows_post.rs"
    )
    .skip(several_waiters),
    case!(
        a_batch_never_passes_its_bound,
        [C4, C13],
        "twisted test_iocp.py"
    ),
    case!(
        a_post_before_the_wait_is_not_lost,
        [C16],
        "libxev watcher async.zig"
    ),
    case!(
        a_post_wakes_a_sleeping_waiter,
        [C16],
        "libxev watcher async.zig"
    ),
    case!(
        closing_wakes_every_waiter,
        [C14],
        "win32 documentation of GetQueuedCompletionStatus"
    ),
    case!(
        a_wait_is_never_early,
        [C5],
        "libuv core.c, cpython test_windows_events.py"
    )
    .skip(real_time),
    case!(posts_do_not_hold_traffic_back, [C5, C16], "contract").skip(real_time),
    case!(
        posts_are_refused_at_the_bound_with_their_value,
        [C13, C16],
        "contract"
    ),
    case!(
        a_closed_port_refuses_posts_with_their_value,
        [C14, C16],
        "contract"
    ),
    case!(
        an_idle_port_sleeps,
        [C5],
        "iggy #3507, ferron #228, vibeio 0.2.10"
    )
    .skip(linux)
    .alone(),
];

pub(crate) const INAPPLICABLE: &[Inapplicable] = &[
    Inapplicable {
        name: "unknown_key_dropped",
        source: "golang/go #21172, #58870",
        reason: "no other code has the port's handle; each driver counts packets that it does not know \
                 in `Stats::foreign_packets`, which every case requires to stay 0",
    },
    Inapplicable {
        name: "lifo_wake",
        source: "win32 documentation",
        reason: "which of several sleepers wakes first is a matter of speed, not of the contract",
    },
    Inapplicable {
        name: "concurrency_one",
        source: "win32 documentation",
        reason: "the contract has no concurrency value: as many threads run as wait",
    },
];

fn posted(rig: &mut Rig) -> (Key, u64) {
    let packet = rig.next("a post");
    match packet.event {
        Event::Posted(value) => (packet.key, value),
        other => panic!("a post was expected: {other:?}"),
    }
}

fn a_post_comes_back_bit_exact(at: &Where) {
    let mut rig = Rig::new(at);
    rig.port
        .post(Key(0x0123_4567_89ab_cdef), 0xfedc_ba98)
        .expect("room");
    assert_eq!(posted(&mut rig), (Key(0x0123_4567_89ab_cdef), 0xfedc_ba98));
    rig.expect_nothing();
}

fn five_posts_come_in_one_batch_in_order(at: &Where) {
    let mut rig = Rig::new(at);
    for value in 0..5 {
        rig.port.post(Key(7), value).expect("room");
    }
    let Wait::Packets(batch) = rig.waiter().wait(None).expect("waits") else {
        panic!("five posts wait");
    };
    // A batch may skip some of its packets, so no number but 0 is the least.
    assert_eq!((batch.len(), batch.size_hint()), (5, (0, Some(5))));
    let values: Vec<_> = batch.map(|packet| format!("{:?}", packet.event)).collect();
    let expected: Vec<_> = (0..5).map(|value| format!("Posted({value})")).collect();
    assert_eq!(values, expected);
}

fn a_batch_of_one_leaves_the_rest_queued(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.batch_max(1));
    for value in 0..3 {
        rig.port.post(Key(7), value).expect("room");
    }
    for value in 0..3 {
        let Wait::Packets(batch) = rig.waiter().wait(None).expect("waits") else {
            panic!("a post waits");
        };
        let packets: Vec<_> = batch.collect();
        assert_eq!(packets.len(), 1, "a batch of one");
        assert!(matches!(packets[0].event, Event::Posted(posted) if posted == value));
        assert_eq!(
            rig.port.stats().posts as u64,
            2 - value,
            "the rest is queued"
        );
    }
}

fn a_wait_of_zero_on_an_empty_port_times_out(at: &Where) {
    let mut rig = Rig::new(at);
    for _ in 0..3 {
        let wait = rig.waiter().wait(Some(Duration::ZERO)).expect("waits");
        assert!(matches!(wait, Wait::TimedOut));
    }
}

fn keys_and_values_are_full_width(at: &Where) {
    let mut rig = Rig::new(at);
    for bits in [u64::MAX, u64::MAX - 1, 1 << 63, u64::from(u32::MAX)] {
        rig.port.post(Key(bits), bits).expect("room");
        assert_eq!(posted(&mut rig), (Key(bits), bits));
    }
}

fn a_post_of_nothing_is_a_packet(at: &Where) {
    let mut rig = Rig::new(at);
    rig.port.post(Key(0), 0).expect("room");
    assert_eq!(posted(&mut rig), (Key(0), 0));
}

fn many_threads_get_each_post_once(at: &Where) {
    const POSTS: usize = 4_000;
    let mut rig = Rig::new(at);
    rig.drop_waiter();
    let seen: Vec<AtomicUsize> = (0..POSTS).map(|_| AtomicUsize::new(0)).collect();
    let left = AtomicUsize::new(POSTS);
    let port = rig.port.clone();
    let handle = |_: usize, packet: Packet| {
        let Event::Posted(value) = packet.event else {
            panic!("nothing else was asked for: {packet:?}");
        };
        seen[value as usize].fetch_add(1, Ordering::Relaxed);
        if left.fetch_sub(1, Ordering::AcqRel) == 1 {
            port.close();
        }
    };
    crew(&rig.port, 4, handle, || {
        for value in 0..POSTS {
            rig.port
                .post(Key(1), value as u64)
                .expect("room for 65,536");
        }
    });
    let once = seen.iter().all(|count| count.load(Ordering::Relaxed) == 1);
    assert!(once, "each post went to one waiter");
}

fn a_batch_never_passes_its_bound(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.batch_max(1_000));
    for value in 0..1_001 {
        rig.port.post(Key(1), value).expect("room");
    }
    for expected in [1_000, 1] {
        let Wait::Packets(batch) = rig.waiter().wait(None).expect("waits") else {
            panic!("posts wait");
        };
        assert_eq!(batch.count(), expected);
    }
}

fn a_post_before_the_wait_is_not_lost(at: &Where) {
    let mut rig = Rig::new(at);
    let port = rig.port.clone();
    let poster = thread::spawn(move || port.post(Key(3), 4).expect("room"));
    poster.join().expect("it posts");
    assert_eq!(posted(&mut rig), (Key(3), 4));
}

fn a_post_wakes_a_sleeping_waiter(at: &Where) {
    let mut rig = Rig::new(at);
    for round in 0..200 {
        let port = rig.port.clone();
        let poster = thread::spawn(move || port.post(Key(3), round).expect("room"));
        let Wait::Packets(batch) = rig.waiter().wait(None).expect("waits") else {
            panic!("only a post ends this wait");
        };
        assert_eq!(batch.count(), 1);
        poster.join().expect("it posts");
    }
}

fn closing_wakes_every_waiter(at: &Where) {
    let mut rig = Rig::new(at);
    // The rig's own waiter is one of them, because a ring may be bound to its thread.
    let others = if at.shared() { 3 } else { 0 };
    let (entered, closed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let port = rig.port.clone();
    let wait = |waiter: &mut Waiter| {
        entered.fetch_add(1, Ordering::AcqRel);
        assert!(matches!(waiter.wait(None), Ok(Wait::Closed)));
        closed.fetch_add(1, Ordering::AcqRel);
        assert!(
            matches!(waiter.wait(None), Ok(Wait::Closed)),
            "and stays closed"
        );
    };
    thread::scope(|scope| {
        for _ in 0..others {
            scope.spawn(|| wait(&mut port.waiter().expect("there is room")));
        }
        scope.spawn(|| {
            // Each is in its wait, or on the way there: both must end.
            while entered.load(Ordering::Acquire) <= others {
                thread::yield_now();
            }
            port.close();
            port.close();
        });
        wait(rig.waiter());
    });
    assert_eq!(closed.load(Ordering::Acquire), 1 + others);
    assert_eq!(port.waiter().unwrap_err().kind(), ErrorKind::Closed);
}

fn a_wait_is_never_early(at: &Where) {
    let mut rig = Rig::new(at);
    for micros in [0, 1, 499, 1_000, 1_500, 3_001, 20_000] {
        let limit = Duration::from_micros(micros);
        let start = Instant::now();
        let wait = rig.waiter().wait(Some(limit)).expect("waits");
        let took = start.elapsed();
        assert!(matches!(wait, Wait::TimedOut));
        assert!(took >= limit, "{took:?} is less than {limit:?}");
    }
}

/// Posts and sockets used to be in one queue. A connection waited behind all posts, and its data
/// again: seconds, if threads posted faster than one could take.
fn posts_do_not_hold_traffic_back(at: &Where) {
    // If the system is slow to deliver the traffic, the posts are taken meanwhile. With one queue
    // the traffic would never come before half of them.
    let is_before = (0..20).any(|_| traffic_is_before_most_posts(at));
    assert!(is_before, "traffic comes behind most of the posts");
}

fn traffic_is_before_most_posts(at: &Where) -> bool {
    const POSTS: u64 = 60_000;
    let mut rig = Rig::new(at);
    rig.allowed.packets = true;
    for value in 0..POSTS {
        rig.port.post(Key(1), value).expect("room");
    }
    let (stream, mut peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    rig.say(&mut peer, b"now");
    assert_eq!(rig.receive(stream.socket(), 3), b"now");
    rig.port.stats().posts as u64 > POSTS / 2
}

fn posts_are_refused_at_the_bound_with_their_value(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.posts_max(2));
    rig.port.post(Key(1), 1).expect("room");
    rig.port.post(Key(1), 2).expect("room");
    let refused = rig.port.post(Key(1), 3).expect_err("two wait already");
    assert_eq!((refused.error.kind(), refused.value), (ErrorKind::Full, 3));
    assert_eq!(posted(&mut rig), (Key(1), 1));
    assert_eq!(posted(&mut rig), (Key(1), 2));
    rig.port.post(Key(1), 4).expect("room again");
    assert_eq!(posted(&mut rig), (Key(1), 4));
}

fn a_closed_port_refuses_posts_with_their_value(at: &Where) {
    let rig = Rig::new(at);
    let port = Mutex::new(rig.port.clone());
    thread::scope(|scope| scope.spawn(|| lock(&port).close()).join()).expect("closes anywhere");
    let refused = rig.port.post(Key(1), 9).expect_err("the port is closed");
    assert_eq!(
        (refused.error.kind(), refused.value),
        (ErrorKind::Closed, 9)
    );
}

fn an_idle_port_sleeps(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, _peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    let far = Instant::now() + Duration::from_secs(3_600);
    rig.port.timer(far, Key(1)).expect("room");
    let (start, before) = (Instant::now(), system::processor_time());
    let wait = rig
        .waiter()
        .wait(Some(Duration::from_millis(500)))
        .expect("waits");
    assert!(matches!(wait, Wait::TimedOut));
    let used = system::processor_time() - before;
    assert!(
        used < start.elapsed() / 10,
        "{used:?} of processor time for nothing"
    );
}
