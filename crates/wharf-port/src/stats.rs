//! The counts of a port, for its caller.
//!
//! They are a copy and not a view. Each number is read by itself, so two of them may be of slightly
//! different times.

/// What a port holds and has counted; [`Port::stats`](crate::Port::stats) returns it.
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
    /// Sockets associated now, including those that are connecting.
    pub sockets: u32,
    /// Timers set now, including the library's own.
    pub timers: usize,
    /// Posted packets that wait to be taken.
    pub posts: usize,
    /// Leases that are out, queued or being sent.
    pub leases: usize,
    /// Bytes of the receive pool that exist now.
    pub pool_bytes: usize,
    /// Bytes of the table of sockets that exist now. It grows in chunks and does not shrink.
    pub table_bytes: usize,
    /// Listeners that wait for descriptors, memory or space.
    pub listeners_paused: usize,
    /// Accepts posted now (IOCP), or armed (other drivers: one per accepting listener).
    pub accepts_posted: u32,
    /// Accepted sockets that the port closed because no thread took their packet before the port or
    /// their listener ended.
    pub accepted_untaken: u64,
    /// Completions that belong to nothing that the port knows. The port drops them.
    pub foreign_packets: u64,
    /// Waiters that were not dropped before their thread ended.
    pub waiters_leaked: u64,
    /// Streams that still had something to send when the port ended. They were reset.
    pub streams_cut: u64,
    /// Bytes that these streams had taken and not sent. On `iocp` and `uring` a request in progress
    /// counts as a whole, because the port does not know how much of it went out.
    pub bytes_unsent: u64,
    /// Operations that the system still owned when the port ended. Their memory is never freed.
    pub operations_leaked: u64,
}
