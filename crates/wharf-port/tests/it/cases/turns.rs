//! Turns: packets of one socket go to one thread at a time, and no thread waits for a slow one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use wharf_port::{ErrorKind, Event, Key, Packet, Table, Wait};

use crate::rig::case::{Case, Where, case, several_waiters};
use crate::rig::crew::crew;
use crate::rig::system::patience;
use crate::rig::{FIRST, Rig, lock, noise};

pub(crate) const CASES: &[Case] = &[
    case!(
        while_a_waiter_holds_packets_no_other_gets_more_of_the_socket,
        [C18],
        "contract"
    )
    .skip(several_waiters),
    case!(dropping_a_batch_ends_its_turns, [C18], "contract").skip(several_waiters),
    case!(packets_not_taken_keep_their_turn, [C18, C2], "contract").skip(several_waiters),
    case!(one_connection_needs_no_lock, [C18, C6], "contract").skip(several_waiters),
    case!(
        a_hundred_connections_keep_their_order,
        [C18, C6],
        "contract"
    )
    .skip(several_waiters),
    case!(
        the_closed_of_a_listener_comes_after_packets_in_other_batches,
        [C2, C11],
        "an end in one batch was taken for that of a dropped listener"
    )
    .skip(several_waiters),
    case!(
        a_table_has_the_state_of_each_connection,
        [C18],
        "state without a lock could not be written in safe Rust"
    )
    .skip(several_waiters),
    case!(
        state_is_found_by_packets_of_its_own_socket_alone,
        [C18, C11],
        "contract"
    ),
    case!(
        a_packet_kept_beyond_its_turn_waits_for_the_state,
        [C18],
        "contract"
    ),
    case!(
        a_slow_waiter_delays_only_its_own_batch_of_one,
        [C4],
        "contract"
    )
    .skip(several_waiters),
    case!(
        a_slow_waiter_delays_only_its_own_batch_of_eight,
        [C4],
        "contract"
    )
    .skip(several_waiters),
    case!(
        a_waiter_that_computes_delays_only_its_own_batch,
        [C4],
        "io_uring: task work of a thread that is not interrupted"
    )
    .skip(several_waiters),
];

/// The first bytes that any waiter gets of a new connection, and which waiter it was.
fn while_a_waiter_holds_packets_no_other_gets_more_of_the_socket(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    rig.say(&mut peer, b"1");
    let port = rig.port.clone();
    // The rig's waiter takes the first packet out of its batch and holds the batch.
    let Wait::Packets(mut batch) = rig.waiter().wait(None).expect("waits") else {
        panic!("a byte has come");
    };
    let first = batch.next().expect("a batch is never empty");
    assert!(matches!(&first.event, Event::Received(lease) if **lease == *b"1"));
    assert_eq!(peer.try_send(b"2"), Some(1));
    let other = thread::spawn(move || {
        let mut waiter = port.waiter().expect("a shared port has many");
        let early = waiter.wait(Some(Duration::from_millis(50))).expect("waits");
        assert!(
            matches!(early, Wait::TimedOut),
            "another has the turn: {early:?}"
        );
    });
    other.join().expect("it got nothing");
    drop((first, batch));
    assert_eq!(rig.receive(stream.socket(), 1), b"2");
}

fn dropping_a_batch_ends_its_turns(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    rig.say(&mut peer, b"1");
    let port = rig.port.clone();
    let Wait::Packets(batch) = rig.waiter().wait(None).expect("waits") else {
        panic!("a byte has come");
    };
    let packets: Vec<Packet> = batch.collect();
    assert_eq!(packets.len(), 1);
    // This waiter does not wait again; the other one goes on with the socket.
    assert_eq!(peer.try_send(b"2"), Some(1));
    let other = thread::spawn(move || {
        let mut waiter = port.waiter().expect("a shared port has many");
        let Wait::Packets(mut batch) = waiter.wait(None).expect("waits") else {
            panic!("the turn is free");
        };
        let packet = batch.next().expect("a batch is never empty");
        assert!(matches!(&packet.event, Event::Received(lease) if **lease == *b"2"));
    });
    other.join().expect("it got the second byte");
}

fn packets_not_taken_keep_their_turn(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    rig.say(&mut peer, b"1");
    assert!(
        matches!(rig.waiter().wait(None), Ok(Wait::Packets(_))),
        "and it is left there"
    );
    assert_eq!(peer.try_send(b"2"), Some(1));
    let port = rig.port.clone();
    let other = thread::spawn(move || {
        let mut waiter = port.waiter().expect("a shared port has many");
        let early = waiter.wait(Some(Duration::from_millis(50))).expect("waits");
        assert!(
            matches!(early, Wait::TimedOut),
            "the first is not out yet: {early:?}"
        );
    });
    other.join().expect("it got nothing");
    assert_eq!(rig.receive(stream.socket(), 2), b"12", "in order");
}

