//! The other side of a connection: what a case sends and receives there.
//!
//! Every verb returns at once, so the test's thread can pump its port between two of them. The
//! verbs are a trait because the simulated network has its own far end.

use std::any::Any;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use wharf_port::Address;

use crate::rig::system::is_old_wine;

/// The result of a receive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    Bytes(Vec<u8>),
    Nothing,
    /// The port's side has sent FIN.
    Finished,
    /// The port's side has sent RST.
    Reset,
}

/// One far end.
pub(crate) trait Peer: Send {
    /// Sends what the system takes now; returns the number of bytes, 0 if it is full, or `None` if
    /// the connection is gone.
    fn try_send(&mut self, bytes: &[u8]) -> Option<usize>;

    fn try_receive(&mut self, bytes_max: usize) -> Heard;

    /// Sends FIN; receiving goes on.
    fn finish(&mut self);

    /// Leaves with RST.
    fn reset(self: Box<Self>);

    fn address(&self) -> Address;
}

/// Accepts connections of the port.
pub(crate) trait Host: Send {
    fn address(&self) -> Address;

    fn try_accept(&mut self) -> Option<Box<dyn Peer>>;
}

/// A network of peers.
pub(crate) trait Network: Send {
    fn connect(&self, to: &Address) -> Box<dyn Peer>;

    fn listen(&self) -> Box<dyn Host>;

    /// An address that refuses connections while the guard lives.
    fn refusing(&self) -> (Address, Box<dyn Any>);

    /// An address where a connect has no reply while the guard lives.
    fn silent(&self) -> (Address, Box<dyn Any>);
}

/// The network of the system this runs on; never beyond loopback.
pub(crate) struct System;

struct SystemPeer {
    socket: Socket,
    /// Whether this side has sent its FIN.
    has_finished: bool,
}

struct SystemHost(Socket);

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn socket_for(address: &Address) -> (Socket, SockAddr) {
    match address {
        Address::Internet(address) => {
            let domain = Domain::for_address(*address);
            let socket = Socket::new(domain, Type::STREAM, None).expect("the system has sockets");
            (socket, (*address).into())
        }
        Address::Unix(path) => {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a Unix socket");
            (socket, SockAddr::unix(path).expect("a short path"))
        }
        other => panic!("the suite does not know addresses like {other}"),
    }
}

fn address_of(address: &SockAddr) -> Address {
    match address.as_socket() {
        Some(address) => address.into(),
        None => unix_address_of(address),
    }
}

#[cfg(unix)]
fn unix_address_of(address: &SockAddr) -> Address {
    Address::unix(address.as_pathname().unwrap_or("".as_ref()))
}

#[cfg(not(unix))]
fn unix_address_of(address: &SockAddr) -> Address {
    panic!("no socket here has an address like {address:?}")
}

impl Network for System {
    fn connect(&self, to: &Address) -> Box<dyn Peer> {
        let (socket, address) = socket_for(to);
        socket.connect(&address).expect("the port listens");
        Box::new(SystemPeer::new(socket))
    }

    fn listen(&self) -> Box<dyn Host> {
        let (socket, address) = socket_for(&LOOPBACK.into());
        socket.bind(&address).expect("loopback has a free port");
        socket.listen(128).expect("a bound socket listens");
        socket.set_nonblocking(true).expect("an open socket");
        Box::new(SystemHost(socket))
    }

    fn refusing(&self) -> (Address, Box<dyn Any>) {
        // Bound without listening: the port number is in use, and every connect is refused.
        let (socket, address) = socket_for(&LOOPBACK.into());
        socket.bind(&address).expect("loopback has a free port");
        let address = address_of(&socket.local_addr().expect("a bound socket"));
        (address, Box::new(socket))
    }

