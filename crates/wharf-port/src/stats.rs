//! What a port counts, as its caller sees it.
//!
//! A copy at one moment, and not a view: each number is read by itself, so two of them may be of
//! slightly different times.

/// What a port holds and has seen; made by [`Port::stats`](crate::Port::stats).
///
/// ```
/// # fn main() -> wharf_port::Result<()> {
/// let port = wharf_port::Port::builder().build()?;
/// assert_eq!(port.stats().sockets, 0);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Sockets associated now, those being connected included.
    pub sockets: u32,
    /// Timers set now, the library's own included.
    pub timers: usize,
    /// Posted packets that nobody has taken yet.
    pub posts: usize,
    /// Leases that are out, queued or being sent.
    pub leases: usize,
    /// Bytes of the receive pool that exist now.
    pub pool_bytes: usize,
    /// Bytes of the table of sockets that exist now. It grows in chunks and does not shrink.
    pub table_bytes: usize,
    /// Listeners that wait for descriptors, memory or room.
    pub listeners_paused: usize,
    /// Accepts posted now (IOCP), or armed (elsewhere one per accepting listener).
    pub accepts_posted: u32,
    /// Accepted sockets that were closed because nobody took their packet before the port ended or
    /// their listener went.
    pub accepted_untaken: u64,
    /// Completions that belong to nothing the port knows; dropped.
    pub foreign_packets: u64,
    /// Waiters whose thread ended without dropping them.
    pub waiters_leaked: u64,
    /// Streams that still had something to send when the port ended, and were reset.
    pub streams_cut: u64,
    /// Bytes that these had taken and not sent. A request in progress counts as far as it had been
    /// told: whole, on `iocp` and `uring`.
    pub bytes_unsent: u64,
    /// Operations the system still owned when the port ended; their memory is never freed.
    pub operations_leaked: u64,
}
