//! Timers: packets like any other, never early, and cancelled exactly.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use wharf_port::{Cancel, Close, ConnectOptions, End, ErrorKind, Event, Key, Op, Packet, Wait};

use crate::cases::connect::taken;
use crate::rig::case::{Case, Driver, Where, case, linux, real_time, several_waiters};
use crate::rig::crew::crew;
use crate::rig::peer::Heard;
use crate::rig::{Rig, noise};

pub(crate) const CASES: &[Case] = &[
    case!(a_timer_is_a_packet_and_never_early, [C17], "libuv core.c").skip(real_time),
    case!(
        timers_come_in_the_order_of_their_deadlines,
        [C17],
        "contract"
    ),
    case!(a_deadline_in_the_past_comes_at_once, [C17], "contract"),
    case!(
        a_cancelled_timer_ends_and_never_fires,
        [C17, C10],
        "libxev iocp.zig"
    ),
    case!(
        cancelling_a_timer_that_fired_finds_nothing,
        [C17, C10],
        "libxev iocp.zig, nng #1599"
    ),
    case!(
        a_sleeping_waiter_learns_of_a_nearer_timer,
        [C17],
        "contract"
    )
    .skip(real_time),
    case!(a_timer_wakes_one_of_several_waiters, [C17, C4], "contract").skip(several_waiters),
    case!(timers_are_refused_at_the_bound, [C13, C17], "contract"),
    case!(a_hundred_thousand_timers_come_and_go, [C17], "contract"),
    case!(a_deadline_for_ever_away_is_kept, [C17], "contract"),
    case!(a_connect_with_a_limit_needs_a_timer, [C13, C17], "contract"),
    case!(
        limits_that_are_over_leave_no_timer,
        [C13, C17],
        "the seeds of every driver"
    ),
    case!(
        a_timer_for_each_request_wakes_no_sleepers,
        [C17, C4],
        "found in review: all of them woke for each time-out"
    )
    .skip(counted)
    .alone(),
    case!(traffic_does_not_hold_timers_back, [C5, C17], "contract").skip(real_time),
    case!(timers_do_not_hold_traffic_back, [C5, C17], "contract").skip(real_time),
];

fn soon(millis: u64) -> Instant {
    Instant::now() + Duration::from_millis(millis)
}

fn fired(rig: &mut Rig) -> (Op, Key) {
    let packet = rig.next("a timer");
    assert!(matches!(packet.event, Event::Timer), "{packet:?}");
    (packet.op, packet.key)
}

fn a_timer_is_a_packet_and_never_early(at: &Where) {
    let mut rig = Rig::new(at);
    for micros in [0, 300, 1_000, 1_999, 20_500] {
        let deadline = Instant::now() + Duration::from_micros(micros);
        let op = rig.port.timer(deadline, Key(micros)).expect("room");
        assert_eq!(fired(&mut rig), (op, Key(micros)));
        assert!(
            Instant::now() >= deadline,
            "a timer of {micros} µs was early"
        );
    }
    assert_eq!(rig.port.stats().timers, 0);
    rig.expect_nothing();
}

fn timers_come_in_the_order_of_their_deadlines(at: &Where) {
    let mut rig = Rig::new(at);
    let start = soon(10);
    for place in [7, 2, 9, 0, 5, 3, 8, 1, 6, 4] {
        let deadline = start + Duration::from_millis(place * 5);
        rig.port.timer(deadline, Key(place)).expect("room");
    }
    for place in 0..10 {
        assert_eq!(fired(&mut rig).1, Key(place));
    }
}

fn a_deadline_in_the_past_comes_at_once(at: &Where) {
    let mut rig = Rig::new(at);
    let deadline = Instant::now();
    thread::sleep(Duration::from_millis(2));
    let op = rig.port.timer(deadline, Key(1)).expect("room");
    let Wait::Packets(batch) = rig.waiter().wait(None).expect("waits") else {
        panic!("a timer is due");
    };
    let packets: Vec<_> = batch.collect();
    assert_eq!((packets.len(), packets[0].op), (1, op));
}

fn a_cancelled_timer_ends_and_never_fires(at: &Where) {
    let mut rig = Rig::new(at);
    let cancelled = rig.port.timer(soon(30), Key(1)).expect("room");
    let kept = rig.port.timer(soon(60), Key(2)).expect("room");
    assert_eq!(rig.port.cancel(cancelled), Cancel::Requested);
    assert_eq!(rig.port.cancel(cancelled), Cancel::NotFound);
    assert_eq!(rig.ended(cancelled).how, End::Cancelled);
    assert_eq!(fired(&mut rig), (kept, Key(2)), "the other one only");
    rig.expect_nothing();
}

fn cancelling_a_timer_that_fired_finds_nothing(at: &Where) {
    let mut rig = Rig::new(at);
    let op = rig.port.timer(soon(1), Key(1)).expect("room");
    assert_eq!(fired(&mut rig), (op, Key(1)));
    assert_eq!(rig.port.cancel(op), Cancel::NotFound);
    // A later timer in the same entry is another one.
    let next = rig.port.timer(soon(10), Key(2)).expect("room");
    assert_eq!(rig.port.cancel(op), Cancel::NotFound);
    assert_eq!(fired(&mut rig), (next, Key(2)));
    rig.expect_nothing();
}

