//! Connecting: one packet each, with the stream or with why there is none.

use std::collections::HashSet;
use std::time::Duration;

use wharf_port::{Cancel, ConnectOptions, End, ErrorKind, Event, Key, Op, Operation, Stream};

use crate::case::{Case, Driver, Inapplicable, Where, a_system, case, ipv6, unix_sockets};
use crate::peer::{Host, Peer};
use crate::receive::failed_as;
use crate::rig::Rig;
use crate::system;

pub(crate) const CASES: &[Case] = &[
    case!(
        a_connect_brings_the_stream_with_its_key,
        [C1, C2],
        "wine sock.c"
    ),
    case!(a_refused_connect_is_a_packet, [C2, C9], "wine sock.c"),
    case!(
        a_connect_without_a_source_gets_one,
        [C2],
        "cpython windows_events.py, wine sock.c"
    ),
    case!(a_connect_comes_from_the_source_it_names, [C19], "contract").skip(a_system),
    case!(sixty_four_connects_end_once_each, [C2], "contract"),
    case!(
        a_stream_nobody_took_is_closed,
        [C2, C11],
        "tokio #7979, compio #315"
    ),
    case!(
        cancelling_a_connect_ends_it_once,
        [C10, C2],
        "libuv test-tcp-close-while-connecting.c"
    )
    .skip(silence),
    case!(a_connect_runs_into_its_deadline, [C9, C17], "contract").skip(silence),
    case!(
        a_deadline_that_is_not_reached_does_nothing,
        [C17],
        "contract"
    ),
    case!(a_port_may_connect_to_its_own_listener, [C1], "contract"),
    case!(a_connect_over_version_6, [C2], "contract").skip(v6),
    case!(a_connect_to_a_unix_socket, [C2, C9], "contract").skip(unix_sockets),
];

pub(crate) const INAPPLICABLE: &[Inapplicable] = &[
    Inapplicable {
        name: "close_while_connecting",
        source: "libuv test-tcp-close-while-connecting.c",
        reason: "there is no stream to close before `Connected` brings it; its connect is \
                 cancelled in `cancelling_a_connect_ends_it_once`",
    },
    Inapplicable {
        name: "connect_unbound_fails_sync",
        source: "wine sock.c",
        reason: "the port binds by itself: `a_connect_without_a_source_gets_one`",
    },
];

/// Windows answers for a listener whose backlog is full, with a refusal.
fn silence(at: &Where) -> Option<&'static str> {
    (at.driver == Driver::Iocp)
        .then_some("on Windows no address of this machine leaves a connect unanswered")
}

fn v6(at: &Where) -> Option<&'static str> {
    a_system(at).or_else(|| ipv6(at))
}

pub(crate) fn connected(rig: &mut Rig, op: Op) -> Stream {
    let packet = rig.expect("the end of a connect", |packet| packet.op == op);
    match packet.event {
        Event::Connected(stream) => {
            assert_eq!(stream.socket(), packet.socket);
            assert_eq!(stream.key().ok(), Some(packet.key));
            stream
        }
        other => panic!("it did not connect: {other:?}"),
    }
}

pub(crate) fn taken(rig: &mut Rig, host: &mut Box<dyn Host>) -> Box<dyn Peer> {
    rig.until("a connection for the far end", |_| host.try_accept())
}

fn talk(rig: &mut Rig, stream: &Stream, peer: &mut Box<dyn Peer>) {
    stream.receive().expect("nothing else reads");
    stream.send("hello").expect("an empty queue");
    assert_eq!(rig.hear(peer, 5), b"hello");
    rig.say(peer, b"hello you");
    assert_eq!(rig.receive(stream.socket(), 9), b"hello you");
}

fn a_connect_brings_the_stream_with_its_key(at: &Where) {
    let mut rig = Rig::new(at);
    let mut host = rig.network.listen();
    let op = rig
        .port
        .connect(host.address(), Key(u64::MAX))
        .expect("room");
    let stream = connected(&mut rig, op);
    assert_eq!(stream.key().expect("it is open"), Key(u64::MAX));
    let mut peer = taken(&mut rig, &mut host);
    talk(&mut rig, &stream, &mut peer);
    rig.expect_nothing();
}

