//! What has no turns: packets of listeners, timers and posts, which any waiter may get at any time,
//! and how a burst of them is shared among the waiters.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use wharf_port::{Cancel, Close, End, ErrorKind, Event, Key, Op, Packet, Wait, Waiter};

use crate::rig::case::{Case, Where, case, real_time, several_waiters};
use crate::rig::crew::crew;
use crate::rig::system::patience;
use crate::rig::{LISTENER, Rig};

pub(crate) const CASES: &[Case] = &[
    case!(
        while_a_waiter_holds_a_connection_another_gets_the_next,
        [C18],
        "contract"
    )
    .skip(several_waiters),
    case!(
        while_a_waiter_holds_timers_and_posts_another_gets_more,
        [C18, C16, C17],
        "contract"
    )
    .skip(several_waiters),
    case!(
        what_is_ready_at_once_is_shared_with_sleepers,
        [C4],
        "contract"
    )
    .skip(sleepers),
    case!(
        posts_that_return_to_a_full_queue_are_not_lost,
        [C16, C13],
        "contract"
    ),
    case!(
        cancels_of_other_threads_wake_a_wait_without_a_limit,
        [C4, C5, C10],
        "contract"
    )
    .skip(real_time),
];

/// No waiter sleeps on the simulated network: its time has passed already.
fn sleepers(at: &Where) -> Option<&'static str> {
    several_waiters(at).or_else(|| real_time(at))
}

fn batch_of(waiter: &mut Waiter) -> wharf_port::Batch<'_> {
    match waiter.wait(Some(patience(20))).expect("waits") {
        Wait::Packets(batch) => batch,
        other => panic!("packets were to come: {other:?}"),
    }
}

fn while_a_waiter_holds_a_connection_another_gets_the_next(at: &Where) {
    let mut rig = Rig::new(at);
    rig.drop_waiter();
    let [mut first, mut second] = [(); 2].map(|()| rig.port.waiter().expect("there is room"));
    let listener = rig.listen(([127, 0, 0, 1], 0));
    let address = listener.local_addr().expect("an address");
    let mut clients = vec![rig.network.connect(&address)];
    let mut held = batch_of(&mut first);
    let one = held.next().expect("a batch is never empty");
    // Twice, because the second waiter may have asked for the next one already.
    for _ in 0..2 {
        clients.push(rig.network.connect(&address));
        let next = batch_of(&mut second).next();
        let next = next.expect("a batch is never empty");
        for packet in [&one, &next] {
            assert_eq!((packet.key, packet.socket), (LISTENER, listener.socket()));
            assert!(matches!(packet.event, Event::Accepted(_)), "{packet:?}");
        }
    }
    drop((one, held));
}

fn while_a_waiter_holds_timers_and_posts_another_gets_more(at: &Where) {
    let mut rig = Rig::new(at);
    let mut second = rig.port.waiter().expect("a shared port has many");
    let port = rig.port.clone();
    let now = port.sim().map_or_else(Instant::now, |it| it.now());
    let make = |timers: bool| match timers {
        true => _ = port.timer(now, Key(7)).expect("room"),
        false => port.post(Key(7), 1).expect("room"),
    };
    for timers in [true, false] {
        make(timers);
        let mut held = batch_of(rig.waiter());
        let one = held.next().expect("a batch is never empty");
        make(timers);
        let next = batch_of(&mut second).next();
        let next = next.expect("a batch is never empty");
        for packet in [&one, &next] {
            let is_it = match packet.event {
                Event::Timer => timers,
                Event::Posted(1) => !timers,
                _ => false,
            };
            assert!(is_it && packet.key == Key(7), "{packet:?}");
        }
    }
}

/// Posts that a waiter returns when it goes are ready at one instant, while others sleep. Each
/// handler goes on only once half of them are with handlers, so a batch of all would hold itself up.
fn what_is_ready_at_once_is_shared_with_sleepers(at: &Where) {
    // Sleepers may not sleep yet, or may be on their way back, and then others have more.
    let is_shared = (0..20).any(|_| several_have_some(at));
    assert!(is_shared, "one waiter takes what is for several");
}