    fn silent(&self) -> (Address, Box<dyn Any>) {
        // A listener with a full backlog drops further connects (measured on Linux).
        let (socket, address) = socket_for(&LOOPBACK.into());
        socket.bind(&address).expect("loopback has a free port");
        socket.listen(1).expect("a bound socket listens");
        let address = socket.local_addr().expect("a bound socket");
        let mut waiting = vec![socket];
        for _ in 0..8 {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.set_nonblocking(true).expect("an open socket");
            // It is in progress, or done: both fill the backlog.
            let _ = socket.connect(&address);
            waiting.push(socket);
        }
        (address_of(&address), Box::new(waiting))
    }
}

impl System {
    /// A connection that no port has made, with little buffer space: the end that a port may
    /// associate, and the far end.
    pub(crate) fn narrow_pair(&self, bytes: usize) -> (Socket, Box<dyn Peer>) {
        let (listener, address) = socket_for(&LOOPBACK.into());
        listener.bind(&address).expect("loopback has a free port");
        listener.listen(1).expect("a bound socket listens");
        let (far, _) = socket_for(&LOOPBACK.into());
        // Before the connect: a window that was offered once is not taken back.
        far.set_recv_buffer_size(bytes).expect("an open socket");
        let address = listener.local_addr().expect("a bound socket");
        far.connect(&address).expect("it listens");
        let (near, _) = listener.accept().expect("it has connected");
        near.set_send_buffer_size(bytes).expect("an open socket");
        near.set_tcp_nodelay(true).expect("an open socket");
        (near, Box::new(SystemPeer::new(far)))
    }
}

impl SystemPeer {
    fn new(socket: Socket) -> Self {
        socket.set_nonblocking(true).expect("an open socket");
        // A Unix socket has no such option, and needs none.
        let _ = socket.set_tcp_nodelay(true);
        SystemPeer {
            socket,
            has_finished: false,
        }
    }
}

/// A listener at a Unix path with a backlog of a certain length.
pub(crate) fn unix_host(path: &std::path::Path, backlog: i32) -> Box<dyn Host> {
    let (socket, address) = socket_for(&Address::unix(path));
    socket.bind(&address).expect("a fresh path");
    socket.listen(backlog).expect("a bound socket listens");
    socket.set_nonblocking(true).expect("an open socket");
    Box::new(SystemHost(socket))
}

impl Peer for SystemPeer {
    fn try_send(&mut self, bytes: &[u8]) -> Option<usize> {
        match self.socket.write(bytes) {
            Ok(count) => Some(count),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => Some(0),
                _ => None,
            },
        }
    }

    fn try_receive(&mut self, bytes_max: usize) -> Heard {
        let mut bytes = vec![0; bytes_max];
        match self.socket.read(&mut bytes) {
            // Wine 8 reports a reset as an end if no receive was pending when it came. But then the
            // connection is gone, and with it the peer's address; after a FIN the address remains.
            Ok(0) if is_old_wine() && !self.has_finished && self.socket.peer_addr().is_err() => {
                Heard::Reset
            }
            Ok(0) => Heard::Finished,
            Ok(count) => {
                bytes.truncate(count);
                Heard::Bytes(bytes)
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => Heard::Nothing,
                ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => Heard::Reset,
                other => panic!("the peer cannot receive: {other}"),
            },
        }
    }

    fn finish(&mut self) {
        self.has_finished = true;
        // The port's side may have closed first.
        let _ = self.socket.shutdown(std::net::Shutdown::Write);
    }

    fn reset(self: Box<Self>) {
        SockRef::from(&self.socket)
            .set_linger(Some(Duration::ZERO))
            .expect("an open socket");
    }

    fn address(&self) -> Address {
        address_of(&self.socket.local_addr().expect("a connected socket"))
    }
}

impl Host for SystemHost {
    fn address(&self) -> Address {
        address_of(&self.0.local_addr().expect("a bound socket"))
    }

    fn try_accept(&mut self) -> Option<Box<dyn Peer>> {
        match self.0.accept() {
            Ok((socket, _)) => Some(Box::new(SystemPeer::new(socket))),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("the far end cannot accept: {error}"),
        }
    }
}
