//! Opening a listening socket: its address, backlog and options.
//!
//! Binds are exclusive on Windows, where `SO_REUSEADDR` would let another program take the port,
//! and set `SO_REUSEADDR` on Unix, where it only means that connections in TIME_WAIT do not stop a
//! restart (contract C19). Options set here hold for every accepted socket.

use std::mem;
use std::sync::Arc;

use crate::address::Address;
use crate::core::Core;
use crate::core::slot::flag;
use crate::error::{Error, ErrorKind, Operation, Refused, Result};
use crate::keepalive::Keepalive;
use crate::key::Key;
use crate::op::Op;
use crate::port::Port;
use crate::socket::{Close, SocketRef, close_quietly};
use crate::sys;

/// How to listen: what [`Port::listen`](crate::Port::listen) takes. Any address converts into it.
///
/// ```
/// use wharf_port::ListenOptions;
/// let options = ListenOptions::new(([127, 0, 0, 1], 0)).backlog(128);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ListenOptions {
    pub(crate) address: Address,
    pub(crate) backlog: i32,
    pub(crate) dual_stack: bool,
    pub(crate) share_port: bool,
    pub(crate) no_delay: bool,
    pub(crate) congestion_control: Option<Arc<str>>,
    pub(crate) keepalive: Option<Keepalive>,
}

/// Connections the system keeps for a listener unless told otherwise; it caps the number by its
/// own bound (`net.core.somaxconn` on Linux).
const BACKLOG: i32 = 4096;

impl ListenOptions {
    /// Listens at this address.
    ///
    /// ```
    /// let options = wharf_port::ListenOptions::new(([0, 0, 0, 0], 10101));
    /// ```
    pub fn new(address: impl Into<Address>) -> Self {
        ListenOptions {
            address: address.into(),
            backlog: BACKLOG,
            dual_stack: false,
            share_port: false,
            no_delay: true,
            congestion_control: None,
            keepalive: None,
        }
    }

    /// How many connections wait in the system until they are accepted; 4,096 by default. The
    /// system's own bound (`net.core.somaxconn` on Linux, 200 and up on Windows) caps it.
    ///
    /// ```
    /// let options = wharf_port::ListenOptions::new(([127, 0, 0, 1], 0)).backlog(16);
    /// ```
    pub fn backlog(mut self, connections: i32) -> Self {
        self.backlog = connections;
        self
    }

    /// Whether a version 6 listener takes version 4 connections too; no by default.
    ///
    /// ```
    /// use std::net::Ipv6Addr;
    /// let options = wharf_port::ListenOptions::new((Ipv6Addr::UNSPECIFIED, 0)).dual_stack(true);
    /// ```
    pub fn dual_stack(mut self, both: bool) -> Self {
        self.dual_stack = both;
        self
    }

    /// Whether other listeners may share the address, the system dealing the connections out
    /// (`SO_REUSEPORT`); no by default.
    ///
    /// # Portability
    /// Only Linux deals connections out evenly; Windows refuses it as unsupported.
    ///
    /// ```
    /// let options = wharf_port::ListenOptions::new(([127, 0, 0, 1], 0)).share_port(true);
    /// ```
    pub fn share_port(mut self, share: bool) -> Self {
        self.share_port = share;
        self
    }

    /// Whether small sends of accepted connections go out at once (`TCP_NODELAY`); yes by default.
    ///
    /// ```
    /// let options = wharf_port::ListenOptions::new(([127, 0, 0, 1], 0)).no_delay(false);
    /// ```
    pub fn no_delay(mut self, no_delay: bool) -> Self {
        self.no_delay = no_delay;
        self
    }

    /// The algorithm that decides how fast accepted connections send (`TCP_CONGESTION`), such as
    /// `cubic`; the system's own choice by default.
    ///
    /// # Portability
    /// Linux and FreeBSD have it; elsewhere, and on Unix sockets, it is refused as unsupported. A
    /// name that the system does not have is refused as [`ErrorKind::InvalidInput`], one that it
    /// keeps to root as [`ErrorKind::PermissionDenied`].
    ///
    /// ```
    /// use wharf_port::ListenOptions;
    /// let options = ListenOptions::new(([127, 0, 0, 1], 0)).congestion_control("cubic");
    /// ```
    pub fn congestion_control(mut self, name: impl Into<Arc<str>>) -> Self {
        self.congestion_control = Some(name.into());
        self
    }

    /// Asks the peer of each accepted connection whether it is still there when it is silent for long (`SO_KEEPALIVE`);
    /// no by default. A figure that the system does not take is refused as
    /// [`ErrorKind::InvalidInput`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use wharf_port::{ListenOptions, Keepalive};
    /// let keepalive = Keepalive::after(Duration::from_secs(60));
    /// let options = ListenOptions::new(([127, 0, 0, 1], 80)).keepalive(keepalive);
    /// ```
    pub fn keepalive(mut self, keepalive: Keepalive) -> Self {
        self.keepalive = Some(keepalive);
        self
    }
}

impl<A: Into<Address>> From<A> for ListenOptions {
    fn from(address: A) -> Self {
        ListenOptions::new(address)
    }
}

