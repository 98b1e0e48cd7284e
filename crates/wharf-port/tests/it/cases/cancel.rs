//! Cancelling: a request, whose result is the operation's own last packet.

use std::thread;
use std::time::Duration;

use wharf_port::{Cancel, End, ErrorKind, Event, Op, Wait};

use crate::cases::send::sent;
use crate::rig::case::{Case, Driver, Where, case, threads_apart};
use crate::rig::{Rig, noise};

pub(crate) const CASES: &[Case] = &[
    case!(
        cancelling_an_idle_receive_ends_it,
        [C10],
        "compio #345, asio tcp.cpp"
    ),
    case!(
        cancelling_a_receive_into_returns_the_buffer_untouched,
        [C10, C3],
        "asio tcp.cpp, libxev iocp.zig"
    ),
    case!(cancelling_a_watch_ends_it, [C10], "compio #345"),
    case!(
        a_second_cancel_finds_nothing,
        [C10, C2],
        "wine kernel32 pipe.c"
    ),
    case!(
        an_operation_that_is_over_cannot_be_cancelled,
        [C10],
        "libxev iocp.zig, nng #1599"
    ),
    case!(
        a_late_cancel_does_not_hit_a_newer_operation,
        [C10, C11],
        "libxev #233"
    ),
    case!(
        cancelling_the_second_of_two_leaves_the_first,
        [C10],
        "wine kernel32 pipe.c"
    ),
    case!(
        cancelling_the_first_of_two_leaves_the_second,
        [C10],
        "wine kernel32 pipe.c"
    ),
    case!(
        a_cancelled_receive_loses_no_bytes,
        [C10],
        "monoio io-cancel.md"
    ),
    case!(
        cancels_that_race_with_data_lose_no_bytes,
        [C10, C2],
        "monoio io-cancel.md, liburing #1252"
    )
    .skip(threads_apart),
    case!(
        cancels_of_buffers_that_race_with_data_lose_no_bytes,
        [C10, C2],
        "compio #746, #961"
    )
    .skip(threads_apart),
    case!(cancelling_a_paused_receive_ends_it, [C10, C8], "contract"),
    case!(
        a_send_not_yet_begun_is_cancelled_alone,
        [C10, C6],
        "contract"
    ),
    case!(a_send_cut_short_ends_the_write_side, [C10, C3], "contract"),
    case!(
        operations_of_other_ports_are_not_found,
        [C10, C1],
        "contract"
    ),
];

fn cancelling_an_idle_receive_ends_it(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    for _ in 0..3 {
        let op = stream.socket().receive().expect("nothing else reads");
        assert_eq!(rig.port.cancel(op), Cancel::Requested);
        let ended = rig.ended(op);
        assert_eq!((ended.how, ended.buffer), (End::Cancelled, None));
        rig.expect_nothing();
    }
    stream.socket().receive().expect("nothing else reads");
    rig.say(&mut peer, b"alive");
    assert_eq!(rig.receive(stream.socket(), 5), b"alive");
}

fn cancelling_a_receive_into_returns_the_buffer_untouched(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let op = stream
        .socket()
        .receive_into(vec![7; 32])
        .expect("nothing else reads");
    rig.expect_nothing();
    assert_eq!(rig.port.cancel(op), Cancel::Requested);
    let ended = rig.ended(op);
    assert_eq!(
        (ended.how, ended.buffer),
        (End::Cancelled, Some(vec![7; 32]))
    );
    rig.say(&mut peer, b"later");
    rig.expect_nothing();
}

fn cancelling_a_watch_ends_it(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let op = stream.socket().watch().expect("nothing else reads");
    assert_eq!(rig.port.cancel(op), Cancel::Requested);
    assert_eq!(rig.ended(op).how, End::Cancelled);
    peer.finish();
    rig.expect_nothing();
}

fn a_second_cancel_finds_nothing(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, _peer) = rig.connection();
    let op = stream.socket().receive().expect("nothing else reads");
    assert_eq!(rig.port.cancel(op), Cancel::Requested);
    assert_eq!(rig.port.cancel(op), Cancel::NotFound);
    assert_eq!(rig.ended(op).how, End::Cancelled);
    assert_eq!(rig.port.cancel(op), Cancel::NotFound);
    rig.expect_nothing();
}

