//! Descriptors at the edge of a port: sockets that come from `std`, that go back to it, and those
//! that a port lends to set an option.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use socket2::SockRef;
use wharf_port::{
    Accepted, BorrowedDescriptor, Close, Error, ErrorKind, Key, ListenOptions, Operation,
    OwnedDescriptor, SocketRef,
};

use crate::rig::Rig;
use crate::rig::case::{Case, Driver, Mode, Where, a_system, case, descriptors, unix_sockets};
use crate::rig::peer::Peer;
use crate::rig::system::patience;

pub(crate) const CASES: &[Case] = &[
    case!(
        an_accepted_connection_becomes_one_of_the_standard_library,
        [C13, C19],
        "contract: mio and compio have it"
    ),
    case!(
        a_listener_of_the_caller_accepts,
        [C12, C19],
        "sd_listen_fds(3)"
    ),
    case!(
        what_does_not_listen_is_refused_with_its_name,
        [C9, C19],
        "sd_listen_fds(3)"
    )
    .skip(a_system),
    case!(
        a_listener_that_others_have_too_is_not_shut_down,
        [C11, C19],
        "sd_listen_fds(3): the manager keeps it"
    )
    .skip(kept_listeners),
    case!(
        a_lent_descriptor_sets_options,
        [C19],
        "contract: mio and compio have AsFd"
    ),
    case!(
        a_close_while_a_descriptor_is_lent_does_not_wait,
        [C11, C19],
        "contract"
    )
    .skip(without_descriptors),
    case!(
        unix_sockets_come_from_the_standard_library_and_go_back,
        [C19],
        "contract"
    )
    .skip(unix_descriptors),
];

fn kept_listeners(at: &Where) -> Option<&'static str> {
    a_system(at).or_else(|| {
        (at.driver == Driver::Iocp)
            .then_some("on Windows a socket belongs to one port, whichever of its handles accepts")
    })
}

fn without_descriptors(at: &Where) -> Option<&'static str> {
    a_system(at).or_else(|| descriptors(at))
}

fn unix_descriptors(at: &Where) -> Option<&'static str> {
    unix_sockets(at).or_else(|| descriptors(at))
}

/// Whether connections of this port have descriptors.
fn has_descriptors(at: &Where) -> bool {
    at.driver != Driver::Sim && at.mode != Mode::Direct
}

fn an_accepted_connection_becomes_one_of_the_standard_library(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.sockets_max(3));
    rig.address();
    if !has_descriptors(at) {
        return it_stays_with_the_port(&mut rig);
    }
    // With each the one place is free again.
    for bytes in [b"first", b"again", b"third", b"forth", b"fifth"] {
        let mut peer = rig.dial();
        let accepted = rig.accepted();
        let number = accepted.raw_descriptor();
        assert!(accepted.descriptor().is_some());
        let stream = TcpStream::try_from(accepted).expect("it is one");
        assert_eq!(number, number_of(&stream));
        assert_eq!(rig.port.stats().sockets, 1, "the listener");
        talk(stream, &mut rig, &mut peer, bytes);
    }
    let _peer = rig.dial();
    let owned = OwnedDescriptor::try_from(rig.accepted()).expect("it has one");
    drop(owned);
}

#[cfg(unix)]
fn number_of(stream: &TcpStream) -> u64 {
    use std::os::fd::AsRawFd;
    u64::try_from(stream.as_raw_fd()).expect("an open descriptor")
}

#[cfg(windows)]
fn number_of(stream: &TcpStream) -> u64 {
    use std::os::windows::io::AsRawSocket;
    stream.as_raw_socket()
}

