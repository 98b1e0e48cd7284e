//! Receiving: every byte once and in order, and an end that says how.

use std::thread;
use std::time::Duration;

use wharf_port::{End, ErrorKind, Event, Key, SocketRef};

use crate::rig::case::{Case, Inapplicable, Where, a_system, case};
use crate::rig::{Rig, noise};

pub(crate) const CASES: &[Case] = &[
    case!(a_receive_waits_for_data, [C2, C8], "wine sock.c"),
    case!(
        data_that_was_there_first_comes_once,
        [C2],
        "wine sock.c, libuv #5282"
    ),
    case!(
        a_fin_ends_the_receive_in_order,
        [C9, C2],
        "wine sock.c, asio tcp.cpp"
    ),
    case!(a_reset_ends_the_receive_once, [C9, C2], "wine sock.c"),
    case!(a_receive_after_a_reset_is_reset_again, [C9], "wine sock.c"),
    case!(
        bytes_come_before_the_end_that_follows_them,
        [C6, C8],
        "contract"
    ),
    case!(
        a_stream_of_bytes_arrives_in_order,
        [C6],
        "io_uring measured: concurrent receives reverse"
    ),
    case!(
        an_empty_receive_waits_for_data_and_takes_none,
        [C2],
        "wine sock.c"
    ),
    case!(
        an_empty_receive_waits_behind_an_exact_fill,
        [C2],
        "asio tcp.cpp"
    ),
    case!(
        two_receives_fill_in_order,
        [C6],
        "wine sock.c, io_uring measured: reversed 50 of 50"
    ),
    case!(a_receive_into_says_how_much_is_new, [C3, C2], "contract"),
    case!(a_receive_into_ends_with_its_buffer, [C3, C9], "contract"),
    case!(only_one_operation_reads_at_a_time, [C13, C3], "contract"),
    case!(
        receives_are_refused_at_the_bound_with_their_buffer,
        [C13, C3],
        "contract"
    ),
    case!(
        receiving_on_an_unconnected_socket_says_so,
        [C9],
        "wine sock.c"
    )
    .skip(a_system),
    case!(
        the_sockets_own_receive_timeout_does_not_apply,
        [C2],
        "wine sock.c"
    )
    .skip(a_system),
    case!(
        an_operation_outlives_its_thread,
        [C4],
        "wine afd.c, neon #11446"
    ),
    case!(sockets_may_share_a_key, [C1], "contract"),
    case!(
        a_buffer_over_four_gibibytes_receives,
        [C3],
        "compio #600, #613"
    )
    .skip(large_memory),
];

pub(crate) const INAPPLICABLE: &[Inapplicable] = &[
    Inapplicable {
        name: "out_parameters_outlive_the_call",
        source: "zio #558",
        reason: "a driver passes the system nothing that lives on a stack; revoked pages in \
                 `dropping_a_port_with_everything_in_flight` would show a late write",
    },
    Inapplicable {
        name: "32-bit layouts",
        source: "ferron #662, vibeio 0.2.4",
        reason: "no 32-bit target is built",
    },
];

/// The buffer is never touched, but some systems count it all the same.
fn large_memory(at: &Where) -> Option<&'static str> {
    a_system(at).or_else(|| at.wine.then_some("Wine commits the whole buffer"))
}

fn a_receive_waits_for_data(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let op = stream.socket().receive().expect("nothing else reads");
    rig.expect_nothing();
    rig.say(&mut peer, b"twelve bytes");
    let packet = rig.next("the bytes");
    assert_eq!(
        (packet.op, packet.socket, packet.key),
        (op, stream.socket(), Key(100))
    );
    assert!(matches!(&packet.event, Event::Received(lease) if **lease == *b"twelve bytes"));
    drop(packet);
    rig.expect_nothing();
}

fn data_that_was_there_first_comes_once(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    rig.say(&mut peer, b"early");
    rig.expect_nothing();
    stream.socket().receive().expect("nothing else reads");
    assert_eq!(rig.receive(stream.socket(), 5), b"early");
    rig.expect_nothing();
}

