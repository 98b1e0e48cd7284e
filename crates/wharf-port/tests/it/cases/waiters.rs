//! Waiters: which threads may have one, what stays in a batch, and what happens to it when a waiter
//! leaves.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use wharf_port::{
    Accepted, ErrorKind, Event, Key, Lease, Listener, Op, Packet, Port, SocketRef, Stream, Wait,
    Waiter,
};

use crate::rig::case::{Case, Where, case, real_time, several_waiters, waiters_elsewhere};
use crate::rig::crew::crew;
use crate::rig::peer::Heard;
use crate::rig::system::patience;
use crate::rig::{Rig, lock};

pub(crate) const CASES: &[Case] = &[
    case!(
        a_single_waiter_port_refuses_the_second,
        [C4, C13],
        "contract"
    )
    .skip(one_waiter),
    case!(
        a_shared_port_has_many_waiters_and_a_bound,
        [C4, C13],
        "contract"
    )
    .skip(several_waiters),
    case!(
        packets_not_taken_come_first_at_the_next_wait,
        [C2, C4],
        "contract"
    ),
    case!(
        a_waiter_that_goes_gives_back_what_was_not_taken,
        [C4, C2],
        "contract"
    ),
    case!(packets_given_back_wake_another_waiter, [C4, C2], "contract").skip(sleepers),
    case!(bytes_given_back_stay_in_order, [C4, C6], "contract"),
    case!(
        a_forgotten_waiter_closes_a_port_that_has_no_other,
        [C4, C3],
        "contract"
    )
    .skip(one_waiter),
    case!(
        a_forgotten_waiters_turns_end_with_its_thread,
        [C4, C3, C18],
        "contract"
    )
    .skip(several_waiters),
    case!(
        a_single_waiter_port_moves_to_another_thread_or_says_why_not,
        [C4],
        "io_uring: SINGLE_ISSUER"
    )
    .skip(one_waiter),
    case!(the_types_say_what_may_cross_threads, [C4], "compio #727"),
    case!(any_thread_submits_while_another_waits, [C4], "contract"),
    case!(
        submissions_of_other_threads_wake_a_wait_without_a_limit,
        [C4, C5],
        "reliability: a lost wake across threads"
    ),
    case!(
        requests_of_other_threads_wake_a_wait_without_a_limit,
        [C4, C5],
        "reliability: a lost wake across threads"
    ),
    case!(
        an_end_may_come_before_its_submit_returns,
        [C2, C4],
        "zio #530, #533"
    )
    .skip(several_waiters),
    case!(a_waiter_may_close_its_own_port, [C14], "contract"),
];

fn one_waiter(at: &Where) -> Option<&'static str> {
    at.shared().then_some("a shared port has many waiters")
}

fn a_single_waiter_port_refuses_the_second(at: &Where) {
    let mut rig = Rig::new(at);
    let error = rig.port.waiter().expect_err("there is one already");
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains("build a shared port"), "{error}");
    let port = rig.port.clone();
    let elsewhere = thread::spawn(move || port.waiter().map(drop).map_err(|error| error.kind()));
    assert_eq!(elsewhere.join().expect("it asks"), Err(ErrorKind::Busy));
    rig.drop_waiter();
    rig.port.post(Key(1), 1).expect("room");
    let mut next = rig.port.waiter().expect("the first is gone");
    assert_eq!(values(batch_of(&mut next)), [1]);
}

fn a_shared_port_has_many_waiters_and_a_bound(at: &Where) {
    let rig = Rig::new(at);
    let mut waiters: Vec<_> = (0..255)
        .map(|_| rig.port.waiter().expect("256 by default"))
        .collect();
    let error = rig.port.waiter().expect_err("the rig has one as well");
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(error.to_string().contains("waiters_max"), "{error}");
    waiters.pop();
    waiters.push(rig.port.waiter().expect("one is gone"));
    let few = Rig::with(at, |builder| builder.waiters_max(2));
    let _second = few.port.waiter().expect("two were asked for");
    let error = few.port.waiter().expect_err("not three");
    assert_eq!(error.kind(), ErrorKind::Full);
    let none = at.builder().waiters_max(0).build();
    assert_eq!(
        none.expect_err("nobody could wait").kind(),
        ErrorKind::InvalidInput
    );
}

