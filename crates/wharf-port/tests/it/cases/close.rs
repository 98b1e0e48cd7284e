//! How connections end: what the peer sees, which packets the caller gets, and that nothing is
//! left.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use wharf_port::{Cancel, Close, End, ErrorKind, Event, Key, Op, Wait};

use crate::rig::case::{Case, Inapplicable, Where, case, linux};
use crate::rig::peer::Heard;
use crate::rig::system;
use crate::rig::{FIRST, Rig, noise};

pub(crate) const CASES: &[Case] = &[
    case!(
        closing_ends_a_pending_receive_then_delivers_closed,
        [C11, C2],
        "wine sock.c, corosio #98"
    ),
    case!(
        closing_ends_every_queued_receive_with_its_buffer,
        [C11, C3],
        "wine sock.c"
    ),
    case!(
        closing_an_idle_socket_gives_one_closed,
        [C11],
        "wine sock.c"
    ),
    case!(
        dropping_a_stream_delivers_nothing_more,
        [C11],
        "wine sock.c"
    ),
    case!(
        dropping_a_stream_gives_its_queued_leases_back,
        [C11, C8],
        "contract"
    ),
    case!(
        a_packet_that_waited_survives_the_close,
        [C11, C2],
        "wine sock.c"
    ),
    case!(closing_twice_is_refused, [C11], "contract"),
    case!(
        a_stale_reference_is_answered_closed,
        [C11, C3],
        "libuv test-tcp-close-accept.c"
    ),
    case!(
        a_flushing_close_sends_what_is_queued_then_fin,
        [C11],
        "contract"
    ),
    case!(
        a_close_that_flushes_lets_no_send_be_cancelled,
        [C10, C11],
        "contract"
    ),
    case!(
        a_flush_is_bounded_though_all_timers_are_set,
        [C11, C13],
        "found by reading: a deaf peer held its connection for ever"
    ),
    case!(a_flush_ends_at_its_bound, [C11, C13], "contract"),
    case!(a_resetting_close_sends_rst_and_no_fin, [C11], "contract"),
    case!(
        every_queued_send_ends_once_when_closed,
        [C11, C2],
        "libuv test-tcp-write-queue-order.c"
    ),
    case!(
        unread_input_does_not_destroy_output,
        [C11],
        "measured: 24,576 of 300,000 bytes"
    ),
    case!(a_socket_set_aside_stays_open, [C11], "the series"),
    case!(
        packets_never_cross_to_the_next_socket,
        [C11],
        "libuv test-tcp-close-accept.c, libxev #234"
    ),
    case!(
        ends_in_every_order_at_a_high_rate,
        [C11, C2],
        "ntex #911, netty #194, liburing #363, #932"
    )
    .skip(linux)
    .alone(),
    case!(closing_one_of_many_disturbs_no_other, [C11], "contract"),
];

pub(crate) const INAPPLICABLE: &[Inapplicable] = &[Inapplicable {
    name: "disconnect_posts_packet",
    source: "wine sock.c",
    reason: "sockets are not disconnected for reuse; what a close posts is `Closed`, once",
}];

fn closing_ends_a_pending_receive_then_delivers_closed(at: &Where) {
    let mut rig = Rig::new(at);
    for how in [Close::Flush, Close::Reset] {
        let (stream, mut peer) = rig.connection();
        let (socket, key) = (stream.socket(), stream.key().expect("it is open"));
        let receive = stream.socket().receive().expect("nothing else reads");
        rig.expect_nothing();
        let close = stream.close(how).expect("it is open");
        let packet = rig.next("the end of the receive");
        assert_eq!((packet.op, packet.key), (receive, key));
        assert!(
            matches!(
                packet.event,
                Event::Ended {
                    how: End::Aborted,
                    ..
                }
            ),
            "{packet:?}"
        );
        let packet = rig.next("the last packet");
        assert_eq!((packet.op, packet.key, packet.socket), (close, key, socket));
        assert!(matches!(packet.event, Event::Closed));
        rig.expect_nothing();
        let expected = if how == Close::Flush {
            Heard::Finished
        } else {
            Heard::Reset
        };
        assert_eq!(rig.hear_end(&mut peer).1, expected);
    }
    assert_eq!(rig.port.stats().sockets, 1, "the listener is left");
}

