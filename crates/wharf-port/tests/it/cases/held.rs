//! Beyond the bound of leases: one request may deliver many messages, and those that may not be
//! delivered yet wait inside the port. The next operation gets them, in order, and no buffer is
//! lost.

use wharf_port::{Cancel, Close, End, ErrorKind, Event, PoolOptions, Stream};

use crate::rig::case::{Case, Where, case};
use crate::rig::peer::Peer;
use crate::rig::{Rig, noise};

pub(crate) const CASES: &[Case] = &[
    case!(
        small_messages_beyond_the_leases_keep_their_order,
        [C8, C2],
        "io_uring: multishot receives"
    ),
    case!(
        bytes_left_by_a_cancelled_stream_go_to_the_next_receive,
        [C8, C9],
        "io_uring: multishot receives"
    ),
    case!(
        the_end_is_reported_after_what_waited,
        [C8, C10],
        "io_uring: multishot receives"
    ),
    case!(
        an_end_just_after_a_message_is_reported,
        [C8, C10],
        "io_uring: a multishot receive that does not get a reset"
    ),
    case!(
        a_stream_closed_while_messages_wait_gives_their_buffers_back,
        [C8, C11],
        "io_uring: multishot receives"
    ),
];

/// The leases a stream may have out.
const LEASES: usize = 2;

/// A stream at its bound, with messages behind it, each of which came alone.
fn at_the_bound(
    rig: &mut Rig,
    stream: &Stream,
    peer: &mut Box<dyn Peer>,
) -> Vec<wharf_port::Lease> {
    let mut held = Vec::new();
    for message in ["one-", "two-"] {
        rig.say(peer, message.as_bytes());
        let lease = rig.lease(stream.socket());
        assert_eq!(*lease, *message.as_bytes());
        held.push(lease);
    }
    for message in ["three-", "four-", "five"] {
        rig.say(peer, message.as_bytes());
        rig.expect_nothing();
        assert_eq!(rig.port.stats().leases, LEASES);
    }
    held
}

fn with_few_leases(at: &Where) -> Rig {
    Rig::with(at, |builder| builder.leases_per_socket(LEASES as u32))
}

