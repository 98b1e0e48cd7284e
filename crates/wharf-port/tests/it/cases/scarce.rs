//! A scarce pool: a slow or waiting connection holds no more of it than its bytes, on whichever
//! port.

use std::time::Duration;

use wharf_port::{End, Event};

use crate::cases::pool::{BYTES, LARGE, small};
use crate::rig::case::{Case, Where, a_system, another_port, case};
use crate::rig::peer::System;
use crate::rig::{Rig, noise};

pub(crate) const CASES: &[Case] = &[
    case!(
        small_leases_that_are_kept_leave_buffers_for_others,
        [C8, C13],
        "found from outside: 1,100 connections with 6 bytes each exhausted 64 MiB"
    ),
    case!(
        a_stream_at_its_bound_passes_the_call_for_a_buffer_on,
        [C8, C13],
        "a mutation that left a free buffer unused"
    ),
    case!(
        a_stream_that_ends_leaves_its_buffer_to_the_next_in_the_line,
        [C8, C13],
        "a mutation that left a free buffer unused"
    ),
    case!(
        leases_queued_on_another_port_leave_their_own_pool,
        [C8, C13],
        "found from outside: 8 peers that never read, on another port"
    )
    .skip(another_port),
    case!(
        peers_that_never_read_hold_no_buffer_by_sends_in_flight,
        [C8, C13],
        "found from outside: as many of them as there are buffers stopped everybody on uring"
    )
    .skip(a_system),
];

/// More leases than buffers, of a few bytes each, and none of them returns.
fn small_leases_that_are_kept_leave_buffers_for_others(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.pool(small(16)));
    let mut held = Vec::new();
    for name in 0..24u8 {
        let (stream, mut peer) = rig.connection();
        stream.socket().receive().expect("nothing else reads");
        rig.say(&mut peer, &[name; 6]);
        let lease = rig.lease(stream.socket());
        assert_eq!(*lease, [name; 6]);
        held.push((lease, stream, peer));
    }
    assert!(rig.port.stats().pool_bytes <= 16 * BYTES as usize);
    // They are what they were, and go out like any other.
    for (name, (lease, stream, mut peer)) in (0..24u8).zip(held) {
        assert_eq!(*lease, [name; 6]);
        stream.send(lease).expect("an empty queue");
        assert_eq!(rig.hear(&mut peer, 6), [name; 6]);
    }
    rig.until_stats("all are back", |stats| stats.leases == 0);
}

/// A stream that gets a turn while it waits for a buffer may be in the queue twice. When the second
/// entry is called it has all its leases, and the next stream takes that call.
fn a_stream_at_its_bound_passes_the_call_for_a_buffer_on(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.pool(small(2)).leases_per_socket(1));
    let (mut held, mut holders) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let (holder, mut peer) = rig.connection();
        holder.socket().receive().expect("nothing else reads");
        rig.say(&mut peer, &[b'h'; LARGE]);
        held.push(rig.lease(holder.socket()));
        holders.push((holder, peer));
    }
    let (first, mut first_peer) = rig.connection();
    first.socket().receive().expect("nothing else reads");
    rig.say(&mut first_peer, &noise(2 * BYTES as usize));
    rig.expect_nothing();
    // Its outcome is a turn for the stream, which tries again.
    let op = first.send_reported("x").expect("an empty queue");
    rig.expect("the end of a send", |packet| packet.op == op);
    rig.expect_nothing();
    let (second, mut second_peer) = rig.connection();
    second.socket().receive().expect("nothing else reads");
    rig.say(&mut second_peer, b"second");
    rig.expect_nothing();
    drop(held.pop());
    let lease = rig.lease(first.socket());
    drop(held.pop());
    assert_eq!(rig.receive(second.socket(), 6), b"second");
    drop(lease);
    assert_eq!(rig.lease(first.socket()).len(), BYTES as usize);
}