fn closing_ends_every_queued_receive_with_its_buffer(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, _peer) = rig.connection();
    let socket = stream.socket();
    let ops = [1, 2, 3].map(|byte| stream.socket().receive_into(vec![byte; 8]).expect("room"));
    stream.close(Close::Flush).expect("it is open");
    for (op, byte) in ops.into_iter().zip([1, 2, 3]) {
        let ended = rig.ended(op);
        assert_eq!(
            (ended.how, ended.buffer),
            (End::Aborted, Some(vec![byte; 8]))
        );
    }
    rig.closed(socket);
    rig.expect_nothing();
}

fn closing_an_idle_socket_gives_one_closed(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let socket = stream.socket();
    stream.close(Close::Flush).expect("it is open");
    let packet = rig.next("the only packet");
    assert_eq!(packet.socket, socket);
    assert!(matches!(packet.event, Event::Closed));
    rig.expect_nothing();
    rig.hear_finish(&mut peer);
}

fn dropping_a_stream_delivers_nothing_more(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    rig.say(&mut peer, b"never taken");
    stream.send("last words").expect("an empty queue");
    // The batch has it, and the caller has not taken it from there.
    while !matches!(rig.waiter().wait(None).expect("waits"), Wait::Packets(_)) {}
    drop(stream);
    assert_eq!(
        rig.hear_end(&mut peer),
        (b"last words".to_vec(), Heard::Finished)
    );
    rig.until_stats("the slot is free", |stats| stats.sockets == 1);
    rig.expect_nothing();
}

fn dropping_a_stream_gives_its_queued_leases_back(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    rig.say(&mut peer, &noise(1_000));
    let lease = rig.lease(stream.socket());
    // It waits behind a send that the peer does not read, and then it is no longer wanted.
    stream.send(vec![0; 16 << 20]).expect("an empty queue");
    if let Err(refused) = stream.send(lease) {
        assert_eq!(
            refused.error.kind(),
            ErrorKind::Full,
            "the first is larger than the bound"
        );
    }
    peer.reset();
    drop(stream);
    rig.until_stats("the lease is back", |stats| {
        stats.leases == 0 && stats.sockets == 1
    });
}

fn a_packet_that_waited_survives_the_close(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let socket = stream.socket();
    let op = stream.socket().receive().expect("nothing else reads");
    rig.say(&mut peer, b"data");
    while !matches!(rig.waiter().wait(None).expect("waits"), Wait::Packets(_)) {}
    stream.close(Close::Flush).expect("it is open");
    let packet = rig.next("the data that waited");
    assert!(matches!(&packet.event, Event::Received(lease) if **lease == *b"data"));
    drop(packet);
    assert_eq!(rig.ended(op).how, End::Aborted);
    rig.closed(socket);
    rig.expect_nothing();
}

fn closing_twice_is_refused(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, _peer) = rig.connection();
    let socket = stream.set_aside();
    socket.close(Close::Flush).expect("it is open");
    assert_eq!(
        socket.close(Close::Reset).unwrap_err().kind(),
        ErrorKind::Closed
    );
    rig.closed(socket);
    assert_eq!(
        socket.close(Close::Flush).unwrap_err().kind(),
        ErrorKind::Closed
    );
    rig.expect_nothing();
}

fn a_stale_reference_is_answered_closed(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, _peer) = rig.connection();
    let socket = stream.socket();
    drop(stream);
    rig.until_stats("the slot is free", |stats| stats.sockets == 1);
    let (next, _next_peer) = rig.connection();
    let closed = ErrorKind::Closed;
    assert_eq!(socket.receive().unwrap_err().kind(), closed);
    assert_eq!(socket.watch().unwrap_err().kind(), closed);
    assert_eq!(socket.shutdown().unwrap_err().kind(), closed);
    assert_eq!(socket.key().unwrap_err().kind(), closed);
    assert_eq!(socket.local_addr().unwrap_err().kind(), closed);
    assert_eq!(socket.peer_addr().unwrap_err().kind(), closed);
    let refused = socket.send(vec![5; 5]).unwrap_err();
    assert_eq!(
        (refused.error.kind(), &*refused.value),
        (closed, &[5; 5][..])
    );
    let refused = socket.receive_into(vec![6; 6]).unwrap_err();
    assert_eq!((refused.error.kind(), refused.value), (closed, vec![6; 6]));
    assert!(next.key().is_ok(), "the next one is another");
}

