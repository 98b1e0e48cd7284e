//! Sockets before they belong to a port: accepted ones, and those of other libraries.
//!
//! An accepted socket belongs to no port yet, so it may be associated with any port. A program with
//! one port per thread (thread-per-core) distributes them this way. The socket reserves a place in
//! the table of the port that accepted it. That makes `sockets_max` exact.
//!
//! `AsFd` was rejected for these types, because a connection in the table of a ring has no
//! descriptor. Conversions from `socket2`'s type were rejected, because the versions of `socket2`
//! would become part of this crate's API.

use std::net::TcpStream;

use crate::address::Address;
use crate::core::place::Place;
use crate::error::{Error, ErrorKind, Operation, Refused, Result};
use crate::sys::{self, BorrowedDescriptor, OwnedDescriptor};

const NO_DESCRIPTOR: &str = "this connection has no descriptor of its own: associate it with the \
                             port that accepted it";
const IS_UNIX: &str = "this is a Unix socket: convert it into a UnixStream";
const IS_INTERNET: &str = "this is no Unix socket: convert it into a TcpStream";

/// An accepted connection that is not associated yet. Dropping it closes it.
///
/// It counts against `sockets_max` of the port that accepted it until it is dropped, associated or
/// converted. It converts into a `TcpStream`, a `UnixStream` or an
/// [`OwnedDescriptor`](crate::OwnedDescriptor).
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
    /// The peer, if the accept itself reported it (IOCP). Otherwise the system is asked on demand.
    pub(crate) peer: Option<Address>,
    pub(crate) place: Option<Place>,
}

impl Accepted {
    /// Returns the address of the peer. The system is asked only when this is called, so an accept
    /// costs no additional system call.
    ///
    /// # Errors
    /// [`ErrorKind::NotConnected`](crate::ErrorKind::NotConnected) when the peer has already reset
    /// the connection.
    ///
    /// ```
    /// fn greet(accepted: &wharf_port::Accepted) -> String {
    ///     accepted.peer_addr().map_or("an unknown peer".into(), |peer| peer.to_string())
    /// }
    /// ```
    pub fn peer_addr(&self) -> Result<Address> {
        let peer = match (&self.peer, &self.place) {
            (Some(peer), _) => return Ok(peer.clone()),
            (None, Some(place)) => place.peer_of(&self.handle),
            (None, None) => sys::peer_address(&self.handle),
        };
        peer.map_err(|error| Error::from_io(Operation::Address, &error))
    }

    /// Returns the descriptor, to set or read an option; `None` if the connection has none.
    ///
    /// A connection has no descriptor in the table of a port with
    /// [`direct_descriptors`](crate::Builder::direct_descriptors), and on the simulated network.
    /// Because of these, this is a method and not `AsFd`, which could only panic. To keep the
    /// descriptor, convert the connection into an [`OwnedDescriptor`](crate::OwnedDescriptor).
    ///
    /// ```
    /// use wharf_port::Accepted;
    /// fn has_descriptor(accepted: &Accepted) -> bool {
    ///     // On Unix this is a `BorrowedFd`, which `socket2::SockRef::from` takes by reference.
    ///     accepted.descriptor().is_some()
    /// }
    /// ```
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedDescriptor<'_>> {
        descriptor(&self.handle, self.place.as_ref())
    }

    /// Returns the system's number of the socket, for log lines.
    ///
    /// ```
    /// fn line(accepted: &wharf_port::Accepted) -> String {
    ///     format!("socket {}", accepted.raw_descriptor())
    /// }
    /// ```
    #[must_use]
    pub fn raw_descriptor(&self) -> u64 {
        sys::raw_number(&self.handle)
    }
}

