//! The same kind of error for the same event on every driver, with its operation and a hint.

use std::net::SocketAddr;
use std::process::Command;

use wharf_port::{
    Address, ConnectOptions, End, Error, ErrorKind, Event, Key, ListenOptions, Operation, Refused,
};

use crate::cases::connect::{connected, taken, talk};
use crate::cases::receive::failed_as;
use crate::rig::Rig;
use crate::rig::case::{Case, Driver, Where, a_system, case, linux};
use crate::rig::system;

pub(crate) const CASES: &[Case] = &[
    case!(
        data_before_a_reset_is_delivered_unless_the_system_drops_it,
        [C9, C11],
        "contract: Windows drops it, Linux keeps it"
    ),
    case!(
        a_connect_to_the_address_of_all_interfaces_stays_here,
        [C9],
        "libuv tcp.c"
    )
    .skip(a_system),
    case!(every_end_of_a_connection_has_its_kind, [C9], "corosio #304"),
    case!(
        a_reset_that_a_send_met_first_is_no_end_of_the_stream,
        [C9],
        "the seeds of the simulated network"
    ),
    case!(an_address_in_use_says_so_with_a_hint, [C9], "contract"),
    case!(
        a_port_held_at_every_address_is_in_use_at_each,
        [C9],
        "the table of bind in Using SO_REUSEADDR and SO_EXCLUSIVEADDRUSE"
    )
    .skip(a_system),
    case!(an_address_of_another_machine_says_so, [C9], "contract").skip(a_system),
    case!(a_network_that_is_down_is_unreachable, [C9], "contract")
        .skip(own_network)
        .alone(),
    case!(
        every_error_names_its_operation_and_keeps_the_systems_code,
        [C9],
        "contract"
    ),
    case!(
        errors_become_those_of_the_standard_library,
        [C9],
        "contract"
    ),
    case!(
        errors_of_the_system_keep_its_code_in_those_of_the_standard_library,
        [C9],
        "a review: it was lost"
    ),
    case!(a_unix_path_that_is_too_long_is_an_error, [C9], "contract").skip(a_system),
];

fn own_network(at: &Where) -> Option<&'static str> {
    linux(at).or_else(|| {
        let here = at.namespaces;
        (!here).then_some("this user may not make a network of its own (unshare -rn)")
    })
}

fn every_end_of_a_connection_has_its_kind(at: &Where) {
    let mut rig = Rig::new(at);
    let (address, _guard) = rig.network.refusing();
    let (finished, mut finished_peer) = rig.connection();
    let (reset, reset_peer) = rig.connection();
    let (closed, _closed_peer) = rig.connection();
    let (cancelled, _cancelled_peer) = rig.connection();
    let expected = [
        (finished.socket().receive().expect("it is open"), None),
        (
            reset.socket().receive().expect("it is open"),
            Some(ErrorKind::Reset),
        ),
        (
            closed.socket().receive().expect("it is open"),
            Some(ErrorKind::Aborted),
        ),
        (
            cancelled.socket().receive().expect("it is open"),
            Some(ErrorKind::Cancelled),
        ),
        (
            rig.port.connect(address, Key(9)).expect("room"),
            Some(ErrorKind::Refused),
        ),
    ];
    finished_peer.finish();
    reset_peer.reset();
    let closed_socket = closed.socket();
    closed.close(wharf_port::Close::Flush).expect("it is open");
    rig.port.cancel(expected[3].0);
    for (op, kind) in expected {
        assert_eq!(rig.ended(op).how.error_kind(), kind);
    }
    rig.closed(closed_socket);
    rig.expect_nothing();
}

/// The system reports a reset once. If a send gets it, the receive after it sees what looks like a
/// clean end: a truncated stream, taken for a complete one.
fn a_reset_that_a_send_met_first_is_no_end_of_the_stream(at: &Where) {
    let mut rig = Rig::new(at);
    for into in [false, true] {
        let (stream, peer) = rig.connection();
        peer.reset();
        // The first sends may go out before the reset has arrived.
        let failed = loop {
            let sent = stream.send_reported(vec![1; 10]);
            let op = sent.expect("no send has failed yet");
            let packet = rig.expect("the outcome of a send", |packet| packet.op == op);
            if let Event::SendFailed { how, .. } = packet.event {
                break how.error_kind();
            }
        };
        assert_eq!(failed, Some(ErrorKind::Reset), "the send hears of it");
        let op = if into {
            stream
                .socket()
                .receive_into(vec![0; 10])
                .expect("nothing reads")
        } else {
            stream.socket().receive().expect("nothing reads")
        };
        let kind = rig.ended(op).how.error_kind();
        assert_eq!(kind, Some(ErrorKind::Reset), "into a buffer: {into}");
    }
}

