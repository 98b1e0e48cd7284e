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
    /// Connects to this address. One at which nobody listens is refused, also where the system
    /// connects the socket with itself: a source port that is by chance the one it connects to. A
    /// Unix socket whose backlog is full makes the connect wait for room, for which it takes one of
    /// the port's timers, and fail as full where none is left.
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

    /// Ends the connect as timed out after this long; the system's own limit applies as well. It
    /// takes one of the port's timers, and is refused as full where none is left.
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

    /// Whether small sends go out at once (`TCP_NODELAY`); yes by default.
    ///
    /// ```
    /// let options = wharf_port::ConnectOptions::new(([127, 0, 0, 1], 80)).nodelay(false);
    /// ```
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.no_delay = nodelay;
        self
    }

    /// The algorithm that decides how fast the connection sends (`TCP_CONGESTION`), such as
    /// `cubic`; the system's own choice by default. Where it is refused stands with
    /// [`ListenOptions::congestion_control`](crate::ListenOptions::congestion_control).
    ///
    /// ```
    /// use wharf_port::ConnectOptions;
    /// let options = ConnectOptions::new(([127, 0, 0, 1], 80)).congestion_control("cubic");
    /// ```
    pub fn congestion_control(mut self, name: impl Into<Arc<str>>) -> Self {
        self.congestion_control = Some(name.into());
        self
    }

    /// Asks the peer whether it is still there when it is silent for long (`SO_KEEPALIVE`);
    /// no by default. A figure that the system does not take is refused as
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