/// The stream blocks: it waits for what is not there, and has it once it is.
fn talk(mut stream: TcpStream, rig: &mut Rig, peer: &mut Box<dyn Peer>, bytes: &[u8; 5]) {
    let limit = Duration::from_millis(30);
    stream.set_read_timeout(Some(limit)).expect("it is open");
    let start = Instant::now();
    stream.read(&mut [0]).expect_err("nothing is there");
    assert!(start.elapsed() >= limit / 2, "it does not block");
    let limit = Some(patience(10));
    stream.set_read_timeout(limit).expect("it is open");
    rig.say(peer, bytes);
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).expect("the peer said it");
    assert_eq!(&heard, bytes);
    stream.write_all(bytes).expect("the peer reads");
    assert_eq!(rig.hear(peer, 5), bytes);
    drop(stream);
    rig.hear_finish(peer);
}

/// A connection without a descriptor is given back, and goes on.
fn it_stays_with_the_port(rig: &mut Rig) {
    let mut peer = rig.dial();
    let accepted: Accepted = rig.accepted();
    assert!(accepted.descriptor().is_none());
    let refused = TcpStream::try_from(accepted).expect_err("there is no descriptor");
    let expected = (Operation::Descriptor, ErrorKind::Unsupported);
    let error = refused.error;
    assert_eq!((error.operation(), error.kind()), expected);
    let refused = OwnedDescriptor::try_from(refused.value).expect_err("nor one to keep");
    let stream = rig
        .port
        .associate(refused.value, Key(1))
        .expect("its place");
    stream.send("hello").expect("it is open");
    assert_eq!(rig.hear(&mut peer, 5), b"hello");
}

fn a_listener_of_the_caller_accepts(at: &Where) {
    let mut rig = Rig::new(at);
    let theirs = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = theirs.local_addr().expect("a bound socket").into();
    if at.driver == Driver::Sim {
        let error = rig.port.listen(theirs, Key(1)).expect_err("it is real");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        return;
    }
    let options = ListenOptions::from(OwnedDescriptor::from(theirs)).nodelay(true);
    let listener = rig.listen(options);
    assert_eq!(listener.local_addr(), Ok(address));
    for _ in 0..3 {
        let address = listener.local_addr().expect("it is open");
        let mut peer = rig.network.connect(&address);
        let accepted = rig.accepted();
        let no_delay = accepted
            .descriptor()
            .map(|it| SockRef::from(&it).tcp_nodelay());
        assert!(no_delay.is_none_or(|it| it.expect("an open socket")));
        let stream = rig.port.associate(accepted, Key(2)).expect("room");
        stream.send("hello").expect("it is open");
        assert_eq!(rig.hear(&mut peer, 5), b"hello");
    }
    // Without another owner it is gone with the port's.
    let address = listener.local_addr().expect("it is open");
    let address = address.as_socket_addr().expect("an internet listener");
    drop(listener);
    rig.until("the listener is closed", |_| {
        let refused = TcpStream::connect(address).err()?;
        (refused.kind() == std::io::ErrorKind::ConnectionRefused).then_some(())
    });
}

fn what_does_not_listen_is_refused_with_its_name(at: &Where) {
    let rig = Rig::new(at);
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("a bound socket");
    let stream = TcpStream::connect(address).expect("it listens");
    let datagrams = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    for (socket, why) in [
        (OwnedDescriptor::from(stream), "does not listen"),
        (OwnedDescriptor::from(datagrams), "another type"),
    ] {
        if cfg!(target_vendor = "apple") && why == "does not listen" {
            continue; // There the system does not say which sockets listen.
        }
        let error = rig.port.listen(socket, Key(1)).expect_err(why);
        let expected = (Operation::Listen, ErrorKind::InvalidInput);
        assert_eq!((error.operation(), error.kind()), expected);
        assert!(error.to_string().contains(why), "{error}");
    }
    assert_eq!(rig.port.stats().sockets, 0);
}

