//! Sending: whole, in order, bounded, and with one outcome each.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use wharf_port::{Buffer, Close, End, ErrorKind, Event, Op, SocketRef};

use crate::cases::receive::failed_as;
use crate::rig::case::{Case, Driver, Where, case, linux};
use crate::rig::peer::{Heard, Peer};
use crate::rig::system;
use crate::rig::{Rig, noise};

pub(crate) const CASES: &[Case] = &[
    case!(a_send_is_silent_when_it_succeeds, [C2], "contract"),
    case!(a_reported_send_returns_its_buffer, [C2, C3], "contract"),
    case!(every_kind_of_buffer_goes_out, [C3], "contract"),
    case!(an_empty_send_is_nothing_to_do, [C2], "asio tcp.cpp"),
    case!(
        two_big_sends_go_out_in_order,
        [C6],
        "io_uring measured: interleaved 10 of 10"
    ),
    case!(
        a_big_send_goes_out_whole,
        [C6, C2],
        "io_uring measured: 4,157,547 of 16 MiB"
    ),
    case!(
        many_small_sends_go_out_in_order,
        [C6],
        "libuv test-tcp-write-queue-order.c"
    ),
    case!(
        a_send_does_not_overtake_what_waits,
        [C6],
        "planted: it tried at once whatever waited"
    ),
    case!(sends_of_many_threads_stay_whole, [C4, C6], "contract"),
    case!(both_directions_move_at_once, [C6], "contract"),
    case!(
        one_send_of_any_size_is_taken_by_an_empty_queue,
        [C7],
        "contract"
    ),
    case!(
        a_full_queue_refuses_and_reports_once_when_there_is_space,
        [C7, C13],
        "contract"
    ),
    case!(
        a_bound_of_sends_counts_small_ones_too,
        [C7, C13],
        "contract"
    ),
    case!(
        a_send_to_a_peer_that_reset_has_one_outcome,
        [C2, C9],
        "wine sock.c"
    ),
    case!(
        sends_after_a_failed_one_end_with_their_buffers,
        [C3, C7, C10],
        "contract"
    ),
    case!(
        one_sockets_errors_are_no_errors_of_the_port,
        [C7],
        "contract"
    ),
    case!(
        no_signal_reports_a_peer_that_is_gone,
        [C9],
        "measured: OP_WRITE raised SIGPIPE"
    )
    .skip(signals)
    .alone(),
    case!(
        more_than_four_gibibytes_go_out_in_one_send,
        [C6],
        "compio #600, #613"
    )
    .skip(once)
    .seconds_max(120),
];

pub(crate) fn signals(at: &Where) -> Option<&'static str> {
    linux(at).map(|reason| match at.driver {
        Driver::Iocp => "signals are a matter of Unix",
        _ => reason,
    })
}

fn once(at: &Where) -> Option<&'static str> {
    if at.driver == Driver::Sim {
        return Some("the simulated network would hold all of it in memory");
    }
    if at.wine {
        return Some("Wine takes minutes for it");
    }
    at.shared()
        .then_some("it is moved once on each driver, for its seconds")
}

fn a_send_is_silent_when_it_succeeds(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    stream.send("silent").expect("an empty queue");
    assert_eq!(rig.hear(&mut peer, 6), b"silent");
    rig.expect_nothing();
}

/// The buffer of the reported send that is over next.
pub(crate) fn sent(rig: &mut Rig, op: Op) -> Buffer {
    let packet = rig.expect("the end of a send", |packet| packet.op == op);
    match packet.event {
        Event::Sent { buffer, .. } => buffer,
        other => panic!("the send did not succeed: {other:?}"),
    }
}

fn a_reported_send_returns_its_buffer(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let bytes = b"there and back".to_vec();
    let address = bytes.as_ptr();
    let op = stream.send_reported(bytes).expect("an empty queue");
    assert_eq!(rig.hear(&mut peer, 14), b"there and back");
    let bytes = sent(&mut rig, op).into_vec();
    assert_eq!(bytes, b"there and back");
    assert_eq!(bytes.as_ptr(), address, "it is the same memory");
    rig.expect_nothing();
}