/// A stream that waits for a buffer may have nothing to read into it but an end.
fn a_stream_that_ends_leaves_its_buffer_to_the_next_in_the_line(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.pool(small(1)));
    let (holder, mut holder_peer) = rig.connection();
    holder.socket().receive().expect("nothing else reads");
    rig.say(&mut holder_peer, &noise(BYTES as usize));
    let held = rig.lease(holder.socket());
    let (first, mut first_peer) = rig.connection();
    let op = first.socket().receive().expect("nothing else reads");
    first_peer.finish();
    rig.pump(Duration::from_millis(20));
    let (second, mut second_peer) = rig.connection();
    second.socket().receive().expect("nothing else reads");
    rig.say(&mut second_peer, b"second");
    rig.pump(Duration::from_millis(20));
    drop(held);
    assert_eq!(rig.ended(op).how, End::Finished);
    assert_eq!(rig.receive(second.socket(), 6), b"second");
}

/// The pool that runs short is that of the port where the leases come from.
fn leases_queued_on_another_port_leave_their_own_pool(at: &Where) {
    const SINKS: usize = 8;
    let mut rig = Rig::with(at, |builder| builder.pool(small(16)));
    let mut other = Rig::with(at, |builder| builder.send_queue_bytes_max(64 << 20));
    let (mut sinks, mut sources) = (Vec::new(), Vec::new());
    for _ in 0..SINKS {
        let (sink, peer) = other.connection();
        // What comes behind it waits for a peer that does not read.
        sink.send(vec![0; 16 << 20]).expect("an empty queue");
        sinks.push((sink, peer));
        let (source, mut peer) = rig.connection();
        source.socket().receive().expect("nothing else reads");
        rig.say(&mut peer, &noise(4 * BYTES as usize));
        sources.push((source, peer));
    }
    other.pump(Duration::ZERO);
    let mut left = SINKS * 4 * BYTES as usize;
    while left > 0 {
        let packet = rig.next("what the sources say");
        let Event::Received(lease) = packet.event else {
            panic!("not asked for: {packet:?}");
        };
        left -= lease.len();
        let from = sources
            .iter()
            .position(|(it, _)| it.socket() == packet.socket);
        let (sink, _) = &sinks[from.expect("a source")];
        sink.send(lease).expect("room for four");
    }
    for (_, peer) in sinks.drain(..) {
        peer.reset();
    }
    (rig.allowed.packets, other.allowed.packets) = (true, true);
    rig.until("the leases are back", |rig| {
        other.pump(Duration::ZERO);
        (rig.port.stats().leases == 0).then_some(())
    });
}

/// Echoes what has come; returns whether there was anything.
fn echo(rig: &mut Rig) -> bool {
    let mut any = false;
    rig.pump(Duration::ZERO);
    while let Some(packet) = rig.find(|packet| matches!(packet.event, Event::Received(_))) {
        let Event::Received(lease) = packet.event else {
            unreachable!("asked for received bytes");
        };
        packet.socket.send(lease).expect("room for what is lent");
        any = true;
    }
    any
}

/// More peers than buffers talk and never read, until each has a send in flight.
fn peers_that_never_read_hold_no_buffer_by_sends_in_flight(at: &Where) {
    const QUIET_ROUNDS: u32 = 50;
    let mut rig = Rig::with(at, |builder| builder.pool(small(16)));
    let mut ends = Vec::new();
    for _ in 0..24 {
        let (socket, peer) = System.narrow_pair(4_096);
        let stream = rig.associate(socket);
        stream.socket().receive().expect("nothing else reads");
        ends.push((stream, peer));
    }
    let bytes = noise(BYTES as usize);
    let mut quiet = 0;
    while quiet < QUIET_ROUNDS {
        for (_, peer) in &mut ends {
            peer.try_send(&bytes).expect("it is open");
        }
        quiet = if echo(&mut rig) { 0 } else { quiet + 1 };
    }
    let (stream, mut peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    rig.say(&mut peer, b"hello");
    let mut heard = Vec::new();
    rig.until("the echo of one that reads", |rig| {
        echo(rig);
        if let crate::rig::peer::Heard::Bytes(bytes) = peer.try_receive(5) {
            heard.extend(bytes);
        }
        (heard == b"hello").then_some(())
    });
    for (_, peer) in ends.drain(..) {
        peer.reset();
    }
    rig.allowed.packets = true;
    rig.until_stats("all are back", |stats| stats.leases == 0);
}
