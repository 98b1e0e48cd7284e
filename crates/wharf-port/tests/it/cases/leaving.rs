//! Waiters that leave: dropped, forgotten, or left in a thread-local of the program.
//!
//! The first of the two, the drop of the waiter or the end of its thread, gives up its seat, once.
//! Packets that the waiter had not delivered go to the others, and the port ends with the last.

use std::cell::RefCell;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use wharf_port::{Event, Packet, Port, Wait, Waiter};

use crate::rig::Rig;
use crate::rig::case::{Case, Mode, Where, case, real_time, several_waiters, threads_apart};
use crate::rig::peer::Peer;
use crate::rig::system::patience;

pub(crate) const CASES: &[Case] = &[
    case!(
        a_waiter_in_a_thread_local_leaves_once,
        [C4, C14],
        "found in review: runtimes keep their waiter there"
    )
    .skip(several_waiters),
    case!(
        a_single_waiter_in_a_thread_local_ends_with_its_thread,
        [C4, C14],
        "found in review: runtimes keep their waiter there"
    )
    .skip(one_waiter),
    case!(
        packets_of_a_waiter_in_a_thread_local_go_to_others,
        [C4, C2],
        "contract"
    )
    .skip(several_waiters),
    case!(
        packets_of_a_forgotten_waiter_go_to_others,
        [C4, C2],
        "contract"
    )
    .skip(several_waiters),
    case!(
        bytes_of_a_forgotten_waiter_stay_in_order,
        [C4, C6],
        "contract"
    )
    .skip(several_waiters),
    case!(
        the_number_of_a_live_waiter_is_not_given_again,
        [C4, C18],
        "found in review: two threads had one socket's turn"
    )
    .skip(several_waiters),
    case!(
        data_that_comes_during_a_forgotten_turn_is_delivered,
        [C4, C18],
        "found in review: no case saw it"
    )
    .skip(several_waiters),
    case!(
        a_port_whose_waiter_is_gone_ends_on_any_thread,
        [C14, C4],
        "found in review: the ring of a thread that lives"
    ),
    case!(
        a_connect_goes_on_when_its_waiters_thread_ends,
        [C2, C4],
        "io_uring: requests of a thread that ends are cancelled"
    )
    .skip(sleepers),
    case!(
        waiters_come_and_go_while_a_port_works_and_closes,
        [C4, C14],
        "found from outside: two threads inside one ring"
    )
    .skip(talkers),
];

thread_local! {
    /// Runtimes keep it here. The program's variable is older than any of the library's, so it is
    /// destroyed after them.
    static KEPT: RefCell<Option<Waiter>> = const { RefCell::new(None) };
}

fn one_waiter(at: &Where) -> Option<&'static str> {
    at.shared().then_some("a shared port has many waiters")
}

/// No waiter sleeps on the simulated network: its time has passed already.
fn sleepers(at: &Where) -> Option<&'static str> {
    several_waiters(at).or_else(|| real_time(at))
}

/// On the simulated network no far end sends by itself.
fn talkers(at: &Where) -> Option<&'static str> {
    several_waiters(at).or_else(|| threads_apart(at))
}

/// Another thread works with a waiter that it keeps in its thread-local.
fn with_kept<T: Send>(port: &Port, work: impl FnOnce(&mut Waiter) -> T + Send) -> T {
    let keeps = || {
        KEPT.with_borrow_mut(|kept| {
            let waiter = kept.get_or_insert_with(|| port.waiter().expect("there is room"));
            work(waiter)
        })
    };
    thread::scope(|scope| scope.spawn(keeps).join()).expect("its thread ends in order")
}

/// Another thread works with a waiter that it forgets.
fn with_forgotten<T: Send>(port: &Port, work: impl FnOnce(&mut Waiter) -> T + Send) -> T {
    let forgets = || {
        let mut waiter = port.waiter().expect("there is room");
        let done = work(&mut waiter);
        std::mem::forget(waiter);
        done
    };
    thread::scope(|scope| scope.spawn(forgets).join()).expect("its thread ends in order")
}

