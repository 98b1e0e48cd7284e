//! Changes that come before the driver looks, and changes without an event.
//!
//! A readiness driver sees each change once. What it sees while a socket is still a connect, or a
//! listener that pauses, must hold afterwards. A read that returns less than it could is no proof
//! that there is nothing more.

use std::io::Write;
use std::net::{TcpListener, TcpStream};

use socket2::SockRef;
use wharf_port::{End, ErrorKind, Event, Key, Leave, Stream};

use crate::cases::connect::{connected, taken};
use crate::cases::watch::fin_behind_data;
use crate::rig::Rig;
use crate::rig::case::{Case, Where, a_system, case, unix_sockets};
use crate::rig::peer::Host;
use crate::rig::system;

pub(crate) const CASES: &[Case] = &[
    case!(
        a_peer_that_sent_and_left_before_the_connect_packet_ends,
        [C2, C11],
        "contract"
    ),
    case!(
        a_watch_sees_a_peer_that_left_before_the_connect_packet,
        [C2, C11],
        "contract"
    )
    .skip(fin_behind_data),
    case!(
        a_watch_sees_a_silent_peer_that_left_before_the_connect_packet,
        [C2, C11],
        "contract"
    ),
    case!(
        a_receive_into_an_empty_buffer_reports_a_reset,
        [C9, C2],
        "found from outside: uring called it success, and poll a reset"
    ),
    case!(
        data_that_came_without_a_receive_is_delivered,
        [C2, C10],
        "contract"
    ),
    case!(
        data_that_came_during_a_pause_is_delivered,
        [C2, C8],
        "contract"
    ),
    case!(urgent_data_holds_up_no_stream, [C6, C8], "contract").skip(a_system),
    case!(
        an_urgent_byte_is_in_line_where_the_socket_says_so,
        [C6, C8],
        "contract"
    )
    .skip(a_system),
    case!(
        passed_descriptors_hold_up_no_stream_and_are_closed,
        [C6, C8, C19],
        "contract"
    )
    .skip(unix_sockets),
];

/// A connect whose peer has sent and closed before this thread looks for the first time.
fn connected_late(rig: &mut Rig, host: &mut Box<dyn Host>, said: &[u8]) -> Stream {
    let op = rig.port.connect(host.address(), Key(5)).expect("room");
    // It pumps only if a waiter submits the connect.
    let mut peer = taken(rig, host);
    assert_eq!(peer.try_send(said), Some(said.len()), "an empty buffer");
    drop(peer);
    connected(rig, op)
}

fn a_peer_that_sent_and_left_before_the_connect_packet_ends(at: &Where) {
    let mut rig = Rig::new(at);
    let mut host = rig.network.listen();
    let stream = connected_late(&mut rig, &mut host, b"bye");
    let op = stream.socket().receive().expect("nothing else reads");
    assert_eq!(rig.receive(stream.socket(), 3), b"bye");
    assert_eq!(rig.ended(op).how, End::Finished);
    let stream = connected_late(&mut rig, &mut host, b"bye");
    let first = stream.socket().receive_into(vec![0; 100]).expect("room");
    let second = stream.socket().receive_into(vec![0; 100]).expect("room");
    let packet = rig.expect("the bytes", |packet| packet.op == first);
    assert!(matches!(packet.event, Event::ReceivedInto { count: 3, .. }));
    assert_eq!(rig.ended(second).how, End::Finished);
    rig.expect_nothing();
}

fn a_watch_sees_a_peer_that_left_before_the_connect_packet(at: &Where) {
    let mut rig = Rig::new(at);
    let mut host = rig.network.listen();
    let stream = connected_late(&mut rig, &mut host, b"bye");
    stream.socket().watch().expect("nothing else reads");
    let packet = rig.next("the peer's leaving");
    assert!(matches!(packet.event, Event::PeerLeft(Leave::Finished)));
    let op = stream.socket().receive().expect("the watch is over");
    assert_eq!(rig.receive(stream.socket(), 3), b"bye");
    assert_eq!(rig.ended(op).how, End::Finished);
    rig.expect_nothing();
}

/// Its event reports data to read, and comes before the watch.
fn a_watch_sees_a_silent_peer_that_left_before_the_connect_packet(at: &Where) {
    let mut rig = Rig::new(at);
    let mut host = rig.network.listen();
    let stream = connected_late(&mut rig, &mut host, b"");
    stream.socket().watch().expect("nothing else reads");
    let packet = rig.next("the peer's leaving");
    assert!(matches!(packet.event, Event::PeerLeft(Leave::Finished)));
    rig.expect_nothing();
}

fn data_that_came_without_a_receive_is_delivered(at: &Where) {
    let mut rig = Rig::new(at);
    for said in [b"".as_slice(), b"bye"] {
        let (stream, mut peer) = rig.connection();
        let op = stream.socket().receive().expect("nothing else reads");
        rig.say(&mut peer, b"hello");
        assert_eq!(rig.receive(stream.socket(), 5), b"hello");
        rig.port.cancel(op);
        assert_eq!(rig.ended(op).how, End::Cancelled);
        rig.say(&mut peer, said);
        peer.finish();
        // What the system reports now concerns a socket that does nothing.
        rig.expect_nothing();
        if said.is_empty() {
            stream.socket().watch().expect("nothing else reads");
            let packet = rig.next("the peer's leaving");
            assert!(matches!(packet.event, Event::PeerLeft(Leave::Finished)));
        }
        let op = stream.socket().receive().expect("nothing else reads");
        assert_eq!(rig.receive(stream.socket(), said.len()), said);
        assert_eq!(rig.ended(op).how, End::Finished);
    }
    rig.expect_nothing();
}

