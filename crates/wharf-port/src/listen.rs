//! How to listen: the address, the backlog and the options that accepted sockets inherit.

use std::net::TcpListener;
use std::sync::Arc;

use crate::address::Address;
use crate::keepalive::Keepalive;
use crate::sys::{self, OwnedDescriptor};

/// How to listen: what [`Port::listen`](crate::Port::listen) takes. Any address converts into it.
///
/// A socket that listens already converts into it too: a listener of `std`, or an owned descriptor,
/// such as one that a service manager passed (socket activation). It keeps its address and its
/// backlog. [`backlog`](Self::backlog), [`dual_stack`](Self::dual_stack) and
/// [`reuse_port`](Self::reuse_port) have no effect on it. The port takes a second descriptor of the
/// socket and never shuts the socket down, because another process may accept from it too. The
/// first descriptor closes with these options. The port sets the socket to blocking or non-blocking
/// mode, and that changes every descriptor of it.
///
/// # Portability
/// On Windows a socket belongs to one port, through whichever handle: a second `listen` with a
/// clone of these options fails. The simulated network takes only addresses.
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

/// Where to listen.
#[derive(Clone, Debug)]
pub(crate) enum ListenAt {
    Address(Address),
    /// A socket that listens already; shared among the clones of the options.
    Socket(Arc<sys::Handle>),
}

/// The default backlog: how many connections the system keeps for a listener. The system caps the
/// number (`net.core.somaxconn` on Linux).
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

    /// Whether the caller supplied the socket.
    pub(crate) fn is_supplied(&self) -> bool {
        matches!(self.at, ListenAt::Socket(_))
    }

    /// Sets how many connections wait in the system until they are accepted; 4,096 by default. The
    /// system caps the number (`net.core.somaxconn` on Linux, 200 and up on Windows).
    ///
    /// ```
    /// let options = wharf_port::ListenOptions::new(([127, 0, 0, 1], 0)).backlog(16);
    /// ```
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = connections;
        self
    }

    /// Sets whether a version 6 listener takes version 4 connections too; no by default.
    ///
    /// ```
    /// use std::net::Ipv6Addr;
    /// let options = wharf_port::ListenOptions::new((Ipv6Addr::UNSPECIFIED, 0)).dual_stack(true);
    /// ```
    pub fn dual_stack(mut self, both: bool) -> Self {
        self.dual_stack = both;
        self
    }

    /// Sets whether other listeners may use the same address (`SO_REUSEPORT`); no by default. The
    /// system then distributes the connections among them.
    ///
    /// # Portability
    /// Only Linux distributes connections evenly. Windows refuses the option as unsupported.
    ///
    /// ```
    /// let options = wharf_port::ListenOptions::new(([127, 0, 0, 1], 0)).reuse_port(true);
    /// ```
    pub fn reuse_port(mut self, share: bool) -> Self {
        self.share_port = share;
        self
    }

    /// Sets whether small sends of accepted connections go out at once (`TCP_NODELAY`); yes by
    /// default.
    ///
    /// ```
    /// let options = wharf_port::ListenOptions::new(([127, 0, 0, 1], 0)).nodelay(false);
    /// ```
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.no_delay = nodelay;
        self
    }

    /// Sets the algorithm that decides how fast accepted connections send (`TCP_CONGESTION`), such
    /// as `cubic`; the system's own choice by default.
    ///
    /// # Portability
    /// Linux and FreeBSD have it. Elsewhere, and on Unix sockets, it is refused as unsupported. A
    /// name that the system does not have is refused as
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput), one that it reserves for root
    /// as [`ErrorKind::PermissionDenied`](crate::ErrorKind::PermissionDenied).
    ///
    /// ```
    /// use wharf_port::ListenOptions;
    /// let options = ListenOptions::new(([127, 0, 0, 1], 0)).congestion_control("cubic");
    /// ```
    pub fn congestion_control(mut self, name: impl Into<Arc<str>>) -> Self {
        self.congestion_control = Some(name.into());
        self
    }

    /// Sends probes to the peer of an accepted connection that has been silent for long
    /// (`SO_KEEPALIVE`); off by default. A value that the system does not take is refused as
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