/// State without a lock: it notices when two threads are in it at a time.
#[derive(Default)]
struct Unlocked {
    busy: AtomicBool,
    bytes: AtomicU64,
    hash: AtomicU64,
}

impl Unlocked {
    fn take(&self, bytes: &[u8]) {
        assert!(
            !self.busy.swap(true, Ordering::Acquire),
            "two threads at a time"
        );
        let mut hash = self.hash.load(Ordering::Relaxed);
        for byte in bytes {
            hash = step(hash, *byte);
        }
        self.hash.store(hash, Ordering::Relaxed);
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.busy.store(false, Ordering::Release);
    }
}

fn step(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
}

/// The number of MiB that one connection moves, if 16 are too few to convince.
const MEBIBYTES: &str = "WHARF_TEST_ONE_CONNECTION_MIB";

fn one_connection_needs_no_lock(at: &Where) {
    let mebibytes = std::env::var(MEBIBYTES).map_or(16, |it| it.parse().expect(MEBIBYTES));
    let total: u64 = mebibytes << 20;
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    rig.drop_waiter();
    let state = Unlocked::default();
    let port = rig.port.clone();
    let handle = |_: usize, packet: Packet| match packet.event {
        Event::Received(lease) => {
            state.take(&lease);
            if state.bytes.load(Ordering::Relaxed) == total {
                port.close();
            }
        }
        other => panic!("not asked for: {other:?}"),
    };
    // Of a length that no buffer has, so that lost or swapped data shifts the rest.
    let bytes = noise((16 << 20) - 1);
    let after = |sent: u64| {
        let rest = &bytes[(sent % bytes.len() as u64) as usize..];
        &rest[..rest.len().min((total - sent) as usize)]
    };
    let mut expected = 0;
    crew(&rig.port, 8, handle, || {
        let mut sent = 0;
        while sent < total {
            let next = after(sent);
            match peer.try_send(next) {
                Some(0) => thread::yield_now(),
                Some(count) => {
                    sent += count as u64;
                    expected = next[..count]
                        .iter()
                        .fold(expected, |hash, it| step(hash, *it));
                }
                None => panic!("the port's side went after {sent} bytes"),
            }
        }
    });
    assert_eq!(state.hash.load(Ordering::Relaxed), expected);
}

fn a_hundred_connections_keep_their_order(at: &Where) {
    const CONNECTIONS: usize = 100;
    const ROUNDS: u8 = 100;
    let mut rig = Rig::new(at);
    let mut ends: Vec<_> = (0..CONNECTIONS).map(|_| rig.connection()).collect();
    for (stream, _) in &ends {
        stream.socket().receive().expect("nothing else reads");
    }
    rig.drop_waiter();
    let next: Vec<AtomicUsize> = (0..CONNECTIONS).map(|_| AtomicUsize::new(0)).collect();
    let left = AtomicUsize::new(CONNECTIONS * usize::from(ROUNDS));
    let port = rig.port.clone();
    let handle = |_: usize, packet: Packet| match packet.event {
        Event::Received(lease) => {
            let next = &next[(packet.key.0 - FIRST.0) as usize];
            for byte in lease.iter() {
                // Without turns these two steps of two threads would mix.
                let expected = next.load(Ordering::Relaxed);
                assert_eq!(usize::from(*byte), expected, "key {}", packet.key);
                next.store(expected + 1, Ordering::Relaxed);
            }
            if left.fetch_sub(lease.len(), Ordering::AcqRel) == lease.len() {
                port.close();
            }
        }
        other => panic!("not asked for: {other:?}"),
    };
    crew(&rig.port, 8, handle, || {
        for round in 0..ROUNDS {
            for (_, peer) in &mut ends {
                assert_eq!(peer.try_send(&[round]), Some(1), "a byte always fits");
            }
        }
    });
    assert!(
        next.iter()
            .all(|next| next.load(Ordering::Relaxed) == usize::from(ROUNDS))
    );
}