/// A listening socket of a port; dropping it stops accepting and closes it.
///
/// ```
/// # fn main() -> wharf_port::Result<()> {
/// let port = wharf_port::Port::builder().build()?;
/// let listener = port.listen(([127, 0, 0, 1], 0), 90.into())?;
/// assert_ne!(listener.local_address()?.internet().unwrap().port(), 0);
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
    /// It takes the listener so that one which is only a temporary value cannot start an accept
    /// that its own drop ends in silence.
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
    /// A listener that is dropped at once is a warning, and an error where that lint is one:
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

    /// The address it listens at, with the port number the system chose.
    ///
    /// # Errors
    /// What the system says, [`ErrorKind::Closed`] when the port is closed.
    ///
    /// ```
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().build()?;
    /// println!("{}", port.listen(([127, 0, 0, 1], 0), 90.into())?.local_address()?);
    /// # Ok(()) }
    /// ```
    pub fn local_address(&self) -> Result<Address> {
        self.socket.local_address()
    }

    /// The reference that packets about this listener carry.
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

    /// Lets another port accept from this listener's backlog too: a port that has no room for a
    /// connection leaves it to the others. Each has to be told to [`accept`](Listener::accept).
    ///
    /// With [`share_port`](ListenOptions::share_port) instead, each listener has a backlog of its
    /// own, and a connection stays with the one that the system dealt it to.
    ///
    /// # Portability
    /// Both ports need the same driver; Windows refuses it as unsupported.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where that cannot be, [`ErrorKind::InvalidInput`] for two kinds of
    /// driver, [`ErrorKind::Full`] at the other port's `sockets_max`, [`ErrorKind::Closed`] when
    /// either port is closed.
    ///
    /// ```
    /// use wharf_port::Port;
    /// # fn main() -> wharf_port::Result<()> {
    /// # if cfg!(windows) { return Ok(()); }
    /// let (first, second) = (Port::builder().build()?, Port::builder().build()?);
    /// let listener = first.listen(([127, 0, 0, 1], 0), 90.into())?;
    /// let shared = listener.share_with(&second, 90.into())?;
    /// assert_eq!(shared.local_address()?, listener.local_address()?);
    /// # Ok(()) }
    /// ```
    pub fn share_with(&self, port: &Port, key: Key) -> Result<Listener> {
        let shared = self.socket.with(Operation::Listen, |core, id| {
            let closed = Error::new(Operation::Listen, ErrorKind::Closed);
            let mut state = core.slots.lock(id).ok_or(closed)?;
            if state.handle.is_none() {
                return Err(closed);
            }
            if core.report.kind != port.core.report.kind {
                // Each wants another mode of a socket that is one and the same.
                let kind = ErrorKind::InvalidInput;
                return Err(Error::advised(Operation::Listen, kind, SAME_DRIVER));
            }
            let shared = core.driver.share_listener(&state);
            let shared = shared.map_err(|error| Error::from_io(Operation::Listen, &error))?;
            state.set(flag::SHARED_LISTENER);
            Ok(shared)
        })?;
        port.core
            .listen_on(shared, key, flag::LISTENER | flag::SHARED_LISTENER)
    }

    /// Stops accepting and closes, with a report: one `Closed` packet is the last about it.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] when the port is closed.
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

const SAME_DRIVER: &str =
    "a listener is shared among ports of one kind of driver: require the same for both";

impl Core {
    pub(crate) fn listen(self: &Arc<Self>, at: &ListenOptions, key: Key) -> Result<Listener> {
        let failed = |error: std::io::Error| Error::from_io(Operation::Listen, &error);
        if self.takes_no_sockets() {
            return Err(Error::new(Operation::Listen, ErrorKind::Closed));
        }
        let handle = self.driver.open_listener(at).map_err(failed)?;
        let listener = self.listen_on(handle, key, flag::LISTENER)?;
        let id = listener.socket().slot_id();
        if let Some(state) = self.slots.lock(id) {
            self.driver.listening(id, &state, at);
        }
        Ok(listener)
    }

    /// Takes a socket that listens.
    fn listen_on(self: &Arc<Self>, handle: sys::Handle, key: Key, flags: u32) -> Result<Listener> {
        let (id, mut state) = match self.admit(false) {
            Ok(admitted) => admitted,
            Err(kind) => {
                self.driver.abandon(handle);
                return Err(Error::new(Operation::Listen, kind));
            }
        };
        state.key = key;
        state.handle = Some(handle);
        state.set(flags);
        if let Err(code) = self.driver.associate(id, &mut state, false) {
            let handle = state.handle.take().expect("set above");
            self.turn_away(id, &mut state, false);
            drop(state);
            self.driver.abandon(handle);
            return Err(Error::from_os(Operation::Listen, code));
        }
        Ok(Listener::new(self.socket(id)))
    }
}

/// Opens the socket the way every driver on a real network does.
pub(crate) fn open(at: &ListenOptions) -> std::io::Result<sys::Handle> {
    let address = at.address.to_system()?;
    let internet = at.address.internet();
    let protocol = internet.map(|_| socket2::Protocol::TCP);
    let socket = sys::new_socket(at.address.domain(), protocol)?;
    if internet.is_some_and(|address| address.is_ipv6()) {
        socket.set_only_v6(!at.dual_stack)?;
    }
    if internet.is_some() {
        sys::prepare_bind(&socket)?;
        if at.no_delay {
            socket.set_tcp_nodelay(true)?;
        }
        if let Some(keepalive) = &at.keepalive {
            keepalive.set_on(&(&socket).into())?;
        }
    }
    if at.share_port {
        sys::share_port(&socket)?;
    }
    if let Some(name) = &at.congestion_control {
        sys::set_congestion_control(&socket, name)?;
    }
    let taken = |error| Error::from_bind(Operation::Listen, &error);
    socket.bind(&address).map_err(taken)?;
    socket.listen(at.backlog.max(1))?;
    Ok(socket.into())
}