fn an_address_in_use_says_so_with_a_hint(at: &Where) {
    let mut rig = Rig::new(at);
    let address = rig.address();
    let error = rig
        .port
        .listen(address, Key(1))
        .expect_err("the rig listens there");
    assert_eq!(
        (error.kind(), error.operation()),
        (ErrorKind::AddressInUse, Operation::Listen)
    );
    assert!(error.to_string().contains("choose another port"), "{error}");
    assert_eq!(rig.port.stats().sockets, 1, "nothing is left of it");
}

/// Windows refuses it as forbidden, which has nothing to do with rights.
fn a_port_held_at_every_address_is_in_use_at_each(at: &Where) {
    let rig = Rig::new(at);
    let everywhere = rig.port.listen(([0, 0, 0, 0], 0), Key(1));
    let everywhere = everywhere.expect("a port is free");
    let here: SocketAddr = ([127, 0, 0, 1], system::port_of(&everywhere)).into();
    let listening = rig.port.listen(here, Key(2));
    let listening = listening.expect_err("its port is held at every address");
    let options = ConnectOptions::new(([127, 0, 0, 1], 9)).source(here);
    let connecting = rig.port.connect(options, Key(3));
    let connecting = connecting.expect_err("its port is held at every address");
    for (error, cure) in [
        (listening, "choose another port"),
        (connecting, "another source"),
    ] {
        assert_eq!(error.kind(), ErrorKind::AddressInUse, "{error}: {error:?}");
        assert!(error.to_string().contains(cure), "{error}");
    }
    assert_eq!(listening.operation(), Operation::Listen);
    assert_eq!(connecting.operation(), Operation::Connect);
    if at.driver == Driver::Iocp {
        // It may be Windows itself that keeps the port.
        let text = listening.to_string();
        assert!(text.contains("excludedportrange"), "{text}");
    }
}

fn an_address_of_another_machine_says_so(at: &Where) {
    let rig = Rig::new(at);
    // An address for documentation (RFC 5737); binding sends nothing.
    let elsewhere: SocketAddr = ([192, 0, 2, 1], 0).into();
    let error = rig
        .port
        .listen(elsewhere, Key(1))
        .expect_err("it is not ours");
    assert_eq!(error.kind(), ErrorKind::AddressUnavailable, "{error}");
    let options = ConnectOptions::new(([127, 0, 0, 1], 9)).source(elsewhere);
    let error = rig
        .port
        .connect(options, Key(1))
        .expect_err("it is not ours");
    let expected = (ErrorKind::AddressUnavailable, Operation::Connect);
    assert_eq!((error.kind(), error.operation()), expected, "{error}");
    assert_eq!(rig.port.stats().sockets, 0);
}

/// Set for the process that runs in its own network namespace, where even loopback is down.
const INSIDE: &str = "WHARF_TEST_INSIDE";

fn a_network_that_is_down_is_unreachable(at: &Where) {
    if std::env::var_os(INSIDE).is_none() {
        let mut again = Command::new("unshare");
        again
            .arg("-rn")
            .arg(std::env::current_exe().expect("a test has a binary"));
        let output = again.env(INSIDE, "1").output().expect("unshare ran before");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "inside: {said}");
        return;
    }
    let mut rig = Rig::new(at);
    let kind = match rig.port.connect(([127, 0, 0, 1], 9), Key(1)) {
        Err(error) => Some(error.kind()),
        Ok(op) => rig.ended(op).how.error_kind(),
    };
    assert_eq!(kind, Some(ErrorKind::Unreachable));
    assert_eq!(rig.port.stats().sockets, 0);
}

fn every_error_names_its_operation_and_keeps_the_systems_code(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, peer) = rig.connection();
    let op = stream.socket().receive().expect("nothing else reads");
    peer.reset();
    let End::Failed(error) = rig.ended(op).how else {
        panic!("the peer has reset");
    };
    assert_eq!(
        (error.operation(), error.kind()),
        (Operation::Receive, ErrorKind::Reset)
    );
    assert!(
        error.raw_os_error().is_some(),
        "the system said it: {error:?}"
    );
    assert_eq!(error.to_string(), "receive: connection reset by the peer");
    let (address, _guard) = rig.network.refusing();
    rig.port.connect(address, Key(1)).expect("room");
    let packet = rig.next("the end of the connect");
    let Event::ConnectFailed {
        how: End::Failed(error),
        ..
    } = packet.event
    else {
        panic!("nobody listens there: {packet:?}");
    };
    assert!(
        error.raw_os_error().is_some(),
        "the system said it: {error:?}"
    );
    assert_eq!(error.to_string(), "connect: connection refused");
}