fn a_flushing_close_sends_what_is_queued_then_fin(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let socket = stream.socket();
    let bytes = noise(8 << 20);
    let op = stream.send_reported(bytes.clone()).expect("an empty queue");
    stream.close(Close::Flush).expect("it is open");
    let (heard, end) = rig.hear_end(&mut peer);
    assert_eq!((heard.len(), end), (bytes.len(), Heard::Finished));
    assert!(heard == bytes, "the bytes differ");
    assert_eq!(crate::cases::send::sent(&mut rig, op).len(), bytes.len());
    rig.closed(socket);
}

fn a_close_that_flushes_lets_no_send_be_cancelled(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.send_queue_bytes_max(64 << 20));
    let (stream, mut peer) = rig.connection();
    let socket = stream.socket();
    let bytes = noise(8 << 20);
    let first = stream.send_reported(bytes.clone()).expect("room");
    let last = stream.send_reported("the end").expect("room");
    rig.pump(Duration::ZERO);
    stream.close(Close::Flush).expect("it is open");
    assert_eq!(rig.port.cancel(first), Cancel::NotFound);
    assert_eq!(rig.port.cancel(last), Cancel::NotFound);
    let (heard, end) = rig.hear_end(&mut peer);
    assert_eq!((heard.len(), end), (bytes.len() + 7, Heard::Finished));
    assert!(heard.starts_with(&bytes) && heard.ends_with(b"the end"));
    crate::cases::send::sent(&mut rig, first);
    crate::cases::send::sent(&mut rig, last);
    rig.closed(socket);
    rig.expect_nothing();
}

fn a_flush_ends_in_time(at: &Where, timers_max: u32) {
    let mut rig = Rig::with(at, |builder| {
        builder
            .flush_max(Duration::from_millis(30))
            .timers_max(timers_max)
    });
    let far = Instant::now() + Duration::from_secs(3_600);
    let timer = rig.port.timer(far, Key(1)).expect("the first");
    let (stream, mut peer) = rig.connection();
    let socket = stream.socket();
    let op = stream.send(vec![0; 64 << 20]).expect("an empty queue");
    stream.close(Close::Flush).expect("it is open");
    let ended = rig.ended(op);
    assert_eq!(ended.how, End::Aborted);
    assert_eq!(ended.buffer.map(|buffer| buffer.len()), Some(64 << 20));
    rig.closed(socket);
    let (heard, end) = rig.hear_end(&mut peer);
    assert!(heard.len() < 64 << 20, "the peer did not read in time");
    assert_eq!(end, Heard::Reset, "a stream that is cut looks complete");
    rig.port.cancel(timer);
    rig.expect("its end", |packet| packet.op == timer);
}

fn a_flush_ends_at_its_bound(at: &Where) {
    a_flush_ends_in_time(at, 100);
}

fn a_flush_is_bounded_though_all_timers_are_set(at: &Where) {
    a_flush_ends_in_time(at, 1);
}

fn a_resetting_close_sends_rst_and_no_fin(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let socket = stream.socket();
    let op = stream.send(vec![0; 16 << 20]).expect("an empty queue");
    rig.pump(Duration::ZERO);
    stream.close(Close::Reset).expect("it is open");
    assert_eq!(rig.ended(op).how, End::Aborted);
    rig.closed(socket);
    rig.hear_reset(&mut peer);
    let (stream, mut peer) = rig.connection();
    let socket = stream.socket();
    stream.close(Close::Reset).expect("it is open");
    rig.closed(socket);
    rig.hear_reset(&mut peer);
}

fn every_queued_send_ends_once_when_closed(at: &Where) {
    for how in [Close::Flush, Close::Reset] {
        let mut rig = Rig::with(at, |builder| {
            builder
                .flush_max(Duration::from_millis(20))
                .send_queue_bytes_max(64 << 20)
        });
        let (stream, _peer) = rig.connection();
        let socket = stream.socket();
        let send = |_| stream.send_reported(vec![7; 1 << 20]).expect("room");
        let ops: Vec<Op> = (0..32).map(send).collect();
        stream.close(how).expect("it is open");
        let mut outcomes = HashMap::new();
        while outcomes.len() < ops.len() {
            let packet = rig.next("the end of a send");
            let sent = match packet.event {
                Event::Sent { buffer, .. } => {
                    assert_eq!(buffer.len(), 1 << 20);
                    true
                }
                Event::SendFailed {
                    how: End::Aborted,
                    buffer,
                    ..
                } => {
                    assert_eq!(buffer.len(), 1 << 20);
                    false
                }
                other => panic!("not asked for: {other:?}"),
            };
            assert_eq!(outcomes.insert(packet.op, sent), None, "one outcome each");
        }
        rig.closed(socket);
        let sent: Vec<bool> = ops.iter().map(|op| outcomes[op]).collect();
        assert!(
            sent.is_sorted_by(|a, b| a >= b),
            "first those that went out: {sent:?}"
        );
        assert!(!sent[31], "the peer reads nothing");
        rig.expect_nothing();
    }
}

