//! The graceful shutdown of a port: it accepts nothing more, sends what is queued, sends FIN, and
//! only then closes.
//!
//! Every socket is closed as if its owner had dropped it. The port closes once the last socket is
//! gone and every packet is taken, including those in the batches of waiters, or once the time is
//! up. The waiters do the work, as always. The waiters also check whether it is done: the last
//! socket goes under its slot's lock, and the port cannot be closed under that lock. A limit for
//! each socket was rejected, because the caller gave one limit for all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::core::local::Local;
use crate::core::locked::Locked;
use crate::core::slot::Writing;
use crate::core::{Core, Out};
use crate::driver::Submit;
use crate::error::ErrorKind;
use crate::lock;
use crate::op::Close;

/// Whether the port shuts down gracefully, and until when.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    begun: AtomicBool,
    /// When it closes regardless of what is left; `None` if that is beyond the range of the clock.
    at_latest: Mutex<Option<Instant>>,
}

impl Core {
    /// Shuts the port down gracefully within `grace`. Closes it at once if it has no waiter that
    /// could do the work.
    pub(crate) fn shutdown_port(self: &Arc<Self>, grace: Duration) {
        if self.is_closed() {
            return;
        }
        let at = self.driver.now().checked_add(grace);
        {
            let mut at_latest = lock(&self.ending.at_latest);
            let again = self.ending.begun.swap(true, Ordering::SeqCst);
            *at_latest = match (again, *at_latest, at) {
                (true, Some(before), Some(at)) => Some(before.min(at)),
                (true, before, at) => before.or(at),
                (false, _, at) => at,
            };
        }
        for index in 0..self.slots.used() {
            let socket = self.slots.lock_index(index).map(|(id, _)| id);
            if let Some(id) = socket {
                // A socket that closes already continues its close.
                let _ = self.close_socket(id, Close::Flush, true);
            }
        }
        self.driver.submit(self, Submit::Now);
        if self.ready.has_waiters() {
            self.wake(self.ready.wake_all());
        } else {
            self.close();
        }
    }

    /// Whether the port takes no new sockets: it shuts down, or is closed, or belongs to the parent
    /// of this process.
    pub(crate) fn takes_no_sockets(&self) -> bool {
        self.is_ending() || self.is_closed()
    }

    /// Returns a locked slot for a new socket.
    ///
    /// The check whether the port takes sockets is made with the slot locked, and the slot stays
    /// locked until its socket is in it. A shutdown, like the end of a port, first sets its mark,
    /// then locks every slot and closes what it finds. So it finds each socket that passed the
    /// check. When the check was made before the lock, a socket could come in after the shutdown
    /// had looked, and delayed the end of the port for its whole grace period.
    ///
    /// A full table is looked at twice. Sockets that were dropped keep their slots until a thread
    /// processes the system's reports about them. Perhaps no thread has waited since, so this
    /// thread processes them, without waiting, before the second look.
    pub(crate) fn admit(self: &Arc<Self>, kept: bool) -> Result<Locked<'_>, ErrorKind> {
        let allocated = self.slots.allocate(kept).or_else(|| {
            self.driver.submit(self, Submit::Now);
            self.slots.allocate(kept)
        });
        let (id, state) = allocated.ok_or(ErrorKind::Full)?;
        let socket = self.locked(id, state, Out::queue());
        if self.takes_no_sockets() {
            socket.turn_away(kept);
            return Err(ErrorKind::Closed);
        }
        Ok(socket)
    }

    /// Whether the port shuts down gracefully.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.begun.load(Ordering::SeqCst)
    }

    /// Closes a port that shuts down, once nothing is left or the time is up. The calling waiter
    /// has taken the timers that are due, unless its batch is full.
    pub(crate) fn close_when_ended(self: &Arc<Self>, local: &Local) {
        if !self.is_ending() || self.is_closed() {
            return;
        }
        let at_latest = *lock(&self.ending.at_latest);
        if at_latest.is_some_and(|at| self.driver.now() >= at) {
            self.close();
        } else if self.slots.open() == 0 && local.packets.is_empty() {
            if let Some(wake) = self.ready.close_if_idle() {
                // A waiter ends the port: this one, at the latest.
                self.wake(wake);
            }
        }
    }

    /// Packets were taken out of a batch. If it is empty now, the waiters that sleep until the end
    /// of the port look again.
    #[inline]
    pub(crate) fn was_handed_out(&self, local: &mut Local) {
        if local.packets.is_empty() && self.ready.note_handed_out(local) {
            self.last_may_be_gone();
        }
    }

    /// A socket of a port that shuts down went, or a packet. If it was the last, wakes the
    /// sleepers, so they find that out.
    pub(crate) fn last_may_be_gone(&self) {
        if self.nothing_is_left() {
            self.wake(self.ready.wake_all());
        }
    }

    /// Whether the port shuts down and has neither a socket nor a packet outside its queue.
    pub(crate) fn nothing_is_left(&self) -> bool {
        self.is_ending() && self.slots.open() == 0 && !self.ready.is_any_at_hand()
    }

    /// Returns the time left for a port that shuts down.
    pub(crate) fn until_end(&self) -> Option<Duration> {
        if !self.is_ending() {
            return None;
        }
        if self.nothing_is_left() {
            // The last one went after this waiter had looked.
            return Some(Duration::ZERO);
        }
        let at_latest = (*lock(&self.ending.at_latest))?;
        Some(at_latest.saturating_duration_since(self.driver.now()))
    }
}

impl Locked<'_> {
    /// Frees the slot of a socket that did not come in after all.
    pub(crate) fn turn_away(mut self, kept: bool) {
        self.core.slots.unallocate(self.id, &mut self.state, kept);
        self.core.last_may_be_gone();
    }

    /// Counts what a socket had to send and will not, because the port ends.
    pub(crate) fn count_unsent(&self) {
        let work = self.work.as_ref();
        let Some(work) = work.filter(|work| !work.sends.is_empty()) else {
            return;
        };
        if self.writing() != Writing::Ended {
            let (counters, bytes) = (&self.core.counters, work.queued_bytes as u64);
            counters.streams_cut.fetch_add(1, Ordering::Relaxed);
            counters.bytes_unsent.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}
