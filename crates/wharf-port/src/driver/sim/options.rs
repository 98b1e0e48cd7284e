//! What can go wrong on the simulated network, how often, and how often it has.
//!
//! Probabilities are integers per thousand, so a seed means the same on every machine.

/// How a simulated network behaves: its seed, its delays and its faults.
///
/// These values and the actions of the program determine everything that happens, as long as one
/// thread performs these actions. Probabilities are per thousand. 0, the default of each, means
/// never. Values under 1000 leave a chance that operations succeed.
///
/// ```
/// use wharf_port::sim::SimOptions;
/// let options = SimOptions { short_sends: 100, ..SimOptions::new(7) };
/// assert_eq!(options.seed, 7);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(
    clippy::exhaustive_structs,
    reason = "tests write the few that they want and `..SimOptions::new(seed)`"
)]
pub struct SimOptions {
    /// Determines all random decisions.
    pub seed: u64,
    /// Each step of an operation takes up to this many microseconds, by default 100. With 0,
    /// everything that happens at one instant happens in a random order.
    pub delay_us_max: u32,
    /// Bytes that one direction of a connection can hold before its sender must wait, by default 64
    /// KiB.
    pub buffer_bytes: u32,
    /// One waiter at a time is inside the driver and leads, and the others are parked until it
    /// leaves, as on io_uring and kqueue. By default all waiters may be inside, as on epoll and
    /// IOCP. It cannot be changed after the port is built.
    pub one_leads: bool,
    /// A receive returns less than there is.
    pub short_receives: u16,
    /// A send ends before the system has all of it.
    pub short_sends: u16,
    /// The connection of a receive breaks: reset, timed out or unreachable.
    pub receive_errors: u16,
    /// The connection of a send breaks.
    pub send_errors: u16,
    /// A connect fails.
    pub connect_errors: u16,
    /// A connection is gone before it is accepted.
    pub accept_errors: u16,
    /// An accept finds the system out of descriptors. The lack lasts up to 300 ms, or until a
    /// socket closes.
    pub descriptor_shortages: u16,
    /// All connections that wait at a listener are accepted at the same instant.
    pub accept_bursts: u16,
    /// A cancel takes ten times as long as other events, so its request may end in another way
    /// first.
    pub late_cancels: u16,
    /// A request ends as cancelled although the port has not cancelled it, as on io_uring when the
    /// thread that submitted it is gone.
    pub unasked_cancels: u16,
    /// The requests that a closing socket still has with the system end after a delay of up to a
    /// hundred times the usual one.
    pub late_ends: u16,
    /// A wait fails because the system has no memory, after it has taken events and used wake-ups.
    pub wait_errors: u16,
}

impl SimOptions {
    /// Returns options of a network without faults.
    ///
    /// ```
    /// use wharf_port::sim::SimOptions;
    /// assert_eq!(SimOptions::new(1).send_errors, 0);
    /// ```
    #[must_use]
    pub fn new(seed: u64) -> Self {
        SimOptions {
            seed,
            delay_us_max: 100,
            buffer_bytes: 64 * 1024,
            one_leads: false,
            short_receives: 0,
            short_sends: 0,
            receive_errors: 0,
            send_errors: 0,
            connect_errors: 0,
            accept_errors: 0,
            descriptor_shortages: 0,
            accept_bursts: 0,
            late_cancels: 0,
            unasked_cancels: 0,
            late_ends: 0,
            wait_errors: 0,
        }
    }

    /// Returns the same options without the faults that lose data: connections do not break and are
    /// not refused. All other faults stay.
    ///
    /// ```
    /// use wharf_port::sim::SimOptions;
    /// let options = SimOptions { send_errors: 10, short_sends: 10, ..SimOptions::new(1) };
    /// assert_eq!(options.lossless(), SimOptions { short_sends: 10, ..SimOptions::new(1) });
    /// ```
    #[must_use]
    pub fn lossless(self) -> Self {
        SimOptions {
            receive_errors: 0,
            send_errors: 0,
            connect_errors: 0,
            accept_errors: 0,
            ..self
        }
    }
}

impl Default for SimOptions {
    fn default() -> Self {
        SimOptions::new(0)
    }
}

/// How many times each fault has happened. [`Network::faults`](super::Network::faults) returns it.
///
/// ```
/// assert_eq!(wharf_port::sim::Faults::default().short_sends, 0);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Faults {
    /// Receives that returned less than there was.
    pub short_receives: u64,
    /// Sends that ended before the system had all of it.
    pub short_sends: u64,
    /// Connections that broke under a receive.
    pub receive_errors: u64,
    /// Connections that broke under a send.
    pub send_errors: u64,
    /// Connects that failed by this fault.
    pub connect_errors: u64,
    /// Connections that were gone before they were accepted.
    pub accept_errors: u64,
    /// How many times the descriptors ran out.
    pub descriptor_shortages: u64,
    /// Accepts that failed because there was no descriptor.
    pub descriptor_errors: u64,
    /// How many times several connections were accepted at one instant.
    pub accept_bursts: u64,
    /// Cancels that took long.
    pub late_cancels: u64,
    /// Cancels that came when their request was over and its end not yet reported.
    pub lost_cancels: u64,
    /// Requests that ended as cancelled although the port had not cancelled them.
    pub unasked_cancels: u64,
    /// Requests of closing sockets that ended late.
    pub late_ends: u64,
    /// Waits that failed because there was no memory.
    pub wait_errors: u64,
    /// Receives that found data and no buffer in the pool.
    pub buffer_shortages: u64,
}
