//! How to connect: where to, from where, and how long it may take.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::keepalive::Keepalive;

/// How to connect: what [`Port::connect`](crate::Port::connect) takes. Any address converts into
/// it.
///
/// ```
/// use std::time::Duration;
/// use wharf_port::ConnectOptions;
/// let options = ConnectOptions::new(([127, 0, 0, 1], 10101)).timeout(Duration::from_secs(3));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ConnectOptions {
    pub(crate) address: Address,
    pub(crate) source: Option<SocketAddr>,
    pub(crate) at_most: Option<Duration>,
    pub(crate) no_delay: bool,
    pub(crate) congestion_control: Option<Arc<str>>,
    pub(crate) keepalive: Option<Keepalive>,
}

impl ConnectOptions {
    /// Connects to this address. The connect is refused if there is no listener at the address.
    /// That includes a socket that the system connects with itself, because it chose the
    /// destination port as source port. If the backlog of a Unix socket is full, the connect waits
    /// for space. That wait needs one of the port's timers. If no timer is left, the connect fails
    /// as full.
    ///
    /// ```
    /// let options = wharf_port::ConnectOptions::new(([127, 0, 0, 1], 10101));
    /// ```
    pub fn new(address: impl Into<Address>) -> Self {
        ConnectOptions {
            address: address.into(),
            source: None,
            at_most: None,
            no_delay: true,
            congestion_control: None,
            keepalive: None,
        }
    }

    /// Connects from this address of the machine; port 0 lets the system choose one.
    ///
    /// ```
    /// use wharf_port::ConnectOptions;
    /// let options = ConnectOptions::new(([127, 0, 0, 1], 80)).source(([127, 0, 0, 2], 0).into());
    /// ```
    pub fn source(mut self, source: SocketAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// Ends the connect as timed out after this long. The system's own limit applies as well. It
    /// needs one of the port's timers; if none is left, the port refuses the connect as full.
    ///
    /// ```
    /// use std::time::Duration;
    /// use wharf_port::ConnectOptions;
    /// let options = ConnectOptions::new(([127, 0, 0, 1], 80)).timeout(Duration::from_secs(1));
    /// ```
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.at_most = Some(limit);
        self
    }

    /// Sets whether small sends go out at once (`TCP_NODELAY`); yes by default.
    ///
    /// ```
    /// let options = wharf_port::ConnectOptions::new(([127, 0, 0, 1], 80)).nodelay(false);
    /// ```
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.no_delay = nodelay;
        self
    }

    /// Sets the algorithm that decides how fast the connection sends (`TCP_CONGESTION`), such as
    /// `cubic`; the system's own choice by default.
    /// [`ListenOptions::congestion_control`](crate::ListenOptions::congestion_control) lists the
    /// systems that refuse it.
    ///
    /// ```
    /// use wharf_port::ConnectOptions;
    /// let options = ConnectOptions::new(([127, 0, 0, 1], 80)).congestion_control("cubic");
    /// ```
    pub fn congestion_control(mut self, name: impl Into<Arc<str>>) -> Self {
        self.congestion_control = Some(name.into());
        self
    }

    /// Sends probes to a peer that has been silent for long (`SO_KEEPALIVE`); off by default. A
    /// value that the system does not take is refused as
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput).
    ///
    /// ```
    /// use std::time::Duration;
    /// use wharf_port::{ConnectOptions, Keepalive};
    /// let keepalive = Keepalive::after(Duration::from_secs(60));
    /// let options = ConnectOptions::new(([127, 0, 0, 1], 80)).keepalive(keepalive);
    /// ```
    pub fn keepalive(mut self, keepalive: Keepalive) -> Self {
        self.keepalive = Some(keepalive);
        self
    }
}

impl<A: Into<Address>> From<A> for ConnectOptions {
    fn from(address: A) -> Self {
        ConnectOptions::new(address)
    }
}
