//! How a port is built: its driver, its sharing, and every bound it will never pass.
//!
//! All limits are set here and nowhere else (contract C13); a request beyond one is refused with
//! its value. Limits that grow by themselves were rejected: a bound nobody states is found in
//! production.

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

    /// Which driver: [`DriverChoice::Auto`] takes the best that works, and says why it passed
    /// over the others.
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

    /// A simulated network in memory that behaves as `options` say, for tests; [`Port::sim`] is its
    /// far end. It needs the feature `sim` of this crate.
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

    /// Many threads may wait, each packet goes to one of them (the default).
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

    /// One thread waits: the cheapest kind of port. A second waiter is refused.
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

    /// How many sockets may be associated at once, 1 to 16,777,216; 1,048,576 by default. Accepted
    /// connections that nobody has taken count too; at the bound further ones stay in the backlog.
    ///
    /// ```
    /// let builder = wharf_port::Port::builder().sockets_max(100);
    /// ```
    pub fn sockets_max(mut self, sockets: u32) -> Self {
        self.asked.sockets_max = sockets;
        self
    }

    /// Puts accepted and connected sockets into a table of the port's own, with so many places, in
    /// which they take no descriptor of the process; an experiment. Each port has its own table,
    /// of at most as many places as the process may have open files, so that several ports hold
    /// more connections than one process has descriptors.
    ///
    /// At the bound a listener pauses, as at `sockets_max`. Such a socket can be associated with
    /// the port that accepted it and with no other; it tells its addresses on the thread of the
    /// port's waiter alone; closes go out at the next wait; and it is gone when that thread ends.
    /// `docs/library/direct-descriptors.md` has the rest.
    ///
    /// # Portability
    /// For single-waiter ports on `uring`, with Linux 6.8 or later. Elsewhere
    /// [`build`](Builder::build) fails and says what is missing, also with
    /// [`DriverChoice::Auto`].
    ///
    /// ```
    /// use wharf_port::Port;
    /// let builder = Port::builder().single_waiter().direct_descriptors(10_000);
    /// // Nobody but the one waiter's thread may touch the table.
    /// assert!(Port::builder().shared().direct_descriptors(10_000).build().is_err());
    /// ```
    pub fn direct_descriptors(mut self, places: u32) -> Self {
        self.asked.direct_descriptors = places;
        self
    }

    /// How many timers may be set at once, at least 1; 16,777,216 by default. The port's own count, and what
    /// takes one is refused where none is left; but a close that flushes, a listener that pauses and
    /// a wait for memory have theirs in any case.
    ///
    /// ```
    /// let builder = wharf_port::Port::builder().timers_max(100);
    /// ```
    pub fn timers_max(mut self, timers: u32) -> Self {
        self.asked.timers_max = timers;
        self
    }

    /// How many posted packets may wait to be taken; 65,536 by default.
    ///
    /// ```
    /// let builder = wharf_port::Port::builder().posts_max(100);
    /// ```
    pub fn posts_max(mut self, posts: u32) -> Self {
        self.asked.posts_max = posts;
        self
    }

    /// How many waiters a shared port gives out at once, 1 to 65,535; 256 by default. A
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

    /// How many packets one wait hands out at most, 1 to 4,096; by default 8 on a shared port and
    /// 256 on a single-waiter one.
    ///
    /// ```
    /// let builder = wharf_port::Port::builder().batch_max(1);
    /// ```
    pub fn batch_max(mut self, packets: u32) -> Self {
        self.asked.batch_max = Some(packets);
        self
    }

    /// How many packets of one socket a batch holds at most, 1 to 255; 8 by default.
    ///
    /// ```
    /// let builder = wharf_port::Port::builder().turn_packets_max(2);
    /// ```
    pub fn turn_packets_max(mut self, packets: u32) -> Self {
        self.asked.turn_packets_max = packets;
        self
    }

    /// How many leases of one stream may be out, queued or being sent, 1 to 65,535; 4 by
    /// default.
    ///
    /// ```
    /// let builder = wharf_port::Port::builder().leases_per_socket(2);
    /// ```
    pub fn leases_per_socket(mut self, leases: u32) -> Self {
        self.asked.leases_per_socket = leases;
        self
    }

    /// How many bytes one socket's send queue holds before it refuses; 1 MiB by default. One send
    /// is taken whatever its size when the queue is empty.
    ///
    /// ```
    /// let builder = wharf_port::Port::builder().send_queue_bytes_max(64 * 1024);
    /// ```
    pub fn send_queue_bytes_max(mut self, bytes: usize) -> Self {
        self.asked.send_queue_bytes_max = bytes;
        self
    }

    /// How many sends, and how many receives into buffers, one socket queues, at least 1; 1,024 by
    /// default.
    ///
    /// What nobody has taken counts as well. A reported send is refused as full while this many
    /// packets of its socket wait to be taken; any other operation while this many ends of
    /// operations of its kind do. A listener with this many connections that nobody has taken leaves
    /// the others in its backlog, until half of them are taken.
    ///
    /// # Portability
    /// On io_uring the kernel accepts by one request what comes, so a bound of 512 or more may be
    /// passed by what it accepts before a waiter looks: at most 8,192 connections, and never more
    /// than [`sockets_max`](Builder::sockets_max). A smaller bound is exact to one connection.
    ///
    /// ```
    /// let builder = wharf_port::Port::builder().operations_per_socket_max(16);
    /// ```
    pub fn operations_per_socket_max(mut self, operations: u32) -> Self {
        self.asked.operations_per_socket_max = operations;
        self
    }

    /// How many accepts are kept posted on a listener, up to 65,535; 16 by default. A number below 8
    /// counts as 8.
    ///
    /// # Portability
    /// Only IOCP posts accepts ahead; elsewhere one request streams them all.
    ///
    /// ```
    /// let builder = wharf_port::Port::builder().accepts_posted(32);
    /// ```
    pub fn accepts_posted(mut self, accepts: u32) -> Self {
        self.asked.accepts_posted = accepts;
        self
    }

    /// How long a closing socket may take to send what is queued; 5 s by default, 49 days at most,
    /// in whole milliseconds. It takes one of the port's timers; where none is left, it has no limit.
    ///
    /// ```
    /// use std::time::Duration;
    /// let builder = wharf_port::Port::builder().flush_max(Duration::from_secs(1));
    /// ```
    pub fn flush_max(mut self, limit: Duration) -> Self {
        self.asked.flush_max = limit;
        self
    }

    /// How long a waiter that finds nothing busy-polls before it sleeps, at most 1 s and in whole
    /// microseconds; 0 by default, which sleeps at once.
    ///
    /// A thread that has not slept need not be woken: with few connections that cuts the round trip.
    /// It costs a processor: a waiter that looks keeps one busy, and takes it from whoever else would
    /// run there. Leave it off unless there is one to spare for each thread that waits, the other end
    /// included if that is on this machine. Each thing that happens begins a new look, and so does
    /// each wait; posts, timers, closes and the end of a wait's time are as they are without it.
    ///
    /// # Portability
    /// Where one waiter of a shared port leads (io_uring, kqueue), that one looks and the others
    /// sleep; elsewhere each does. The simulated network, whose clock is its own, never looks.
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

    /// The receive pool.
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
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a value that a bound does not
    /// take, with both and the range, and what the driver met: with [`DriverChoice::Require`] the
    /// reason why that driver does not work here.
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

/// The drivers that work here, best first, as [`DriverChoice::Auto`] would try them.
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
