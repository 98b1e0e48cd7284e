//! Lent buffers: bounded per stream and in all, returned from any thread, never touched after.

use std::collections::HashMap;
use std::sync::mpsc::channel;
use std::thread;

use wharf_port::{End, Event, Lease, PoolOptions, SocketRef};

use crate::rig::case::{Case, Where, case};
use crate::rig::peer::Heard;
use crate::rig::{Rig, noise};

pub(crate) const CASES: &[Case] = &[
    case!(leases_at_their_bound_stop_one_stream_only, [C8], "contract"),
    case!(
        a_lease_returned_on_another_thread_lets_its_stream_go_on,
        [C8, C4],
        "contract: lost wake-up"
    )
    // Two thousand times from one thread to another, which is slow on a busy machine.
    .seconds_max(60),
    case!(
        an_exhausted_pool_serves_first_come_first_served,
        [C8],
        "liburing #1275, compio #746"
    ),
    case!(
        a_stream_that_leaves_the_line_lets_the_next_one_go_on,
        [C8],
        "the seeds of the simulated network"
    ),
    case!(
        an_exhausted_pool_loses_no_byte,
        [C8, C13],
        "liburing #1275, IORingSwift #9, compio #961"
    ),
    case!(
        peers_that_never_read_cannot_take_the_pool_hostage,
        [C8, C13],
        "reliability: slow readers"
    ),
    case!(an_idle_connection_holds_no_buffer, [C8], "contract"),
    case!(
        a_read_that_finds_nothing_costs_no_lease,
        [C8],
        "a planted bug that no case saw"
    ),
    case!(
        a_lease_outlives_its_socket_and_its_port,
        [C8, C3],
        "contract"
    ),
    case!(a_lease_may_go_out_on_another_port, [C8], "contract"),
    case!(a_lease_may_be_changed_before_it_is_sent, [C8], "contract"),
    case!(
        a_forgotten_lease_costs_only_itself,
        [C3, C8],
        "rio RUSTSEC-2020-0021"
    ),
    case!(
        a_buffer_given_back_is_never_touched_again,
        [C3],
        "measured: reuse after the ring's end"
    )
    .alone()
    .seconds_max(60),
    case!(a_stream_that_waits_still_ends, [C8, C2], "contract"),
    case!(
        a_pause_that_is_over_does_not_stop_a_stream_later,
        [C8, C13],
        "a load under Wine whose last bytes never came"
    ),
];

pub(crate) const BYTES: u32 = 512;
/// A message that is not copied out of a scarce pool: more than a quarter of a buffer.
pub(crate) const LARGE: usize = 200;

pub(crate) fn small(buffers: usize) -> PoolOptions {
    PoolOptions::new()
        .buffer_bytes(BYTES)
        .pool_bytes_max(buffers * BYTES as usize)
}

fn leases_at_their_bound_stop_one_stream_only(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.pool(small(64)).leases_per_socket(2));
    let (greedy, mut greedy_peer) = rig.connection();
    let (other, mut other_peer) = rig.connection();
    greedy.socket().receive().expect("nothing else reads");
    other.socket().receive().expect("nothing else reads");
    let bytes = noise(10 * BYTES as usize);
    rig.say(&mut greedy_peer, &bytes);
    let mut held = vec![rig.lease(greedy.socket()), rig.lease(greedy.socket())];
    rig.expect_nothing();
    assert_eq!(rig.port.stats().leases, 2);
    rig.say(&mut other_peer, b"not stopped");
    assert_eq!(rig.receive(other.socket(), 11), b"not stopped");
    // One returns, one comes; in order.
    let mut received = Vec::new();
    while received.len() < bytes.len() {
        let lease = held.remove(0);
        received.extend_from_slice(&lease);
        drop(lease);
        if received.len() + held.iter().map(|lease| lease.len()).sum::<usize>() < bytes.len() {
            held.push(rig.lease(greedy.socket()));
            assert!(rig.port.stats().leases <= 2);
        }
    }
    assert_eq!(received, bytes);
    rig.expect_nothing();
}