fn an_operation_that_is_over_cannot_be_cancelled(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let op = stream
        .socket()
        .receive_into(vec![0; 4])
        .expect("nothing else reads");
    rig.say(&mut peer, b"data");
    // Its packet waits in a batch: the operation is over, and the packet stays.
    while !matches!(rig.waiter().wait(None).expect("waits"), Wait::Packets(_)) {}
    assert_eq!(rig.port.cancel(op), Cancel::NotFound);
    let packet = rig.next("the packet that waited");
    assert_eq!(packet.op, op);
    assert!(matches!(packet.event, Event::ReceivedInto { count: 4, .. }));
    rig.expect_nothing();
}

fn a_late_cancel_does_not_hit_a_newer_operation(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let old = stream
        .socket()
        .receive_into(vec![0; 1])
        .expect("nothing else reads");
    rig.say(&mut peer, b"a");
    let packet = rig.next("the first byte");
    assert_eq!(packet.op, old);
    let new = stream
        .socket()
        .receive_into(vec![0; 1])
        .expect("the first is over");
    assert_ne!(old, new);
    assert_eq!(rig.port.cancel(old), Cancel::NotFound);
    rig.expect_nothing();
    // The same with a whole socket: the next one takes the slot of the first.
    let socket = stream.socket();
    drop((packet, stream));
    rig.until_stats("the first is gone", |stats| stats.sockets == 1);
    let (next, mut next_peer) = rig.connection();
    assert_ne!(next.socket(), socket);
    next.socket().receive().expect("nothing else reads");
    assert_eq!(rig.port.cancel(new), Cancel::NotFound);
    assert_eq!(socket.receive().unwrap_err().kind(), ErrorKind::Closed);
    rig.say(&mut next_peer, b"b");
    assert_eq!(rig.receive(next.socket(), 1), b"b");
}

fn cancelling_the_second_of_two_leaves_the_first(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let first = stream
        .socket()
        .receive_into(vec![0; 4])
        .expect("nothing else reads");
    let second = stream.socket().receive_into(vec![9; 4]).expect("room");
    assert_eq!(rig.port.cancel(second), Cancel::Requested);
    let ended = rig.ended(second);
    assert_eq!(
        (ended.how, ended.buffer),
        (End::Cancelled, Some(vec![9; 4]))
    );
    rig.say(&mut peer, b"data");
    let packet = rig.next("the data");
    assert_eq!(packet.op, first);
    assert!(
        matches!(&packet.event, Event::ReceivedInto { buffer, count: 4, .. } if buffer == b"data")
    );
    rig.expect_nothing();
}

fn cancelling_the_first_of_two_leaves_the_second(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let first = stream
        .socket()
        .receive_into(vec![9; 4])
        .expect("nothing else reads");
    let second = stream.socket().receive_into(vec![0; 4]).expect("room");
    assert_eq!(rig.port.cancel(first), Cancel::Requested);
    let ended = rig.ended(first);
    assert_eq!(
        (ended.how, ended.buffer),
        (End::Cancelled, Some(vec![9; 4]))
    );
    rig.expect_nothing();
    rig.say(&mut peer, b"data");
    let packet = rig.next("the data");
    assert_eq!(packet.op, second);
    assert!(
        matches!(&packet.event, Event::ReceivedInto { buffer, count: 4, .. } if buffer == b"data")
    );
    rig.expect_nothing();
}

fn a_cancelled_receive_loses_no_bytes(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let bytes = noise(256 << 10);
    let mut received = Vec::new();
    let mut sent = 0;
    while received.len() < bytes.len() {
        let op = stream.socket().receive().expect("the one before is over");
        while sent < bytes.len() && sent < received.len() + (32 << 10) {
            sent += peer
                .try_send(&bytes[sent..])
                .expect("the port's side stays");
        }
        rig.pump(Duration::from_millis(1));
        assert_eq!(rig.port.cancel(op), Cancel::Requested, "it was going on");
        // Data that it had received comes before its end.
        let how = rig.until("the end", |rig| {
            let packet = rig.find(|packet| packet.op == op)?;
            match packet.event {
                Event::Received(lease) => received.extend_from_slice(&lease),
                Event::Ended { how, .. } => return Some(how),
                other => panic!("not asked for: {other:?}"),
            }
            None
        });
        assert_eq!(how, End::Cancelled);
        rig.expect_silence_of(op);
    }
    assert!(received == bytes, "the bytes differ");
}