fn a_sleeping_waiter_learns_of_a_nearer_timer(at: &Where) {
    let mut rig = Rig::new(at);
    let far = rig.port.timer(soon(3_600_000), Key(1)).expect("room");
    for round in 0..20 {
        let port = rig.port.clone();
        let setter = thread::spawn(move || {
            // The waiter sleeps by now, or will see the timer: both must work.
            thread::sleep(Duration::from_micros(round * 100));
            port.timer(soon(1), Key(2)).expect("room")
        });
        let Wait::Packets(batch) = rig.waiter().wait(None).expect("waits") else {
            panic!("only a timer ends this wait");
        };
        let packets: Vec<_> = batch.collect();
        assert_eq!((packets.len(), packets[0].key), (1, Key(2)));
        setter.join().expect("it sets");
    }
    assert_eq!(rig.port.cancel(far), Cancel::Requested);
    assert_eq!(rig.ended(far).how, End::Cancelled);
}

fn a_timer_wakes_one_of_several_waiters(at: &Where) {
    let mut rig = Rig::new(at);
    rig.drop_waiter();
    let (count, port) = (AtomicUsize::new(0), rig.port.clone());
    let handle = |_: usize, packet: Packet| {
        assert!(matches!(packet.event, Event::Timer), "{packet:?}");
        if count.fetch_add(1, Ordering::AcqRel) == 19 {
            port.close();
        }
    };
    crew(&rig.port, 4, handle, || {
        for place in 0..20 {
            rig.port
                .timer(soon(5 + 3 * place), Key(place))
                .expect("room");
        }
    });
    assert_eq!(
        count.load(Ordering::Acquire),
        20,
        "each went to one of them"
    );
}

fn timers_are_refused_at_the_bound(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.timers_max(2));
    let first = rig
        .port
        .timer(soon(3_600_000), Key(1))
        .expect("room for two");
    let second = rig.port.timer(soon(20), Key(2)).expect("room for two");
    let refused = rig.port.timer(soon(1), Key(3)).expect_err("no room");
    assert_eq!(refused.kind(), ErrorKind::Full);
    assert_eq!(fired(&mut rig), (second, Key(2)));
    rig.port.timer(soon(0), Key(4)).expect("room again");
    assert_eq!(fired(&mut rig).1, Key(4));
    rig.port.cancel(first);
    assert_eq!(rig.ended(first).how, End::Cancelled);
    rig.expect_nothing();
}

fn a_hundred_thousand_timers_come_and_go(at: &Where) {
    const TIMERS: u64 = 100_000;
    let mut rig = Rig::new(at);
    let far = soon(3_600_000);
    let set = |key| {
        rig.port
            .timer(far + Duration::from_micros(key * 37 % 5_000_000), Key(key))
    };
    let ops: Vec<Op> = (0..TIMERS).map(|key| set(key).expect("room")).collect();
    assert_eq!(rig.port.stats().timers as u64, TIMERS);
    let mut left = 0;
    for chunk in ops.chunks(1_000) {
        for op in chunk {
            assert_eq!(rig.port.cancel(*op), Cancel::Requested);
            left += 1;
        }
        while left > 0 {
            let packet = rig.next("the end of a timer");
            assert!(matches!(packet.event, Event::TimerCancelled));
            left -= 1;
        }
    }
    assert_eq!(rig.port.stats().timers, 0);
    rig.expect_nothing();
}

fn a_deadline_for_ever_away_is_kept(at: &Where) {
    let mut rig = Rig::new(at);
    let century = Duration::from_secs(100 * 365 * 24 * 3_600);
    let op = rig
        .port
        .timer(Instant::now() + century, Key(1))
        .expect("room");
    rig.expect_nothing();
    assert_eq!(rig.port.cancel(op), Cancel::Requested);
    assert_eq!(rig.ended(op).how, End::Cancelled);
}

fn traffic_does_not_hold_timers_back(at: &Where) {
    let mut rig = Rig::new(at);
    let timer = rig.port.timer(soon(20), Key(u64::MAX)).expect("room");
    rig.port.post(Key(1), 0).expect("room");
    let mut others = 0u64;
    loop {
        let packet = rig.next("a timer, some day");
        match packet.event {
            Event::Timer => {
                assert_eq!(packet.op, timer);
                break;
            }
            Event::Posted(value) => {
                others += 1;
                rig.port.post(Key(1), value + 1).expect("room");
            }
            other => panic!("not asked for: {other:?}"),
        }
    }
    assert!(others > 0, "there was traffic");
    rig.allowed.packets = true;
}