fn a_lease_returned_on_another_thread_lets_its_stream_go_on(at: &Where) {
    const PIECES: usize = 2_000;
    let mut rig = Rig::with(at, |builder| builder.pool(small(64)).leases_per_socket(1));
    let (stream, mut peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    let (hand_over, handed_over) = channel::<Lease>();
    let dropper = thread::spawn(move || {
        let mut received = Vec::new();
        for (number, lease) in handed_over.into_iter().enumerate() {
            if number % 2 == 0 {
                // The waiter is about to sleep, or asleep; either way it must wake for this.
                thread::yield_now();
            }
            received.extend_from_slice(&lease);
        }
        received
    });
    let bytes = noise(PIECES * BYTES as usize);
    let (mut sent, mut count) = (0, 0);
    while count < bytes.len() {
        if sent < bytes.len() {
            sent += peer
                .try_send(&bytes[sent..])
                .expect("the port's side stays");
        }
        let lease = rig.lease(stream.socket());
        count += lease.len();
        hand_over.send(lease).expect("the other thread drops them");
    }
    drop(hand_over);
    assert!(
        dropper.join().expect("it drops") == bytes,
        "the bytes differ"
    );
}

fn an_exhausted_pool_serves_first_come_first_served(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.pool(small(2)).leases_per_socket(4));
    let (holder, mut holder_peer) = rig.connection();
    holder.socket().receive().expect("nothing else reads");
    rig.say(&mut holder_peer, &noise(2 * BYTES as usize));
    let mut held = vec![rig.lease(holder.socket()), rig.lease(holder.socket())];
    let mut waiting = Vec::new();
    for name in 0..4u8 {
        let (stream, mut peer) = rig.connection();
        stream.socket().receive().expect("nothing else reads");
        rig.say(&mut peer, &[name; LARGE]);
        rig.expect_nothing();
        waiting.push((stream, peer));
    }
    // Two buffers rotate among four streams, in the order in which these came.
    for name in 0..4u8 {
        drop(held.remove(0));
        let lease = rig.lease(waiting[usize::from(name)].0.socket());
        assert_eq!(*lease, [name; LARGE]);
        held.push(lease);
        rig.expect_nothing();
    }
    drop(held);
    rig.say(&mut holder_peer, b"again");
    assert_eq!(rig.receive(holder.socket(), 5), b"again");
    assert!(rig.port.stats().pool_bytes <= 2 * BYTES as usize);
}

/// A buffer that returns calls one of the waiting streams. If that one has ended meanwhile the call
/// is for the next: no other buffer is out that could return and call it.
fn a_stream_that_leaves_the_line_lets_the_next_one_go_on(at: &Where) {
    for closes in [false, true] {
        let mut rig = Rig::with(at, |builder| builder.pool(small(1)));
        let (holder, mut holder_peer) = rig.connection();
        let (first, mut first_peer) = rig.connection();
        let (second, mut second_peer) = rig.connection();
        holder.socket().receive().expect("nothing else reads");
        rig.say(&mut holder_peer, &[b'h'; LARGE]);
        let held = rig.lease(holder.socket());
        let waiting = first.socket().receive().expect("nothing else reads");
        rig.say(&mut first_peer, b"one");
        rig.expect_nothing();
        second.socket().receive().expect("nothing else reads");
        rig.say(&mut second_peer, b"two");
        rig.expect_nothing();
        if closes {
            drop(first);
        } else {
            rig.port.cancel(waiting);
            assert_eq!(rig.ended(waiting).how, End::Cancelled);
        }
        drop(held);
        assert_eq!(rig.receive(second.socket(), 3), b"two", "closes: {closes}");
    }
}

fn an_exhausted_pool_loses_no_byte(at: &Where) {
    const STREAMS: usize = 16;
    const EACH: usize = 64 << 10;
    let mut rig = Rig::with(at, |builder| builder.pool(small(4)).leases_per_socket(4));
    let bytes = noise(EACH);
    let mut ends: Vec<_> = (0..STREAMS).map(|_| rig.connection()).collect();
    for (stream, peer) in &mut ends {
        stream.socket().receive().expect("nothing else reads");
        rig.say(peer, &bytes);
    }
    let mut received: HashMap<SocketRef, Vec<u8>> = HashMap::new();
    let mut held: Vec<Lease> = Vec::new();
    let mut left = STREAMS * EACH;
    while left > 0 {
        // All four buffers are out before one goes back: the pool is empty most of the time.
        if held.len() == 4 {
            held.clear();
        }
        let Some(packet) = rig.find_or_pump() else {
            held.clear();
            continue;
        };
        match packet.event {
            Event::Received(lease) => {
                left -= lease.len();
                received
                    .entry(packet.socket)
                    .or_default()
                    .extend_from_slice(&lease);
                held.push(lease);
            }
            other => panic!("not asked for: {other:?}"),
        }
        assert!(
            rig.port.stats().pool_bytes <= 4 * BYTES as usize,
            "over the bound"
        );
    }
    assert!(
        received.values().all(|received| *received == bytes),
        "the bytes differ"
    );
}