/// A peer that sends from another thread, in pieces with varying pauses.
fn chatter(mut peer: Box<dyn crate::rig::peer::Peer>, bytes: Vec<u8>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut sent = 0;
        while sent < bytes.len() {
            let piece = 1 + usize::from(bytes[sent]) * 8;
            let end = bytes.len().min(sent + piece);
            sent += peer
                .try_send(&bytes[sent..end])
                .expect("the port's side stays");
            if bytes[sent - 1] < 100 {
                thread::yield_now();
            }
        }
        // The connection stays until all of it is heard.
        while peer.try_receive(1) == crate::rig::peer::Heard::Nothing {
            thread::sleep(Duration::from_millis(1));
        }
    })
}

fn cancels_that_race_with_data_lose_no_bytes(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, peer) = rig.connection();
    let bytes = noise(1 << 20);
    let talker = chatter(peer, bytes.clone());
    let mut received = Vec::new();
    let mut op = stream.socket().receive().expect("nothing else reads");
    let mut cancels = 0;
    while received.len() < bytes.len() {
        let packet = rig.next("bytes, or the end of a receive");
        assert_eq!(packet.op, op, "one operation at a time");
        match packet.event {
            Event::Received(lease) => {
                received.extend_from_slice(&lease);
                if received.len() % 3 != 0 && rig.port.cancel(op) == Cancel::Requested {
                    cancels += 1;
                }
            }
            Event::Ended {
                how: End::Cancelled,
                ..
            } => {
                op = stream.socket().receive().expect("the one before is over");
            }
            other => panic!("not asked for: {other:?}"),
        }
    }
    assert!(received == bytes, "the bytes differ");
    assert!(cancels > 0, "nothing was cancelled: the case shows nothing");
    rig.allowed.packets = true;
    drop(stream);
    talker.join().expect("it says everything");
}

fn cancels_of_buffers_that_race_with_data_lose_no_bytes(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, peer) = rig.connection();
    let bytes = noise(256 << 10);
    let talker = chatter(peer, bytes.clone());
    let mut received = Vec::new();
    let mut cancelled = 0;
    let (mut round, mut left) = (0u32, 0);
    while received.len() < bytes.len() || left > 0 {
        if left == 0 {
            round += 1;
            let ops = [(); 3].map(|()| stream.socket().receive_into(vec![0; 1_000]).expect("room"));
            left = ops.len();
            if round % 2 == 0 {
                rig.pump(Duration::ZERO);
            }
            cancel_all(&rig, &ops, round);
        }
        let packet = rig.next("the end of a receive");
        left -= 1;
        match packet.event {
            Event::ReceivedInto { buffer, count, .. } => {
                received.extend_from_slice(&buffer[..count]);
            }
            Event::Ended {
                how: End::Cancelled,
                buffer,
                ..
            } => {
                assert_eq!(buffer.map(|buffer| buffer.len()), Some(1_000));
                cancelled += 1;
            }
            other => panic!("not asked for: {other:?}"),
        }
        if received.len() == bytes.len() {
            break;
        }
    }
    assert!(received == bytes, "the bytes differ");
    assert!(
        cancelled > 0,
        "nothing was cancelled: the case shows nothing"
    );
    rig.allowed.packets = true;
    drop(stream);
    talker.join().expect("it says everything");
}

/// Cancels in varying order, and not always all.
fn cancel_all(rig: &Rig, ops: &[Op], round: u32) {
    for place in 0..ops.len() {
        let place = (place + round as usize) % ops.len();
        if (round >> place) & 1 == 0 {
            rig.port.cancel(ops[place]);
        }
    }
}