fn a_fin_ends_the_receive_in_order(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let first = stream.socket().receive().expect("nothing else reads");
    peer.finish();
    assert_eq!(rig.ended(first).how, End::Finished);
    rig.expect_nothing();
    let second = stream.socket().receive().expect("the first is over");
    assert_eq!(rig.ended(second).how, End::Finished);
    rig.expect_nothing();
}

pub(crate) fn failed_as(how: End) -> ErrorKind {
    match how {
        End::Failed(error) => error.kind(),
        other => panic!("not an error: {other:?}"),
    }
}

fn a_reset_ends_the_receive_once(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, peer) = rig.connection();
    let receive = stream.socket().receive().expect("nothing else reads");
    rig.expect_nothing();
    peer.reset();
    assert_eq!(failed_as(rig.ended(receive).how), ErrorKind::Reset);
    rig.expect_nothing();
}

fn a_receive_after_a_reset_is_reset_again(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, peer) = rig.connection();
    let receive = stream.socket().receive().expect("nothing else reads");
    peer.reset();
    assert_eq!(failed_as(rig.ended(receive).how), ErrorKind::Reset);
    for _ in 0..2 {
        let again = stream.socket().receive().expect("the one before is over");
        assert_eq!(
            failed_as(rig.ended(again).how),
            ErrorKind::Reset,
            "not an end in order"
        );
        let into = stream
            .socket()
            .receive_into(vec![7; 8])
            .expect("the one before is over");
        let ended = rig.ended(into);
        assert_eq!(failed_as(ended.how), ErrorKind::Reset);
        assert_eq!(ended.buffer, Some(vec![7; 8]));
    }
    rig.expect_nothing();
}

fn bytes_come_before_the_end_that_follows_them(at: &Where) {
    let mut rig = Rig::new(at);
    for _ in 0..50 {
        let (stream, mut peer) = rig.connection();
        rig.say(&mut peer, b"last words");
        peer.finish();
        let op = stream.socket().receive().expect("nothing else reads");
        assert_eq!(rig.receive(stream.socket(), 10), b"last words");
        assert_eq!(rig.ended(op).how, End::Finished);
    }
}

fn a_stream_of_bytes_arrives_in_order(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let op = stream.socket().receive().expect("nothing else reads");
    let bytes = noise(4 << 20);
    let (mut sent, mut received) = (0, Vec::with_capacity(bytes.len()));
    let how = rig.until("all bytes and the end", |rig| {
        if sent < bytes.len() {
            let end = bytes.len().min(sent + (64 << 10));
            let count = peer.try_send(&bytes[sent..end]);
            sent += count.expect("the port's side stays");
            if sent == bytes.len() {
                peer.finish();
            }
        }
        let packet = rig.find(|_| true)?;
        match packet.event {
            Event::Received(lease) => received.extend_from_slice(&lease),
            Event::Ended { how, .. } if packet.op == op => return Some(how),
            other => panic!("not asked for: {other:?}"),
        }
        None
    });
    assert_eq!(how, End::Finished);
    assert!(received == bytes, "the bytes differ");
}

/// What came into the buffer of the next `receive_into` of this socket.
fn filled(rig: &mut Rig, socket: SocketRef) -> (Vec<u8>, usize) {
    let packet = rig.expect("a filled buffer", |packet| {
        packet.socket == socket && matches!(packet.event, Event::ReceivedInto { .. })
    });
    match packet.event {
        Event::ReceivedInto { buffer, count, .. } => (buffer, count),
        other => panic!("not asked for: {other:?}"),
    }
}

fn an_empty_receive_waits_for_data_and_takes_none(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    stream
        .socket()
        .receive_into(Vec::new())
        .expect("nothing else reads");
    rig.expect_nothing();
    rig.say(&mut peer, b"data");
    assert_eq!(filled(&mut rig, stream.socket()), (Vec::new(), 0));
    stream
        .socket()
        .receive_into(Vec::new())
        .expect("the first is over");
    assert_eq!(
        filled(&mut rig, stream.socket()),
        (Vec::new(), 0),
        "it is still there"
    );
    stream
        .socket()
        .receive_into(vec![0; 4])
        .expect("the others are over");
    assert_eq!(filled(&mut rig, stream.socket()), (b"data".to_vec(), 4));
    rig.expect_nothing();
}

