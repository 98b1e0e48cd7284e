//! How a port is built: its driver, its sharing, and all its bounds.
//!
//! All limits are set here and nowhere else (contract C13). The port refuses a request beyond a
//! limit and returns its value. Limits that grow by themselves were rejected: a program finds a
//! bound that it does not state only in production.

mod asked;

use std::time::Duration;

use asked::Asked;

use crate::core::options::PoolOptions;
use crate::driver::choice::{self, SimAsked};
use crate::driver::kind::{DriverChoice, DriverKind};
#[cfg(feature = "sim")]
use crate::driver::sim::SimOptions;
use crate::error::Result;
use crate::port::Port;

/// Builds a [`Port`]; made by [`Port::builder`].
///
/// ```
/// use wharf_port::{DriverChoice, Port};
/// # fn main() -> wharf_port::Result<()> {
/// let port = Port::builder().driver(DriverChoice::Auto).sockets_max(20_000).build()?;
/// println!("{}", port.driver());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Builder {
    asked: Asked,
    sim: SimAsked,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Builder {
            asked: Asked::default(),
            sim: SimAsked::default(),
        }
    }

    /// Chooses the driver. [`DriverChoice::Auto`] takes the best that works, and reports why it
    /// passed over the others.
    ///
    /// ```
    /// # use wharf_port::{DriverChoice, Port};
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = Port::builder().driver(DriverChoice::Auto).build()?;
    /// # Ok(()) }
    /// ```
    pub fn driver(mut self, choice: DriverChoice) -> Self {
        self.asked.driver = choice;
        self
    }

    /// Builds the port on a simulated network in memory, for tests. `options` say how the network
    /// behaves. [`Port::sim`] returns its far end. It needs the feature `sim` of this crate.
    ///
    /// ```
    /// use wharf_port::{DriverKind, Port, sim::SimOptions};
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = Port::builder().sim(SimOptions::new(7)).build()?;
    /// assert_eq!(port.driver().kind, DriverKind::Sim);
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "sim")]
    pub fn sim(mut self, options: SimOptions) -> Self {
        self.asked.driver = DriverChoice::Require(DriverKind::Sim);
        self.sim = options;
        self
    }

    /// Many threads may wait; each packet goes to one of them (the default).
    ///
    /// ```
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().shared().build()?;
    /// let (_first, _second) = (port.waiter()?, port.waiter()?);
    /// # Ok(()) }
    /// ```
    pub fn shared(mut self) -> Self {
        self.asked.shared = true;
        self
    }

    /// One thread waits: the cheapest kind of port. The port refuses a second waiter.
    ///
    /// ```
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().single_waiter().build()?;
    /// let _waiter = port.waiter()?;
    /// assert!(port.waiter().is_err());
    /// # Ok(()) }
    /// ```
    pub fn single_waiter(mut self) -> Self {
        self.asked.shared = false;
        self
    }

    /// Sets how many sockets may be associated at once, 1 to 16,777,216; 1,048,576 by default.
    /// Accepted connections that are not associated yet count too. At the bound further connections
    /// stay in the backlog.
    ///
    /// ```
    /// let builder = wharf_port::Port::builder().sockets_max(100);
    /// ```
    pub fn sockets_max(mut self, sockets: u32) -> Self {
        self.asked.sockets_max = sockets;
        self
    }

    /// Puts accepted and connected sockets into a table of the port's own with this number of
    /// places. There they use no descriptor of the process. This is an experiment. Each port has
    /// its own table. A table has at most as many places as the process may have open files. So
    /// several ports hold more connections than one process has descriptors.
    ///
    /// At the bound a listener pauses, as at `sockets_max`. Such a socket has four limits. Only the
    /// port that accepted it can associate it. Only the thread of the port's waiter can read its
    /// addresses. A close goes out at the next wait. The socket is gone when that thread ends.
    /// `docs/library/direct-descriptors.md` has the rest.
    ///
    /// # Portability
    /// For single-waiter ports on `uring`, with Linux 6.8 or later. Elsewhere
    /// [`build`](Builder::build) fails and reports what is missing, also with
    /// [`DriverChoice::Auto`].
    ///
    /// ```
    /// use wharf_port::Port;
    /// let builder = Port::builder().single_waiter().direct_descriptors(10_000);
    /// // Only the thread of the one waiter may use the table.
    /// assert!(Port::builder().shared().direct_descriptors(10_000).build().is_err());
    /// ```
    pub fn direct_descriptors(mut self, places: u32) -> Self {
        self.asked.direct_descriptors = places;
        self
    }

    /// Sets how many timers may be set at once, at least 1; 16,777,216 by default. The port's own
    /// timers count too. At the bound the port refuses an operation that needs a timer. A close
    /// that flushes, a listener that pauses and a wait for memory get a timer in any case.
    ///
    /// ```
    /// let builder = wharf_port::Port::builder().timers_max(100);
    /// ```
    pub fn timers_max(mut self, timers: u32) -> Self {
        self.asked.timers_max = timers;
        self
    }

    /// Sets how many posted packets may wait to be taken; 65,536 by default. Posts that a waiter
    /// returns when it goes wait in addition to these.
    ///
    /// ```
    /// let builder = wharf_port::Port::builder().posts_max(100);
    /// ```
    pub fn posts_max(mut self, posts: u32) -> Self {
        self.asked.posts_max = posts;
        self
    }

    /// Sets how many waiters a shared port has at once, 1 to 65,535; 256 by default. A
    /// single-waiter port has one, whatever this says.
    ///
    /// ```
    /// use wharf_port::{ErrorKind, Port};
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = Port::builder().waiters_max(1).build()?;
    /// let _waiter = port.waiter()?;
    /// assert_eq!(port.waiter().unwrap_err().kind(), ErrorKind::Full);
    /// # Ok(()) }
    /// ```
    pub fn waiters_max(mut self, waiters: u32) -> Self {
        self.asked.waiters_max = waiters;
        self
    }

    /// Sets how many packets one wait returns at most, 1 to 4,096; by default 8 on a shared port
    /// and 256 on a single-waiter one.
    ///
    /// ```
    /// let builder = wharf_port::Port::builder().batch_max(1);
    /// ```
    pub fn batch_max(mut self, packets: u32) -> Self {
        self.asked.batch_max = Some(packets);
        self
    }

    /// Sets how many packets of one socket a wait adds to its batch at most, 1 to 255; 8 by default.
    ///
    /// ```
    /// let builder = wharf_port::Port::builder().turn_packets_max(2);
    /// ```
    pub fn turn_packets_max(mut self, packets: u32) -> Self {
        self.asked.turn_packets_max = packets;
        self
    }

    /// Sets how many leases of one stream may be out, queued or being sent, 1 to 65,535; 4 by
    /// default.
    ///
    /// ```
    /// let builder = wharf_port::Port::builder().leases_per_socket(2);
    /// ```
    pub fn leases_per_socket(mut self, leases: u32) -> Self {
        self.asked.leases_per_socket = leases;
        self
    }

    /// Sets how many bytes one socket's send queue holds before it refuses; 1 MiB by default. An
    /// empty queue takes one send of any size.
    ///
    /// ```
    /// let builder = wharf_port::Port::builder().send_queue_bytes_max(64 * 1024);
    /// ```
    pub fn send_queue_bytes_max(mut self, bytes: usize) -> Self {
        self.asked.send_queue_bytes_max = bytes;
        self
    }

    /// Sets how many sends, and how many receives into buffers, one socket queues, at least 1;
    /// 1,024 by default.
    ///
    /// Packets that wait to be taken count as well. The port refuses a reported send as full while
    /// this many packets of its socket wait. It refuses any other operation while this many ends of
    /// operations of its kind wait. When this many connections of a listener wait to be taken, the
    /// listener leaves the others in its backlog until half of them are taken.
    ///
    /// # Portability
    /// On io_uring one request makes the kernel accept all that comes. So a bound of 512 or more
    /// may be exceeded by what the kernel accepts before a waiter looks: at most 8,192 connections,
    /// and never more than [`sockets_max`](Builder::sockets_max). A smaller bound is exact to one
    /// connection.
    ///
    /// ```
    /// let builder = wharf_port::Port::builder().operations_per_socket_max(16);
    /// ```
    pub fn operations_per_socket_max(mut self, operations: u32) -> Self {
        self.asked.operations_per_socket_max = operations;
        self
    }

    /// Sets how many accepts are kept posted on a listener, up to 65,535; 16 by default. A number
    /// below 8 counts as 8.
    ///
    /// # Portability
    /// Only IOCP posts accepts ahead. On other drivers one request streams all accepts.
    ///
    /// ```
    /// let builder = wharf_port::Port::builder().accepts_posted(32);
    /// ```
    pub fn accepts_posted(mut self, accepts: u32) -> Self {
        self.asked.accepts_posted = accepts;
        self
    }

    /// Sets how long a closing socket may take to send what is queued; 5 s by default, 49 days at
    /// most, in whole milliseconds. The limit has a timer even if `timers_max` timers are set.
    ///
    /// ```
    /// use std::time::Duration;
    /// let builder = wharf_port::Port::builder().flush_max(Duration::from_secs(1));
    /// ```
    pub fn flush_max(mut self, limit: Duration) -> Self {
        self.asked.flush_max = limit;
        self
    }

    /// Busy-polls for up to this long before a waiter sleeps, at most 1 s and in whole
    /// microseconds. With 0, the default, the waiter sleeps at once.
    ///
    /// Busy-polling saves the wake-up. That shortens the round trip when there are few connections,
    /// but keeps one core busy per waiting thread, and takes that core from other threads. Enable
    /// it only if every waiting thread has a core to itself, and the peer too if it is on this
    /// machine. Each wait and each event restarts the time. Posts, timers, closes and timeouts work
    /// as without it.
    ///
    /// # Portability
    /// If one waiter of a shared port leads (io_uring, kqueue), only that one busy-polls and the
    /// others sleep. On other drivers each waiter does. The simulated network never busy-polls,
    /// because its clock is virtual.
    ///
    /// ```
    /// # fn main() -> wharf_port::Result<()> {
    /// use std::time::Duration;
    /// use wharf_port::Port;
    /// let port = Port::builder().single_waiter().spin_max(Duration::from_micros(50)).build()?;
    /// assert!(Port::builder().spin_max(Duration::from_secs(2)).build().is_err());
    /// # Ok(()) }
    /// ```
    pub fn spin_max(mut self, limit: Duration) -> Self {
        self.asked.spin_max = limit;
        self
    }

    /// Sets the size of the receive pool and its buffers.
    ///
    /// ```
    /// # use wharf_port::{PoolOptions, Port};
    /// let builder = Port::builder().pool(PoolOptions::new().buffer_bytes(2048));
    /// ```
    pub fn pool(mut self, pool: PoolOptions) -> Self {
        self.asked.pool = pool;
        self
    }

    /// Builds the port.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a value outside the range of
    /// its bound; the message has the bound, the value and the range. Errors of the driver: with
    /// [`DriverChoice::Require`] the reason why that driver does not work here.
    ///
    /// ```
    /// use wharf_port::Port;
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = Port::builder().build()?;
    /// let error = Port::builder().sockets_max(0).build().unwrap_err();
    /// let text = "build the port: sockets_max is 0: set it from 1 to 16777216";
    /// assert_eq!(error.to_string(), text);
    /// # Ok(()) }
    /// ```
    pub fn build(self) -> Result<Port> {
        let options = self.asked.options()?;
        Port::build(options, &self.sim)
    }
}

/// Returns the drivers that work here, best first, in the order in which [`DriverChoice::Auto`]
/// tries them.
///
/// ```
/// let drivers = wharf_port::drivers_present();
/// assert!(!drivers.is_empty());
/// ```
#[must_use]
pub fn drivers_present() -> Vec<DriverKind> {
    let works = |kind: &DriverKind| {
        let port = Port::builder().driver(DriverChoice::Require(*kind)).build();
        port.is_ok()
    };
    choice::candidates().iter().copied().filter(works).collect()
}
