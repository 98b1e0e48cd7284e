//! Timers that are due: those of callers, those of the port, and what each of them starts.
//!
//! `timer` keeps the timers; this module knows what they are for. It is not in `core`, because
//! neither needs to know how the other works.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::core::local::Local;
use crate::core::locked::Locked;
use crate::core::options::Options;
use crate::core::slot::SlotId;
use crate::core::timer::TimerId;
use crate::core::{Core, Out};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::key::Key;
use crate::lock;
use crate::op::{Cancel, Op};
use crate::packet::{Event, Packet};
use crate::reference::SocketRef;

/// What a timer is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TimerTarget {
    /// A timer of the caller, with its key.
    Caller(Key),
    /// The time for a closing socket to send what is queued is over.
    Flush(SlotId),
    /// The time for a connect is over.
    Deadline(SlotId),
    /// A connect that found the backlog of a Unix socket full tries again.
    Connect(SlotId),
    /// A paused listener tries again.
    Accept(SlotId),
    /// The system had no memory for receives. The port asks again.
    Memory,
}

impl TimerTarget {
    /// Whether it is set even if `timers_max` timers are set. The port can refuse a caller's
    /// request that needs a timer. But without its timer a listener that had found no descriptor
    /// never accepted again, a stream that had found no memory never read again, and a close waited
    /// for ever for a peer that does not read.
    fn is_always_set(self) -> bool {
        match self {
            TimerTarget::Flush(_) | TimerTarget::Accept(_) | TimerTarget::Memory => true,
            TimerTarget::Caller(_) | TimerTarget::Deadline(_) | TimerTarget::Connect(_) => false,
        }
    }
}

/// How many timers may be set beyond `timers_max`: one for each socket, which flushes or accepts,
/// and the one for memory.
pub(crate) fn timers_beyond(options: &Options) -> u32 {
    options.sockets_max.saturating_add(1)
}

impl Core {
    /// Sets a timer of a caller.
    pub(crate) fn start_timer(&self, at: Instant, key: Key) -> Result<Op> {
        if self.is_closed() {
            return Err(Error::new(Operation::Timer, ErrorKind::Closed));
        }
        let full = Error::new(Operation::Timer, ErrorKind::Full);
        let pending = self.counters.timer_ends_pending.load(Ordering::Relaxed);
        if pending > 0 && pending + lock(&self.timers).len() >= self.options.timers_max as usize {
            return Err(full);
        }
        let timer = self.set_timer(at, TimerTarget::Caller(key)).ok_or(full)?;
        Ok(Op::timer(self.id, timer.index, timer.generation))
    }

    pub(crate) fn cancel_timer(&self, op: Op) -> Cancel {
        let id = TimerId {
            index: op.slot,
            generation: op.generation,
        };
        let Some(TimerTarget::Caller(key)) = lock(&self.timers).cancel(id) else {
            return Cancel::NotFound;
        };
        let packet = Packet {
            key,
            op,
            socket: SocketRef::none(self.id),
            event: Event::TimerCancelled,
        };
        let pending = &self.counters.timer_ends_pending;
        pending.fetch_add(1, Ordering::Relaxed);
        let Some(wake) = self.ready.push_turnless(packet) else {
            pending.fetch_sub(1, Ordering::Relaxed);
            return Cancel::NotFound; // No waiter would get its end.
        };
        self.wake(wake);
        Cancel::Requested
    }

    /// Sets a timer, unless `timers_max` timers are set. Wakes the sleepers if its deadline is
    /// nearer than theirs.
    pub(crate) fn set_timer(&self, deadline: Instant, target: TimerTarget) -> Option<TimerId> {
        let (timer, news) = {
            let mut timers = lock(&self.timers);
            let timer = match target.is_always_set() {
                true => timers.insert_beyond(deadline, target),
                false => timers.insert(deadline, target),
            };
            (timer?, timers.is_news(deadline))
        };
        if news {
            self.wake(self.ready.wake_drivers());
        }
        Some(timer)
    }

    /// Turns timers that are due into packets, as long as the batch has space.
    pub(crate) fn expire_timers(self: &Arc<Self>, local: &mut Local) {
        while let Some(target) = self.expire_timers_of_callers(local) {
            match target {
                TimerTarget::Flush(id) => self.flush_over(id, Out::batch(local)),
                TimerTarget::Deadline(id) => self.connect_overdue(id, Out::batch(local)),
                TimerTarget::Connect(id) => self.connect_again(id, Out::batch(local)),
                TimerTarget::Accept(id) => self.retry_accept(id, Out::batch(local)),
                TimerTarget::Memory => self.memory_due(),
                TimerTarget::Caller(_) => debug_assert!(false, "those were taken"),
            }
        }
        self.close_when_ended(local);
    }

    /// Takes the timers of callers, as far as there is space, until the first one of the port's
    /// own. All are taken under one lock. With a lock for each timer, threads that set timers in a
    /// loop delayed a waiter at every one.
    fn expire_timers_of_callers(&self, local: &mut Local) -> Option<TimerTarget> {
        let mut timers = lock(&self.timers);
        if timers.len() == 0 {
            return None;
        }
        let now = self.driver.now();
        while local.room() > 0 {
            let (timer, target) = timers.expire(now)?;
            let TimerTarget::Caller(key) = target else {
                return Some(target);
            };
            self.ready.note_at_hand(local);
            local.push(Packet {
                key,
                op: Op::timer(self.id, timer.index, timer.generation),
                socket: SocketRef::none(self.id),
                event: Event::Timer,
            });
        }
        None
    }

    /// Returns how long a waiter may sleep before it has to look at the timers.
    pub(crate) fn until_next_timer(&self) -> Option<Duration> {
        let now = self.driver.now();
        let until = lock(&self.timers).sleep_until(now, !self.options.shared);
        let timer = until.map(|it| it.saturating_duration_since(now));
        match (timer, self.until_end()) {
            (Some(timer), Some(end)) => Some(timer.min(end)),
            (timer, end) => timer.or(end),
        }
    }
}

impl Locked<'_> {
    /// Sets the time limit of the socket's next operation. The socket has a work block. Returns
    /// false if there was no free timer.
    pub(crate) fn set_limit(&mut self, time: Duration, target: TimerTarget) -> bool {
        // A deadline beyond the range of the clock never comes.
        let Some(deadline) = self.core.driver.now().checked_add(time) else {
            return true;
        };
        let limit = self.core.set_timer(deadline, target);
        self.work().limit = limit;
        limit.is_some()
    }

    /// Cancels the timer of a connect or flush that has finished. Without this, a program that
    /// connects and closes in a loop piled up hundreds of thousands of dead timers, and the port
    /// processed each one when it expired.
    pub(crate) fn end_limit(&mut self) {
        let limit = self.work.as_mut().and_then(|work| work.limit.take());
        let Some(timer) = limit else {
            return;
        };
        // A timer that has expired is not found.
        lock(&self.core.timers).cancel(timer);
    }
}