fn peers_that_never_read_cannot_take_the_pool_hostage(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.pool(small(8)).leases_per_socket(4));
    let mut greedy: Vec<_> = (0..6).map(|_| rig.connection()).collect();
    let (good, mut good_peer) = rig.connection();
    for (stream, _) in &greedy {
        stream.socket().receive().expect("nothing else reads");
    }
    good.socket().receive().expect("nothing else reads");
    let bytes = noise(256 << 10);
    let (mut blocked, mut rounds) = (0, 0);
    while blocked < 200 {
        let mut sent = 0;
        for (_, peer) in &mut greedy {
            sent += peer.try_send(&bytes).expect("the port's side stays");
        }
        blocked = if sent == 0 { blocked + 1 } else { 0 };
        echo_what_came(&mut rig);
        rounds += 1;
        assert!(
            rounds < 100_000,
            "a peer that never reads is served for ever"
        );
    }
    for round in 0..100u8 {
        rig.say(&mut good_peer, &[round; 100]);
        let mut heard = Vec::new();
        rig.until("the good peer's echo", |rig| {
            echo_what_came(rig);
            if let Heard::Bytes(some) = good_peer.try_receive(100) {
                heard.extend(some);
            }
            (heard.len() == 100).then_some(())
        });
        assert_eq!(heard, [round; 100]);
    }
    assert!(
        rig.port.stats().pool_bytes <= 8 * BYTES as usize,
        "over the bound"
    );
    for (_, peer) in greedy {
        peer.reset();
    }
    rig.allowed.packets = true;
}

/// Sends back what has come so far.
fn echo_what_came(rig: &mut Rig) {
    while let Some(packet) = rig.find(|_| true) {
        match packet.event {
            Event::Received(lease) => {
                packet
                    .socket
                    .send(lease)
                    .expect("leases are fewer than the queue holds");
            }
            other => panic!("not asked for: {other:?}"),
        }
    }
    rig.pump(std::time::Duration::ZERO);
}

/// A buffer that was filled to its end leaves it open whether there is more. The driver looks
/// again, finds nothing, and must not count the buffer for that read.
fn a_read_that_finds_nothing_costs_no_lease(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.pool(small(64)).leases_per_socket(2));
    let (stream, mut peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    let bytes = noise(BYTES as usize);
    for _ in 0..20 {
        rig.say(&mut peer, &bytes);
        assert!(rig.receive(stream.socket(), bytes.len()) == bytes);
        rig.pump(std::time::Duration::ZERO);
    }
    rig.expect_nothing();
    assert_eq!(rig.port.stats().leases, 0);
}

fn an_idle_connection_holds_no_buffer(at: &Where) {
    let mut rig = Rig::new(at);
    let mut ends = Vec::new();
    let mut bytes = None;
    for count in 0..100 {
        let (stream, peer) = rig.connection();
        stream.socket().receive().expect("nothing else reads");
        rig.pump(std::time::Duration::ZERO);
        ends.push((stream, peer));
        let stats = rig.port.stats();
        assert_eq!(stats.leases, 0);
        let first = *bytes.get_or_insert(stats.pool_bytes);
        assert_eq!(stats.pool_bytes, first, "it grew with connection {count}");
    }
}

fn a_lease_outlives_its_socket_and_its_port(at: &Where) {
    let lease = {
        let mut rig = Rig::new(at);
        let (stream, mut peer) = rig.connection();
        stream.socket().receive().expect("nothing else reads");
        rig.say(&mut peer, b"what was lent");
        let lease = rig.lease(stream.socket());
        drop(stream);
        rig.until_stats("the socket is gone", |stats| stats.sockets == 1);
        assert_eq!(&*lease, b"what was lent");
        rig.allowed.leases = 1;
        lease
    };
    assert_eq!(&*lease, b"what was lent");
    let read = thread::spawn(move || lease.to_vec());
    assert_eq!(read.join().expect("any thread may"), b"what was lent");
}

fn a_lease_may_go_out_on_another_port(at: &Where) {
    let mut rig = Rig::new(at);
    let mut other = Rig::new(at);
    let (from, mut from_peer) = rig.connection();
    let (to, mut to_peer) = other.connection();
    from.socket().receive().expect("nothing else reads");
    rig.say(&mut from_peer, b"across");
    let lease = rig.lease(from.socket());
    let op = to.send_reported(lease).expect("an empty queue");
    assert_eq!(other.hear(&mut to_peer, 6), b"across");
    drop(crate::cases::send::sent(&mut other, op));
    assert_eq!(rig.port.stats().leases, 0, "it came back to its own port");
}

