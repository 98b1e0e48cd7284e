//! The operations of a socket: each method is one call of the core.
//!
//! [`SocketRef`] is a number with a generation. A packet carries one, so a handler needs no
//! dictionary to respond. A reference that outlived its socket gets `Closed`.
//! [`Stream`](crate::Stream) owns the socket. [`Stream::set_aside`](crate::Stream::set_aside) gives
//! the ownership to the port, as the article series put its connections into a dictionary and
//! forgot them.

use std::sync::Arc;

use crate::address::Address;
use crate::buffer::Buffer;
use crate::core::registry::with_core;
use crate::core::slot::{SlotId, SocketState};
use crate::core::{Core, Out};
use crate::driver::Driver;
use crate::driver::kind::DriverKind;
use crate::error::{Error, ErrorKind, Operation, Refused, Result};
use crate::key::Key;
use crate::op::{Close, Op};
use crate::reference::SocketRef;
use crate::sys::{self, BorrowedDescriptor};

const NO_DESCRIPTOR: &str = "this socket has no descriptor of its own: set what listener and connect \
                             have options for, or build the port without direct descriptors";

impl SocketRef {
    pub(crate) fn with<R>(
        self,
        operation: Operation,
        action: impl FnOnce(&Arc<Core>, SlotId) -> Result<R>,
    ) -> Result<R> {
        with_core(self.port, |core| action(core, self.slot_id()))
            .unwrap_or(Err(Error::new(operation, ErrorKind::Closed)))
    }

    fn state<R>(
        self,
        operation: Operation,
        read: impl FnOnce(&SocketState) -> Result<R>,
    ) -> Result<R> {
        self.with(operation, |core, id| {
            let closed = Error::new(operation, ErrorKind::Closed);
            let socket = core.lock(id, Out::queue()).ok_or(closed)?;
            read(&socket)
        })
    }

    fn address(
        self,
        ask: impl FnOnce(&dyn Driver, &sys::Handle) -> std::io::Result<Address>,
    ) -> Result<Address> {
        let closed = Error::new(Operation::Address, ErrorKind::Closed);
        self.with(Operation::Address, |core, id| {
            let socket = core.lock(id, Out::queue()).ok_or(closed)?;
            let handle = socket.handle().ok_or(closed)?;
            ask(core.driver(), handle).map_err(|e| Error::from_io(Operation::Address, &e))
        })
    }

    /// Accepts continuously on a listener: one `Accepted` packet per connection, with the
    /// listener's key. To pause, cancel it. To resume, call it again.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] while accepting, [`ErrorKind::InvalidInput`] for a connection,
    /// [`ErrorKind::Closed`] for a stale reference or when the port is closed.
    /// [`ErrorKind::Full`] while `operations_per_socket_max` ends of such operations wait to be taken.
    ///
    /// ```
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().build()?;
    /// let listener = port.listen(([127, 0, 0, 1], 0), 90.into())?;
    /// let op = listener.socket().accept()?;
    /// port.cancel(op);
    /// # Ok(()) }
    /// ```
    pub fn accept(&self) -> Result<Op> {
        self.with(Operation::Accept, Core::accept)
    }

    /// Receives continuously: `Received` packets with lent buffers, then one `Ended`.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] while another operation reads or watches, [`ErrorKind::Closed`] for a
    /// stale reference.
    /// [`ErrorKind::Full`] while `operations_per_socket_max` ends of such operations wait to be taken.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let socket = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// # let port = wharf_port::Port::builder().build()?;
    /// let stream = port.associate(socket, 100.into())?;
    /// let op = stream.socket().receive()?;
    /// # Ok(()) }
    /// ```
    pub fn receive(&self) -> Result<Op> {
        self.with(Operation::Receive, Core::receive)
    }

    /// Receives once into `buffer`, up to its length: one `ReceivedInto`, or `Ended` with the
    /// buffer. Several may be queued; they are filled in order. An empty buffer waits until there
    /// is something to receive, and reads nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] while a streaming receive or a watch is in progress, [`ErrorKind::Full`]
    /// when too many are queued, [`ErrorKind::Closed`] for a stale reference. The buffer comes
    /// back.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let socket = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// # let port = wharf_port::Port::builder().build()?;
    /// let stream = port.associate(socket, 100.into())?;
    /// let op = stream.socket().receive_into(vec![0; 512])?;
    /// # Ok(()) }
    /// ```
    pub fn receive_into(&self, buffer: Vec<u8>) -> Result<Op, Refused<Vec<u8>>> {
        let mut buffer = Some(buffer);
        with_core(self.port, |core| {
            core.receive_into(self.slot_id(), buffer.take().unwrap_or_default())
        })
        .unwrap_or_else(|| {
            let buffer = buffer.take().unwrap_or_default();
            Err(Refused::new(
                Operation::ReceiveInto,
                ErrorKind::Closed,
                buffer,
            ))
        })
    }

    /// Reports with one `PeerLeft` when the peer leaves, by FIN or RST. It reads nothing.
    ///
    /// # Portability
    /// Under Wine a FIN after unread data is not seen.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] while a receive is in progress, [`ErrorKind::Closed`] for a stale
    /// reference. [`ErrorKind::Full`] while `operations_per_socket_max` ends of such operations
    /// wait to be taken.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let socket = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// # let port = wharf_port::Port::builder().build()?;
    /// let held = port.associate(socket, 100.into())?.set_aside();
    /// held.watch()?;
    /// # Ok(()) }
    /// ```
    pub fn watch(&self) -> Result<Op> {
        self.with(Operation::Watch, Core::watch)
    }