fn every_kind_of_buffer_goes_out(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    stream.send(vec![b'a', 0, 255]).expect("room");
    stream.send(String::from("text")).expect("room");
    stream.send("static").expect("room");
    stream.send(b"array").expect("room");
    stream.send(Arc::<[u8]>::from(*b"shared")).expect("room");
    assert_eq!(rig.hear(&mut peer, 24), b"a\0\xfftextstaticarrayshared");
    stream.socket().receive().expect("nothing else reads");
    rig.say(&mut peer, b"lease");
    let lease = rig.lease(stream.socket());
    stream.send(lease).expect("room");
    assert_eq!(rig.hear(&mut peer, 5), b"lease");
}

fn an_empty_send_is_nothing_to_do(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    stream.send("").expect("an empty queue");
    let op = stream.send_reported(Vec::new()).expect("an empty queue");
    assert!(sent(&mut rig, op).is_empty());
    rig.expect_nothing();
    assert_eq!(peer.try_receive(1), Heard::Nothing, "and no end either");
    stream.send("x").expect("an empty queue");
    assert_eq!(rig.hear(&mut peer, 1), b"x");
}

fn a_send_does_not_overtake_what_waits(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.send_queue_bytes_max(64 << 20));
    let (stream, mut peer) = rig.connection();
    let big = noise(8 << 20);
    stream.send(big.clone()).expect("an empty queue");
    // The socket has space again, and the port has not noticed.
    let mut heard = Vec::new();
    while let Heard::Bytes(bytes) = peer.try_receive(1 << 20) {
        heard.extend(bytes);
    }
    stream.send("the last").expect("room");
    heard.extend(rig.hear(&mut peer, big.len() + 8 - heard.len()));
    assert!(heard[..big.len()] == big, "the first is whole");
    assert_eq!(&heard[big.len()..], b"the last");
}

fn two_big_sends_go_out_in_order(at: &Where) {
    const BYTES: usize = 4 << 20;
    let mut rig = Rig::with(at, |builder| builder.send_queue_bytes_max(4 * BYTES));
    let (stream, mut peer) = rig.connection();
    stream.send(vec![b'A'; BYTES]).expect("room");
    let second = stream.send_reported(vec![b'B'; BYTES]).expect("room");
    let heard = rig.hear(&mut peer, 2 * BYTES);
    assert!(
        heard[..BYTES].iter().all(|byte| *byte == b'A'),
        "the first is whole"
    );
    assert!(
        heard[BYTES..].iter().all(|byte| *byte == b'B'),
        "and then the second"
    );
    sent(&mut rig, second);
}

fn a_big_send_goes_out_whole(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let bytes = noise(16 << 20);
    let op = stream
        .send_reported(bytes.clone())
        .expect("an empty queue takes any size");
    rig.expect_nothing();
    let heard = rig.hear(&mut peer, bytes.len());
    assert!(heard == bytes, "the bytes differ");
    assert_eq!(sent(&mut rig, op).len(), bytes.len());
    rig.expect_nothing();
}

fn many_small_sends_go_out_in_order(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let mut expected = Vec::new();
    for number in 0..1_000u32 {
        let bytes = noise(1 + number as usize % 97);
        expected.extend_from_slice(&bytes);
        if number % 3 == 0 {
            stream.send_reported(bytes).expect("room for 1,024");
        } else {
            stream.send(bytes).expect("room for 1,024");
        }
    }
    let heard = rig.hear(&mut peer, expected.len());
    assert!(heard == expected, "the bytes differ");
    let mut last = None;
    for _ in 0..334 {
        let packet = rig.next("the end of a send");
        assert!(matches!(packet.event, Event::Sent { .. }), "{packet:?}");
        assert_ne!(last.replace(packet.op), Some(packet.op), "each once");
    }
    rig.expect_nothing();
}

fn sends_of_many_threads_stay_whole(at: &Where) {
    const THREADS: u8 = 8;
    const SENDS: u8 = 50;
    const BYTES: usize = 1_000;
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let socket = stream.socket();
    let heard = thread::scope(|scope| {
        for name in 0..THREADS {
            scope.spawn(move || {
                for number in 0..SENDS {
                    let mut bytes = vec![name; BYTES];
                    bytes[0] = number;
                    socket.send(bytes).expect("room for all of them");
                }
            });
        }
        rig.hear(&mut peer, usize::from(THREADS) * usize::from(SENDS) * BYTES)
    });
    let mut next = [0; THREADS as usize];
    for record in heard.chunks(BYTES) {
        let name = record[1];
        assert!(
            record[1..].iter().all(|byte| *byte == name),
            "a record is whole"
        );
        assert_eq!(
            record[0],
            next[usize::from(name)],
            "in the order of its thread"
        );
        next[usize::from(name)] += 1;
    }
}