fn several_have_some(at: &Where) -> bool {
    const SLEEPERS: usize = 15;
    const POSTS: usize = 8;
    let mut rig = Rig::with(at, |builder| builder.batch_max(POSTS as u32));
    for value in 0..POSTS as u64 {
        rig.port.post(Key(1), value).expect("room");
    }
    assert_eq!(batch_of(rig.waiter()).len(), POSTS);
    let (handled, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let handle = |_: usize, packet: Packet| {
        assert!(matches!(packet.event, Event::Posted(_)), "{packet:?}");
        handled.fetch_add(1, Ordering::AcqRel);
        while handled.load(Ordering::Acquire) < POSTS / 2 && !over.load(Ordering::Acquire) {
            thread::sleep(Duration::from_millis(1));
        }
    };
    let until = |posts: usize, limit: Duration| {
        let deadline = Instant::now() + limit;
        while handled.load(Ordering::Acquire) < posts && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        handled.load(Ordering::Acquire) >= posts
    };
    let (port, mut is_shared) = (rig.port.clone(), false);
    crew(&port, SLEEPERS, handle, || {
        // Most of them sleep by now.
        thread::sleep(Duration::from_millis(20));
        rig.drop_waiter();
        is_shared = until(POSTS / 2, Duration::from_millis(200));
        over.store(true, Ordering::Release);
        let came = until(POSTS, patience(20));
        port.close();
        assert!(came, "posts are left");
    });
    is_shared
}

/// The bound refuses new posts. Those that were accepted stay.
fn posts_that_return_to_a_full_queue_are_not_lost(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.posts_max(2).batch_max(2));
    let port = rig.port.clone();
    let post = |value| port.post(Key(1), value);
    (1..=2).for_each(|value| post(value).expect("room for two"));
    drop(batch_of(rig.waiter()));
    (3..=4).for_each(|value| post(value).expect("the first two are in a batch"));
    rig.renew_waiter();
    assert_eq!(rig.port.stats().posts, 4);
    let refused = post(5).expect_err("more than two wait");
    assert_eq!(refused.error.kind(), ErrorKind::Full);
    for expected in 1..=4 {
        let packet = rig.next("a post");
        assert!(matches!(packet.event, Event::Posted(value) if value == expected));
    }
}

/// A cancel is a request of its own, and its packet has no other thread that could fetch it.
fn cancels_of_other_threads_wake_a_wait_without_a_limit(at: &Where) {
    const ROUNDS: u64 = 20;
    let mut rig = Rig::new(at);
    let listener = rig.port.listen(([127, 0, 0, 1], 0), Key(2));
    let listener = listener.expect("loopback");
    let far = Instant::now() + Duration::from_secs(3_600);
    for round in 0..ROUNDS {
        let (stream, _peer) = rig.connection();
        let ops: [Op; 4] = [
            stream.socket().receive().expect("nothing else reads"),
            stream.send(vec![0; 16 << 20]).expect("an empty queue"),
            listener.socket().accept().expect("the one before is over"),
            rig.port.timer(far, Key(3)).expect("room"),
        ];
        rig.expect_nothing();
        let port = rig.port.clone();
        let canceller = thread::spawn(move || {
            // The waiter sleeps by now, or is on the way there: both must work.
            thread::sleep(Duration::from_micros(round * 100));
            ops.map(|op| port.cancel(op))
        });
        let mut left = HashSet::from(ops);
        while !left.is_empty() {
            let Wait::Packets(batch) = rig.waiter().wait(None).expect("waits") else {
                panic!("only the cancels end this wait");
            };
            for packet in batch {
                assert!(left.remove(&packet.op), "not cancelled: {packet:?}");
                assert_eq!(packet.event.end(), Some(End::Cancelled), "{packet:?}");
            }
        }
        let found = canceller.join().expect("it cancels");
        assert_eq!(found, [Cancel::Requested; 4]);
        let socket = stream.socket();
        let closer = thread::spawn(move || stream.close(Close::Reset));
        let close = closer.join().expect("it closes").expect("it is open");
        let mut batch = batch_of(rig.waiter());
        let last = batch.next().expect("a batch is never empty");
        assert_eq!((last.op, last.socket), (close, socket));
        assert!(matches!(last.event, Event::Closed), "{last:?}");
    }
}
