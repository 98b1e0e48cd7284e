//! The owner of a connection: a program holds it to keep the connection open.
//!
//! [`Stream`] closes when it is dropped, like the standard library's. Methods that start to read
//! take the owner and return it. An owner that is only a temporary value would close what it had
//! just started, silently. Methods that borrow the owner were rejected for that reason: the borrow
//! ends with the statement, and the statement compiles.
//!
//! `Deref` to [`SocketRef`] was rejected: both have `close`, and through a reference to the owner
//! the wrong one was called.

use std::mem;

use crate::address::Address;
use crate::buffer::Buffer;
use crate::core::close::close_quietly;
use crate::error::{Refused, Result};
use crate::key::Key;
use crate::op::{Close, Op};
use crate::reference::SocketRef;

/// An associated connection and its ownership.
///
/// Dropping it closes quietly: the queued sends go out, then FIN; no more packets come. So methods
/// that start to read take the owner and return it: an owner that is only a temporary value cannot
/// start a receive that its own drop ends silently. A caller that needs the operation, to cancel
/// it, calls the same method of [`Stream::socket`].
///
/// ```
/// use wharf_port::Stream;
/// fn is_shared<T: Send + Sync>() {}
/// is_shared::<Stream>();
/// assert!(std::mem::size_of::<Stream>() <= 16);
/// ```
#[derive(Debug)]
#[must_use = "dropping a stream closes its connection: keep it, or set it aside"]
pub struct Stream {
    socket: SocketRef,
}

impl Stream {
    pub(crate) fn new(socket: SocketRef) -> Self {
        Stream { socket }
    }