fn a_refused_connect_is_a_packet(at: &Where) {
    let mut rig = Rig::new(at);
    let (address, _guard) = rig.network.refusing();
    let op = rig
        .port
        .connect(address, Key(5))
        .expect("it is refused later");
    let packet = rig.next("the end of the connect");
    assert_eq!((packet.op, packet.key), (op, Key(5)));
    let Event::ConnectFailed {
        how: End::Failed(error),
    } = packet.event
    else {
        panic!("nobody listens there: {packet:?}");
    };
    assert_eq!(
        (error.kind(), error.operation()),
        (ErrorKind::Refused, Operation::Connect)
    );
    assert_eq!(
        packet.socket.receive().unwrap_err().kind(),
        ErrorKind::Closed
    );
    rig.expect_nothing();
    assert_eq!(rig.port.stats().sockets, 0);
}

fn a_connect_without_a_source_gets_one(at: &Where) {
    let mut rig = Rig::new(at);
    let mut host = rig.network.listen();
    let op = rig.port.connect(host.address(), Key(5)).expect("room");
    let stream = connected(&mut rig, op);
    let peer = taken(&mut rig, &mut host);
    let local = stream.local_address().expect("it is open").internet();
    assert!(local.is_some_and(|local| local.ip().is_loopback() && local.port() != 0));
    assert_eq!(
        stream.peer_address().expect("the peer stays"),
        peer.address()
    );
}

fn a_connect_comes_from_the_source_it_names(at: &Where) {
    let mut rig = Rig::new(at);
    let mut host = rig.network.listen();
    let source = ([127, 0, 0, 1], 0).into();
    let options = ConnectOptions::new(host.address()).source(source);
    let op = rig.port.connect(options, Key(5)).expect("room");
    let first = connected(&mut rig, op);
    let _first_peer = taken(&mut rig, &mut host);
    let local = first
        .local_address()
        .expect("it is open")
        .internet()
        .expect("of the internet");
    assert_eq!(local.ip(), source.ip());
    // The port number too, where one is named: here it is taken, and that has a kind.
    let options = ConnectOptions::new(host.address()).source(local);
    match rig.port.connect(options, Key(6)) {
        Err(error) => assert_eq!(error.kind(), ErrorKind::AddressInUse, "{error}"),
        Ok(op) => assert_eq!(failed_as(rig.ended(op).how), ErrorKind::AddressInUse),
    }
}

fn sixty_four_connects_end_once_each(at: &Where) {
    let mut rig = Rig::new(at);
    let mut host = rig.network.listen();
    let connect = |key| rig.port.connect(host.address(), Key(key)).expect("room");
    let ops: Vec<Op> = (0..64).map(connect).collect();
    let (mut peers, mut streams) = (Vec::new(), Vec::new());
    let mut left: HashSet<Op> = ops.into_iter().collect();
    rig.until("all connections", |rig| {
        peers.extend(host.try_accept());
        if let Some(packet) = rig.find(|_| true) {
            assert!(left.remove(&packet.op), "twice: {packet:?}");
            match packet.event {
                Event::Connected(stream) => streams.push(stream),
                other => panic!("it did not connect: {other:?}"),
            }
        }
        (left.is_empty() && peers.len() == 64).then_some(())
    });
    rig.expect_nothing();
}

fn a_stream_nobody_took_is_closed(at: &Where) {
    let mut rig = Rig::new(at);
    let mut host = rig.network.listen();
    rig.port.connect(host.address(), Key(5)).expect("room");
    let mut peer = taken(&mut rig, &mut host);
    let packet = rig.next("the stream");
    assert!(matches!(packet.event, Event::Connected(_)));
    drop(packet);
    rig.hear_finish(&mut peer);
    assert_eq!(rig.port.stats().sockets, 0);
}

