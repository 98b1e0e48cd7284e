//! What can go wrong on the simulated network, how often, and how often it did.
//!
//! Probabilities are integers per thousand, so that a seed means the same on every machine.

/// How a simulated network behaves: its seed, its delays and its faults.
///
/// Everything that happens follows from these values and from what the program does, as long as
/// one thread does it. Probabilities are per thousand; 0, the default of each, is never. Kept under
/// 1000 they leave a chance that things go on.
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
    /// Decides all that is left to chance.
    pub seed: u64,
    /// Each step of an operation takes up to so many microseconds; by default 100. With 0 all that
    /// happens at one instant happens in a random order.
    pub delay_us_max: u32,
    /// Bytes that wait in each direction of a connection before its sender is held up; by default
    /// 64 KiB.
    pub buffer_bytes: u32,
    /// One waiter at a time is inside the driver and leads, and the others are parked until it
    /// leaves: as on io_uring and kqueue. By default all of them may be inside, as on epoll and
    /// IOCP. A change once the port is built changes nothing.
    pub one_leads: bool,
    /// A receive brings less than there is.
    pub short_receives: u16,
    /// A send ends before all of it is with the system.
    pub short_sends: u16,
    /// The connection of a receive breaks: reset, timed out or unreachable.
    pub receive_errors: u16,
    /// The connection of a send breaks.
    pub send_errors: u16,
    /// A connect fails.
    pub connect_errors: u16,
    /// A connection is gone before it is accepted.
    pub accept_errors: u16,
    /// An accept finds the system out of descriptors, which stays so for up to 300 ms or until a
    /// socket closes.
    pub descriptor_shortages: u16,
    /// Everything that waits at a listener is accepted at the same instant.
    pub accept_bursts: u16,
    /// A cancel takes ten times as long as the rest, so that what it was to end may end otherwise.
    pub late_cancels: u16,
    /// A request ends as cancelled though nobody asked for that, as on io_uring when the thread
    /// that submitted it is gone.
    pub unasked_cancels: u16,
    /// What a closing socket still has with the system ends a hundred times later than the rest.
    pub late_ends: u16,
    /// A wait fails because the system has no memory, after it has taken what came and used the
    /// wake-ups that were for it.
    pub wait_errors: u16,
}

impl SimOptions {
    /// A network where nothing goes wrong.
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

    /// The same network, from which nothing of what is on its way is lost: connections do not break
    /// and are not refused. All the other faults stay.
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

/// How often each fault has happened; made by [`Network::faults`](super::Network::faults).
///
/// ```
/// assert_eq!(wharf_port::sim::Faults::default().short_sends, 0);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Faults {
    /// Receives that brought less than there was.
    pub short_receives: u64,
    /// Sends that ended before all of it was with the system.
    pub short_sends: u64,
    /// Connections that broke under a receive.
    pub receive_errors: u64,
    /// Connections that broke under a send.
    pub send_errors: u64,
    /// Connects that failed though somebody listened.
    pub connect_errors: u64,
    /// Connections that were gone before they were accepted.
    pub accept_errors: u64,
    /// Times at which descriptors ran out, and accepts that met one.
    pub descriptor_shortages: u64,
    /// Accepts that failed for want of a descriptor.
    pub descriptor_errors: u64,
    /// Several connections accepted at one instant.
    pub accept_bursts: u64,
    /// Cancels that took long.
    pub late_cancels: u64,
    /// Cancels that came when what they were to end was over and not yet reported.
    pub lost_cancels: u64,
    /// Requests that ended as cancelled, unasked.
    pub unasked_cancels: u64,
    /// Requests of closing sockets that ended late.
    pub late_ends: u64,
    /// Waits that failed for want of memory.
    pub wait_errors: u64,
    /// Receives that found data and no buffer in the pool.
    pub buffer_shortages: u64,
}