/// Two threads may have packets of one listener. Once the end of its accept was in the batch of one
/// thread when the other took `Closed`, and with it the slot. That end then looked like one of a
/// dropped listener, and no thread ever got it.
fn the_closed_of_a_listener_comes_after_packets_in_other_batches(at: &Where) {
    let mut rig = Rig::new(at);
    let at_any = ([127, 0, 0, 1], 0);
    let listener = rig.port.listen(at_any, Key(9)).expect("room");
    let accept = listener.socket().accept().expect("nothing accepts");
    assert_eq!(rig.port.cancel(accept), wharf_port::Cancel::Requested);
    let port = rig.port.clone();
    let Wait::Packets(mut batch) = rig.waiter().wait(None).expect("waits") else {
        panic!("the accept ends");
    };
    assert_eq!(batch.len(), 1, "its end is in this batch");
    let close = listener.close().expect("it is open");
    let closed = AtomicBool::new(false);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut waiter = port.waiter().expect("a shared port has many");
            let early = Some(Duration::from_millis(50));
            assert!(
                matches!(waiter.wait(early), Ok(Wait::TimedOut)),
                "Closed is too early"
            );
            closed.store(true, Ordering::Release);
            let Wait::Packets(mut batch) = waiter.wait(None).expect("waits") else {
                panic!("the other batch is over");
            };
            let packet = batch.next().expect("a batch is never empty");
            assert_eq!(packet.op, close);
            assert!(matches!(packet.event, Event::Closed));
        });
        let deadline = Instant::now() + patience(10);
        while !closed.load(Ordering::Acquire) && !other.is_finished() {
            assert!(Instant::now() < deadline, "the other thread waits for ever");
            thread::yield_now();
        }
        let end = batch.next().expect("nobody dropped the listener");
        assert_eq!(end.op, accept);
        assert!(matches!(end.event, Event::Ended { .. }));
        drop((end, batch));
        other.join().expect("it got the last packet");
    });
}

fn a_table_has_the_state_of_each_connection(at: &Where) {
    const CONNECTIONS: usize = 20;
    const ROUNDS: u64 = 200;
    let mut rig = Rig::new(at);
    let table: Table<u64> = Table::new(&rig.port);
    let mut ends: Vec<_> = (0..CONNECTIONS).map(|_| rig.connection()).collect();
    for (stream, _) in &ends {
        table.insert(stream, 0).expect("a socket of this port");
        stream.socket().receive().expect("nothing else reads");
    }
    rig.drop_waiter();
    let port = rig.port.clone();
    let left = AtomicUsize::new(CONNECTIONS);
    let handle = |_: usize, packet: Packet| match packet.event {
        Event::Received(ref lease) => {
            let count = lease.len() as u64;
            let sum = table.with(&packet, |sum| {
                *sum += count;
                *sum
            });
            let sum = sum.expect("it went in before the receive");
            if sum == ROUNDS && left.fetch_sub(1, Ordering::AcqRel) == 1 {
                port.close();
            }
        }
        ref other => panic!("not asked for: {other:?}"),
    };
    crew(&rig.port, 8, handle, || {
        for _ in 0..ROUNDS {
            for (_, peer) in &mut ends {
                assert_eq!(peer.try_send(b"1"), Some(1), "a byte always fits");
            }
        }
    });
    assert_eq!(left.load(Ordering::Relaxed), 0, "each had all of its bytes");
    assert_eq!(table.len(), CONNECTIONS);
}

fn state_is_found_by_packets_of_its_own_socket_alone(at: &Where) {
    let mut rig = Rig::new(at);
    let other_port = at.builder().build().expect("a second port");
    let table: Table<&str> = Table::new(&rig.port);
    let (stream, mut peer) = rig.connection();
    let elsewhere = Table::new(&other_port);
    let refused = elsewhere
        .insert(&stream, "lost")
        .expect_err("of another port");
    assert_eq!(
        (refused.error.kind(), refused.value),
        (ErrorKind::InvalidInput, "lost")
    );
    assert_eq!(table.insert(&stream, "first").ok(), Some(None));
    assert_eq!(table.insert(&stream, "second").ok(), Some(Some("first")));
    stream.socket().receive().expect("nothing else reads");
    rig.say(&mut peer, b"1");
    let packet = rig.next("a byte");
    assert_eq!(table.with(&packet, |state| *state), Some("second"));
    assert_eq!(elsewhere.with(&packet, |state| *state), None);
    // The next socket in the same slot finds nothing of the one before.
    drop((stream, peer));
    rig.until_stats("its place is free", |stats| stats.sockets == 1);
    let (stream, mut peer) = rig.connection();
    assert_eq!(table.len(), 1, "nobody has removed it");
    stream.socket().receive().expect("nothing else reads");
    rig.say(&mut peer, b"1");
    let next = rig.next("a byte");
    assert_eq!(table.with(&next, |state| *state), None);
    assert_eq!(table.remove(&next), None);
    assert_eq!(table.insert(&stream, "third").ok(), Some(None));
    assert_eq!(table.with(&packet, |state| *state), None, "it is stale");
    let stale = table.insert(packet.socket, "late").unwrap_err();
    assert_eq!(stale.error.kind(), ErrorKind::Closed);
    assert_eq!(table.remove(&next), Some("third"));
    assert!(table.is_empty());
}