fn a_listener_that_others_have_too_is_not_shut_down(at: &Where) {
    let mut rig = Rig::new(at);
    let kept = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = kept.local_addr().expect("a bound socket");
    let theirs = kept.try_clone().expect("room for a descriptor");
    let listener = rig.listen(theirs);
    let first = TcpStream::connect(address).expect("it listens");
    drop(rig.accepted());
    drop(listener);
    rig.until_stats("the listener is gone", |stats| stats.sockets == 0);
    let second = TcpStream::connect(address).expect("it listens still");
    kept.set_nonblocking(false).expect("an open socket");
    let (accepted, _) = kept.accept().expect("nothing was shut down");
    drop((first, second, accepted));
    // And a port may take it again.
    let listener = rig.listen(kept);
    let _third = TcpStream::connect(address).expect("it listens still");
    drop((rig.accepted(), listener));
}

fn no_delay(descriptor: BorrowedDescriptor<'_>) -> bool {
    let socket = SockRef::from(&descriptor);
    socket.tcp_nodelay().expect("an open socket")
}

fn lends_none(socket: SocketRef) -> Error {
    let lent = socket.with_descriptor(|_| ());
    lent.expect_err("there is nothing to lend")
}

fn a_lent_descriptor_sets_options(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let socket = stream.socket();
    if has_descriptors(at) {
        assert_eq!(socket.with_descriptor(no_delay), Ok(true));
        let set = socket.with_descriptor(|descriptor| {
            let socket = SockRef::from(&descriptor);
            socket.set_tcp_nodelay(false).expect("an open socket");
        });
        set.expect("it is open");
        assert_eq!(socket.with_descriptor(no_delay), Ok(false));
    } else {
        let error = lends_none(socket);
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
    stream.send("hello").expect("it is open");
    assert_eq!(rig.hear(&mut peer, 5), b"hello");
    stream.close(Close::Flush).expect("it is open");
    rig.closed(socket);
    assert_eq!(lends_none(socket).kind(), ErrorKind::Closed);
    rig.hear_finish(&mut peer);
}

fn a_close_while_a_descriptor_is_lent_does_not_wait(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let socket = stream.set_aside();
    let no_delay = socket.with_descriptor(|descriptor| {
        socket.send("the last").expect("no lock is held");
        socket.close(Close::Flush).expect("no lock is held");
        rig.closed(socket);
        no_delay(descriptor)
    });
    assert_eq!(no_delay, Ok(true), "the descriptor outlived the close");
    assert_eq!(rig.hear(&mut peer, 8), b"the last");
    rig.hear_finish(&mut peer);
}

#[cfg(unix)]
fn unix_sockets_come_from_the_standard_library_and_go_back(at: &Where) {
    use std::os::unix::net::{UnixListener, UnixStream};

    use crate::rig::system::Directory;

    let mut rig = Rig::new(at);
    let directory = Directory::new();
    let path = directory.path().join("socket");
    let theirs = UnixListener::bind(&path).expect("a free path");
    let listener = rig.listen(theirs);
    let mut far = UnixStream::connect(&path).expect("it listens");
    let refused = TcpStream::try_from(rig.accepted()).expect_err("another family");
    assert_eq!(refused.error.kind(), ErrorKind::InvalidInput);
    let mut near = UnixStream::try_from(refused.value).expect("it is one");
    near.write_all(b"hello").expect("it is open");
    let mut heard = [0; 5];
    far.read_exact(&mut heard).expect("it was said");
    assert_eq!(&heard, b"hello");
    // A connection of the internet is no Unix socket, and comes back.
    let mut other_peer = rig.dial();
    let refused = UnixStream::try_from(rig.accepted()).expect_err("another family");
    assert_eq!(refused.error.kind(), ErrorKind::InvalidInput);
    let other = rig.port.associate(refused.value, Key(2)).expect("room");
    other.send("hello").expect("it is open");
    assert_eq!(rig.hear(&mut other_peer, 5), b"hello");
    // And in again.
    let stream = rig.port.associate(near, Key(1)).expect("room");
    stream.send("again").expect("it is open");
    rig.port.submit();
    far.read_exact(&mut heard).expect("it was said");
    assert_eq!(&heard, b"again");
    drop((stream, listener));
}

#[cfg(not(unix))]
fn unix_sockets_come_from_the_standard_library_and_go_back(_: &Where) {}