fn values(batch: impl Iterator<Item = Packet>) -> Vec<u64> {
    let value = |packet: Packet| match packet.event {
        Event::Posted(value) => value,
        other => panic!("not asked for: {other:?}"),
    };
    batch.map(value).collect()
}

fn batch_of(waiter: &mut Waiter) -> wharf_port::Batch<'_> {
    match waiter.wait(Some(patience(20))).expect("waits") {
        Wait::Packets(batch) => batch,
        other => panic!("packets were to come: {other:?}"),
    }
}

fn packets_not_taken_come_first_at_the_next_wait(at: &Where) {
    let mut rig = Rig::new(at);
    for value in 1..=3 {
        rig.port.post(Key(1), value).expect("room");
    }
    assert_eq!(values(batch_of(rig.waiter()).take(1)), [1]);
    rig.port.post(Key(1), 4).expect("room");
    let mut all = values(batch_of(rig.waiter()));
    while all.len() < 3 {
        all.extend(values(batch_of(rig.waiter())));
    }
    assert_eq!(all, [2, 3, 4]);
}

fn a_waiter_that_goes_gives_back_what_was_not_taken(at: &Where) {
    let mut rig = Rig::new(at);
    for value in 1..=5 {
        rig.port.post(Key(1), value).expect("room");
    }
    assert_eq!(values(batch_of(rig.waiter()).take(2)), [1, 2]);
    rig.drop_waiter();
    assert_eq!(rig.port.stats().posts, 3, "they are posts again");
    rig.port.post(Key(1), 6).expect("room");
    let mut next = rig.port.waiter().expect("the first is gone");
    let mut all = Vec::new();
    while all.len() < 4 {
        all.extend(values(batch_of(&mut next)));
    }
    assert_eq!(all, [3, 4, 5, 6], "in their order, and first");
}

/// No waiter sleeps on the simulated network: its time has passed already.
fn sleepers(at: &Where) -> Option<&'static str> {
    several_waiters(at).or_else(|| real_time(at))
}

fn packets_given_back_wake_another_waiter(at: &Where) {
    for _ in 0..50 {
        let mut rig = Rig::new(at);
        rig.port.post(Key(1), 1).expect("room");
        drop(batch_of(rig.waiter()));
        let port = rig.port.clone();
        let sleeper = thread::spawn(move || {
            let mut waiter = port.waiter().expect("a shared port has many");
            values(batch_of(&mut waiter))
        });
        thread::yield_now();
        rig.drop_waiter();
        assert_eq!(sleeper.join().expect("it wakes"), [1]);
    }
}

fn bytes_given_back_stay_in_order(at: &Where) {
    let mut rig = Rig::with(at, |builder| {
        let pool = wharf_port::PoolOptions::new().buffer_bytes(512);
        builder.pool(pool).batch_max(8)
    });
    let (stream, mut peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    let bytes = crate::rig::noise(8 * 512);
    rig.say(&mut peer, &bytes);
    // Each waiter takes one packet and leaves, whatever else it had.
    rig.drop_waiter();
    let mut received = Vec::new();
    while received.len() < bytes.len() {
        let mut waiter = rig.port.waiter().expect("the one before is gone");
        let packet = batch_of(&mut waiter)
            .next()
            .expect("a batch is never empty");
        match packet.event {
            Event::Received(lease) => received.extend_from_slice(&lease),
            other => panic!("not asked for: {other:?}"),
        }
    }
    assert!(received == bytes, "the bytes differ");
}

/// A thread that takes one packet and forgets the waiter it had for it.
fn forget_a_waiter(port: &Port) {
    let forgetful = || {
        let mut waiter = port.waiter().expect("there is room for a waiter");
        drop(
            batch_of(&mut waiter)
                .next()
                .expect("a batch is never empty"),
        );
        std::mem::forget(waiter);
    };
    thread::scope(|scope| scope.spawn(forgetful).join()).expect("it forgets");
}

fn a_forgotten_waiter_closes_a_port_that_has_no_other(at: &Where) {
    let port = at.builder().build().expect("the driver was present before");
    port.post(Key(1), 1).expect("room");
    forget_a_waiter(&port);
    assert_eq!(port.stats().waiters_leaked, 1);
    assert_eq!(port.waiter().unwrap_err().kind(), ErrorKind::Closed);
    let refused = port.post(Key(1), 2).unwrap_err();
    assert_eq!(
        (refused.error.kind(), refused.value),
        (ErrorKind::Closed, 2)
    );
}

fn a_forgotten_waiters_turns_end_with_its_thread(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    rig.drop_waiter();
    assert_eq!(peer.try_send(b"lost with it"), Some(12));
    forget_a_waiter(&rig.port);
    assert_eq!(rig.port.stats().waiters_leaked, 1);
    rig.allowed.waiters_leaked = 1;
    assert_eq!(peer.try_send(b"goes on"), Some(7));
    let mut waiter = rig.port.waiter().expect("a shared port has many");
    let packet = batch_of(&mut waiter)
        .next()
        .expect("a batch is never empty");
    assert!(matches!(&packet.event, Event::Received(lease) if **lease == *b"goes on"));
}

fn a_single_waiter_port_moves_to_another_thread_or_says_why_not(at: &Where) {
    let mut rig = Rig::new(at);
    rig.expect_nothing();
    rig.drop_waiter();
    rig.port.post(Key(1), 1).expect("room");
    let port = rig.port.clone();
    let elsewhere = thread::spawn(move || {
        let mut waiter = port.waiter()?;
        Ok(values(batch_of(&mut waiter)))
    });
    let values_there = elsewhere.join().expect("it asks");
    if waiters_elsewhere(at).is_none() {
        assert_eq!(values_there, Ok(vec![1]));
        return;
    }
    let error: wharf_port::Error = values_there.expect_err("its ring has a thread already");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("build a shared port"), "{error}");
    let mut waiter = rig.port.waiter().expect("here it may");
    assert_eq!(values(batch_of(&mut waiter)), [1]);
}