fn small_messages_beyond_the_leases_keep_their_order(at: &Where) {
    let mut rig = with_few_leases(at);
    let (stream, mut peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    let mut held = at_the_bound(&mut rig, &stream, &mut peer);
    let mut rest = Vec::new();
    while rest.len() < b"three-four-five".len() {
        held.remove(0);
        let lease = rig.lease(stream.socket());
        rest.extend_from_slice(&lease);
        assert!(rig.port.stats().leases <= LEASES);
        held.push(lease);
    }
    assert_eq!(rest, b"three-four-five");
    drop(held);
    let bytes = noise(100_000);
    rig.say(&mut peer, &bytes);
    assert!(
        rig.receive(stream.socket(), bytes.len()) == bytes,
        "the bytes differ"
    );
}

fn bytes_left_by_a_cancelled_stream_go_to_the_next_receive(at: &Where) {
    let mut rig = with_few_leases(at);
    let (stream, mut peer) = rig.connection();
    let op = stream.socket().receive().expect("nothing else reads");
    let held = at_the_bound(&mut rig, &stream, &mut peer);
    assert_eq!(rig.port.cancel(op), Cancel::Requested);
    assert_eq!(rig.ended(op).how, End::Cancelled);
    drop(held);
    let mut taken = Vec::new();
    while taken.len() < 4 {
        let into = stream
            .socket()
            .receive_into(vec![0; 4 - taken.len()])
            .expect("nothing else reads");
        let packet = rig.expect("the bytes", |packet| packet.op == into);
        let Event::ReceivedInto { buffer, count, .. } = packet.event else {
            panic!("not asked for: {:?}", packet.event);
        };
        taken.extend_from_slice(&buffer[..count]);
    }
    assert_eq!(taken, b"thre");
    stream.socket().receive().expect("nothing else reads");
    assert_eq!(rig.receive(stream.socket(), 11), b"e-four-five");
}

/// A reset discards what the system had. What the port had is delivered before it, and then the
/// reset.
fn the_end_is_reported_after_what_waited(at: &Where) {
    for resets in [false, true] {
        let mut rig = with_few_leases(at);
        let (stream, mut peer) = rig.connection();
        let op = stream.socket().receive().expect("nothing else reads");
        let held = at_the_bound(&mut rig, &stream, &mut peer);
        // The peer that finishes stays until the end was delivered.
        let mut stays = Some(peer);
        match stays.as_mut().filter(|_| !resets) {
            Some(peer) => peer.finish(),
            None => stays.take().expect("nobody took it").reset(),
        }
        rig.expect_nothing();
        drop(held);
        let mut rest = Vec::new();
        let how = rig.until("the end", |rig| {
            let packet = rig.find(|packet| packet.op == op)?;
            match packet.event {
                Event::Received(lease) => rest.extend_from_slice(&lease),
                Event::Ended { how, .. } => return Some(how),
                other => panic!("not asked for: {other:?}"),
            }
            None
        });
        if resets {
            assert_eq!(how.error_kind(), Some(ErrorKind::Reset));
            assert!(b"three-four-five".starts_with(&rest), "{rest:?}");
        } else {
            assert_eq!((how, &rest[..]), (End::Finished, &b"three-four-five"[..]));
        }
    }
}

/// The peer sends and closes before the port has looked: both are one event to it.
fn an_end_just_after_a_message_is_reported(at: &Where) {
    const ROUNDS: usize = 40;
    let mut rig = Rig::new(at);
    for round in 0..ROUNDS {
        let (stream, mut peer) = rig.connection();
        let op = stream.socket().receive().expect("nothing else reads");
        for message in [b"one", b"two"] {
            rig.say(&mut peer, message);
            assert_eq!(rig.receive(stream.socket(), 3), message);
        }
        rig.expect_nothing();
        // The port does not look between the two.
        assert_eq!(peer.try_send(b"last"), Some(4));
        let resets = round % 2 == 0;
        let mut stays = Some(peer);
        match stays.as_mut().filter(|_| !resets) {
            Some(peer) => peer.finish(),
            None => stays.take().expect("nobody took it").reset(),
        }
        let mut bytes = Vec::new();
        let how = rig.until("the end", |rig| {
            let packet = rig.find(|packet| packet.op == op)?;
            match packet.event {
                Event::Received(lease) => bytes.extend_from_slice(&lease),
                Event::Ended { how, .. } => return Some(how),
                other => panic!("not asked for: {other:?}"),
            }
            None
        });
        if resets {
            assert_eq!(how.error_kind(), Some(ErrorKind::Reset));
        } else {
            assert_eq!((how, &bytes[..]), (End::Finished, &b"last"[..]));
        }
    }
}

fn a_stream_closed_while_messages_wait_gives_their_buffers_back(at: &Where) {
    const BUFFERS: usize = 16;
    const BYTES: usize = 512;
    let pool = PoolOptions::new()
        .buffer_bytes(BYTES as u32)
        .pool_bytes_max(BUFFERS * BYTES);
    let mut rig = Rig::with(at, |builder| {
        builder.pool(pool).leases_per_socket(LEASES as u32)
    });
    for round in 0..4 {
        let (stream, mut peer) = rig.connection();
        stream.socket().receive().expect("nothing else reads");
        let held = at_the_bound(&mut rig, &stream, &mut peer);
        if round % 2 == 0 {
            let socket = stream.socket();
            stream.close(Close::Reset).expect("it is open");
            rig.expect("the end of the stream", |packet| {
                matches!(
                    packet.event,
                    Event::Ended {
                        how: End::Aborted,
                        ..
                    }
                )
            });
            rig.closed(socket);
        } else {
            drop(stream);
            rig.until_stats("the slot is free", |stats| stats.sockets == 1);
        }
        drop(held);
        assert_eq!(rig.port.stats().leases, 0);
    }
    // All of the pool can be lent again. A smaller lease would be copied out of a scarce pool, and
    // would hold no buffer.
    let mut lent = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..BUFFERS / LEASES {
        let (stream, mut peer) = rig.connection();
        stream.socket().receive().expect("nothing else reads");
        for message in [b"one", b"two"] {
            rig.say(&mut peer, &message.repeat(BYTES / 3));
            lent.push(rig.lease(stream.socket()));
        }
        streams.push((stream, peer));
    }
    assert_eq!(rig.port.stats().leases, BUFFERS);
}
