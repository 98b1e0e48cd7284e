//! Sockets on their way into a port: accepted ones, and those of other libraries.
//!
//! An accepted socket belongs to no port yet, so that it may be associated with any: a program
//! with a port per thread deals them out. It keeps a place in the table of the port that accepted
//! it, which makes `sockets_max` exact.

use crate::address::Address;
use crate::core::place::Place;
use crate::error::{Error, Operation, Result};
use crate::sys;

/// An accepted connection that no port knows yet; dropping it closes it.
///
/// It counts against `sockets_max` of the port that accepted it until it is dropped or associated.
///
/// ```
/// use wharf_port::{Accepted, Key, Port, SocketRef};
/// fn hold(port: &Port, accepted: Accepted, key: Key) -> Option<SocketRef> {
///     // One peer's fault is not the server's: no `?` on a call about one socket.
///     port.associate(accepted, key).ok().map(|stream| stream.set_aside())
/// }
/// ```
#[derive(Debug)]
pub struct Accepted {
    pub(crate) handle: sys::Handle,
    /// Where the accept itself told it (IOCP); elsewhere the system is asked when somebody is.
    pub(crate) peer: Option<Address>,
    pub(crate) place: Option<Place>,
}

impl Accepted {
    /// Who connected. Asked only when called, so that an accept costs no system call more.
    ///
    /// # Errors
    /// [`ErrorKind::NotConnected`](crate::ErrorKind::NotConnected) when the peer has reset the connection already.
    ///
    /// ```
    /// fn greet(accepted: &wharf_port::Accepted) -> String {
    ///     accepted.peer().map_or("somebody".into(), |peer| peer.to_string())
    /// }
    /// ```
    pub fn peer(&self) -> Result<Address> {
        let peer = match (&self.peer, &self.place) {
            (Some(peer), _) => return Ok(peer.clone()),
            (None, Some(place)) => place.peer_of(&self.handle),
            (None, None) => sys::peer_address(&self.handle),
        };
        peer.map_err(|error| Error::from_io(Operation::Address, &error))
    }

    /// The system's number of the socket, for lines a person reads.
    ///
    /// ```
    /// fn line(accepted: &wharf_port::Accepted) -> String {
    ///     format!("socket {}", accepted.raw_number())
    /// }
    /// ```
    #[must_use]
    pub fn raw_number(&self) -> u64 {
        sys::raw_number(&self.handle)
    }
}

/// A connected socket on its way into a port: what [`Port::associate`](crate::Port::associate)
/// takes, and gives back when it refuses.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let socket = std::net::TcpStream::connect(listener.local_addr()?)?;
/// let unassociated = wharf_port::Unassociated::from(socket);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Unassociated {
    pub(crate) handle: sys::Handle,
    pub(crate) place: Option<Place>,
    /// Whether a port accepted it, so that its modes are known.
    pub(crate) accepted: bool,
    pub(crate) peer: Option<Address>,
}

impl Unassociated {
    pub(crate) fn of(handle: sys::Handle) -> Self {
        Unassociated {
            handle,
            place: None,
            accepted: false,
            peer: None,
        }
    }
}

impl From<Accepted> for Unassociated {
    fn from(accepted: Accepted) -> Self {
        let Accepted {
            handle,
            peer,
            place,
        } = accepted;
        Unassociated {
            handle,
            place,
            accepted: true,
            peer,
        }
    }
}

impl From<std::net::TcpStream> for Unassociated {
    fn from(socket: std::net::TcpStream) -> Self {
        Unassociated::of(socket.into())
    }
}

impl From<socket2::Socket> for Unassociated {
    fn from(socket: socket2::Socket) -> Self {
        Unassociated::of(socket.into())
    }
}
