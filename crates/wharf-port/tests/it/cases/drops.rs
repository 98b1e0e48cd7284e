//! After a drop no packet of the socket is delivered: from no batch and to no waiter.
//!
//! The packets are in a batch when their owner drops. Programs drop a connection there: in the loop
//! over its packets. A rig that has taken its packets already cannot see that, so these cases wait
//! by themselves and leave packets in the batch.

use std::thread;
use std::time::{Duration, Instant};

use wharf_port::{Event, Packet, PoolOptions, Stream, Wait};

use crate::rig::case::{Case, Where, case, real_time};
use crate::rig::peer::{Heard, Peer};
use crate::rig::system::patience;
use crate::rig::{FIRST, LISTENER, Rig};

pub(crate) const CASES: &[Case] = &[
    case!(
        after_a_drop_nothing_more_comes_from_the_batch_at_hand,
        [C11],
        "found from outside: 1,500 bytes of a dropped stream"
    )
    .skip(real_time),
    case!(
        a_drop_on_another_thread_empties_the_batch_at_hand,
        [C11, C4],
        "contract"
    )
    .skip(real_time),
    case!(
        no_waiter_gets_what_another_left_of_a_dropped_socket,
        [C11, C4],
        "found from outside: packets for a waiter that did not exist then"
    )
    .skip(real_time),
    case!(
        a_batch_of_nothing_but_dropped_sockets_is_no_batch,
        [C11, C5],
        "contract"
    )
    .skip(real_time),
    case!(
        a_reused_key_gets_no_packet_of_the_old_connection,
        [C11, C1],
        "found from outside: the old connection's bytes under its successor's key"
    )
    .skip(real_time),
    case!(
        a_close_delivers_what_is_in_the_batch_before_its_closed,
        [C11, C2],
        "contract"
    )
    .skip(real_time),
    case!(
        after_the_drop_of_a_listener_none_of_its_connections_comes,
        [C11, C2],
        "contract"
    )
    .skip(real_time),
    case!(
        bytes_on_their_way_to_a_dropped_stream_keep_no_buffer,
        [C11, C8],
        "planted: they kept it"
    ),
    case!(
        a_dropped_stream_that_cannot_send_is_reset_at_its_bound,
        [C11, C13],
        "contract"
    ),
];

