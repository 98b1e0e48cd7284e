//! What comes just after a message, before the port has looked: more data, an error, or the peer's
//! end. One request of io_uring delivers many messages, and its reports come one after another
//! while leases return, ends come and threads leave.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use wharf_port::{End, ErrorKind, Event, Lease, Leave, Op, SocketRef, Wait, Waiter};

use crate::rig::Rig;
use crate::rig::case::{Case, Driver, Where, case, several_waiters, threads_apart};
use crate::rig::peer::Peer;
use crate::rig::system::patience;

pub(crate) const CASES: &[Case] = &[
    case!(
        what_follows_held_messages_is_delivered_after_them,
        [C8, C6],
        "io_uring: multishot receives"
    ),
    case!(
        an_error_after_held_messages_is_reported_after_them,
        [C8, C9, C10],
        "io_uring: multishot receives"
    ),
    case!(
        an_error_after_held_messages_goes_to_the_next_read_or_watch,
        [C8, C9, C10],
        "a mutation that reported a clean end"
    ),
    case!(
        a_reset_just_after_a_message_takes_nothing_of_it,
        [C3, C10],
        "a mutant that survived"
    ),
    case!(
        an_end_that_comes_with_a_message_is_reported,
        [C8, C10],
        "io_uring: a multishot receive that does not get a reset"
    )
    .skip(threads_apart),
    case!(
        an_end_is_reported_after_its_polling_thread_is_gone,
        [C8, C10, C4],
        "io_uring: requests of a thread that ends are cancelled"
    )
    .skip(apart),
];

fn apart(at: &Where) -> Option<&'static str> {
    several_waiters(at).or(threads_apart(at))
}

/// A stream with its two leases out. The port has looked once after another message came: the
/// kernel does not have the resulting request of an io_uring port yet.
fn looked_once(rig: &mut Rig) -> (SocketRef, Op, Box<dyn Peer>, Vec<Lease>) {
    let (stream, mut peer) = rig.connection();
    let socket = stream.set_aside();
    let (other, _other_peer) = rig.connection();
    let other = other.set_aside();
    let op = socket.receive().expect("nothing else reads");
    let mut out = Vec::new();
    for message in ["one-", "two-"] {
        rig.say(&mut peer, message.as_bytes());
        let lease = rig.lease(socket);
        assert_eq!(*lease, *message.as_bytes());
        out.push(lease);
    }
    rig.expect_nothing();
    rig.say(&mut peer, b"three-");
    // With a packet at hand and a request to submit, a wait looks once and returns.
    other.receive().expect("nothing else reads");
    rig.port.post(1.into(), 1).expect("room");
    rig.pump(Duration::ZERO);
    rig.find(|packet| matches!(packet.event, Event::Posted(1)))
        .expect("it was at hand");
    (socket, op, peer, out)
}

fn with_two_leases(at: &Where) -> Rig {
    let mut rig = Rig::with(at, |builder| builder.leases_per_socket(2));
    // The other connection ends with the case.
    rig.allowed.packets = true;
    rig
}

fn what_follows_held_messages_is_delivered_after_them(at: &Where) {
    let mut rig = with_two_leases(at);
    let (socket, _, mut peer, out) = looked_once(&mut rig);
    drop(out);
    assert_eq!(peer.try_send(b"four-"), Some(5));
    assert_eq!(rig.receive(socket, 11), b"three-four-");
    rig.say(&mut peer, b"five");
    assert_eq!(rig.receive(socket, 4), b"five");
}

fn an_error_after_held_messages_is_reported_after_them(at: &Where) {
    let mut rig = with_two_leases(at);
    let (socket, _, peer, out) = looked_once(&mut rig);
    peer.reset();
    rig.pump(Duration::ZERO);
    rig.pump(Duration::ZERO);
    drop(out);
    let (rest, how) = rest_of(&mut rig, socket);
    assert_eq!(how.error_kind(), Some(ErrorKind::Reset));
    // A driver delivers what it holds. The reset discarded what the system had.
    let holds = rig
        .port
        .driver()
        .features
        .contains(&"receives that stream, capped");
    if holds {
        assert_eq!(rest, b"three-");
    } else {
        assert!(b"three-".starts_with(&rest[..]), "{rest:?}");
    }
}

/// The stream is cancelled while the error waits: the next operation gets it.
fn an_error_after_held_messages_goes_to_the_next_read_or_watch(at: &Where) {
    for watches in [false, true] {
        let mut rig = with_two_leases(at);
        let (socket, op, peer, out) = looked_once(&mut rig);
        peer.reset();
        rig.pump(Duration::ZERO);
        rig.pump(Duration::ZERO);
        rig.port.cancel(op);
        assert_eq!(rig.ended(op).how, End::Cancelled);
        drop(out);
        if watches {
            let watch = socket.watch().expect("nothing else reads");
            let packet = rig.expect("the peer's end", |packet| packet.op == watch);
            assert!(
                matches!(packet.event, Event::PeerLeft(Leave::Reset)),
                "{packet:?}"
            );
            continue;
        }
        let mut rest = Vec::new();
        let how = loop {
            let into = socket
                .receive_into(vec![0; 64])
                .expect("nothing else reads");
            let packet = rig.expect("bytes or the end", |packet| packet.op == into);
            match packet.event {
                Event::ReceivedInto { buffer, count, .. } => {
                    rest.extend_from_slice(&buffer[..count]);
                }
                Event::Ended { how, .. } => break how,
                other => panic!("not asked for: {other:?}"),
            }
        };
        assert_eq!(how.error_kind(), Some(ErrorKind::Reset));
        assert!(b"three-".starts_with(&rest[..]), "{rest:?}");
    }
}