fn batch_of(waiter: &mut Waiter) -> wharf_port::Batch<'_> {
    match waiter.wait(Some(patience(20))).expect("waits") {
        Wait::Packets(batch) => batch,
        other => panic!("packets were to come: {other:?}"),
    }
}

fn value_of(packet: &Packet) -> u64 {
    match packet.event {
        Event::Posted(value) => value,
        ref other => panic!("not asked for: {other:?}"),
    }
}

fn a_waiter_in_a_thread_local_leaves_once(at: &Where) {
    let mut rig = Rig::new(at);
    let (_stream, _peer) = rig.connection();
    for _ in 0..3 {
        with_kept(&rig.port, |waiter| {
            assert!(matches!(
                waiter.wait(Some(Duration::ZERO)),
                Ok(Wait::TimedOut)
            ));
        });
    }
    assert_eq!(rig.port.stats().waiters_leaked, 0, "each was dropped");
    let before = rig.port.stats().sockets;
    rig.port.close();
    // The rig's waiter may be inside the driver, as far as the port can know.
    assert_eq!(rig.port.stats().sockets, before, "the port ended under it");
    assert!(matches!(rig.waiter().wait(None), Ok(Wait::Closed)));
    rig.drop_waiter();
    assert_eq!(rig.port.stats().sockets, 0, "the last waiter ended it");
}

fn a_single_waiter_in_a_thread_local_ends_with_its_thread(at: &Where) {
    let port = at.builder().build().expect("the driver was present before");
    with_kept(&port, |waiter| {
        assert!(matches!(
            waiter.wait(Some(Duration::ZERO)),
            Ok(Wait::TimedOut)
        ));
    });
    assert_eq!(port.stats().waiters_leaked, 0, "it was dropped");
    port.close();
    assert_eq!(port.stats().sockets, 0);
    assert_eq!(port.stats().operations_leaked, 0);
}

/// What is left of five posts after a waiter has taken two.
fn goes_to_others(rig: &mut Rig, with: impl FnOnce(&Port) -> Vec<u64>) {
    for value in 1..=5 {
        rig.port.post(1.into(), value).expect("room");
    }
    assert_eq!(with(&rig.port), [1, 2]);
    rig.port.post(1.into(), 6).expect("room");
    let mut left = Vec::new();
    while left.len() < 4 {
        left.push(value_of(&rig.next("a post that was not taken")));
    }
    assert_eq!(left, [3, 4, 5, 6], "in their order, and first");
}

/// Takes two of five packets.
fn take_two(waiter: &mut Waiter) -> Vec<u64> {
    let batch = batch_of(waiter);
    // The rig's waiter does not wait meanwhile: all are for this one.
    assert_eq!(batch.len(), 5);
    batch.take(2).map(|packet| value_of(&packet)).collect()
}

fn packets_of_a_waiter_in_a_thread_local_go_to_others(at: &Where) {
    let mut rig = Rig::new(at);
    goes_to_others(&mut rig, |port| with_kept(port, take_two));
    assert_eq!(rig.port.stats().waiters_leaked, 0);
}

fn packets_of_a_forgotten_waiter_go_to_others(at: &Where) {
    let mut rig = Rig::new(at);
    goes_to_others(&mut rig, |port| with_forgotten(port, take_two));
    assert_eq!(rig.port.stats().waiters_leaked, 1);
    rig.allowed.waiters_leaked = 1;
}