/// Timers used to fill each batch first. While threads set some that were due at once, faster than
/// they could be taken, no connection was ever accepted.
fn timers_do_not_hold_traffic_back(at: &Where) {
    let mut rig = Rig::new(at);
    rig.allowed.packets = true;
    let due = Instant::now();
    // More than a batch has room for, at any time.
    for _ in 0..1_000 {
        rig.port.timer(due, Key(2)).expect("room");
    }
    let again = |rig: &mut Rig| {
        while rig.find(|packet| packet.key == Key(2)).is_some() {
            rig.port.timer(due, Key(2)).expect("room");
        }
    };
    rig.port.post(Key(1), 7).expect("room");
    rig.until("the post", |rig| {
        again(rig);
        rig.find(|packet| packet.key == Key(1))
    });
    let _peer = rig.dial();
    rig.until("an accepted connection", |rig| {
        again(rig);
        rig.find_accepted()
    });
}

/// The time limits of connects and flushes once stayed until they expired: a program that connects
/// fifty thousand times a second, each within ten seconds, had half a million.
fn limits_that_are_over_leave_no_timer(at: &Where) {
    let mut rig = Rig::new(at);
    let mut host = rig.network.listen();
    // More than goes out before the peer reads.
    let bytes = noise(2 << 20);
    for round in 0..5 {
        let to = ConnectOptions::new(host.address()).timeout(Duration::from_secs(3_600));
        let op = rig.port.connect(to, Key(7)).expect("room for one");
        let packet = rig.expect("the connect", |packet| packet.op == op);
        let Event::Connected(stream) = packet.event else {
            rig.fail("it connects");
        };
        let mut peer = taken(&mut rig, &mut host);
        let timers = rig.port.stats().timers;
        assert_eq!(timers, 0, "of connect {round}");
        stream.send(bytes.clone()).expect("an empty queue");
        let socket = stream.socket();
        stream.close(Close::Flush).expect("it is open");
        let (heard, end) = rig.hear_end(&mut peer);
        assert!(heard == bytes, "the bytes differ");
        assert!(matches!(end, Heard::Finished), "{end:?}");
        rig.closed(socket);
        let timers = rig.port.stats().timers;
        assert_eq!(timers, 0, "of flush {round}");
    }
}

/// Sleeps are counted through /proc.
fn counted(at: &Where) -> Option<&'static str> {
    several_waiters(at).or_else(|| linux(at))
}

/// A timeout for each request is set and cancelled. The packet of its end is for one waiter, and
/// once all of them woke for the timer itself.
fn a_timer_for_each_request_wakes_no_sleepers(at: &Where) {
    const SLEEPERS: usize = 16;
    const ROUNDS: usize = 300;
    let mut rig = Rig::new(at);
    rig.drop_waiter();
    let ended = AtomicUsize::new(0);
    let handle = |_: usize, packet: Packet| {
        assert!(matches!(packet.event, Event::TimerCancelled), "{packet:?}");
        ended.fetch_add(1, Ordering::AcqRel);
    };
    let port = &rig.port;
    crew(port, SLEEPERS, handle, || {
        let request = |round: usize| {
            let op = port.timer(soon(3_600_000), Key(1)).expect("room");
            assert_eq!(port.cancel(op), Cancel::Requested);
            while ended.load(Ordering::Acquire) < round {
                thread::yield_now();
            }
        };
        request(1);
        let before = sleeps_of_others();
        (2..=ROUNDS).for_each(request);
        let sleeps = sleeps_of_others() - before;
        port.close();
        // epoll wakes a few for one event that one of them reads (eventfd, level-triggered).
        let each = if at.driver == Driver::Poll { 8 } else { 2 };
        assert!(
            sleeps < each * ROUNDS,
            "{sleeps} sleeps in {ROUNDS} requests"
        );
    });
}

/// How often the other threads of this process have gone to sleep.
fn sleeps_of_others() -> usize {
    let own = std::process::id().to_string();
    let tasks = std::fs::read_dir("/proc/self/task").expect("the case runs on Linux");
    let others = tasks
        .map(|task| task.expect("an entry").path())
        .filter(|task| !task.ends_with(&own));
    let sleeps = |task: std::path::PathBuf| {
        let status = std::fs::read_to_string(task.join("status")).unwrap_or_default();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.map_or(0, |count| count.trim().parse().expect("a count"))
    };
    others.map(sleeps).sum()
}

fn a_connect_with_a_limit_needs_a_timer(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.timers_max(1));
    let host = rig.network.listen();
    let timer = rig
        .port
        .timer(soon(3_600_000), Key(1))
        .expect("room for it");
    let to = ConnectOptions::new(host.address());
    let limited = to.clone().timeout(Duration::from_secs(3_600));
    let refused = rig
        .port
        .connect(limited.clone(), Key(7))
        .expect_err("no room");
    assert_eq!(refused.kind(), ErrorKind::Full);
    assert_eq!(rig.port.stats().sockets, 0);
    // One without a limit needs none.
    let connects = |rig: &mut Rig, to| {
        let op = rig.port.connect(to, Key(7)).expect("room for one");
        let packet = rig.expect("the connect", |packet| packet.op == op);
        assert!(matches!(packet.event, Event::Connected(_)), "{packet:?}");
    };
    connects(&mut rig, to);
    assert_eq!(rig.port.cancel(timer), Cancel::Requested);
    assert_eq!(rig.ended(timer).how, End::Cancelled);
    connects(&mut rig, limited);
    rig.allowed.packets = true;
}
