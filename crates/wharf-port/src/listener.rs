//! The listener: a program holds it to keep accepting.
//!
//! `listen` has the options for listening. `core::accept` handles the accepted connections.

use std::mem;

use crate::address::Address;
use crate::core::close::close_quietly;
use crate::error::{Operation, Refused, Result};
use crate::key::Key;
use crate::op::{Close, Op};
use crate::port::Port;
use crate::reference::SocketRef;

/// A listening socket of a port; dropping it stops accepting and closes it.
///
/// ```
/// # fn main() -> wharf_port::Result<()> {
/// let port = wharf_port::Port::builder().build()?;
/// let listener = port.listen(([127, 0, 0, 1], 0), 90.into())?;
/// assert_ne!(listener.local_addr()?.as_socket_addr().unwrap().port(), 0);
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "dropping a listener closes it: keep it for as long as it shall accept"]
pub struct Listener {
    socket: SocketRef,
}

impl Listener {
    pub(crate) fn new(socket: SocketRef) -> Self {
        Listener { socket }
    }

    /// Accepts continuously, as [`SocketRef::accept`] does; returns the listener.
    ///
    /// It takes the listener by value. So a listener that is only a temporary value cannot start an
    /// accept that its own drop ends silently.
    ///
    /// # Errors
    /// As for [`SocketRef::accept`]; the listener comes back.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let port = wharf_port::Port::builder().build()?;
    /// let listener = port.listen(([127, 0, 0, 1], 0), 90.into())?.accept()?;
    /// # Ok(()) }
    /// ```
    ///
    /// A listener that is dropped at once causes a warning, or an error with `deny`:
    ///
    /// ```compile_fail
    /// #![deny(unused_must_use)]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let port = wharf_port::Port::builder().build()?;
    /// port.listen(([127, 0, 0, 1], 0), 90.into())?.accept()?;
    /// # Ok(()) }
    /// ```
    pub fn accept(self) -> Result<Listener, Refused<Listener>> {
        match self.socket.accept() {
            Ok(_) => Ok(self),
            Err(error) => Err(Refused { error, value: self }),
        }
    }

    /// Returns the address it listens at, with the port number that the system chose.
    ///
    /// # Errors
    /// Errors of the system, and [`ErrorKind::Closed`](crate::ErrorKind::Closed) when the port is
    /// closed.
    ///
    /// ```
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().build()?;
    /// println!("{}", port.listen(([127, 0, 0, 1], 0), 90.into())?.local_addr()?);
    /// # Ok(()) }
    /// ```
    pub fn local_addr(&self) -> Result<Address> {
        self.socket.local_addr()
    }

    /// Returns the reference that packets about this listener carry.
    ///
    /// ```
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().build()?;
    /// let listener = port.listen(([127, 0, 0, 1], 0), 90.into())?;
    /// assert_eq!(listener.socket().key()?, 90.into());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn socket(&self) -> SocketRef {
        self.socket
    }

    /// Lets another port accept from this listener's backlog too. A port that has no space for a
    /// connection leaves it to the other ports. Call [`accept`](Listener::accept) on each listener.
    ///
    /// With [`reuse_port`](crate::ListenOptions::reuse_port) instead, each listener has its own
    /// backlog. A connection stays with the listener to which the system assigned it.
    ///
    /// # Portability
    /// Both ports need the same driver. Windows refuses it as unsupported.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the system cannot share
    /// listeners, [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for two kinds of
    /// driver, [`ErrorKind::Full`](crate::ErrorKind::Full) at the other port's `sockets_max`,
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) when either port is closed.
    ///
    /// ```
    /// use wharf_port::Port;
    /// # fn main() -> wharf_port::Result<()> {
    /// # if cfg!(windows) { return Ok(()); }
    /// let (first, second) = (Port::builder().build()?, Port::builder().build()?);
    /// let listener = first.listen(([127, 0, 0, 1], 0), 90.into())?;
    /// let shared = listener.share_with(&second, 90.into())?;
    /// assert_eq!(shared.local_addr()?, listener.local_addr()?);
    /// # Ok(()) }
    /// ```
    pub fn share_with(&self, port: &Port, key: Key) -> Result<Listener> {
        let shared = self.socket.with(Operation::Listen, |core, id| {
            core.share_listener(id, &port.core)
        })?;
        port.core.listen_shared(shared, key).map(Listener::new)
    }

    /// Stops accepting and closes with a report: one `Closed` packet is the last about it.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) when the port is closed.
    ///
    /// ```
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().build()?;
    /// port.listen(([127, 0, 0, 1], 0), 90.into())?.close()?;
    /// # Ok(()) }
    /// ```
    pub fn close(self) -> Result<Op> {
        let socket = self.socket;
        mem::forget(self);
        socket.close(Close::Flush)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        close_quietly(self.socket);
    }
}