fn bytes_of_a_forgotten_waiter_stay_in_order(at: &Where) {
    let mut rig = Rig::with(at, |builder| {
        let pool = wharf_port::PoolOptions::new().buffer_bytes(512);
        builder.pool(pool)
    });
    let (stream, mut peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    let bytes = crate::rig::noise(8 * 512);
    let mut received = Vec::new();
    rig.say(&mut peer, &bytes);
    rig.drop_waiter();
    // Each takes one packet and forgets the rest of its batch; so does one that is dropped.
    let mut rounds = 0;
    while received.len() < bytes.len() {
        let packet = with_forgotten(&rig.port, |waiter| batch_of(waiter).next());
        match packet.expect("a batch is never empty").event {
            Event::Received(lease) => received.extend_from_slice(&lease),
            other => panic!("not asked for: {other:?}"),
        }
        rounds += 1;
    }
    assert!(received == bytes, "the bytes differ");
    rig.allowed.waiters_leaked = rounds;
}

fn the_number_of_a_live_waiter_is_not_given_again(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    rig.drop_waiter();
    // A waiter is forgotten while the next already lives.
    let (tell, told) = channel::<()>();
    let port = rig.port.clone();
    let (made, is_made) = channel();
    let forgetful = thread::spawn(move || {
        let waiter = port.waiter().expect("a shared port has many");
        made.send(()).expect("the other thread listens");
        told.recv().expect("the other thread tells");
        std::mem::forget(waiter);
    });
    is_made.recv().expect("it has its waiter");
    let mut waiter = rig.port.waiter().expect("a shared port has many");
    tell.send(()).expect("it listens");
    forgetful.join().expect("it forgets");
    rig.allowed.waiters_leaked = 1;
    assert_eq!(rig.port.stats().waiters_leaked, 1);

    assert_eq!(peer.try_send(b"1"), Some(1));
    let mut batch = batch_of(&mut waiter);
    let first = batch.next().expect("a batch is never empty");
    assert!(matches!(&first.event, Event::Received(lease) if **lease == *b"1"));
    assert_eq!(peer.try_send(b"2"), Some(1));
    let port = rig.port.clone();
    let other = thread::spawn(move || {
        let mut successor = port.waiter().expect("a shared port has many");
        let early = successor
            .wait(Some(Duration::from_millis(50)))
            .expect("waits");
        assert!(
            matches!(early, Wait::TimedOut),
            "another has the turn: {early:?}"
        );
    });
    other.join().expect("it got nothing");
    drop((first, batch));
    let second = batch_of(&mut waiter).next().expect("the turn is over");
    assert!(matches!(&second.event, Event::Received(lease) if **lease == *b"2"));
}

fn data_that_comes_during_a_forgotten_turn_is_delivered(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    rig.say(&mut peer, b"1");
    let (tell, told) = channel::<()>();
    let (took, has_taken) = channel();
    let port = rig.port.clone();
    let forgetful = thread::spawn(move || {
        let mut waiter = port.waiter().expect("a shared port has many");
        let mut batch = batch_of(&mut waiter);
        let packet = batch.next().expect("a batch is never empty");
        assert!(matches!(&packet.event, Event::Received(lease) if **lease == *b"1"));
        took.send(()).expect("the other thread listens");
        told.recv().expect("the other thread tells");
        // Not even the batch is dropped, which would end the turn.
        std::mem::forget(batch);
        std::mem::forget(waiter);
    });
    has_taken.recv().expect("it has the turn");
    rig.say(&mut peer, b"2");
    // The driver sees it, and no waiter may have it yet.
    rig.expect_nothing();
    tell.send(()).expect("it listens");
    forgetful.join().expect("it forgets");
    rig.allowed.waiters_leaked = 1;
    assert_eq!(rig.receive(stream.socket(), 1), b"2");
}

fn a_port_whose_waiter_is_gone_ends_on_any_thread(at: &Where) {
    let mut rig = Rig::new(at);
    let mut peers = crate::cases::end::start_everything(&mut rig);
    rig.pump(Duration::from_millis(1));
    // This thread lives on, and the requests were its own.
    rig.drop_waiter();
    let port = rig.port.clone();
    thread::spawn(move || port.close())
        .join()
        .expect("a close cannot fail");
    let stats = rig.port.stats();
    assert_eq!(stats.operations_leaked, 0, "{stats:?}");
    assert_eq!((stats.sockets, stats.leases), (0, 0), "{stats:?}");
    if at.mode == Mode::Direct {
        // Its thread closes what is in the table of a ring, or the ring does.
        drop(rig);
    }
    for peer in &mut peers {
        crate::rig::system::hear_the_end(peer);
    }
}

fn a_connect_goes_on_when_its_waiters_thread_ends(at: &Where) {
    let mut rig = Rig::new(at);
    let (address, guard) = rig.network.silent();
    rig.drop_waiter();
    let op = rig.port.connect(address, 7.into()).expect("room");
    // This thread submits the connect to the system, and is gone.
    let port = rig.port.clone();
    thread::spawn(move || {
        let mut waiter = port.waiter().expect("a shared port has many");
        assert!(matches!(
            waiter.wait(Some(Duration::from_millis(20))),
            Ok(Wait::TimedOut)
        ));
    })
    .join()
    .expect("it waits");
    let mut waiter = rig.port.waiter().expect("a shared port has many");
    let early = waiter.wait(Some(Duration::from_millis(20)));
    assert!(matches!(early, Ok(Wait::TimedOut)), "it goes on: {early:?}");
    drop(early);
    // No listener is there any more, which the next attempt of the system finds out.
    drop(guard);
    let packet = batch_of(&mut waiter).next().expect("never empty");
    assert_eq!(packet.op, op);
    match packet.event {
        Event::ConnectFailed {
            how: wharf_port::End::Failed(error),
            ..
        } => {
            assert_eq!(error.kind(), wharf_port::ErrorKind::Refused, "{error}");
        }
        other => panic!("nobody accepts it: {other:?}"),
    }
    rig.allowed.packets = true;
}

/// Echoes the packets of a batch, if the sockets exist.
fn echo(batch: wharf_port::Batch<'_>) {
    for packet in batch {
        if let Event::Received(lease) = packet.event {
            // Full, or closed meanwhile: then it goes back to its pool.
            drop(packet.socket.send(lease));
        }
    }
}

/// Sends something on each connection, and takes what comes back.
fn chat(peers: &mut [Box<dyn Peer>]) {
    for peer in peers {
        // A port that is gone has reset it.
        let _ = peer.try_send(b"talk");
        let _ = peer.try_receive(1 << 16);
    }
}

/// Waiters of every kind come and leave while two of them stay, connections talk, and finally a
/// thread closes the port: the last waiter ends it, and no other before that.
fn waiters_come_and_go_while_a_port_works_and_closes(at: &Where) {
    const ROUNDS: usize = 4;
    const GUESTS: u64 = 4;
    for _ in 0..ROUNDS {
        let mut rig = Rig::new(at);
        let (streams, mut peers): (Vec<_>, Vec<_>) = (0..8).map(|_| rig.connection()).unzip();
        for stream in &streams {
            stream.socket().receive().expect("nothing else reads");
        }
        rig.drop_waiter();
        let port = &rig.port;
        let is_over = &AtomicBool::new(false);
        let all_wait = &Barrier::new(3);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(move || {
                    let mut waiter = port.waiter().expect("a shared port has many");
                    all_wait.wait();
                    while let Wait::Packets(batch) = waiter.wait(None).expect("waits") {
                        echo(batch);
                    }
                });
            }
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    chat(&mut peers);
                }
            });
            all_wait.wait();
            for _ in 0..GUESTS {
                let look = |waiter: &mut Waiter| {
                    let waited = waiter.wait(Some(Duration::from_millis(2)));
                    if let Wait::Packets(mut batch) = waited.expect("waits") {
                        // Packets that it leaves in the batch are for the others.
                        drop(batch.next());
                    }
                };
                with_kept(port, look);
                with_forgotten(port, look);
                look(&mut port.waiter().expect("a shared port has many"));
            }
            port.close();
            is_over.store(true, Ordering::Relaxed);
        });
        rig.allowed.waiters_leaked = GUESTS;
    }
}