fn errors_become_those_of_the_standard_library(_: &Where) {
    use std::io::ErrorKind as Standard;
    let kinds = [
        (ErrorKind::Reset, Standard::ConnectionReset),
        (ErrorKind::Refused, Standard::ConnectionRefused),
        (ErrorKind::Aborted, Standard::ConnectionAborted),
        (ErrorKind::TimedOut, Standard::TimedOut),
        (ErrorKind::Unreachable, Standard::HostUnreachable),
        (ErrorKind::AddressInUse, Standard::AddrInUse),
        (ErrorKind::AddressUnavailable, Standard::AddrNotAvailable),
        (ErrorKind::PermissionDenied, Standard::PermissionDenied),
        (ErrorKind::TooManyOpenFiles, Standard::Other),
        (ErrorKind::OutOfMemory, Standard::OutOfMemory),
        (ErrorKind::Full, Standard::WouldBlock),
        (ErrorKind::Busy, Standard::ResourceBusy),
        (ErrorKind::Closed, Standard::NotConnected),
        (ErrorKind::NotConnected, Standard::NotConnected),
        (ErrorKind::BrokenPipe, Standard::BrokenPipe),
        (ErrorKind::Unsupported, Standard::Unsupported),
        (ErrorKind::InvalidInput, Standard::InvalidInput),
        (ErrorKind::Other, Standard::Other),
    ];
    for (kind, expected) in kinds {
        let error = Error::new(Operation::Receive, kind);
        let standard = std::io::Error::from(error);
        assert_eq!(standard.kind(), expected);
        assert_eq!(
            standard.to_string(),
            error.to_string(),
            "with the same words"
        );
    }
    // `std` repeats what is interrupted: a cancelled read would never end.
    let cancelled = Error::new(Operation::Receive, ErrorKind::Cancelled);
    let standard = std::io::Error::from(cancelled);
    assert_eq!(standard.kind(), std::io::ErrorKind::Other);
    let within = standard.get_ref().and_then(|it| it.downcast_ref());
    assert_eq!(within, Some(&cancelled));
}

fn errors_of_the_system_keep_its_code_in_those_of_the_standard_library(_: &Where) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("a bound socket");
    let theirs = std::net::TcpListener::bind(address).expect_err("it is taken");
    let code = theirs.raw_os_error().expect("the system refused it");
    let error = Error::from_os(Operation::Listen, code);
    let standard = std::io::Error::from(error);
    assert_eq!(
        (standard.kind(), standard.raw_os_error()),
        (theirs.kind(), Some(code))
    );
    // And a refusal with an error is not its own source.
    let refused = Refused { error, value: 7 };
    assert!(std::error::Error::source(&refused).is_none());
    assert_eq!(refused.to_string(), error.to_string());
}

fn a_unix_path_that_is_too_long_is_an_error(at: &Where) {
    let rig = Rig::new(at);
    let path = "a/".repeat(200);
    let expected = [ErrorKind::InvalidInput, ErrorKind::Unsupported];
    let listening = rig
        .port
        .listen(ListenOptions::new(Address::unix(&path)), Key(1));
    let kind = listening.expect_err("no path is so long").kind();
    assert!(expected.contains(&kind), "{kind:?}");
    let kind = rig.port.connect(Address::unix(&path), Key(1));
    let kind = kind.expect_err("no path is so long").kind();
    assert!(expected.contains(&kind), "{kind:?}");
    assert_eq!(rig.port.stats().sockets, 0);
}

/// Windows has no such connect.
fn a_connect_to_the_address_of_all_interfaces_stays_here(at: &Where) {
    let mut rig = Rig::new(at);
    let mut host = rig.network.listen();
    let port = host
        .address()
        .as_socket_addr()
        .expect("an internet address")
        .port();
    let op = rig.port.connect(([0, 0, 0, 0], port), Key(5));
    let stream = connected(&mut rig, op.expect("room"));
    let mut peer = taken(&mut rig, &mut host);
    talk(&mut rig, &stream, &mut peer);
}

/// Both results: Linux delivers what came before the reset, Windows discards it. No system may
/// report a clean end.
fn data_before_a_reset_is_delivered_unless_the_system_drops_it(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    rig.say(&mut peer, b"kept or lost");
    peer.reset();
    let op = stream.socket().receive().expect("nothing else reads");
    let mut told = Vec::new();
    let how = loop {
        let packet = rig.next("what came before the reset, or the reset");
        match packet.event {
            Event::Received(lease) => told.extend_from_slice(&lease),
            Event::Ended { how, .. } if packet.op == op => break how,
            other => panic!("not asked for: {other:?}"),
        }
    };
    assert_eq!(failed_as(how), ErrorKind::Reset);
    let may_lose = at.driver == Driver::Iocp || !at.linux;
    if !(may_lose && told.is_empty()) {
        assert_eq!(told, b"kept or lost");
    }
}
