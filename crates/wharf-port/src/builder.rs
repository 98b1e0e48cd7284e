//! How a port is built: its driver, its sharing, and every bound it will never pass.
//!
//! All limits are set here and nowhere else (contract C13); a request beyond one is refused with
//! its value. Limits that grow by themselves were rejected: a bound nobody states is found in
//! production.

use crate::core::options::{Options, PoolOptions};
use crate::core::spin::SPIN_US_LIMIT;
use crate::driver::choice;
use crate::driver::kind::{DriverChoice, DriverKind};
use crate::driver::sim::SimOptions;
use crate::error::{Error, ErrorKind, Operation, Result};
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
    options: Options,
    sim: SimOptions,
    batch_max: Option<usize>,
}

/// Packets in one batch unless the builder says otherwise: few on a shared port, so that a slow
/// thread holds few, and many where there is one thread anyway.
const BATCH_MAX_SHARED: usize = 8;
const BATCH_MAX_SINGLE: usize = 256;

impl Builder {
    pub(crate) fn new() -> Self {
        let options = Options {
            driver: DriverChoice::Auto,
            shared: true,
            sockets_max: 1 << 20,
            direct_descriptors: 0,
            timers_max: 1 << 24,
            posts_max: 1 << 16,
            waiters_max: 256,
            batch_max: BATCH_MAX_SHARED,
            turn_packets_max: 8,
            leases_per_socket: 4,
            send_queue_bytes_max: 1 << 20,
            operations_per_socket_max: 1024,
            accepts_posted: 16,
            flush_ms_max: 5_000,
            spin_us_max: 0,
            pool: PoolOptions::default(),
        };
        Builder {
            options,
            sim: SimOptions::default(),
            batch_max: None,
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
        self.options.driver = choice;
        self
    }

    /// A simulated network in memory that behaves as told, for tests; [`Port::sim`] is its far end.
    ///
    /// ```
    /// use wharf_port::{DriverKind, Port, sim::SimOptions};
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = Port::builder().sim(SimOptions::new(7)).build()?;
    /// assert_eq!(port.driver().kind, DriverKind::Sim);
    /// # Ok(()) }
    /// ```
    pub fn sim(mut self, options: SimOptions) -> Self {
        self.options.driver = DriverChoice::Require(DriverKind::Sim);
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
        self.options.shared = true;
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
        self.options.shared = false;
        self
    }

    /// How many sockets may be associated at once, 1 to 16,777,216; 1,048,576 by default. Accepted
    /// connections that nobody has taken count too; at the bound further ones stay in the backlog.
    ///
    /// ```
    /// let builder = wharf_port::Port::builder().sockets_max(100);
    /// ```
    pub fn sockets_max(mut self, sockets: u32) -> Self {
        self.options.sockets_max = sockets;
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
        self.options.direct_descriptors = places;
        self
    }

    /// How many timers may be set at once; 16,777,216 by default. The port's own count, and what
    /// takes one is refused where none is left; but a close that flushes, a listener that pauses and
    /// a wait for memory have theirs in any case.
    ///
    /// ```
    /// let builder = wharf_port::Port::builder().timers_max(100);
    /// ```
    pub fn timers_max(mut self, timers: u32) -> Self {
        self.options.timers_max = timers;
        self
    }

    /// How many posted packets may wait to be taken; 65,536 by default.
    ///
    /// ```
    /// let builder = wharf_port::Port::builder().posts_max(100);
    /// ```
    pub fn posts_max(mut self, posts: usize) -> Self {
        self.options.posts_max = posts;
        self
    }

    /// How many waiters a shared port gives out at once, at least 1; 256 by default. A
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
    pub fn waiters_max(mut self, waiters: u16) -> Self {
        self.options.waiters_max = waiters;
        self
    }

    /// How many packets one wait hands out at most; 8 on a shared port, 256 on a single-waiter one.
    ///
    /// ```
    /// let builder = wharf_port::Port::builder().batch_max(1);
    /// ```
    pub fn batch_max(mut self, packets: usize) -> Self {
        self.batch_max = Some(packets);
        self
    }

    /// How many packets of one socket a batch holds at most; 8 by default.
    ///
    /// ```
    /// let builder = wharf_port::Port::builder().turn_packets_max(2);
    /// ```
    pub fn turn_packets_max(mut self, packets: u8) -> Self {
        self.options.turn_packets_max = packets;
        self
    }

    /// How many leases of one stream may be out, queued or being sent; 4 by default.
    ///
    /// ```
    /// let builder = wharf_port::Port::builder().leases_per_socket(2);
    /// ```
    pub fn leases_per_socket(mut self, leases: u16) -> Self {
        self.options.leases_per_socket = leases;
        self
    }

    /// How many bytes one socket's send queue holds before it refuses; 1 MiB by default. One send
    /// is taken whatever its size when the queue is empty.
    ///
    /// ```
    /// let builder = wharf_port::Port::builder().send_queue_bytes_max(64 * 1024);
    /// ```
    pub fn send_queue_bytes_max(mut self, bytes: usize) -> Self {
        self.options.send_queue_bytes_max = bytes;
        self
    }

    /// How many sends, and how many receives into buffers, one socket queues; 1,024 by default.
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
    pub fn operations_per_socket_max(mut self, operations: usize) -> Self {
        self.options.operations_per_socket_max = operations;
        self
    }

    /// How many accepts are kept posted on a listener; 16 by default, 8 at least.
    ///
    /// # Portability
    /// Only IOCP posts accepts ahead; elsewhere one request streams them all.
    ///
    /// ```
    /// let builder = wharf_port::Port::builder().accepts_posted(32);
    /// ```
    pub fn accepts_posted(mut self, accepts: u16) -> Self {
        self.options.accepts_posted = accepts.max(8);
        self
    }

    /// How many milliseconds a closing socket may take to send what is queued; 5,000 by default. It
    /// takes one of the port's timers; where none is left, it has no limit.
    ///
    /// ```
    /// let builder = wharf_port::Port::builder().flush_ms_max(1_000);
    /// ```
    pub fn flush_ms_max(mut self, milliseconds: u32) -> Self {
        self.options.flush_ms_max = milliseconds;
        self
    }

    /// How many microseconds a waiter that finds nothing goes on looking before it sleeps, at most
    /// 1,000,000; 0 by default, which sleeps at once.
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
    /// let port = wharf_port::Port::builder().single_waiter().spin_us_max(50).build()?;
    /// assert!(wharf_port::Port::builder().spin_us_max(1_000_001).build().is_err());
    /// # Ok(()) }
    /// ```
    pub fn spin_us_max(mut self, microseconds: u32) -> Self {
        self.options.spin_us_max = microseconds;
        self
    }

    /// The receive pool.
    ///
    /// ```
    /// # use wharf_port::{PoolOptions, Port};
    /// let builder = Port::builder().pool(PoolOptions { buffer_bytes: 2048, ..Default::default() });
    /// ```
    pub fn pool(mut self, pool: PoolOptions) -> Self {
        self.options.pool = pool;
        self
    }

    /// Builds the port.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a bound that makes no sense, and what the driver met: with
    /// [`DriverChoice::Require`] the reason why that driver does not work here.
    ///
    /// ```
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().build()?;
    /// assert!(wharf_port::Port::builder().sockets_max(0).build().is_err());
    /// # Ok(()) }
    /// ```
    pub fn build(self) -> Result<Port> {
        let mut options = self.options;
        let default = if options.shared {
            BATCH_MAX_SHARED
        } else {
            BATCH_MAX_SINGLE
        };
        options.batch_max = self.batch_max.unwrap_or(default);
        let pool = &options.pool;
        let sensible = (1..=1 << 24).contains(&options.sockets_max)
            && options.timers_max >= 1
            && options.waiters_max >= 1
            && (1..=4096).contains(&options.batch_max)
            && options.turn_packets_max >= 1
            && options.leases_per_socket >= 1
            && options.operations_per_socket_max >= 1
            && options.spin_us_max <= SPIN_US_LIMIT
            && (512..=1 << 20).contains(&pool.buffer_bytes)
            && pool.pool_bytes_max >= pool.buffer_bytes as usize;
        if !sensible {
            return Err(Error::new(Operation::Build, ErrorKind::InvalidInput));
        }
        if options.direct_descriptors > 0 {
            check_direct(&mut options)?;
        }
        Port::build(options, &self.sim)
    }
}

/// Most places in the table of a ring (`IORING_MAX_FIXED_FILES`).
const DIRECT_DESCRIPTORS_MAX: u32 = 1 << 20;

/// Direct descriptors are for one kind of port; there `Auto` means the one driver that has them.
fn check_direct(options: &mut Options) -> Result<()> {
    let refuse = |advice| {
        let kind = ErrorKind::InvalidInput;
        Err(Error::advised(Operation::Build, kind, advice))
    };
    if options.shared {
        return refuse(
            "direct descriptors belong to one thread: build a single-waiter port, or leave them out",
        );
    }
    if options.direct_descriptors > DIRECT_DESCRIPTORS_MAX {
        return refuse("a port has at most 1,048,576 direct descriptors: ask for fewer");
    }
    match options.driver {
        DriverChoice::Auto | DriverChoice::Require(DriverKind::Uring) => {
            options.driver = DriverChoice::Require(DriverKind::Uring);
            Ok(())
        }
        DriverChoice::Require(_) => refuse(
            "only the driver uring has direct descriptors: require that one, or leave them out",
        ),
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
