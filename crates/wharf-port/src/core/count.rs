//! The counts of a port: for `Port::stats`, and for its own bounds.
//!
//! They are atomics without a lock: each count is read by itself, and orders nothing.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::core::Core;
use crate::core::locked::Locked;
use crate::lock;
use crate::stats::Stats;

/// Numbers for `Port::stats`.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) foreign_packets: AtomicU64,
    pub(crate) accepted_untaken: AtomicU64,
    pub(crate) operations_leaked: AtomicU64,
    pub(crate) waiters_leaked: AtomicU64,
    pub(crate) accepts_posted: AtomicU32,
    pub(crate) leases: AtomicUsize,
    pub(crate) streams_cut: AtomicU64,
    pub(crate) bytes_unsent: AtomicU64,
    /// Ends of cancelled timers that wait to be taken.
    pub(crate) timer_ends_pending: AtomicUsize,
}

impl Core {
    /// Returns a copy of the counts. All are 0 in a fork of the process that built the port.
    pub(crate) fn stats(&self) -> Stats {
        if self.is_forked() {
            return Stats::default();
        }
        let counters = &self.counters;
        Stats {
            sockets: self.slots.live(),
            timers: lock(&self.timers).len(),
            posts: self.ready.posts(),
            leases: counters.leases.load(Ordering::Relaxed),
            pool_bytes: self.pool.bytes(),
            table_bytes: self.slots.bytes(),
            listeners_paused: lock(&self.paused).len(),
            accepts_posted: counters.accepts_posted.load(Ordering::Relaxed),
            accepted_untaken: counters.accepted_untaken.load(Ordering::Relaxed),
            foreign_packets: counters.foreign_packets.load(Ordering::Relaxed),
            streams_cut: counters.streams_cut.load(Ordering::Relaxed),
            bytes_unsent: counters.bytes_unsent.load(Ordering::Relaxed),
            waiters_leaked: counters.waiters_leaked.load(Ordering::Relaxed),
            operations_leaked: counters.operations_leaked.load(Ordering::Relaxed),
        }
    }

    /// The system reported something that belongs to nothing that the port knows.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn count_foreign(&self) {
        self.counters
            .foreign_packets
            .fetch_add(1, Ordering::Relaxed);
    }

    /// How many free places the table still has.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn places_left(&self) -> u32 {
        self.options.sockets_max.saturating_sub(self.slots.live())
    }

    /// How many places of the table were ever used. `lock_index` takes the numbers below that.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn places_used(&self) -> u32 {
        self.slots.used()
    }

    /// Whether the ready queue has an entry.
    #[cfg(feature = "sim")]
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When the next timer expires.
    #[cfg(feature = "sim")]
    pub(crate) fn next_deadline(&self) -> Option<std::time::Instant> {
        lock(&self.timers).next_deadline()
    }

    /// Returns the ready queue, for tests of its entries.
    #[cfg(test)]
    #[allow(dead_code, reason = "not every system has a driver with such a test")]
    pub(crate) fn ready(&self) -> &crate::core::ready::Ready {
        &self.ready
    }
}

impl Locked<'_> {
    /// The driver has posted an accept, or has armed one that continues by itself.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn accept_begun_there(&self) {
        let posted = &self.core.counters.accepts_posted;
        posted.fetch_add(1, Ordering::Relaxed);
    }

    /// Such an accept is over.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn accept_ended_there(&self) {
        let posted = &self.core.counters.accepts_posted;
        posted.fetch_sub(1, Ordering::Relaxed);
    }
}
