//! How to listen: the address, the backlog and the options that accepted sockets inherit.

use std::net::TcpListener;
use std::sync::Arc;

use crate::address::Address;
use crate::keepalive::Keepalive;
use crate::sys::{self, OwnedDescriptor};

/// How to listen: what [`Port::listen`](crate::Port::listen) takes. Any address converts into it.
///
/// So does a socket that listens already: a listener of `std`, or an owned descriptor, such as one
/// that a service manager passed (socket activation). It keeps its address and its backlog, and
/// [`backlog`](Self::backlog), [`dual_stack`](Self::dual_stack) and
/// [`reuse_port`](Self::reuse_port) say nothing about it. The port takes a second descriptor of it
/// and never shuts the socket down, because another process may accept from it too; the first one
/// closes with these options. The port sets whether the socket blocks, for all who have it.
///
/// # Portability
/// On Windows a socket belongs to one port, whichever of its handles comes: a second `listen` with
/// a clone of these options fails. The simulated network takes addresses alone.
///
/// ```
/// use wharf_port::{ListenOptions, Port};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let options = ListenOptions::new(([127, 0, 0, 1], 0)).backlog(128);
///
/// let bound = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let address = bound.local_addr()?;
/// let port = Port::builder().build()?;
/// let listener = port.listen(bound, 90.into())?;
/// assert_eq!(listener.local_addr()?, address.into());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ListenOptions {
    pub(crate) at: ListenAt,
    pub(crate) backlog: u32,
    pub(crate) dual_stack: bool,
    pub(crate) share_port: bool,
    pub(crate) no_delay: bool,
    pub(crate) congestion_control: Option<Arc<str>>,
    pub(crate) keepalive: Option<Keepalive>,
}

/// What to listen at.
#[derive(Clone, Debug)]
pub(crate) enum ListenAt {
    Address(Address),
    /// A socket that listens already; shared among the clones of the options.
    Socket(Arc<sys::Handle>),
}

/// Connections the system keeps for a listener unless told otherwise; it caps the number by its
/// own bound (`net.core.somaxconn` on Linux).
const BACKLOG: u32 = 4096;

impl ListenOptions {
    /// Listens at this address.
    ///
    /// ```
    /// let options = wharf_port::ListenOptions::new(([0, 0, 0, 0], 10101));
    /// ```
    pub fn new(address: impl Into<Address>) -> Self {
        ListenOptions::of(ListenAt::Address(address.into()))
    }

    fn of(at: ListenAt) -> Self {
        ListenOptions {
            at,
            backlog: BACKLOG,
            dual_stack: false,
            share_port: false,
            no_delay: true,
            congestion_control: None,
            keepalive: None,
        }
    }

    /// Whether the caller has brought the socket.
    pub(crate) fn is_brought(&self) -> bool {
        matches!(self.at, ListenAt::Socket(_))
    }

    /// How many connections wait in the system until they are accepted; 4,096 by default. The
    /// system's own bound (`net.core.somaxconn` on Linux, 200 and up on Windows) caps it.
    ///
    /// ```
    /// let options = wharf_port::ListenOptions::new(([127, 0, 0, 1], 0)).backlog(16);
    /// ```
    pub fn backlog(mut self, connections: u32) -> Self {
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
    /// let options = wharf_port::ListenOptions::new(([127, 0, 0, 1], 0)).reuse_port(true);
    /// ```
    pub fn reuse_port(mut self, share: bool) -> Self {
        self.share_port = share;
        self
    }

    /// Whether small sends of accepted connections go out at once (`TCP_NODELAY`); yes by default.
    ///
    /// ```
    /// let options = wharf_port::ListenOptions::new(([127, 0, 0, 1], 0)).nodelay(false);
    /// ```
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.no_delay = nodelay;
        self
    }

    /// The algorithm that decides how fast accepted connections send (`TCP_CONGESTION`), such as
    /// `cubic`; the system's own choice by default.
    ///
    /// # Portability
    /// Linux and FreeBSD have it; elsewhere, and on Unix sockets, it is refused as unsupported. A
    /// name that the system does not have is refused as [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput), one that it
    /// keeps to root as [`ErrorKind::PermissionDenied`](crate::ErrorKind::PermissionDenied).
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
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput).
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

impl From<OwnedDescriptor> for ListenOptions {
    fn from(listener: OwnedDescriptor) -> Self {
        let listener = sys::from_descriptor(listener);
        ListenOptions::of(ListenAt::Socket(Arc::new(listener)))
    }
}

impl From<TcpListener> for ListenOptions {
    fn from(listener: TcpListener) -> Self {
        OwnedDescriptor::from(listener).into()
    }
}