/// What a stream receives until its end, and the end.
fn rest_of(rig: &mut Rig, socket: SocketRef) -> (Vec<u8>, End) {
    let mut rest = Vec::new();
    let how = rig.until("the end", |rig| {
        let packet = rig.find(|packet| packet.socket == socket)?;
        match packet.event {
            Event::Received(lease) => rest.extend_from_slice(&lease),
            Event::Ended { how, .. } => return Some(how),
            other => panic!("not asked for: {other:?}"),
        }
        None
    });
    (rest, how)
}

/// Another thread sends something and ends the connection, while this thread does not enter the
/// kernel: so both come before the port looks. Returns the peer that has finished.
fn say_and_end(mut peer: Box<dyn Peer>, resets: bool) -> Option<Box<dyn Peer>> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            assert_eq!(peer.try_send(b"last"), Some(4));
            let stays = if resets {
                peer.reset();
                None
            } else {
                peer.finish();
                Some(peer)
            };
            done.store(true, Ordering::Release);
            stays
        });
        while !done.load(Ordering::Acquire) {
            std::hint::spin_loop();
        }
        thread.join().expect("the peer talks and ends")
    })
}

const ROUNDS: usize = 40;

fn an_end_that_comes_with_a_message_is_reported(at: &Where) {
    let mut rig = Rig::new(at);
    for round in 0..ROUNDS {
        let (stream, mut peer) = rig.connection();
        let socket = stream.set_aside();
        socket.receive().expect("nothing else reads");
        for message in [b"one", b"two"] {
            rig.say(&mut peer, message);
            assert_eq!(rig.receive(socket, 3), message);
        }
        rig.pump(Duration::ZERO);
        let resets = round % 2 == 0;
        let stays = say_and_end(peer, resets);
        let (rest, how) = rest_of(&mut rig, socket);
        check_end(&rest, how, resets);
        drop(stays);
    }
}

fn check_end(rest: &[u8], how: End, resets: bool) {
    if resets {
        assert_eq!(how.error_kind(), Some(ErrorKind::Reset));
    } else {
        assert_eq!((how, rest), (End::Finished, &b"last"[..]));
    }
}

/// Waits until a packet of this socket comes.
fn next_of(waiter: &mut Waiter, socket: SocketRef) -> Event {
    let deadline = Instant::now() + patience(20);
    loop {
        assert!(Instant::now() < deadline, "no packet came");
        let waited = waiter.wait(Some(Duration::from_millis(100)));
        match waited.expect("the port is not broken") {
            Wait::Packets(mut batch) => {
                if let Some(packet) = batch.find(|packet| packet.socket == socket) {
                    return packet.event;
                }
            }
            Wait::TimedOut => {}
            Wait::Closed => panic!("the port is open"),
        }
    }
}

fn an_end_is_reported_after_its_polling_thread_is_gone(at: &Where) {
    for round in 0..ROUNDS {
        let mut rig = Rig::new(at);
        // The kernel ends the thread's requests in an order that depends on the sockets' numbers.
        let others: Vec<_> = (0..round % 8).map(|_| rig.connection()).collect();
        let (stream, mut peer) = rig.connection();
        let socket = stream.set_aside();
        socket.receive().expect("nothing else reads");
        rig.drop_waiter();
        let port = rig.port.clone();
        // This thread submits the stream's requests to the kernel, and ends.
        let talking = thread::spawn(move || {
            let mut waiter = port.waiter().expect("a shared port has many");
            for message in [b"one", b"two"] {
                assert_eq!(peer.try_send(message), Some(3));
                let event = next_of(&mut waiter, socket);
                assert!(matches!(&event, Event::Received(lease) if **lease == message[..]));
            }
            let nothing = waiter.wait(Some(Duration::ZERO));
            assert!(matches!(nothing, Ok(Wait::TimedOut)));
            peer
        });
        let mut peer = talking.join().expect("the stream talks");
        let mut waiter = rig.port.waiter().expect("a shared port has many");
        if round / 2 % 2 == 0 {
            // The receive is then this thread's own, and the poll for the end is still that of the
            // thread that is gone.
            assert_eq!(peer.try_send(b"three"), Some(5));
            let event = next_of(&mut waiter, socket);
            assert!(matches!(&event, Event::Received(lease) if **lease == *b"three"));
        }
        for _ in 0..3 {
            let nothing = waiter.wait(Some(Duration::ZERO));
            assert!(matches!(nothing, Ok(Wait::TimedOut)));
        }
        let resets = round % 2 == 0;
        let stays = say_and_end(peer, resets);
        let mut rest = Vec::new();
        let how = loop {
            match next_of(&mut waiter, socket) {
                Event::Received(lease) => rest.extend_from_slice(&lease),
                Event::Ended { how, .. } => break how,
                other => panic!("not asked for: {other:?}"),
            }
        };
        check_end(&rest, how, resets);
        drop((stays, waiter, others));
    }
}

/// The peer sends and resets before the port has looked.
fn a_reset_just_after_a_message_takes_nothing_of_it(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let socket = stream.socket();
    let into = socket
        .receive_into(vec![0; 64])
        .expect("nothing else reads");
    rig.expect_nothing();
    assert_eq!(peer.try_send(b"last"), Some(4));
    peer.reset();
    let first = rig.expect("the bytes", |packet| packet.op == into);
    match first.event {
        Event::ReceivedInto { buffer, count, .. } => assert_eq!(&buffer[..count], b"last"),
        // Windows discards with the reset what has not been read.
        other => return assert_eq!(at.driver, Driver::Iocp, "{other:?}"),
    }
    let into = socket
        .receive_into(vec![0; 64])
        .expect("nothing else reads");
    assert_eq!(rig.ended(into).how.error_kind(), Some(ErrorKind::Reset));
}