/// A connection of which several packets are in the batch: none of them was taken.
fn left_in_a_batch(rig: &mut Rig) -> (Stream, Box<dyn Peer>) {
    let (stream, mut peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    rig.say(&mut peer, b"some bytes");
    for _ in 0..4 {
        stream.send_reported("y").expect("room");
    }
    leave(rig, 4);
    (stream, peer)
}

/// Waits until this number of packets is in the batch, and takes none.
fn leave(rig: &mut Rig, packets: usize) {
    let deadline = Instant::now() + patience(3);
    loop {
        let waited = rig.waiter().wait(Some(Duration::from_millis(1)));
        if matches!(waited.expect("waits"), Wait::Packets(batch) if batch.len() >= packets) {
            return;
        }
        if Instant::now() > deadline {
            rig.fail("a batch of several never came");
        }
    }
}

fn small(builder: wharf_port::Builder) -> wharf_port::Builder {
    builder
        .batch_max(64)
        .pool(PoolOptions::new().buffer_bytes(512))
}

/// The socket is gone once the port has sent what was queued, and all leases are back.
fn all_is_back(rig: &mut Rig, peer: &mut Box<dyn Peer>) {
    let (_, end) = rig.hear_end(peer);
    assert_eq!(end, Heard::Finished);
    rig.until_stats("its slot and its leases", |stats| {
        stats.sockets == 1 && stats.leases == 0
    });
    rig.expect_nothing();
}

fn after_a_drop_nothing_more_comes_from_the_batch_at_hand(at: &Where) {
    let mut rig = Rig::with(at, small);
    let (stream, mut peer) = left_in_a_batch(&mut rig);
    let mut stream = Some(stream);
    let Wait::Packets(batch) = rig.waiter().wait(None).expect("waits") else {
        panic!("what was not taken comes first");
    };
    let mut after = 0;
    for packet in batch {
        assert_eq!(packet.key, FIRST);
        after += usize::from(stream.take().is_none());
    }
    assert_eq!(after, 0, "packets after the drop of their stream");
    all_is_back(&mut rig, &mut peer);
}

fn a_drop_on_another_thread_empties_the_batch_at_hand(at: &Where) {
    let mut rig = Rig::with(at, small);
    let (stream, mut peer) = left_in_a_batch(&mut rig);
    let Wait::Packets(mut batch) = rig.waiter().wait(None).expect("waits") else {
        panic!("what was not taken comes first");
    };
    let first = batch.next().expect("it holds several");
    assert_eq!(first.key, FIRST);
    let dropped = thread::spawn(move || drop(stream));
    dropped.join().expect("it drops");
    assert!(batch.next().is_none(), "packets after the drop");
    drop((first, batch));
    all_is_back(&mut rig, &mut peer);
}

fn no_waiter_gets_what_another_left_of_a_dropped_socket(at: &Where) {
    let mut rig = Rig::with(at, small);
    let (stream, peer) = left_in_a_batch(&mut rig);
    // So much that the socket lives on as long as its peer does not read.
    stream.send(vec![0; 16 << 20]).expect("an empty queue");
    drop(stream);
    rig.renew_waiter();
    rig.expect_nothing();
    assert_eq!(rig.port.stats().leases, 0, "they are back");
    peer.reset();
    rig.until_stats("it is gone", |stats| stats.sockets == 1);
    rig.expect_nothing();
}

fn a_batch_of_nothing_but_dropped_sockets_is_no_batch(at: &Where) {
    let mut rig = Rig::with(at, small);
    let (stream, mut peer) = left_in_a_batch(&mut rig);
    drop(stream);
    let next = rig.waiter().wait(Some(Duration::ZERO));
    let is_batch = matches!(next.expect("waits"), Wait::Packets(_));
    assert!(!is_batch, "a batch without a packet");
    all_is_back(&mut rig, &mut peer);
}

fn a_reused_key_gets_no_packet_of_the_old_connection(at: &Where) {
    let mut rig = Rig::with(at, small);
    let (old, _old_peer) = left_in_a_batch(&mut rig);
    drop(old);
    let mut peer = rig.dial();
    let accepted = rig.accepted();
    let stream = rig.port.associate(accepted, FIRST).expect("room");
    stream.socket().receive().expect("nothing else reads");
    rig.say(&mut peer, b"new");
    let mut heard = Vec::new();
    while heard.len() < 3 {
        let packet = rig.next("the new connection's bytes");
        assert_eq!((packet.key, packet.socket), (FIRST, stream.socket()));
        match &packet.event {
            Event::Received(lease) => heard.extend_from_slice(lease),
            other => panic!("not asked for: {other:?}"),
        }
    }
    assert_eq!(heard, b"new");
    rig.expect_nothing();
}

/// The other half of the rule: an explicit close is reported, and the packets before it too.
fn a_close_delivers_what_is_in_the_batch_before_its_closed(at: &Where) {
    let mut rig = Rig::with(at, small);
    let (stream, _peer) = left_in_a_batch(&mut rig);
    let socket = stream.socket();
    let close = stream.close(wharf_port::Close::Flush).expect("it is open");
    leave(&mut rig, 4);
    assert_eq!(rig.port.stats().sockets, 2, "its last packet was not taken");
    let mut sent = 0;
    let last = loop {
        let Packet { op, event, .. } = rig.next("what waited");
        match event {
            Event::Sent { .. } => sent += 1,
            // Data that was not read before the close stays unread.
            Event::Received(_) | Event::Ended { .. } => {}
            Event::Closed => break op,
            other => panic!("not asked for: {other:?}"),
        }
    };
    assert_eq!((last, sent), (close, 4));
    assert_eq!(rig.port.stats().sockets, 1);
    assert!(socket.key().is_err(), "it is gone");
    rig.expect_nothing();
}

fn after_the_drop_of_a_listener_none_of_its_connections_comes(at: &Where) {
    let mut rig = Rig::new(at);
    let listener = rig.listen(([127, 0, 0, 1], 0));
    let address = listener.local_addr().expect("an address");
    let mut peers: Vec<_> = (0..4).map(|_| rig.network.connect(&address)).collect();
    leave(&mut rig, 4);
    let mut listener = Some(listener);
    let Wait::Packets(batch) = rig.waiter().wait(None).expect("waits") else {
        panic!("what was not taken comes first");
    };
    let mut taken = Vec::new();
    for packet in batch {
        assert_eq!(packet.key, LISTENER);
        assert!(listener.take().is_some(), "packets after the drop");
        taken.push(packet);
    }
    rig.expect_nothing();
    assert_eq!(rig.port.stats().accepted_untaken, 3, "closed and counted");
    rig.allowed.accepted_untaken = 3;
    for mut peer in peers.drain(1..) {
        crate::rig::system::hear_the_end(&mut peer);
    }
    drop(taken);
    rig.until_stats("all are gone", |stats| stats.sockets == 0);
}

/// A drop at each step of the way: before the bytes are read, and before the port learns of them.
/// The clock of the simulated network goes from one step to the next, each up to 100 µs long.
fn bytes_on_their_way_to_a_dropped_stream_keep_no_buffer(at: &Where) {
    let mut rig = Rig::with(at, small);
    for step in 0..40 {
        let (stream, mut peer) = rig.connection();
        stream.socket().receive().expect("nothing else reads");
        rig.expect_nothing();
        peer.try_send(b"late").expect("it is open");
        rig.pump(Duration::from_micros(5 * step));
        let socket = stream.socket();
        drop(stream);
        rig.forget(|packet| packet.socket == socket);
        rig.until_stats("its slot and its leases", |stats| {
            stats.sockets == 1 && stats.leases == 0
        });
    }
    rig.expect_nothing();
}

/// A drop is a close that flushes: without its bound a peer that never reads would keep the socket.
fn a_dropped_stream_that_cannot_send_is_reset_at_its_bound(at: &Where) {
    const BYTES: usize = 64 << 20;
    let mut rig = Rig::with(at, |builder| builder.flush_max(Duration::from_millis(30)));
    let (stream, mut peer) = rig.connection();
    stream.send(vec![0; BYTES]).expect("an empty queue");
    drop(stream);
    rig.until_stats("its slot is free", |stats| stats.sockets == 1);
    let (heard, end) = rig.hear_end(&mut peer);
    assert!(heard.len() < BYTES, "the peer did not read in time");
    assert_eq!(end, Heard::Reset, "a stream that is cut looks complete");
    rig.expect_nothing();
}
