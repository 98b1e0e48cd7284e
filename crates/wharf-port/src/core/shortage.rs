//! Lack of memory: streams wait and try again.
//!
//! At the pool's own bound, each lease that returns calls the next stream that waits. But if the
//! system has no memory, perhaps no lease is out that could return, and the streams would wait for
//! ever. So one timer of the port, and never more than one, calls all of them after a while. An
//! attempt at each wait was rejected: without a buffer the kernel returns at once, and a port spun
//! 90,000 times a second. An error of `wait` was rejected too: a temporary lack does not break the
//! port.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::core::Core;
use crate::core::deadlines::TimerTarget;
use crate::core::locked::Locked;
use crate::core::pool::PoolBuffer;
use crate::core::slot::Pause;

/// How long after the system had no memory the port asks again.
const RETRY: Duration = Duration::from_millis(100);

impl Core {
    /// Calls up to `n` of the streams that wait for a buffer.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn call_waiting(&self, n: usize) {
        for _ in 0..n {
            let Some(waiting) = self.pool.next_waiting() else {
                return;
            };
            self.wake(self.ready.push_rearm(waiting));
        }
    }

    /// Sets the timer after which all streams that wait for a buffer try again.
    fn ask_for_memory_again(&self) {
        if self.lacks_memory.swap(true, Ordering::AcqRel) {
            return;
        }
        let due = self.driver.now().checked_add(RETRY);
        let timer = due.and_then(|due| self.set_timer(due, TimerTarget::Memory));
        if timer.is_none() {
            // The deadline is beyond the range of the clock.
            self.lacks_memory.store(false, Ordering::Release);
        }
    }

    /// Whether the system had no memory, and the port does not ask again yet.
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
    /// Returns a buffer of the pool, or makes the stream wait for one.
    pub(crate) fn buffer_or_wait(&mut self) -> Option<PoolBuffer> {
        let pool = &self.core.pool;
        let buffer = pool.take_or_wait(self.id, &self.core.slots);
        if buffer.is_none() {
            self.set_pause(Pause::Buffers);
            if pool.lacks_memory() {
                self.core.ask_for_memory_again();
            }
        }
        buffer
    }

    /// The system had no memory for the driver's buffers: the stream waits.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn wait_for_memory(&mut self) {
        self.core.pool.wait(self.id, &self.core.slots);
        self.set_pause(Pause::Buffers);
        self.core.ask_for_memory_again();
    }
}
