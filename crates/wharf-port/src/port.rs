//! The port: the central object. Programs associate, submit, post and wait on it.
//!
//! It is `Send + Sync` and cheap to clone. Its methods forward to other modules. Nothing here asks
//! which system it runs on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::accepted::Unassociated;
use crate::builder::Builder;
use crate::connect::ConnectOptions;
use crate::core::options::Options;
use crate::core::{Core, Out};
use crate::driver::choice::{self, SimAsked};
use crate::driver::kind::DriverReport;
#[cfg(feature = "sim")]
use crate::driver::sim::Network;
use crate::error::{Operation, Refused, Result};
use crate::key::Key;
use crate::listen::ListenOptions;
use crate::listener::Listener;
use crate::op::{Cancel, Op};
use crate::stats::Stats;
use crate::stream::Stream;
use crate::waiter::Waiter;

/// A completion port.
///
/// Clones are handles to the same port. The port closes when the last one is dropped.
///
/// ```
/// use wharf_port::{Event, Key, Port, Wait};
/// # fn main() -> wharf_port::Result<()> {
/// let port = Port::builder().build()?;
/// let mut waiter = port.waiter()?;
/// let listener = port.listen(([127, 0, 0, 1], 0), Key(90))?;
/// let listener = listener.accept()?;
/// let client = std::net::TcpStream::connect(listener.local_addr()?.as_socket_addr().unwrap());
/// if let Wait::Packets(packets) = waiter.wait(None)? {
///     for packet in packets {
///         assert_eq!(packet.key, Key(90)); // an accept carries the listener's key
///         if let Event::Accepted(accepted) = packet.event {
///             let stream = port.associate(accepted, Key(100))?;
///             stream.set_aside();
///         }
///     }
/// }
/// # drop(client); Ok(()) }
/// ```
#[derive(Debug)]
pub struct Port {
    pub(crate) core: Arc<Core>,
}

impl Port {
    /// Starts building a port.
    ///
    /// ```
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().build()?;
    /// # Ok(()) }
    /// ```
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn build(options: Options, sim: &SimAsked) -> Result<Port> {
        let (driver, report) = choice::choose(&options, sim)?;
        Ok(Port {
            core: Core::new(options, driver, report),
        })
    }