/// Holds for types that are not `Send` only: for others the compiler cannot tell which is meant.
trait StaysOnItsThread<Because> {
    fn stays() {}
}

impl<T: ?Sized> StaysOnItsThread<()> for T {}
impl<T: ?Sized + Send> StaysOnItsThread<u8> for T {}

fn the_types_say_what_may_cross_threads(_: &Where) {
    fn anywhere<T: Send + Sync + 'static>() {}
    anywhere::<Port>();
    anywhere::<Stream>();
    anywhere::<SocketRef>();
    anywhere::<Listener>();
    anywhere::<Accepted>();
    anywhere::<Lease>();
    anywhere::<Packet>();
    anywhere::<Op>();
    <Waiter as StaysOnItsThread<_>>::stays();
    assert!(size_of::<Stream>() <= 16);
}

fn any_thread_submits_while_another_waits(at: &Where) {
    let mut rig = Rig::new(at);
    let mut ends: Vec<_> = (0..8).map(|_| rig.connection()).collect();
    let sockets: Vec<SocketRef> = ends.iter().map(|(stream, _)| stream.socket()).collect();
    for round in 0..20u8 {
        let submit = |&socket: &SocketRef| {
            thread::spawn(move || {
                socket.receive_into(vec![0; 1]).expect("nothing else reads");
                socket.send(vec![round]).expect("an empty queue");
            })
        };
        let submitters: Vec<_> = sockets.iter().map(submit).collect();
        for submitter in submitters {
            // This thread sleeps in its wait while the others submit.
            rig.until("the submits", |_| submitter.is_finished().then_some(()));
            submitter.join().expect("it submits");
        }
        for (stream, peer) in &mut ends {
            assert_eq!(rig.hear(peer, 1), [round]);
            rig.say(peer, &[round]);
            let packet = rig.expect("a byte", |packet| packet.socket == stream.socket());
            assert!(
                matches!(&packet.event, Event::ReceivedInto { buffer, .. } if buffer == &[round])
            );
        }
    }
}

/// A wait with a limit looks again by itself, and hides a lost wake-up.
fn submissions_of_other_threads_wake_a_wait_without_a_limit(at: &Where) {
    const ROUNDS: u64 = 200;
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let (port, socket) = (rig.port.clone(), stream.socket());
    let submitter = thread::spawn(move || {
        let deadline = Instant::now() + patience(20);
        let mut heard = 0;
        while heard < ROUNDS && Instant::now() < deadline {
            socket.send("x").expect("the last one was heard");
            // The waiter has nothing to do meanwhile, and goes to sleep.
            while Instant::now() < deadline {
                if let Heard::Bytes(bytes) = peer.try_receive(1) {
                    assert_eq!(bytes, b"x");
                    heard += 1;
                    break;
                }
                thread::yield_now();
            }
        }
        port.post(Key(1), heard).expect("room");
    });
    let heard = loop {
        let wait = rig.waiter().wait(None).expect("the port is not broken");
        let Wait::Packets(mut batch) = wait else {
            panic!("no limit, and nobody closed the port");
        };
        if let Some(packet) = batch.next() {
            let Event::Posted(heard) = packet.event else {
                panic!("not asked for: {packet:?}");
            };
            break heard;
        }
    };
    submitter.join().expect("it tells what it heard");
    assert_eq!(heard, ROUNDS, "sends that went out while the waiter slept");
}

