//! The end of a port in order: accept nothing more, send what is queued, FIN, and only then close.
//!
//! Every socket is closed as if its owner had dropped it. The port closes once the last socket is
//! gone and every packet is taken, also those in the batches of waiters, or once the time is up. The
//! waiters do the work, as always. They find out that it is done by looking, because the last socket
//! goes under its lock, and there the port cannot be ended. A limit for each socket was rejected: the
//! caller gave one for all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::core::local::Local;
use crate::core::locked::Locked;
use crate::core::slot::flag;
use crate::core::{Core, Out};
use crate::error::ErrorKind;
use crate::lock;
use crate::op::Close;

/// Whether the port is ending in order, and until when.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    begun: AtomicBool,
    /// When it closes whatever is left; nothing if that is later than the clock goes.
    at_latest: Mutex<Option<Instant>>,
}

impl Core {
    /// Ends the port in order, within `grace`; at once if nobody waits who could do the work.
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
                // One that closes already goes on with that.
                let _ = self.close_socket(id, Close::Flush, true);
            }
        }
        self.driver.submit(self);
        if self.ready.has_waiters() {
            self.wake(self.ready.wake_all());
        } else {
            self.close();
        }
    }

    /// Whether the port takes no new sockets: it ends, or has ended, or is not this process's.
    pub(crate) fn takes_no_sockets(&self) -> bool {
        self.is_ending() || self.is_closed()
    }

    /// A slot for a socket that comes in, locked.
    ///
    /// Whether the port takes sockets is asked with the slot locked: whoever ends the port looks at
    /// every slot after it has said so, and closes what it finds. A socket that was let in by an
    /// earlier answer held up the end of the port for all of its grace.
    ///
    /// A table that is full is looked at twice: sockets that were dropped keep their slots until
    /// somebody takes note of what the system has told about them, and nobody may have waited since.
    pub(crate) fn admit(self: &Arc<Self>, kept: bool) -> Result<Locked<'_>, ErrorKind> {
        let allocated = self.slots.allocate(kept).or_else(|| {
            self.driver.submit(self);
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

    /// Whether the port ends in order.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.begun.load(Ordering::SeqCst)
    }

    /// Closes a port that ends in order, once nothing is left or the time is up. The calling waiter
    /// has taken what timers are due, unless its batch is full.
    pub(crate) fn close_when_ended(self: &Arc<Self>, local: &Local) {
        if !self.is_ending() || self.is_closed() {
            return;
        }
        let at_latest = *lock(&self.ending.at_latest);
        if at_latest.is_some_and(|at| self.driver.now() >= at) {
            self.close();
        } else if self.slots.open() == 0 && local.packets.is_empty() {
            if let Some(wake) = self.ready.close_if_idle() {
                // A waiter ends it: this one, at the latest.
                self.wake(wake);
            }
        }
    }

    /// Packets were taken out of a batch. If it is empty now, those who wait for the end of the port
    /// look again.
    #[inline]
    pub(crate) fn was_handed_out(&self, local: &mut Local) {
        if local.packets.is_empty() && self.ready.note_handed_out(local) {
            self.last_may_be_gone();
        }
    }

    /// A socket of a port that ends went, or a packet: if it was the last, those who sleep find that
    /// out.
    pub(crate) fn last_may_be_gone(&self) {
        if self.nothing_is_left() {
            self.wake(self.ready.wake_all());
        }
    }

    /// Whether the port ends in order and holds neither a socket nor a packet outside its queue.
    pub(crate) fn nothing_is_left(&self) -> bool {
        self.is_ending() && self.slots.open() == 0 && !self.ready.is_any_at_hand()
    }

    /// How long a port that ends in order may still take.
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
    /// Takes back the slot of a socket that did not come in after all.
    pub(crate) fn turn_away(mut self, kept: bool) {
        self.core.slots.unallocate(self.id, &mut self.state, kept);
        self.core.last_may_be_gone();
    }

    /// Counts what a socket was to send and cannot any more, because the port ends.
    pub(crate) fn count_unsent(&self) {
        let work = self.work.as_ref();
        let Some(work) = work.filter(|work| !work.sends.is_empty()) else {
            return;
        };
        if !self.has(flag::WRITE_ENDED) {
            let (counters, bytes) = (&self.core.counters, work.queued_bytes as u64);
            counters.streams_cut.fetch_add(1, Ordering::Relaxed);
            counters.bytes_unsent.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}
