//! Short of memory: streams wait and try again.
//!
//! The pool's own bound is met by leases that return: each calls the next stream in the line. Where
//! the system gives no memory there may be no lease that could return, and nobody would ever call.
//! So one timer of the port, and never more than one, calls all of them after a while. To try at each
//! wait was rejected: without a buffer the kernel answers at once, and a port spun 90,000 times a
//! second. So was an error of `wait`: no port is broken by what passes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::core::Core;
use crate::core::deadlines::TimerTarget;
use crate::core::locked::Locked;
use crate::core::pool::PoolBuffer;
use crate::core::slot::flag;

/// So long after the system gave no memory it is asked again.
const RETRY: Duration = Duration::from_millis(100);

impl Core {
    /// Calls up to `n` of the streams in the line for a buffer.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn call_waiting(&self, n: usize) {
        for _ in 0..n {
            let Some(waiting) = self.pool.next_waiting() else {
                return;
            };
            self.wake(self.ready.push_rearm(waiting));
        }
    }

    /// Sees to it that all streams in the line for a buffer try again after a while.
    fn ask_for_memory_again(&self) {
        if self.lacks_memory.swap(true, Ordering::AcqRel) {
            return;
        }
        let due = self.driver.now().checked_add(RETRY);
        let timer = due.and_then(|due| self.set_timer(due, TimerTarget::Memory));
        if timer.is_none() {
            // The clock goes no further.
            self.lacks_memory.store(false, Ordering::Release);
        }
    }

    /// Whether the system gave no memory, and is not to be asked yet.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn waits_for_memory(&self) -> bool {
        self.lacks_memory.load(Ordering::Acquire)
    }

    /// It is time to ask again.
    pub(crate) fn memory_due(self: &Arc<Self>) {
        self.lacks_memory.store(false, Ordering::Release);
        while let Some(waiting) = self.pool.next_waiting() {
            self.wake(self.ready.push_rearm(waiting));
        }
    }
}

impl Locked<'_> {
    /// A buffer of the pool, or a place in the line for one.
    pub(crate) fn buffer_or_wait(&mut self) -> Option<PoolBuffer> {
        let pool = &self.core.pool;
        let buffer = pool.take_or_wait(self.id, &self.core.slots);
        if buffer.is_none() {
            self.set(flag::PAUSED_POOL);
            if pool.lacks_memory() {
                self.core.ask_for_memory_again();
            }
        }
        buffer
    }

    /// The system gave the driver no memory for buffers: the stream joins the line.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn wait_for_memory(&mut self) {
        self.core.pool.wait(self.id, &self.core.slots);
        self.set(flag::PAUSED_POOL);
        self.core.ask_for_memory_again();
    }
}