fn a_lease_may_be_changed_before_it_is_sent(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    rig.say(&mut peer, b"quiet");
    let mut lease = rig.lease(stream.socket());
    lease.make_ascii_uppercase();
    assert_eq!(
        format!("{lease:?}"),
        "Lease(5 bytes)",
        "its bytes may be secret"
    );
    stream.send(lease).expect("an empty queue");
    assert_eq!(rig.hear(&mut peer, 5), b"QUIET");
}

fn a_forgotten_lease_costs_only_itself(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.leases_per_socket(2));
    let (stream, mut peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    rig.say(&mut peer, b"x");
    std::mem::forget(rig.lease(stream.socket()));
    rig.allowed.leases = 1;
    for _ in 0..10 {
        rig.say(&mut peer, b"y");
        assert_eq!(rig.receive(stream.socket(), 1), b"y");
    }
}

fn a_buffer_given_back_is_never_touched_again(at: &Where) {
    let pool = PoolOptions::new().revoke_returned(true).buffer_bytes(4_096);
    let mut rig = Rig::with(at, |builder| builder.pool(pool));
    let mut ends: Vec<_> = (0..8).map(|_| rig.connection()).collect();
    for (stream, _) in &ends {
        stream.socket().receive().expect("nothing else reads");
    }
    let bytes = noise(32 << 10);
    for round in 0..4 {
        // Echoes, cancels, closes: each returns buffers in another way.
        for (stream, peer) in &mut ends {
            rig.say(peer, &bytes);
            let mut heard = Vec::new();
            rig.until("the echo", |rig| {
                while let Some(packet) = rig.find(|_| true) {
                    match packet.event {
                        Event::Received(lease) => drop(stream.send(lease)),
                        Event::Ended { .. } | Event::SendFailed { .. } | Event::Closed => {}
                        other => panic!("not asked for: {other:?}"),
                    }
                }
                if let Heard::Bytes(some) = peer.try_receive(64 << 10) {
                    heard.extend(some);
                }
                (heard.len() == bytes.len()).then_some(())
            });
            assert!(heard == bytes, "the bytes differ");
        }
        let (stream, mut peer) = ends.remove(0);
        rig.say(&mut peer, &bytes);
        if round % 2 == 0 {
            drop(stream);
        } else {
            stream.close(wharf_port::Close::Reset).expect("it is open");
        }
    }
    rig.allowed.packets = true;
}

fn a_stream_that_waits_still_ends(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.pool(small(64)).leases_per_socket(1));
    let (stream, mut peer) = rig.connection();
    let op = stream.socket().receive().expect("nothing else reads");
    rig.say(&mut peer, &noise(2 * BYTES as usize));
    peer.finish();
    let lease = rig.lease(stream.socket());
    rig.expect_nothing();
    drop(lease);
    assert_eq!(
        rig.receive(stream.socket(), BYTES as usize),
        noise(1_024)[512..]
    );
    assert_eq!(rig.ended(op).how, End::Finished);
    // And when the port's own side closes it while it waits.
    let (stream, mut peer) = rig.connection();
    let (op, socket) = (
        stream.socket().receive().expect("nothing else reads"),
        stream.socket(),
    );
    rig.say(&mut peer, &noise(2 * BYTES as usize));
    let lease = rig.lease(socket);
    stream.close(wharf_port::Close::Flush).expect("it is open");
    assert_eq!(rig.ended(op).how, End::Aborted);
    rig.closed(socket);
    assert_eq!(lease.len(), BYTES as usize);
    drop(lease);
    rig.expect_nothing();
}

/// A stream waits for a lease. Another packet gives it a turn before its call to continue arrives,
/// and in that turn it empties its socket and is armed. An earlier version still took it for a
/// waiting one: the call found it armed and left its mark, and the next turn that ended at its
/// bound of packets was its last.
fn a_pause_that_is_over_does_not_stop_a_stream_later(at: &Where) {
    let mut rig = Rig::with(at, |builder| {
        builder
            .pool(small(64))
            .leases_per_socket(2)
            .turn_packets_max(2)
    });
    let (stream, mut peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    let full = BYTES as usize;
    let bytes = noise(8 * full);
    rig.say(&mut peer, &bytes[..2 * full + 1]);
    let held = [rig.lease(stream.socket()), rig.lease(stream.socket())];
    rig.expect_nothing();
    let finished = stream.shutdown().expect("it is open");
    drop(held);
    assert_eq!(rig.receive(stream.socket(), 1), bytes[2 * full..=2 * full]);
    assert_eq!(rig.ended(finished).how, End::Finished);
    rig.expect_nothing();
    rig.say(&mut peer, &bytes[..5 * full]);
    assert!(rig.receive(stream.socket(), 5 * full) == bytes[..5 * full]);
}