    /// Returns the reference that packets about this stream carry.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let socket = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// # let port = wharf_port::Port::builder().build()?;
    /// let stream = port.associate(socket, 100.into())?;
    /// let reference = stream.socket();
    /// drop(stream);
    /// assert!(reference.receive().is_err());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn socket(&self) -> SocketRef {
        self.socket
    }

    /// Receives continuously, as [`SocketRef::receive`] does; returns the stream.
    ///
    /// # Errors
    /// As for [`SocketRef::receive`]; the stream comes back.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let socket = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// # let port = wharf_port::Port::builder().build()?;
    /// let stream = port.associate(socket, 100.into())?.receive()?;
    /// # Ok(()) }
    /// ```
    ///
    /// A stream that is dropped at once causes a warning, or an error with `deny`:
    ///
    /// ```compile_fail
    /// #![deny(unused_must_use)]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let socket = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// # let port = wharf_port::Port::builder().build()?;
    /// port.associate(socket, 100.into())?.receive()?;
    /// # Ok(()) }
    /// ```
    pub fn receive(self) -> Result<Stream, Refused<Stream>> {
        match self.socket.receive() {
            Ok(_) => Ok(self),
            Err(error) => Err(Refused { error, value: self }),
        }
    }

    /// Receives once into `buffer`, as [`SocketRef::receive_into`] does; returns the stream.
    ///
    /// # Errors
    /// As for [`SocketRef::receive_into`]; the stream and the buffer come back.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let socket = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// # let port = wharf_port::Port::builder().build()?;
    /// let stream = port.associate(socket, 100.into())?.receive_into(vec![0; 512])?;
    /// # Ok(()) }
    /// ```
    pub fn receive_into(self, buffer: Vec<u8>) -> Result<Stream, Refused<(Stream, Vec<u8>)>> {
        match self.socket.receive_into(buffer) {
            Ok(_) => Ok(self),
            Err(Refused { error, value }) => Err(Refused {
                error,
                value: (self, value),
            }),
        }
    }

    /// Reports when the peer leaves, as [`SocketRef::watch`] does; returns the stream.
    ///
    /// # Errors
    /// As for [`SocketRef::watch`]; the stream comes back.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let socket = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// # let port = wharf_port::Port::builder().build()?;
    /// let held = port.associate(socket, 100.into())?.watch()?.set_aside();
    /// # Ok(()) }
    /// ```
    pub fn watch(self) -> Result<Stream, Refused<Stream>> {
        match self.socket.watch() {
            Ok(_) => Ok(self),
            Err(error) => Err(Refused { error, value: self }),
        }
    }

    /// Sends, as [`SocketRef::send`] does.
    ///
    /// # Errors
    /// As for [`SocketRef::send`]; the buffer comes back.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let socket = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// # let port = wharf_port::Port::builder().build()?;
    /// let stream = port.associate(socket, 100.into())?;
    /// let op = stream.send("Disconnecting you..")?;
    /// # Ok(()) }
    /// ```
    pub fn send(&self, buffer: impl Into<Buffer>) -> Result<Op, Refused<Buffer>> {
        self.socket.send(buffer)
    }

    /// Sends and reports success, as [`SocketRef::send_reported`] does.
    ///
    /// # Errors
    /// As for [`SocketRef::send`]; the buffer comes back.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let socket = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// # let port = wharf_port::Port::builder().build()?;
    /// let stream = port.associate(socket, 100.into())?;
    /// let op = stream.send_reported(vec![1, 2, 3])?;
    /// # Ok(()) }
    /// ```
    pub fn send_reported(&self, buffer: impl Into<Buffer>) -> Result<Op, Refused<Buffer>> {
        self.socket.send_reported(buffer)
    }

    /// Ends the write side once the queued sends are out, as [`SocketRef::shutdown`] does.
    ///
    /// # Errors
    /// As for [`SocketRef::shutdown`].
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let socket = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// # let port = wharf_port::Port::builder().build()?;
    /// let stream = port.associate(socket, 100.into())?;
    /// let op = stream.shutdown()?;
    /// # Ok(()) }
    /// ```
    pub fn shutdown(&self) -> Result<Op> {
        self.socket.shutdown()
    }

    /// Returns the key that the stream was associated with.
    ///
    /// # Errors
    /// As for [`SocketRef::key`].
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let socket = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// # let port = wharf_port::Port::builder().build()?;
    /// let stream = port.associate(socket, 100.into())?;
    /// assert_eq!(stream.key()?, 100.into());
    /// # Ok(()) }
    /// ```
    pub fn key(&self) -> Result<Key> {
        self.socket.key()
    }

    /// Returns the address on this side.
    ///
    /// # Errors
    /// As for [`SocketRef::local_addr`].
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let socket = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// # let port = wharf_port::Port::builder().build()?;
    /// let stream = port.associate(socket, 100.into())?;
    /// assert!(stream.local_addr()?.as_socket_addr().unwrap().ip().is_loopback());
    /// # Ok(()) }
    /// ```
    pub fn local_addr(&self) -> Result<Address> {
        self.socket.local_addr()
    }

    /// Returns the peer's address.
    ///
    /// # Errors
    /// As for [`SocketRef::peer_addr`].
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let socket = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// # let port = wharf_port::Port::builder().build()?;
    /// let stream = port.associate(socket, 100.into())?;
    /// assert_eq!(stream.peer_addr()?, listener.local_addr()?.into());
    /// # Ok(()) }
    /// ```
    pub fn peer_addr(&self) -> Result<Address> {
        self.socket.peer_addr()
    }

    /// Gives the connection to the port. It stays open until a reference closes it, or until the
    /// port ends.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let socket = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// # let port = wharf_port::Port::builder().build()?;
    /// let held = port.associate(socket, 100.into())?.set_aside();
    /// assert_eq!(held.key()?, 100.into());
    /// # Ok(()) }
    /// ```
    pub fn set_aside(self) -> SocketRef {
        let socket = self.socket;
        mem::forget(self);
        socket
    }

    /// Closes with a report: one `Closed` packet is the last about this connection.
    ///
    /// ```
    /// use wharf_port::Close;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let socket = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// # let port = wharf_port::Port::builder().build()?;
    /// let stream = port.associate(socket, 100.into())?;
    /// let op = stream.close(Close::Flush);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) when the port is closed, or when a reference
    /// has closed the connection before.
    pub fn close(self, how: Close) -> Result<Op> {
        self.set_aside().close(how)
    }
}

impl From<&Stream> for SocketRef {
    fn from(stream: &Stream) -> Self {
        stream.socket
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        close_quietly(self.socket);
    }
}