fn a_packet_kept_beyond_its_turn_waits_for_the_state(at: &Where) {
    let mut rig = Rig::new(at);
    let table: Table<u64> = Table::new(&rig.port);
    let (stream, mut peer) = rig.connection();
    table.insert(&stream, 0).expect("a socket of this port");
    stream.socket().receive().expect("nothing else reads");
    rig.say(&mut peer, b"1");
    let packet = rig.next("a byte");
    let inside = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            table.with(&packet, |state| {
                inside.wait();
                for _ in 0..20 {
                    *state += 50;
                    thread::yield_now();
                }
            });
        });
        inside.wait();
        let seen = table.with(&packet, |state| *state);
        assert_eq!(seen, Some(1_000), "the other thread was done");
    });
    let twice = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        table.with(&packet, |_| table.with(&packet, |_| ()));
    }));
    assert!(twice.is_err(), "a second use on one thread is no deadlock");
    assert_eq!(table.with(&packet, |state| *state), Some(1_000));
}

/// One of eight waiters stays on its first batch, while posts and the bytes of many connections
/// come. All but that batch must be handled meanwhile; `pause` is a part of what keeps the slow
/// one.
fn a_slow_waiter_delays_only_its_own(at: &Where, batch_max: u32, pause: fn()) {
    const CONNECTIONS: usize = 40;
    let mut rig = Rig::with(at, |builder| builder.batch_max(batch_max));
    let mut ends: Vec<_> = (0..CONNECTIONS).map(|_| rig.connection()).collect();
    for (stream, _) in &ends {
        stream.socket().receive().expect("nothing else reads");
    }
    rig.drop_waiter();
    let handled = Mutex::new(HashMap::new());
    let slow = AtomicBool::new(false);
    let (slow_has, release) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (port, ready) = (&rig.port, Barrier::new(9));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut waiter = port.waiter().expect("a shared port has many");
                ready.wait();
                while let Wait::Packets(batch) = waiter.wait(None).expect("waits") {
                    if !slow.swap(true, Ordering::AcqRel) {
                        slow_has.store(batch.len(), Ordering::Release);
                        while !release.load(Ordering::Acquire) {
                            pause();
                        }
                    }
                    for packet in batch {
                        *lock(&handled).entry(packet.key).or_insert(0) += 1;
                    }
                }
            });
        }
        ready.wait();
        for (_, peer) in &mut ends {
            assert_eq!(peer.try_send(b"x"), Some(1), "a byte always fits");
        }
        for value in 0..CONNECTIONS as u64 {
            port.post(Key(1_000 + value), value).expect("room");
        }
        // While one sleeps, all the others' packets are handled.
        let deadline = Instant::now() + patience(20);
        let done = |held: usize| lock(&handled).values().sum::<usize>() + held == 2 * CONNECTIONS;
        while slow_has.load(Ordering::Acquire) == 0 || !done(slow_has.load(Ordering::Acquire)) {
            assert!(
                Instant::now() < deadline,
                "packets wait for the slow one: {handled:?}"
            );
            thread::sleep(Duration::from_millis(1));
        }
        let held = slow_has.load(Ordering::Acquire);
        assert!(
            held <= batch_max as usize,
            "{held} packets in a batch of {batch_max}"
        );
        release.store(true, Ordering::Release);
        while !done(0) {
            assert!(
                Instant::now() < deadline,
                "the slow one's own packets are lost"
            );
            thread::sleep(Duration::from_millis(1));
        }
        port.close();
    });
    assert!(
        lock(&handled).values().all(|times| *times == 1),
        "each once"
    );
}

fn a_slow_waiter_delays_only_its_own_batch_of_one(at: &Where) {
    a_slow_waiter_delays_only_its_own(at, 1, sleep);
}

fn a_slow_waiter_delays_only_its_own_batch_of_eight(at: &Where) {
    a_slow_waiter_delays_only_its_own(at, 8, sleep);
}

/// What has completed for a thread must not wait until that thread enters the kernel by itself.
fn a_waiter_that_computes_delays_only_its_own_batch(at: &Where) {
    a_slow_waiter_delays_only_its_own(at, 8, std::hint::spin_loop);
}

fn sleep() {
    thread::sleep(Duration::from_millis(1));
}