    /// Returns a waiter: the right to wait, for the calling thread. A shared port has many.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`](crate::ErrorKind::Busy) for the second waiter of a single-waiter port,
    /// [`ErrorKind::Full`](crate::ErrorKind::Full) at `waiters_max` of a shared one,
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) after the close.
    ///
    /// ```
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().build()?;
    /// let waiter = port.waiter()?;
    /// # Ok(()) }
    /// ```
    pub fn waiter(&self) -> Result<Waiter> {
        Waiter::new(&self.core)
    }

    /// Opens a listening socket, or takes one that listens already, and associates it with `key`.
    /// Accepting starts with [`Listener::accept`].
    ///
    /// # Errors
    /// Errors of the system for the address, [`ErrorKind::Full`](crate::ErrorKind::Full) at
    /// `sockets_max`, [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a socket that
    /// does not listen.
    ///
    /// ```
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().build()?;
    /// let listener = port.listen(([127, 0, 0, 1], 0), 90.into())?;
    /// println!("listening on {}", listener.local_addr()?);
    /// # Ok(()) }
    /// ```
    pub fn listen(&self, at: impl Into<ListenOptions>, key: Key) -> Result<Listener> {
        self.core.listen(&at.into(), key).map(Listener::new)
    }

    /// Associates a connected socket: one that was just accepted, a stream of `std`, or an owned
    /// descriptor, which a `socket2::Socket` converts into. The port sets the socket to blocking or
    /// non-blocking mode. It also turns `SO_LINGER` off, because [`close`](crate::Stream::close)
    /// decides how the socket closes.
    ///
    /// # Errors
    /// [`ErrorKind::Full`](crate::ErrorKind::Full) at `sockets_max`,
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) after the close,
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a socket that listens or is
    /// no stream socket, and errors of the system. The socket comes back.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let socket = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// let port = wharf_port::Port::builder().build()?;
    /// let stream = port.associate(socket, 100.into())?;
    /// # Ok(()) }
    /// ```
    pub fn associate<S: Into<Unassociated>>(
        &self,
        socket: S,
        key: Key,
    ) -> Result<Stream, Refused<Unassociated>> {
        self.core.associate(socket.into(), key).map(Stream::new)
    }

    /// Connects to a peer. The packet `Connected` carries the stream.
    ///
    /// # Errors
    /// If the request is refused: at a bound, on a closed port, or for an address that the system
    /// does not take.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let port = wharf_port::Port::builder().build()?;
    /// let op = port.connect(listener.local_addr()?, 100.into())?;
    /// # Ok(()) }
    /// ```
    pub fn connect(&self, to: impl Into<ConnectOptions>, key: Key) -> Result<Op> {
        self.core.connect(&to.into(), key)
    }

    /// Sets a timer: a `Timer` packet comes once `at` has passed, never before.
    ///
    /// # Errors
    /// [`ErrorKind::Full`](crate::ErrorKind::Full) at `timers_max`, which counts cancelled timers
    /// until their packets are taken; [`ErrorKind::Closed`](crate::ErrorKind::Closed) after the
    /// close.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().build()?;
    /// let op = port.timer(Instant::now() + Duration::from_millis(1), 5.into())?;
    /// # Ok(()) }
    /// ```
    pub fn timer(&self, at: Instant, key: Key) -> Result<Op> {
        self.core.start_timer(at, key)
    }

    /// Posts a packet, `Posted(value)` with `key`, to one waiter. It is never lost. Packets that
    /// one thread posts are dequeued in order.
    ///
    /// # Errors
    /// [`ErrorKind::Full`](crate::ErrorKind::Full) at `posts_max`, [`ErrorKind::Closed`](crate::ErrorKind::Closed) after the close.
    ///
    /// ```
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().build()?;
    /// port.post(u64::MAX.into(), 1).unwrap();
    /// # Ok(()) }
    /// ```
    pub fn post(&self, key: Key, value: u64) -> Result<(), Refused<u64>> {
        self.core.post(key, value)
    }

    /// Requests that an operation ends. The outcome is in its last packet: the operation may still
    /// succeed.
    ///
    /// ```
    /// # use wharf_port::{Cancel, Port};
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = Port::builder().build()?;
    /// let listener = port.listen(([127, 0, 0, 1], 0), 90.into())?;
    /// let op = listener.socket().accept()?;
    /// assert_eq!(port.cancel(op), Cancel::Requested);
    /// drop(listener); // ends its accept too
    /// assert_eq!(port.cancel(op), Cancel::NotFound);
    /// # Ok(()) }
    /// ```
    pub fn cancel(&self, op: Op) -> Cancel {
        if op.port != self.core.id() || self.core.is_forked() {
            return Cancel::NotFound;
        }
        match op.operation {
            Operation::Timer => self.core.cancel_timer(op),
            Operation::Post | Operation::Close => Cancel::NotFound,
            // No packet is of one of these, and so no `Op`.
            Operation::Build
            | Operation::Waiter
            | Operation::Wait
            | Operation::Listen
            | Operation::Associate
            | Operation::Address
            | Operation::Descriptor => Cancel::NotFound,
            Operation::Accept
            | Operation::Connect
            | Operation::Receive
            | Operation::ReceiveInto
            | Operation::Watch => self.core.cancel_receive(op, Out::queue()),
            Operation::Send | Operation::Shutdown => self.core.cancel_send(op, Out::queue()),
        }
    }

    /// Submits what the calling thread has requested, and what waits for its next wait. It never
    /// blocks.
    ///
    /// Call it in a handler that sends and then computes for more than a few milliseconds without
    /// another call on this port. Only `uring` keeps requests for the next wait. A send is kept at
    /// most until the thread's next send or packet after the clock has ticked (1 to 10 ms). A
    /// thread without a waiter, and a thread whose handlers run long, sends at once. On `iocp` a
    /// send leaves at once unless another send of its socket is still queued. Then this call
    /// processes completions and continues with the queue. On the other drivers this call has
    /// nothing to do.
    ///
    /// ```
    /// # use std::io::Read;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let mut peer = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// # let (socket, _) = listener.accept()?;
    /// let port = wharf_port::Port::builder().build()?;
    /// let stream = port.associate(socket, 100.into())?;
    /// stream.send("working on it").unwrap();
    /// port.submit(); // the peer has it before the work begins
    /// # let mut heard = [0; 13];
    /// # peer.read_exact(&mut heard)?;
    /// # assert_eq!(&heard, b"working on it");
    /// # Ok(()) }
    /// ```
    pub fn submit(&self) {
        self.core.submit();
    }

    /// Shuts the port down gracefully, within `grace`. The port accepts nothing more, sends what is
    /// queued, ends each stream with a FIN, and then closes, so every wait returns `Closed`. The
    /// call returns at once, cannot fail, and works from any thread.
    ///
    /// From this call on, `listen`, `associate`, `connect` and every operation on a socket are
    /// refused as [`ErrorKind::Closed`](crate::ErrorKind::Closed). Sockets close as if their owners
    /// had dropped them: no packets about them come any more, and what their peers send is not
    /// read. Connects in progress, and accepted connections that are not associated yet, are
    /// closed. Posts, timers that are due, and packets of earlier closes are still delivered. The
    /// port closes once all of these are taken, including those that a waiter has left in its
    /// batch.
    ///
    /// The waiting threads do the sending: let them wait, and take what comes, until they get
    /// `Closed`. If there is no waiter, or the last one is dropped before the end, the port closes
    /// at once, as by [`close`](Self::close). Streams that have not sent everything when the time
    /// is up are reset; [`Stats::streams_cut`] and [`Stats::bytes_unsent`] count them. A second
    /// call can only shorten the time.
    ///
    /// ```
    /// # use std::io::Read;
    /// use std::time::Duration;
    /// use wharf_port::{Port, Wait};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let mut peer = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// # let (socket, _) = listener.accept()?;
    /// let port = Port::builder().build()?;
    /// let mut waiter = port.waiter()?;
    /// let stream = port.associate(socket, 100.into())?;
    /// stream.send("goodbye").unwrap();
    /// port.shutdown(Duration::from_secs(5));
    /// while !matches!(waiter.wait(None)?, Wait::Closed) {}
    /// assert_eq!(port.stats().bytes_unsent, 0);
    /// # let mut heard = String::new();
    /// # peer.read_to_string(&mut heard)?;
    /// # assert_eq!(heard, "goodbye");
    /// # Ok(()) }
    /// ```
    pub fn shutdown(&self, grace: Duration) {
        self.core.shutdown_port(grace);
    }

    /// Closes the port: every wait, now and later, returns `Closed`. Everything that the port holds
    /// is ended once the last waiter is dropped. The call cannot fail, and works from any thread.
    ///
    /// It waits for nothing. Of the queued sends, it sends what the system takes without waiting. A
    /// stream that has nothing left ends with a FIN. Three things are lost. Sends to a slow peer
    /// are lost: their streams are reset, and counted in [`Stats::streams_cut`] and
    /// [`Stats::bytes_unsent`]. Packets that are not taken yet are lost with their content, such as
    /// received bytes, posts and accepted connections (counted in [`Stats::accepted_untaken`]). The
    /// outcomes of operations in progress are lost. [`shutdown`](Self::shutdown) loses no sends.
    ///
    /// ```
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().build()?;
    /// port.close();
    /// assert!(port.post(1.into(), 1).is_err());
    /// # Ok(()) }
    /// ```
    pub fn close(&self) {
        self.core.close();
    }

    /// Returns what the port holds and has counted. In a process that was forked after the port was
    /// built all of it is 0, because the port belongs to the parent.
    ///
    /// ```
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().build()?;
    /// assert_eq!(port.stats().operations_leaked, 0);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// Returns the far end of a port that was built on a simulated network with [`Builder::sim`];
    /// `None` on a real one. It needs the feature `sim` of this crate.
    ///
    /// ```
    /// use wharf_port::{Port, sim::SimOptions};
    /// # fn main() -> wharf_port::Result<()> {
    /// assert!(Port::builder().build()?.sim().is_none());
    /// assert!(Port::builder().sim(SimOptions::new(1)).build()?.sim().is_some());
    /// # Ok(()) }
    /// ```
    #[must_use]
    #[cfg(feature = "sim")]
    pub fn sim(&self) -> Option<Network> {
        self.core.driver().network()
    }

    /// Returns which driver the port uses, and why it passed over the others.
    ///
    /// ```
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().build()?;
    /// for passed in &port.driver().passed_over {
    ///     println!("not {}: {}", passed.kind, passed.reason);
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn driver(&self) -> &DriverReport {
        self.core.report()
    }
}

impl Clone for Port {
    fn clone(&self) -> Self {
        self.core.handle_made();
        Port {
            core: Arc::clone(&self.core),
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.core.handle_gone();
    }
}