fn both_directions_move_at_once(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.send_queue_bytes_max(8 << 20));
    let (stream, mut peer) = rig.connection();
    let bytes = noise(4 << 20);
    stream.socket().receive().expect("nothing else reads");
    stream.send(bytes.clone()).expect("an empty queue");
    let (mut said, mut heard, mut received) = (0, Vec::new(), Vec::new());
    rig.until("all bytes both ways", |rig| {
        if said < bytes.len() {
            said += peer
                .try_send(&bytes[said..])
                .expect("the port's side stays");
        }
        if let Heard::Bytes(bytes) = peer.try_receive(1 << 20) {
            heard.extend(bytes);
        }
        while let Some(packet) = rig.find(|_| true) {
            match packet.event {
                Event::Received(lease) => received.extend_from_slice(&lease),
                other => panic!("not asked for: {other:?}"),
            }
        }
        (heard.len() == bytes.len() && received.len() == bytes.len()).then_some(())
    });
    assert!(heard == bytes && received == bytes, "the bytes differ");
}

fn one_send_of_any_size_is_taken_by_an_empty_queue(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.send_queue_bytes_max(1_024));
    let (stream, mut peer) = rig.connection();
    let bytes = noise(8 << 20);
    stream
        .send(bytes.clone())
        .expect("an empty queue takes any size");
    let refused = stream.send("x").expect_err("now it is not empty");
    assert_eq!(
        (refused.error.kind(), &*refused.value),
        (ErrorKind::Full, &b"x"[..])
    );
    let heard = rig.hear(&mut peer, bytes.len());
    assert!(heard == bytes, "the bytes differ");
    let ready = rig.next("room again");
    assert!(matches!(ready.event, Event::SendReady));
    stream.send("x").expect("an empty queue");
    assert_eq!(rig.hear(&mut peer, 1), b"x");
    rig.expect_nothing();
}

/// Sends until the queue is full; returns the number of bytes it took.
pub(crate) fn fill(socket: SocketRef, bytes_each: usize) -> usize {
    for count in 0..100_000 {
        if let Err(refused) = socket.send(vec![b'.'; bytes_each]) {
            assert_eq!(refused.error.kind(), ErrorKind::Full);
            assert_eq!(refused.value.len(), bytes_each, "it comes back");
            return count * bytes_each;
        }
    }
    panic!("a queue without a bound");
}

fn a_full_queue_refuses_and_reports_once_when_there_is_space(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.send_queue_bytes_max(128 << 10));
    let (stream, mut peer) = rig.connection();
    for _ in 0..3 {
        let mut bytes = fill(stream.socket(), 16 << 10);
        bytes += fill(stream.socket(), 16 << 10);
        rig.hear(&mut peer, bytes);
        let ready = rig.expect("room again", |packet| {
            matches!(packet.event, Event::SendReady)
        });
        assert_eq!(
            (ready.socket, ready.key),
            (stream.socket(), wharf_port::Key(100))
        );
        rig.expect_nothing();
    }
    stream.send("room").expect("an empty queue");
    assert_eq!(rig.hear(&mut peer, 4), b"room");
    rig.expect_nothing();
}

fn a_bound_of_sends_counts_small_ones_too(at: &Where) {
    let mut rig = Rig::with(at, |builder| {
        builder
            .operations_per_socket_max(4)
            .send_queue_bytes_max(64 << 20)
    });
    let (stream, mut peer) = rig.connection();
    let mut bytes = 8 << 20;
    stream
        .send(vec![b'.'; bytes])
        .expect("an empty queue takes any size");
    bytes += fill(stream.socket(), 1);
    assert_eq!(bytes, (8 << 20) + 3, "four wait, of whatever size");
    rig.hear(&mut peer, bytes);
    let ready = rig.next("room again");
    assert!(matches!(ready.event, Event::SendReady));
    rig.expect_nothing();
}

/// Sends until the connection is known to be gone; returns the end of the send that found out.
fn send_until_gone(rig: &mut Rig, socket: SocketRef) -> (Vec<u8>, ErrorKind) {
    for _ in 0..1_000 {
        match socket.send_reported("to nobody") {
            Err(refused) => return (refused.value.into_vec(), refused.error.kind()),
            Ok(op) => {
                let packet = rig.expect("the end of the send", |packet| packet.op == op);
                if let Event::SendFailed { how, buffer, .. } = packet.event {
                    return (buffer.into_vec(), failed_as(how));
                }
            }
        }
    }
    panic!("a thousand sends to a peer that is gone");
}