fn cancelling_a_connect_ends_it_once(at: &Where) {
    let mut rig = Rig::new(at);
    let (address, _guard) = rig.network.silent();
    let op = rig.port.connect(address, Key(5)).expect("room");
    rig.expect_nothing();
    assert_eq!(rig.port.cancel(op), Cancel::Requested);
    assert_eq!(rig.ended(op).how, End::Cancelled);
    assert_eq!(rig.port.cancel(op), Cancel::NotFound);
    rig.expect_nothing();
    assert_eq!(rig.port.stats().sockets, 0);
}

fn a_connect_runs_into_its_deadline(at: &Where) {
    let mut rig = Rig::new(at);
    let (address, _guard) = rig.network.silent();
    let options = ConnectOptions::new(address).at_most(Duration::from_millis(30));
    let op = rig.port.connect(options, Key(5)).expect("room");
    let ended = rig.ended(op);
    assert_eq!(failed_as(ended.how), ErrorKind::TimedOut);
    rig.expect_nothing();
    assert_eq!(rig.port.stats().sockets, 0);
}

fn a_deadline_that_is_not_reached_does_nothing(at: &Where) {
    let mut rig = Rig::new(at);
    // A machine that stands still reaches a deadline before it has connected: that is no fault.
    let mut in_time = |at_most| {
        let host = rig.network.listen();
        let options = ConnectOptions::new(host.address()).at_most(at_most);
        let op = rig.port.connect(options, Key(5)).expect("room");
        let packet = rig.expect("the end of a connect", |packet| packet.op == op);
        match packet.event {
            Event::Connected(stream) => Some((stream, host)),
            Event::ConnectFailed { how } => {
                assert_eq!(failed_as(how), ErrorKind::TimedOut);
                None
            }
            other => panic!("not asked for: {other:?}"),
        }
    };
    let found = [200, 2_000, 20_000]
        .into_iter()
        .find_map(|millis| in_time(Duration::from_millis(millis)));
    let (stream, mut host) = found.expect("20 s are enough to connect");
    let mut peer = taken(&mut rig, &mut host);
    rig.until_stats("the deadline is over", |stats| stats.timers == 0);
    talk(&mut rig, &stream, &mut peer);
    rig.expect_nothing();
}

fn a_port_may_connect_to_its_own_listener(at: &Where) {
    let mut rig = Rig::new(at);
    let address = rig.address();
    let op = rig.port.connect(address, Key(5)).expect("room");
    let client = connected(&mut rig, op);
    let accepted = rig.accepted();
    let server = rig.port.associate(accepted, Key(6)).expect("room");
    server.receive().expect("nothing else reads");
    client.send("to myself").expect("an empty queue");
    assert_eq!(rig.receive(server.socket(), 9), b"to myself");
}

fn a_connect_over_version_6(at: &Where) {
    let mut rig = Rig::new(at);
    let listener = rig.listen((std::net::Ipv6Addr::LOCALHOST, 0));
    let address = listener.local_address().expect("a listener has an address");
    let op = rig.port.connect(address.clone(), Key(5)).expect("room");
    let client = connected(&mut rig, op);
    assert_eq!(client.peer_address().expect("it is open"), address);
    drop(rig.accepted());
}

fn a_connect_to_a_unix_socket(at: &Where) {
    let mut rig = Rig::new(at);
    let directory = system::Directory::new();
    let address = wharf_port::Address::unix(directory.path().join("socket"));
    let listener = rig.listen(address.clone());
    let op = rig.port.connect(address.clone(), Key(5)).expect("room");
    let client = connected(&mut rig, op);
    let accepted = rig.accepted();
    let server = rig.port.associate(accepted, Key(6)).expect("room");
    server.receive().expect("nothing else reads");
    client.send("through a file").expect("an empty queue");
    assert_eq!(rig.receive(server.socket(), 14), b"through a file");
    drop((client, server, listener));
    // The file is still there, and nobody listens.
    rig.until_stats("the listener's end", |stats| stats.sockets == 0);
    rig.allowed.packets = true;
    match rig.port.connect(address, Key(7)) {
        Err(error) => assert_eq!(error.kind(), ErrorKind::Refused),
        Ok(op) => assert_eq!(failed_as(rig.ended(op).how), ErrorKind::Refused),
    }
}