    /// Sends. It is silent on success, and delivers `SendFailed` with the buffer otherwise. Sends
    /// of one socket go out whole and in order. Sending an empty buffer does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Full`] when the queue is full (`SendReady` follows), [`ErrorKind::Aborted`]
    /// after a send failed, [`ErrorKind::BrokenPipe`] after a shutdown, [`ErrorKind::Closed`] after
    /// a close or for a stale reference. The buffer comes back.
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
        self.queue_send(buffer.into(), false)
    }

    /// Sends like [`SocketRef::send`], and reports success: `Sent` with the buffer.
    ///
    /// # Errors
    /// As for [`SocketRef::send`].
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
        self.queue_send(buffer.into(), true)
    }

    fn queue_send(self, buffer: Buffer, reported: bool) -> Result<Op, Refused<Buffer>> {
        let mut buffer = Some(buffer);
        with_core(self.port, |core| {
            core.send(self.slot_id(), buffer.take().unwrap_or_default(), reported)
        })
        .unwrap_or_else(|| {
            let buffer = buffer.take().unwrap_or_default();
            Err(Refused::new(Operation::Send, ErrorKind::Closed, buffer))
        })
    }

    /// Ends the write side once the queued sends are out (FIN). One `ShutDown` reports when that is
    /// done.
    ///
    /// # Errors
    /// [`ErrorKind::BrokenPipe`] after another shutdown, [`ErrorKind::Closed`] for a stale reference.
    /// [`ErrorKind::Full`] while `operations_per_socket_max` ends of such operations wait to be taken.
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
        self.with(Operation::Shutdown, Core::shutdown)
    }

    /// Closes a socket that was set aside. One `Closed` packet is the last about it.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] for a stale reference or when a close is in progress.
    ///
    /// ```
    /// use wharf_port::Close;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let socket = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// # let port = wharf_port::Port::builder().build()?;
    /// let held = port.associate(socket, 100.into())?.set_aside();
    /// let op = held.close(Close::Reset)?;
    /// # Ok(()) }
    /// ```
    pub fn close(&self, how: Close) -> Result<Op> {
        self.with(Operation::Close, |core, id| {
            core.close_socket(id, how, false)
        })
    }

    /// Returns the key that the socket was associated with.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] for a stale reference.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let socket = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// # let port = wharf_port::Port::builder().build()?;
    /// assert_eq!(port.associate(socket, 100.into())?.key()?, 100.into());
    /// # Ok(()) }
    /// ```
    pub fn key(&self) -> Result<Key> {
        self.state(Operation::Address, |state| Ok(state.key()))
    }

    /// Returns the address on this side.
    ///
    /// # Errors
    /// Errors of the system, and [`ErrorKind::Closed`] for a stale reference.
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
        self.address(|driver, handle| driver.local_address(handle))
    }

    /// Returns the peer's address, unless the peer is gone.
    ///
    /// # Errors
    /// [`ErrorKind::NotConnected`] when the peer is gone, [`ErrorKind::Closed`] for a stale
    /// reference.
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
        self.address(|driver, handle| driver.peer_address(handle))
    }

    /// Lends the socket's descriptor to `use_it`, to set or read an option.
    ///
    /// It is a duplicate descriptor, because the port may close its own during the call. The
    /// duplicate closes at the end of the call. If the connection ends during the call, its peer
    /// learns that only at the end of the call. Do not read from it, write to it or change its
    /// blocking mode: the port cannot detect that mistake.
    ///
    /// A stream and a listener have this method in place of `AsFd`, because the port owns the
    /// descriptor and any copy of this reference may close it.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] for a stale reference, [`ErrorKind::Unsupported`] for a socket in the
    /// table of a ring and on the simulated network, [`ErrorKind::TooManyOpenFiles`] if no
    /// descriptor is left.
    ///
    /// ```
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().build()?;
    /// let listener = port.listen(([127, 0, 0, 1], 0), 90.into())?;
    /// // On Unix this is a `BorrowedFd`, which `socket2::SockRef::from` takes by reference.
    /// let text = listener.socket().with_descriptor(|descriptor| format!("{descriptor:?}"))?;
    /// assert!(text.starts_with("Borrowed"));
    /// # Ok(()) }
    /// ```
    pub fn with_descriptor<R>(
        &self,
        use_it: impl FnOnce(BorrowedDescriptor<'_>) -> R,
    ) -> Result<R> {
        const OPERATION: Operation = Operation::Descriptor;
        let lent = self.with(OPERATION, |core, id| {
            let closed = Error::new(OPERATION, ErrorKind::Closed);
            let socket = core.lock(id, Out::queue()).ok_or(closed)?;
            let handle = socket.handle().ok_or(closed)?;
            if core.report().kind == DriverKind::Sim || sys::is_direct(handle) {
                return Err(Error::advised(
                    OPERATION,
                    ErrorKind::Unsupported,
                    NO_DESCRIPTOR,
                ));
            }
            let lent = handle.try_clone();
            lent.map_err(|error| Error::from_io(OPERATION, &error))
        })?;
        let lent = sys::descriptor(&lent).expect("a copy of a descriptor is one");
        Ok(use_it(lent))
    }

    /// Returns the system's number of the socket, for log lines. It is no handle: the port owns the
    /// socket, and the number may refer to another socket as soon as this call returns.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] for a stale reference.
    ///
    /// ```
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().build()?;
    /// let listener = port.listen(([127, 0, 0, 1], 0), 90.into())?;
    /// assert!(listener.socket().raw_descriptor()? > 0);
    /// # Ok(()) }
    /// ```
    pub fn raw_descriptor(&self) -> Result<u64> {
        self.state(Operation::Address, |state| {
            let handle = state.handle();
            let handle = handle.ok_or(Error::new(Operation::Address, ErrorKind::Closed))?;
            Ok(sys::raw_number(handle))
        })
    }
}