/// Sends leave without the waiting thread, so they do not show how a receive reaches it.
fn requests_of_other_threads_wake_a_wait_without_a_limit(at: &Where) {
    const ROUNDS: u64 = 200;
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let (port, socket) = (rig.port.clone(), stream.socket());
    let taken = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&taken);
    let submitter = thread::spawn(move || {
        let deadline = Instant::now() + patience(20);
        for round in 1..=ROUNDS {
            while peer.try_send(b"x") == Some(0) {
                thread::yield_now();
            }
            socket
                .receive_into(vec![0])
                .expect("the last one was taken");
            // The waiter has nothing to do meanwhile, and goes to sleep.
            while seen.load(Ordering::Acquire) < round && Instant::now() < deadline {
                thread::yield_now();
            }
        }
        port.post(Key(1), 0).expect("room");
    });
    let posted = |packet: &Packet| matches!(packet.event, Event::Posted(_));
    let mut ended = false;
    while !ended {
        let wait = rig.waiter().wait(None).expect("the port is not broken");
        let Wait::Packets(batch) = wait else {
            panic!("no limit, and nobody closed the port");
        };
        for packet in batch {
            ended |= posted(&packet);
            let is_byte =
                matches!(&packet.event, Event::ReceivedInto { buffer, .. } if buffer == b"x");
            drop(packet);
            taken.fetch_add(u64::from(is_byte), Ordering::Release);
        }
    }
    submitter.join().expect("its receives were accepted");
    assert_eq!(
        taken.load(Ordering::Acquire),
        ROUNDS,
        "while the waiter slept"
    );
}

fn an_end_may_come_before_its_submit_returns(at: &Where) {
    const ROUNDS: usize = 1_000;
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    rig.drop_waiter();
    let ends: Mutex<HashMap<Op, usize>> = Mutex::default();
    let done = AtomicBool::new(false);
    let port = rig.port.clone();
    let handle = |_: usize, packet: Packet| {
        let whole = match packet.event {
            Event::Sent { buffer, .. } => buffer.len() == 1,
            Event::ReceivedInto { buffer, count, .. } => buffer.len() == 1 && count == 1,
            other => panic!("not asked for: {other:?}"),
        };
        assert!(whole, "it brings its buffer");
        let mut ends = lock(&ends);
        *ends.entry(packet.op).or_insert(0) += 1;
        if ends.len() == 2 * ROUNDS {
            done.store(true, Ordering::Release);
            port.close();
        }
    };
    crew(&rig.port, 3, handle, || {
        for round in 1..=ROUNDS {
            // A byte waits already, and the queue is empty: both can end at once.
            assert_eq!(peer.try_send(b"x"), Some(1));
            stream.socket().receive_into(vec![0; 1]).expect("room");
            stream.send_reported(vec![1]).expect("room");
            // An even number is not enough: neither of the two may have ended yet.
            while lock(&ends).len() < 2 * round {
                thread::yield_now();
            }
        }
    });
    assert!(done.load(Ordering::Acquire));
    assert!(lock(&ends).values().all(|times| *times == 1), "each once");
}

fn a_waiter_may_close_its_own_port(at: &Where) {
    let mut rig = Rig::new(at);
    rig.port.post(Key(1), 1).expect("room");
    rig.port.post(Key(1), 2).expect("room");
    let port = rig.port.clone();
    let mut batch = batch_of(rig.waiter());
    assert!(matches!(
        batch.next().map(|packet| packet.event),
        Some(Event::Posted(1))
    ));
    port.close();
    assert!(matches!(
        batch.next().map(|packet| packet.event),
        Some(Event::Posted(2))
    ));
    drop(batch);
    assert!(matches!(rig.waiter().wait(None), Ok(Wait::Closed)));
    assert!(matches!(
        rig.waiter().wait(Some(Duration::ZERO)),
        Ok(Wait::Closed)
    ));
}
