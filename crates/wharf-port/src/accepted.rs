//! Sockets on their way into a port: accepted ones, and those of other libraries.
//!
//! An accepted socket belongs to no port yet, so that it may be associated with any: a program
//! with a port per thread deals them out. It keeps a place in the table of the port that accepted
//! it, which makes `sockets_max` exact.

use std::sync::Arc;

use crate::address::Address;
use crate::core::Core;
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

/// A place kept in a port's table for a socket that was accepted and not yet associated.
#[derive(Debug)]
pub(crate) struct Place {
    core: Arc<Core>,
    spent: bool,
    /// By which the driver knows the socket, where a drop must be told to it.
    token: Option<u64>,
}

impl Place {
    /// Takes a place of this port's table, if there is one.
    pub(crate) fn keep(core: &Arc<Core>) -> Option<Self> {
        core.slots.reserve().then(|| Place {
            core: Arc::clone(core),
            spent: false,
            token: None,
        })
    }

    /// Marks the place with the driver's own name of the socket that has it.
    pub(crate) fn mark(&mut self, token: u64) {
        self.token = Some(token);
    }

    /// Whether it is a place in this port's table.
    pub(crate) fn is_of(&self, core: &Core) -> bool {
        self.core.id == core.id
    }

    /// A slot has taken the place.
    pub(crate) fn spend(mut self) {
        self.spent = true;
    }

    /// No socket came; nobody has to be told.
    pub(crate) fn give_up(mut self) {
        self.spent = true;
        self.core.slots.unreserve();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.spent && !self.core.is_forked() {
            if let Some(token) = self.token {
                self.core.driver.untaken(token);
            }
            self.core.slots.unreserve();
            self.core.socket_gone();
        }
    }
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
            (None, Some(place)) => place.core.driver.peer_of(&self.handle),
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

#[cfg(test)]
mod tests {
    use super::Place;
    use crate::core::Out;
    use crate::packet::PauseReason;
    use crate::{Key, Port};

    /// A case cannot tell this call from that of the listener's own timer, but by time.
    #[test]
    fn a_connection_that_is_dropped_calls_the_listener_that_waits() {
        let port = Port::builder().sockets_max(2).build();
        let port = port.expect("a driver of this system");
        let core = &port.core;
        let listener = port.listen(([127, 0, 0, 1], 0), Key(1)).expect("a place");
        let place = Place::keep(core).expect("the second place");
        let id = listener.socket().slot_id();
        let mut state = core.slots.lock(id).expect("it is open");
        let out = &mut Out::queue();
        core.pause_accept(id, &mut state, PauseReason::SocketsMax, out);
        drop(state);
        drop(core.ready.drain());
        assert!(core.ready.is_empty());
        drop(place);
        assert!(!core.ready.is_empty(), "it was called");
    }
}