fn unread_input_does_not_destroy_output(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let socket = stream.socket();
    rig.say(&mut peer, &noise(50_000));
    stream.send(vec![b'o'; 300_000]).expect("an empty queue");
    stream.close(Close::Flush).expect("it is open");
    rig.closed(socket);
    let (heard, end) = rig.hear_end(&mut peer);
    assert_eq!((heard.len(), end), (300_000, Heard::Finished));
}

fn a_socket_set_aside_stays_open(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let socket = stream.set_aside();
    rig.expect_nothing();
    assert_eq!(peer.try_receive(1), Heard::Nothing);
    socket.send("held").expect("an empty queue");
    assert_eq!(rig.hear(&mut peer, 4), b"held");
    assert_eq!(rig.port.stats().sockets, 2);
}

fn packets_never_cross_to_the_next_socket(at: &Where) {
    let mut rig = Rig::new(at);
    for round in 0..200u8 {
        let (stream, mut peer) = rig.connection();
        stream.socket().receive().expect("nothing else reads");
        // A packet of the first is on its way, or in a batch, when the second takes its slot.
        rig.say(&mut peer, &[round, 1]);
        if round % 2 == 0 {
            while !matches!(rig.waiter().wait(None).expect("waits"), Wait::Packets(_)) {}
        }
        drop(stream);
        let mut next_peer = rig.dial();
        let accepted = rig.accepted();
        let key = Key(1_000 + u64::from(round));
        let next = rig.port.associate(accepted, key).expect("room");
        next.socket().receive().expect("nothing else reads");
        rig.say(&mut next_peer, &[round, 2]);
        let packet = rig.expect("the second's bytes", |packet| packet.key == key);
        assert_eq!(packet.socket, next.socket());
        assert!(matches!(&packet.event, Event::Received(lease) if **lease == [round, 2]));
        drop(packet);
        let first = Key(FIRST.0 + u64::from(round));
        let crossed = rig.find(|packet| packet.key == first);
        assert!(crossed.is_none(), "after its drop: {crossed:?}");
    }
}

fn ends_in_every_order_at_a_high_rate(at: &Where) {
    let before = system::descriptors();
    let mut rig = Rig::new(at);
    rig.allowed.packets = true;
    let mut closing = Vec::new();
    for round in 0..600u32 {
        let (stream, mut peer) = rig.connection();
        let receive = stream.socket().receive().expect("nothing else reads");
        stream.send(vec![0; 1_000]).expect("an empty queue");
        if round % 2 == 0 {
            rig.say(&mut peer, b"something");
        }
        if round % 3 == 0 {
            rig.port.cancel(receive);
        }
        if round % 5 == 0 {
            // The peer's reset, which comes at any time, may have ended it.
            let _ = stream.shutdown();
        }
        match round % 4 {
            0 => peer.reset(),
            1 => peer.finish(),
            2 => drop(peer),
            _ => {}
        }
        match round % 7 {
            0..=2 => drop(stream),
            3 | 4 => closing.extend(stream.close(Close::Flush)),
            _ => closing.extend(stream.close(Close::Reset)),
        }
    }
    for op in closing {
        let packet = rig.expect("its Closed", |packet| packet.op == op);
        assert!(matches!(packet.event, Event::Closed));
    }
    rig.until_stats("all are closed", |stats| {
        stats.sockets == 1 && stats.leases <= 4_000
    });
    drop(rig);
    system::assert_descriptors(before);
}

fn closing_one_of_many_disturbs_no_other(at: &Where) {
    let mut rig = Rig::new(at);
    let mut ends: Vec<_> = (0..50).map(|_| rig.connection()).collect();
    for (stream, _) in &ends {
        stream.socket().receive().expect("nothing else reads");
    }
    while ends.len() > 1 {
        let (stream, _peer) = ends.swap_remove(ends.len() / 2);
        drop(stream);
        let (stream, peer) = ends.first_mut().expect("one is left");
        rig.say(peer, b"x");
        assert_eq!(rig.receive(stream.socket(), 1), b"x");
    }
}
