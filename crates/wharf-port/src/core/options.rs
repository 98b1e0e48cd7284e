//! The bounds of a port, as set by its builder.

use crate::driver::kind::DriverChoice;

/// The receive pool: the size of a buffer, and of all buffers together.
///
/// ```
/// use wharf_port::{PoolOptions, Port};
/// # fn main() -> wharf_port::Result<()> {
/// let pool = PoolOptions::new().buffer_bytes(4096);
/// let port = Port::builder().pool(pool).build()?;
/// assert_eq!(port.stats().pool_bytes, 0); // none until there is data
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct PoolOptions {
    pub(crate) buffer_bytes: u32,
    pub(crate) pool_bytes_max: usize,
    pub(crate) revoke_returned: bool,
}

impl PoolOptions {
    /// Buffers of 16 KiB, 64 MiB in total.
    ///
    /// ```
    /// use wharf_port::PoolOptions;
    /// assert_eq!(PoolOptions::new(), PoolOptions::default());
    /// ```
    pub fn new() -> Self {
        PoolOptions::default()
    }

    /// Sets the bytes of one buffer, 512 to 1 MiB; 16 KiB by default.
    ///
    /// ```
    /// let pool = wharf_port::PoolOptions::new().buffer_bytes(4096);
    /// ```
    pub fn buffer_bytes(mut self, bytes: u32) -> Self {
        self.buffer_bytes = bytes;
        self
    }

    /// Sets the bytes of all buffers together; 64 MiB by default. At this bound streams wait for a
    /// buffer. Once more than half of the buffers are lent, the port copies what it receives in
    /// small pieces, so a few bytes do not hold a buffer. Such copies take at most a quarter of
    /// this bound in addition.
    ///
    /// ```
    /// let pool = wharf_port::PoolOptions::new().pool_bytes_max(1 << 30);
    /// ```
    pub fn pool_bytes_max(mut self, bytes: usize) -> Self {
        self.pool_bytes_max = bytes;
        self
    }

    /// Sets whether the pages of a returned buffer become inaccessible and are never used again, so
    /// any late access faults; no by default. This is for tests: each buffer then costs a mapping
    /// of its own.
    ///
    /// ```
    /// let pool = wharf_port::PoolOptions::new().revoke_returned(true);
    /// ```
    pub fn revoke_returned(mut self, revoke: bool) -> Self {
        self.revoke_returned = revoke;
        self
    }
}

impl Default for PoolOptions {
    fn default() -> Self {
        PoolOptions {
            buffer_bytes: 16 * 1024,
            pool_bytes_max: 64 * 1024 * 1024,
            revoke_returned: false,
        }
    }
}

/// All bounds of a port, as set by the builder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) driver: DriverChoice,
    pub(crate) shared: bool,
    pub(crate) sockets_max: u32,
    /// Places in the driver's own table of sockets; 0 when sockets have descriptors.
    #[allow(dead_code, reason = "only the uring driver has such a table")]
    pub(crate) direct_descriptors: u32,
    pub(crate) timers_max: u32,
    pub(crate) posts_max: usize,
    pub(crate) waiters_max: u16,
    pub(crate) batch_max: usize,
    pub(crate) turn_packets_max: u8,
    pub(crate) leases_per_socket: u16,
    pub(crate) send_queue_bytes_max: usize,
    pub(crate) operations_per_socket_max: usize,
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) accepts_posted: u16,
    pub(crate) flush_ms_max: u32,
    pub(crate) spin_us_max: u32,
    pub(crate) pool: PoolOptions,
}