fn a_send_to_a_peer_that_reset_has_one_outcome(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, peer) = rig.connection();
    peer.reset();
    let (buffer, kind) = send_until_gone(&mut rig, stream.socket());
    assert_eq!((&buffer[..], kind), (&b"to nobody"[..], ErrorKind::Reset));
    rig.expect_nothing();
    let refused = stream.send("again").expect_err("the write side is over");
    assert_eq!(
        (refused.error.kind(), &*refused.value),
        (ErrorKind::Aborted, &b"again"[..])
    );
    rig.expect_nothing();
}

fn sends_after_a_failed_one_end_with_their_buffers(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.send_queue_bytes_max(64 << 20));
    let (stream, peer) = rig.connection();
    let first = stream.send(vec![1; 16 << 20]).expect("an empty queue");
    let behind = [2, 3, 4].map(|byte| stream.send(vec![byte; 1_000]).expect("room"));
    let shutdown = stream.shutdown().expect("the first");
    rig.expect_nothing();
    peer.reset();
    let ended = rig.ended(first);
    assert_eq!(failed_as(ended.how), ErrorKind::Reset);
    assert_eq!(ended.buffer.map(|buffer| buffer.len()), Some(16 << 20));
    for (op, byte) in behind.into_iter().zip([2, 3, 4]) {
        let ended = rig.ended(op);
        assert_eq!(
            (ended.how, ended.buffer),
            (End::Aborted, Some(vec![byte; 1_000]))
        );
    }
    assert_eq!(rig.ended(shutdown).how, End::Aborted);
    rig.expect_nothing();
}

fn one_sockets_errors_are_no_errors_of_the_port(at: &Where) {
    let mut rig = Rig::new(at);
    let (good, mut good_peer) = rig.connection();
    good.socket().receive().expect("nothing else reads");
    for round in 0..20u8 {
        let (bad, bad_peer) = rig.connection();
        bad_peer.reset();
        send_until_gone(&mut rig, bad.socket());
        bad.close(Close::Reset).expect("it is open");
        rig.closed_quietly();
        rig.say(&mut good_peer, &[round]);
        assert_eq!(rig.receive(good.socket(), 1), [round]);
        good.send(vec![round]).expect("an empty queue");
        assert_eq!(rig.hear(&mut good_peer, 1), [round]);
    }
}

fn no_signal_reports_a_peer_that_is_gone(at: &Where) {
    let pipe_signals = system::count_pipe_signals();
    let mut rig = Rig::new(at);
    for _ in 0..20 {
        let (stream, peer) = rig.connection();
        peer.reset();
        send_until_gone(&mut rig, stream.socket());
        let (stream, peer) = rig.connection();
        let op = stream.send(vec![0; 16 << 20]).expect("an empty queue");
        rig.pump(Duration::ZERO);
        peer.reset();
        rig.ended(op);
    }
    assert_eq!(pipe_signals(), 0, "signals came");
}

/// Reads this number of zeros.
fn swallow(mut peer: Box<dyn Peer>, bytes: u64) {
    let zeros = vec![0; 1 << 20];
    let deadline = Instant::now() + system::patience(100);
    let mut heard = 0;
    while heard < bytes {
        match peer.try_receive(1 << 20) {
            Heard::Bytes(some) => {
                assert!(some == zeros[..some.len()], "only zeros were sent");
                heard += some.len() as u64;
            }
            Heard::Nothing => thread::yield_now(),
            end => panic!("{end:?} after {heard} bytes"),
        }
        assert!(Instant::now() < deadline, "{heard} of {bytes} bytes");
    }
    assert_eq!(heard, bytes);
}

fn more_than_four_gibibytes_go_out_in_one_send(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, peer) = rig.connection();
    // Untouched zero pages take no memory.
    let bytes = (4usize << 30) + (1 << 20) + 1;
    let op = stream
        .send_reported(vec![0; bytes])
        .expect("an empty queue takes any size");
    let reader = thread::spawn(move || swallow(peer, bytes as u64));
    while !reader.is_finished() {
        rig.pump(Duration::from_millis(10));
    }
    reader.join().expect("every byte arrives");
    assert_eq!(sent(&mut rig, op).len(), bytes);
}
