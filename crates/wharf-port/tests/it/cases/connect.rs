//! Connecting: one packet each, with the stream or with the reason why there is none.

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use wharf_port::{
    Address, Cancel, ConnectOptions, End, ErrorKind, Event, Key, Op, Operation, Stream,
};

use crate::cases::receive::failed_as;
use crate::rig::Rig;
use crate::rig::case::{
    Case, Driver, Inapplicable, Where, a_system, case, ipv6, linux, unix_sockets,
};
use crate::rig::peer::{Host, Peer, unix_host};
use crate::rig::system;

pub(crate) const CASES: &[Case] = &[
    case!(
        a_connect_delivers_the_stream_with_its_key,
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
        a_stream_that_was_not_taken_is_closed,
        [C2, C11],
        "tokio #7979, compio #315"
    ),
    case!(
        cancelling_a_connect_ends_it_once,
        [C10, C2],
        "libuv test-tcp-close-while-connecting.c"
    )
    .skip(silence),
    case!(
        a_connect_that_was_cancelled_is_not_found,
        [C10, C2],
        "contract"
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
    case!(
        a_unix_connect_waits_for_room_in_the_backlog,
        [C2, C9, C10, C17],
        "contract"
    )
    .skip(unix_sockets)
    .alone(),
    case!(
        a_connect_that_meets_itself_is_refused,
        [C9, C21],
        "RFC 9293, 3.5: simultaneous open"
    )
    .skip(a_system),
    case!(
        a_connect_without_a_free_source_port_says_so,
        [C9],
        "connect(2): EADDRNOTAVAIL"
    )
    .skip(few_ports)
    .alone(),
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

/// Windows refuses a connect if the listener's backlog is full. Wine has the backlogs of the system
/// below it.
fn silence(at: &Where) -> Option<&'static str> {
    (at.driver == Driver::Iocp && !at.wine)
        .then_some("on Windows no address of this machine leaves a connect unanswered")
}

fn few_ports(at: &Where) -> Option<&'static str> {
    linux(at)
        .or_else(|| (!at.namespaces).then_some("this user may not make a network with few ports"))
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

pub(crate) fn talk(rig: &mut Rig, stream: &Stream, peer: &mut Box<dyn Peer>) {
    stream.socket().receive().expect("nothing else reads");
    stream.send("hello").expect("an empty queue");
    assert_eq!(rig.hear(peer, 5), b"hello");
    rig.say(peer, b"hello you");
    assert_eq!(rig.receive(stream.socket(), 9), b"hello you");
}

fn a_connect_delivers_the_stream_with_its_key(at: &Where) {
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
        ..
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
    let local = stream.local_addr().expect("it is open").as_socket_addr();
    assert!(local.is_some_and(|local| local.ip().is_loopback() && local.port() != 0));
    assert_eq!(stream.peer_addr().expect("the peer stays"), peer.address());
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
        .local_addr()
        .expect("it is open")
        .as_socket_addr()
        .expect("of the internet");
    assert_eq!(local.ip(), source.ip());
    // The port number too, if one is given: here it is in use, which has its own kind.
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

fn a_stream_that_was_not_taken_is_closed(at: &Where) {
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

/// Its packet is already in the queue: there is nothing left to cancel.
fn a_connect_that_was_cancelled_is_not_found(at: &Where) {
    let mut rig = Rig::new(at);
    let (address, _guard) = rig.network.silent();
    let op = rig.port.connect(address, Key(5)).expect("room");
    rig.expect_nothing();
    assert_eq!(rig.port.cancel(op), Cancel::Requested);
    assert_eq!(rig.port.cancel(op), Cancel::NotFound);
    assert_eq!(rig.port.cancel(op), Cancel::NotFound);
    assert_eq!(rig.ended(op).how, End::Cancelled);
    rig.expect_nothing();
    assert_eq!(rig.port.stats().sockets, 0);
}

fn a_connect_runs_into_its_deadline(at: &Where) {
    let mut rig = Rig::new(at);
    let (address, _guard) = rig.network.silent();
    let options = ConnectOptions::new(address).timeout(Duration::from_millis(30));
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
        let options = ConnectOptions::new(host.address()).timeout(at_most);
        let op = rig.port.connect(options, Key(5)).expect("room");
        let packet = rig.expect("the end of a connect", |packet| packet.op == op);
        match packet.event {
            Event::Connected(stream) => Some((stream, host)),
            Event::ConnectFailed { how, .. } => {
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
    server.socket().receive().expect("nothing else reads");
    client.send("to myself").expect("an empty queue");
    assert_eq!(rig.receive(server.socket(), 9), b"to myself");
}

fn a_connect_over_version_6(at: &Where) {
    let mut rig = Rig::new(at);
    let listener = rig.listen((std::net::Ipv6Addr::LOCALHOST, 0));
    let address = listener.local_addr().expect("a listener has an address");
    let op = rig.port.connect(address.clone(), Key(5)).expect("room");
    let client = connected(&mut rig, op);
    assert_eq!(client.peer_addr().expect("it is open"), address);
    drop(rig.accepted());
}

fn a_connect_to_a_unix_socket(at: &Where) {
    let mut rig = Rig::new(at);
    let directory = system::Directory::new();
    let address = Address::unix(directory.path().join("socket"));
    let listener = rig.listen(address.clone());
    let op = rig.port.connect(address.clone(), Key(5)).expect("room");
    let client = connected(&mut rig, op);
    let accepted = rig.accepted();
    let server = rig.port.associate(accepted, Key(6)).expect("room");
    server.socket().receive().expect("nothing else reads");
    client.send("through a file").expect("an empty queue");
    assert_eq!(rig.receive(server.socket(), 14), b"through a file");
    drop((client, server, listener));
    // The file is still there, but there is no listener.
    rig.until_stats("the listener's end", |stats| stats.sockets == 0);
    rig.allowed.packets = true;
    match rig.port.connect(address, Key(7)) {
        Err(error) => assert_eq!(error.kind(), ErrorKind::Refused),
        Ok(op) => assert_eq!(failed_as(rig.ended(op).how), ErrorKind::Refused),
    }
}

/// Connects beyond the backlog wait for space, any number of them, and none of them takes a thread.
fn a_unix_connect_waits_for_room_in_the_backlog(at: &Where) {
    const CONNECTS: usize = 40;
    let mut rig = Rig::new(at);
    let directory = system::Directory::new();
    let path = directory.path().join("narrow");
    let mut host = unix_host(&path, 1);
    let to = || ConnectOptions::new(Address::unix(&path));
    let connect = |key| rig.port.connect(to(), Key(key)).expect("room");
    let mut left: HashSet<Op> = (0..CONNECTS as u64).map(connect).collect();
    let mut streams = Vec::new();
    let mut take = |rig: &mut Rig, left: &mut HashSet<Op>| {
        while let Some(packet) = rig.find(|packet| left.contains(&packet.op)) {
            left.remove(&packet.op);
            match packet.event {
                Event::Connected(stream) => streams.push(stream),
                other => panic!("it did not connect: {other:?}"),
            }
        }
        CONNECTS - left.len()
    };
    rig.until("a full backlog", |rig| {
        (take(rig, &mut left) > 1).then_some(())
    });
    rig.expect_nothing();
    if at.linux {
        assert_eq!(system::threads_named("iou-wrk"), 0, "threads of the kernel");
    }
    // A connect that times out, and one that is cancelled, end as they do elsewhere.
    let limited = to().timeout(Duration::from_millis(30));
    let limited = rig.port.connect(limited, Key(77)).expect("room");
    let cancelled = rig.port.connect(to(), Key(78)).expect("room");
    assert_eq!(failed_as(rig.ended(limited).how), ErrorKind::TimedOut);
    assert_eq!(rig.port.cancel(cancelled), Cancel::Requested);
    assert_eq!(rig.port.cancel(cancelled), Cancel::NotFound);
    assert_eq!(rig.ended(cancelled).how, End::Cancelled);
    let mut peers = Vec::new();
    rig.until("all of them", |rig| {
        peers.extend(host.try_accept());
        (take(rig, &mut left) == CONNECTS && peers.len() == CONNECTS).then_some(())
    });
    rig.expect_nothing();
    assert_eq!(rig.port.stats().timers, 0, "no try is left");
    talk(&mut rig, &streams[0], &mut peers[0]);
    // Connects that wait when the listener closes are refused.
    let last: Vec<Op> = (0..4)
        .map(|key| rig.port.connect(to(), Key(key)).expect("room"))
        .collect();
    rig.until("a full backlog", |rig| {
        let waiting = last.iter().filter(|op| rig.has(**op)).count();
        (waiting >= 2).then_some(())
    });
    drop(host);
    let ends = last.into_iter().map(|op| {
        let packet = rig.expect("the end of a connect", |packet| packet.op == op);
        packet.event.end().map(failed_as)
    });
    let refused = ends.filter(|end| *end == Some(ErrorKind::Refused)).count();
    assert_eq!(refused, 2);
}

/// Without a listener, the system may choose the target's port as the source port.
fn a_connect_that_meets_itself_is_refused(at: &Where) {
    let mut rig = Rig::new(at);
    let (address, op) = loop {
        // A port number that was free a moment ago; another program may take it.
        let free = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = free.local_addr().expect("a bound socket");
        drop(free);
        let options = ConnectOptions::new(address).source(address);
        if let Ok(op) = rig.port.connect(options, Key(5)) {
            break (address, op);
        }
    };
    assert_eq!(failed_as(rig.ended(op).how), ErrorKind::Refused);
    rig.expect_nothing();
    assert_eq!(rig.port.stats().sockets, 0);
    if at.linux {
        // The port number does not stay with a failed connect, not even for a minute.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&address.into()).expect("the port is free");
    }
}

/// Set for the process that runs in its own network namespace, with two ports to connect from.
const FEW_PORTS: &str = "WHARF_TEST_FEW_PORTS";

fn a_connect_without_a_free_source_port_says_so(at: &Where) {
    if std::env::var_os(FEW_PORTS).is_none() {
        let range = "echo 40000 40001 > /proc/sys/net/ipv4/ip_local_port_range";
        let inside = format!("ip link set lo up && {range} && exec \"$0\"");
        let mut again = Command::new("unshare");
        again.args(["-rn", "sh", "-c", &inside]);
        again.arg(std::env::current_exe().expect("a test has a binary"));
        let output = again
            .env(FEW_PORTS, "1")
            .output()
            .expect("unshare ran before");
        let said = String::from_utf8_lossy(&output.stdout);
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "inside: {said}{why}");
        return;
    }
    let mut rig = Rig::new(at);
    let address: SocketAddr = ([127, 0, 0, 1], 9999).into();
    let host = TcpListener::bind(address).expect("nothing else is here");
    let source = ([127, 0, 0, 1], 0).into();
    let mut streams = Vec::new();
    for with_source in [false, true] {
        let error = loop {
            let options = ConnectOptions::new(address);
            let options = if with_source {
                options.source(source)
            } else {
                options
            };
            let op = rig.port.connect(options, Key(5)).expect("room");
            let packet = rig.expect("the end of a connect", |packet| packet.op == op);
            match packet.event {
                Event::Connected(stream) => streams.push(stream),
                Event::ConnectFailed {
                    how: End::Failed(error),
                    ..
                } => break error,
                other => panic!("not asked for: {other:?}"),
            }
        };
        assert_eq!(error.kind(), ErrorKind::AddressInUse, "{error}");
        assert!(
            error.to_string().contains("no source port is free"),
            "{error}"
        );
        assert_eq!(streams.len(), 2);
        // `std` has another kind for its code, so the code gives way to the kind.
        let standard = std::io::Error::from(error);
        assert_eq!(standard.kind(), std::io::ErrorKind::AddrInUse);
        let within = standard.get_ref().and_then(|it| it.downcast_ref());
        assert_eq!(within, Some(&error));
    }
    drop(host);
}