fn an_empty_receive_waits_behind_an_exact_fill(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    stream
        .socket()
        .receive_into(vec![0; 4])
        .expect("nothing else reads");
    rig.say(&mut peer, b"full");
    assert_eq!(filled(&mut rig, stream.socket()), (b"full".to_vec(), 4));
    stream
        .socket()
        .receive_into(Vec::new())
        .expect("the first is over");
    rig.expect_nothing();
    rig.say(&mut peer, b"more");
    assert_eq!(filled(&mut rig, stream.socket()), (Vec::new(), 0));
    stream
        .socket()
        .receive_into(vec![0; 4])
        .expect("the others are over");
    assert_eq!(filled(&mut rig, stream.socket()), (b"more".to_vec(), 4));
}

fn two_receives_fill_in_order(at: &Where) {
    let mut rig = Rig::new(at);
    for _ in 0..20 {
        let (stream, mut peer) = rig.connection();
        let ops = [(); 3].map(|()| stream.socket().receive_into(vec![0; 4]).expect("room"));
        rig.expect_nothing();
        rig.say(&mut peer, b"AAAABBBBCCCC");
        for (op, expected) in ops.into_iter().zip([b"AAAA", b"BBBB", b"CCCC"]) {
            let packet = rig.next("a filled buffer");
            assert_eq!(packet.op, op, "in the order of asking");
            let Event::ReceivedInto { buffer, count, .. } = packet.event else {
                panic!("a buffer was asked for");
            };
            assert_eq!((&buffer[..], count), (&expected[..], 4));
        }
    }
}

fn a_receive_into_says_how_much_is_new(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    stream
        .socket()
        .receive_into(vec![7; 16])
        .expect("nothing else reads");
    rig.say(&mut peer, b"five!");
    let (buffer, count) = filled(&mut rig, stream.socket());
    assert_eq!(
        (buffer.len(), count),
        (16, 5),
        "the buffer keeps its length"
    );
    assert_eq!(&buffer[..5], b"five!");
    assert_eq!(buffer[5..], [7; 11], "and the rest is as it was");
}

fn a_receive_into_ends_with_its_buffer(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let first = stream
        .socket()
        .receive_into(vec![7; 4])
        .expect("nothing else reads");
    let second = stream.socket().receive_into(vec![8; 4]).expect("room");
    peer.finish();
    for (op, byte) in [(first, 7), (second, 8)] {
        let ended = rig.ended(op);
        assert_eq!(
            (ended.how, ended.buffer),
            (End::Finished, Some(vec![byte; 4]))
        );
        assert_eq!(ended.count, Some(0));
    }
    rig.expect_nothing();
}

fn only_one_operation_reads_at_a_time(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    assert_eq!(
        stream.socket().receive().unwrap_err().kind(),
        ErrorKind::Busy
    );
    assert_eq!(stream.socket().watch().unwrap_err().kind(), ErrorKind::Busy);
    let refused = stream.socket().receive_into(vec![9; 3]).unwrap_err();
    assert_eq!(
        (refused.error.kind(), refused.value),
        (ErrorKind::Busy, vec![9; 3])
    );
    rig.say(&mut peer, b"once");
    assert_eq!(rig.receive(stream.socket(), 4), b"once");
    let (watched, _watched_peer) = rig.connection();
    watched.socket().watch().expect("nothing else reads");
    assert_eq!(
        watched.socket().receive().unwrap_err().kind(),
        ErrorKind::Busy
    );
    rig.expect_nothing();
}