fn data_that_came_during_a_pause_is_delivered(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.leases_per_socket(1));
    let (stream, mut peer) = rig.connection();
    let op = stream.socket().receive().expect("nothing else reads");
    rig.say(&mut peer, b"hello");
    let lease = rig.lease(stream.socket());
    rig.say(&mut peer, b"bye");
    peer.finish();
    rig.expect_nothing();
    drop(lease);
    assert_eq!(rig.receive(stream.socket(), 3), b"bye");
    assert_eq!(rig.ended(op).how, End::Finished);
    rig.expect_nothing();
}

/// A read stops before the urgent byte, and the data after it needs no further event.
fn urgent_data_holds_up_no_stream(at: &Where) {
    let mut rig = Rig::new(at);
    let address = rig.address().as_socket_addr().expect("an internet address");
    let mut far = TcpStream::connect(address).expect("the rig listens");
    far.set_nodelay(true).expect("an open socket");
    let accepted = rig.accepted();
    let stream = rig.port.associate(accepted, Key(5)).expect("room");
    let mut speak = |urgent: bool| {
        far.write_all(b"abc").expect("it is connected");
        if urgent {
            let sent = SockRef::from(&far).send_out_of_band(b"!");
            assert_eq!(sent.expect("it is connected"), 1);
        }
        far.write_all(b"def").expect("it is connected");
    };
    // All of it before the first read; and between two reads of a stream.
    speak(true);
    let op = stream.socket().receive().expect("nothing else reads");
    assert_eq!(rig.receive(stream.socket(), 6), b"abcdef");
    speak(false);
    assert_eq!(rig.receive(stream.socket(), 6), b"abcdef");
    speak(true);
    assert_eq!(rig.receive(stream.socket(), 6), b"abcdef");
    rig.port.cancel(op);
    assert_eq!(rig.ended(op).how, End::Cancelled);
    speak(true);
    let into = [4, 4].map(|bytes| stream.socket().receive_into(vec![0; bytes]).expect("room"));
    let mut heard = Vec::new();
    for op in into {
        let packet = rig.expect("the bytes", |packet| packet.op == op);
        match packet.event {
            Event::ReceivedInto { buffer, count, .. } => heard.extend_from_slice(&buffer[..count]),
            other => panic!("not asked for: {other:?}"),
        }
    }
    assert_eq!(heard, b"abcdef");
    speak(true);
    drop(far);
    let op = stream.socket().receive().expect("nothing else reads");
    assert_eq!(rig.receive(stream.socket(), 6), b"abcdef");
    assert_eq!(rig.ended(op).how, End::Finished);
    rig.expect_nothing();
}

fn an_urgent_byte_is_in_line_where_the_socket_says_so(at: &Where) {
    let mut rig = Rig::new(at);
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback listens");
    let address = listener.local_addr().expect("a bound socket");
    let mut far = TcpStream::connect(address).expect("it listens");
    far.set_nodelay(true).expect("an open socket");
    let (near, _) = listener.accept().expect("it has connected");
    let inline = SockRef::from(&near).set_out_of_band_inline(true);
    inline.expect("an open socket");
    far.write_all(b"abc").expect("it is connected");
    let sent = SockRef::from(&far).send_out_of_band(b"!");
    assert_eq!(sent.expect("it is connected"), 1);
    far.write_all(b"def").expect("it is connected");
    let stream = rig.port.associate(near, Key(5)).expect("room");
    stream.socket().receive().expect("nothing else reads");
    assert_eq!(rig.receive(stream.socket(), 7), b"abc!def");
}

/// A read stops after a message with a descriptor. The program has not requested it, so the system
/// closes it.
fn passed_descriptors_hold_up_no_stream_and_are_closed(at: &Where) {
    let mut rig = Rig::new(at);
    let (near, far) = system::unix_pair();
    let stream = rig.port.associate(near, Key(5)).expect("room");
    for first in [true, false] {
        let passed = far.pass(b"abc");
        far.say(b"def");
        if first {
            stream.socket().receive().expect("nothing else reads");
        }
        assert_eq!(rig.receive(stream.socket(), 6), b"abcdef");
        rig.until("the end of what was passed", |_| {
            passed.is_closed().then_some(())
        });
    }
    // And a last one right before the end.
    let passed = far.pass(b"abc");
    far.say(b"def");
    far.leave();
    assert_eq!(rig.receive(stream.socket(), 6), b"abcdef");
    let packet = rig.next("the end");
    assert!(matches!(
        packet.event,
        Event::Ended {
            how: End::Finished,
            ..
        }
    ));
    assert!(passed.is_closed());
    rig.expect_nothing();
}

fn a_receive_into_an_empty_buffer_reports_a_reset(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, peer) = rig.connection();
    let op = stream.socket().receive_into(Vec::new()).expect("free");
    rig.expect_nothing();
    peer.reset();
    let packet = rig.expect("the end", |packet| packet.op == op);
    let Event::Ended { how, buffer, .. } = packet.event else {
        rig.fail(&format!("{:?} of a connection that is reset", packet.event));
    };
    assert_eq!(how.error_kind(), Some(ErrorKind::Reset));
    assert_eq!(buffer, Some(Vec::new()));
    rig.expect_silence_of(op);
}