fn cancelling_a_paused_receive_ends_it(at: &Where) {
    let pool = wharf_port::PoolOptions::new().buffer_bytes(512);
    let mut rig = Rig::with(at, |builder| builder.pool(pool).leases_per_socket(2));
    let (stream, mut peer) = rig.connection();
    let op = stream.socket().receive().expect("nothing else reads");
    rig.say(&mut peer, &noise(2_048));
    let held = [rig.lease(stream.socket()), rig.lease(stream.socket())];
    rig.expect_nothing();
    assert_eq!(rig.port.cancel(op), Cancel::Requested);
    // A driver may have one more buffer filled by then; it comes before the end.
    let mut bytes: usize = held.iter().map(|lease| lease.len()).sum();
    let how = rig.until("the end", |rig| {
        let packet = rig.find(|packet| packet.op == op)?;
        match packet.event {
            Event::Received(lease) => bytes += lease.len(),
            Event::Ended { how, .. } => return Some(how),
            other => panic!("not asked for: {other:?}"),
        }
        None
    });
    assert_eq!(how, End::Cancelled);
    drop(held);
    rig.expect_nothing();
    stream.socket().receive().expect("the first is over");
    assert_eq!(
        rig.receive(stream.socket(), 2_048 - bytes),
        noise(2_048)[bytes..]
    );
}

fn a_send_not_yet_begun_is_cancelled_alone(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.send_queue_bytes_max(64 << 20));
    let (stream, mut peer) = rig.connection();
    let first = stream
        .send_reported(vec![1; 16 << 20])
        .expect("an empty queue");
    rig.expect_nothing();
    let second = stream.send_reported(vec![2; 1_000]).expect("room");
    let third = stream.send_reported(vec![3; 1_000]).expect("room");
    assert_eq!(rig.port.cancel(second), Cancel::Requested);
    let ended = rig.ended(second);
    assert_eq!(
        (ended.how, ended.buffer),
        (End::Cancelled, Some(vec![2; 1_000]))
    );
    let heard = rig.hear(&mut peer, (16 << 20) + 1_000);
    assert!(
        heard[..16 << 20].iter().all(|byte| *byte == 1),
        "the first is whole"
    );
    assert!(
        heard[16 << 20..].iter().all(|byte| *byte == 3),
        "and the third follows"
    );
    sent(&mut rig, first);
    sent(&mut rig, third);
    rig.expect_nothing();
}

fn a_send_cut_short_ends_the_write_side(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.send_queue_bytes_max(64 << 20));
    let (stream, mut peer) = rig.connection();
    let first = stream.send(vec![1; 16 << 20]).expect("an empty queue");
    let behind = stream.send(vec![2; 1_000]).expect("room");
    let some = rig.hear(&mut peer, 1_000);
    assert!(some.iter().all(|byte| *byte == 1));
    assert_eq!(rig.port.cancel(first), Cancel::Requested);
    let ended = rig.ended(first);
    assert_eq!(ended.how, End::Cancelled);
    assert_eq!(ended.buffer.map(|buffer| buffer.len()), Some(16 << 20));
    match ended.count {
        Some(count) => assert!((1_000..16 << 20).contains(&count), "{count}"),
        None => assert_eq!(at.driver, Driver::Iocp, "Windows alone may not know"),
    }
    let ended = rig.ended(behind);
    assert_eq!(
        (ended.how, ended.buffer),
        (End::Aborted, Some(vec![2; 1_000]))
    );
    let refused = stream.send("more").expect_err("the write side is over");
    assert_eq!(
        (refused.error.kind(), &*refused.value),
        (ErrorKind::Aborted, &b"more"[..])
    );
    // The reading side goes on.
    stream.socket().receive().expect("nothing else reads");
    rig.say(&mut peer, b"still heard");
    assert_eq!(rig.receive(stream.socket(), 11), b"still heard");
}

fn operations_of_other_ports_are_not_found(at: &Where) {
    let mut rig = Rig::new(at);
    let other = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let op = stream.socket().receive().expect("nothing else reads");
    assert_eq!(other.port.cancel(op), Cancel::NotFound);
    rig.say(&mut peer, b"on");
    assert_eq!(rig.receive(stream.socket(), 2), b"on");
}