fn receives_are_refused_at_the_bound_with_their_buffer(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.operations_per_socket_max(2));
    let (stream, mut peer) = rig.connection();
    for _ in 0..2 {
        stream
            .socket()
            .receive_into(vec![0; 1])
            .expect("room for two");
    }
    let refused = stream.socket().receive_into(vec![9; 3]).unwrap_err();
    assert_eq!(
        (refused.error.kind(), refused.value),
        (ErrorKind::Full, vec![9; 3])
    );
    rig.say(&mut peer, b"ab");
    assert_eq!(filled(&mut rig, stream.socket()), (b"a".to_vec(), 1));
    assert_eq!(filled(&mut rig, stream.socket()), (b"b".to_vec(), 1));
    rig.expect_nothing();
}

fn receiving_on_an_unconnected_socket_says_so(at: &Where) {
    let mut rig = Rig::new(at);
    let tcp = socket2::Protocol::TCP;
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, Some(tcp));
    let stream = rig.associate(socket.expect("a socket"));
    // Either result is one outcome: the system may refuse the request, or end it.
    match stream.socket().receive_into(vec![7; 4]) {
        Err(refused) => {
            assert_eq!(refused.error.kind(), ErrorKind::NotConnected);
            assert_eq!(refused.value, vec![7; 4]);
        }
        Ok(op) => {
            let ended = rig.ended(op);
            assert_eq!(failed_as(ended.how), ErrorKind::NotConnected);
            assert_eq!(ended.buffer, Some(vec![7; 4]));
        }
    }
    rig.expect_nothing();
}

fn the_sockets_own_receive_timeout_does_not_apply(at: &Where) {
    let mut rig = Rig::new(at);
    let host = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback");
    let address = host.local_addr().expect("a bound socket");
    let mut peer = rig.network.connect(&address.into());
    let (socket, _) = host.accept().expect("the peer has connected");
    socket
        .set_read_timeout(Some(Duration::from_millis(5)))
        .expect("an open socket");
    let stream = rig.port.associate(socket, Key(1)).expect("room");
    stream.socket().receive().expect("nothing else reads");
    rig.expect_nothing();
    rig.say(&mut peer, b"late");
    assert_eq!(rig.receive(stream.socket(), 4), b"late");
}

fn an_operation_outlives_its_thread(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let socket = stream.socket();
    let submit = move || {
        socket.receive().expect("nothing else reads");
        socket
            .send_reported("from a thread that is gone")
            .expect("an empty queue");
    };
    thread::spawn(submit).join().expect("it submits");
    let packet = rig.expect("the send's end", |packet| {
        matches!(packet.event, Event::Sent { .. })
    });
    drop(packet);
    assert_eq!(rig.hear(&mut peer, 26), b"from a thread that is gone");
    rig.expect_nothing();
    rig.say(&mut peer, b"and an answer");
    assert_eq!(rig.receive(socket, 13), b"and an answer");
}

fn sockets_may_share_a_key(at: &Where) {
    let mut rig = Rig::new(at);
    let mut ends = Vec::new();
    for name in 0..4u8 {
        let mut peer = rig.dial();
        let accepted = rig.accepted();
        let stream = rig.port.associate(accepted, Key(0)).expect("room");
        stream.socket().receive().expect("nothing else reads");
        rig.say(&mut peer, &[name]);
        ends.push((stream, peer));
    }
    for (name, (stream, _)) in ends.iter().enumerate() {
        let packet = rig.expect("a byte", |packet| packet.socket == stream.socket());
        assert_eq!(packet.key, Key(0));
        assert!(matches!(&packet.event, Event::Received(lease) if usize::from(lease[0]) == name));
    }
}

fn a_buffer_over_four_gibibytes_receives(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let Some(bytes) = usize::try_from((4u64 << 30) + 16).ok() else {
        panic!("no 32-bit target is built");
    };
    stream
        .socket()
        .receive_into(vec![0; bytes])
        .expect("nothing else reads");
    rig.say(&mut peer, b"small");
    let (buffer, count) = filled(&mut rig, stream.socket());
    assert_eq!((buffer.len(), count), (bytes, 5));
    assert_eq!(&buffer[..5], b"small");
}