/// A connected socket before it belongs to a port. [`Port::associate`](crate::Port::associate)
/// takes it, and returns it if the port refuses it.
///
/// Streams of `std` and owned descriptors convert into it. It converts back into a blocking socket,
/// and so does an [`Accepted`]. That conversion fails as [`ErrorKind::Unsupported`] for a
/// connection without a descriptor, and as [`ErrorKind::InvalidInput`] if the stream is of another
/// family. A conversion that fails returns the socket.
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

    /// Returns the descriptor; `None` if the connection has none. See
    /// [`Accepted::descriptor`](crate::Accepted::descriptor).
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let socket = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// assert!(wharf_port::Unassociated::from(socket).descriptor().is_some());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedDescriptor<'_>> {
        descriptor(&self.handle, self.place.as_ref())
    }

    /// Converts into a descriptor that blocks, as those of `std` do. This frees the place in the
    /// table of the port that accepted it.
    pub(crate) fn into_standard(
        self,
        wanted: Option<Family>,
    ) -> Result<OwnedDescriptor, Refused<Unassociated>> {
        let refuse = |error, value| Err(Refused { error, value });
        if let Err(error) = self.make_standard(wanted) {
            return refuse(error, self);
        }
        let Unassociated {
            handle,
            place,
            accepted,
            peer,
        } = self;
        match sys::into_descriptor(handle) {
            Ok(descriptor) => Ok(descriptor),
            Err(handle) => refuse(
                unsupported(NO_DESCRIPTOR),
                Unassociated {
                    handle,
                    place,
                    accepted,
                    peer,
                },
            ),
        }
    }

    fn make_standard(&self, wanted: Option<Family>) -> Result<()> {
        if self.descriptor().is_none() {
            return Err(unsupported(NO_DESCRIPTOR));
        }
        let failed = |error| Error::from_io(Operation::Descriptor, &error);
        let is_unix = sys::open::is_unix(&self.handle).map_err(failed)?;
        let unfit = |advice| Error::advised(Operation::Descriptor, ErrorKind::InvalidInput, advice);
        match wanted {
            Some(Family::Internet) if is_unix => return Err(unfit(IS_UNIX)),
            Some(Family::Unix) if !is_unix => return Err(unfit(IS_INTERNET)),
            Some(Family::Internet | Family::Unix) | None => {}
        }
        let failed = |code| Error::from_os(Operation::Descriptor, code);
        sys::set_nonblocking(&self.handle, false).map_err(failed)
    }
}

/// What kind of address a socket of `std` has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Family {
    Internet,
    #[allow(dead_code, reason = "not every system has Unix sockets")]
    Unix,
}

/// Returns the descriptor of a socket without a port, if the socket has one.
fn descriptor<'a>(
    handle: &'a sys::Handle,
    place: Option<&Place>,
) -> Option<BorrowedDescriptor<'a>> {
    match place.is_none_or(Place::is_real) {
        true => sys::descriptor(handle),
        false => None,
    }
}

fn unsupported(advice: &'static str) -> Error {
    Error::advised(Operation::Descriptor, ErrorKind::Unsupported, advice)
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

impl From<TcpStream> for Unassociated {
    fn from(socket: TcpStream) -> Self {
        Unassociated::of(socket.into())
    }
}

impl From<OwnedDescriptor> for Unassociated {
    fn from(socket: OwnedDescriptor) -> Self {
        Unassociated::of(sys::from_descriptor(socket))
    }
}

impl TryFrom<Unassociated> for OwnedDescriptor {
    type Error = Refused<Unassociated>;

    fn try_from(socket: Unassociated) -> Result<Self, Self::Error> {
        socket.into_standard(None)
    }
}

impl TryFrom<Unassociated> for TcpStream {
    type Error = Refused<Unassociated>;

    fn try_from(socket: Unassociated) -> Result<Self, Self::Error> {
        socket.into_standard(Some(Family::Internet)).map(Self::from)
    }
}

impl TryFrom<Accepted> for OwnedDescriptor {
    type Error = Refused<Unassociated>;

    fn try_from(accepted: Accepted) -> Result<Self, Self::Error> {
        Unassociated::from(accepted).try_into()
    }
}

impl TryFrom<Accepted> for TcpStream {
    type Error = Refused<Unassociated>;

    fn try_from(accepted: Accepted) -> Result<Self, Self::Error> {
        Unassociated::from(accepted).try_into()
    }
}
