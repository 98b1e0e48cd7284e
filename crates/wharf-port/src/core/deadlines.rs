//! What is due: the timers of callers and those of the port's own, and what becomes of them.
//!
//! How timers are kept is in `timer`; here is whom they are for. Apart from `core` because neither
//! needs to know how the other works.

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
    /// The caller's, with its key.
    Caller(Key),
    /// A closing socket has had its time to send what is queued.
    Flush(SlotId),
    /// A connect has had its time.
    Deadline(SlotId),
    /// A connect that found the backlog of a Unix socket full tries again.
    Connect(SlotId),
    /// A paused listener tries again.
    Accept(SlotId),
    /// The system gave no memory for receives, and is asked again.
    Memory,
}

impl TimerTarget {
    /// Whether there is one also where `timers_max` are set. What takes one can be refused to a
    /// caller; but a listener without it stayed deaf when it had found no descriptor, a stream when
    /// there was no memory, and a close waited for a deaf peer for ever.
    fn is_always_set(self) -> bool {
        match self {
            TimerTarget::Flush(_) | TimerTarget::Accept(_) | TimerTarget::Memory => true,
            TimerTarget::Caller(_) | TimerTarget::Deadline(_) | TimerTarget::Connect(_) => false,
        }
    }
}

/// How many timers may be set beyond `timers_max`: one of each socket, which flushes or accepts, and
/// that of the memory.
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
        let untaken = self.counters.timer_ends_untaken.load(Ordering::Relaxed);
        if untaken > 0 && untaken + lock(&self.timers).len() >= self.options.timers_max as usize {
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
        let untaken = &self.counters.timer_ends_untaken;
        untaken.fetch_add(1, Ordering::Relaxed);
        let Some(wake) = self.ready.push_loose(packet) else {
            untaken.fetch_sub(1, Ordering::Relaxed);
            return Cancel::NotFound; // Its end would be told to nobody.
        };
        self.wake(wake);
        Cancel::Requested
    }

    /// Sets a timer, unless there are `timers_max`. Sleepers learn of a deadline nearer than theirs.
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

    /// Turns timers that are due into packets, as long as the batch has room.
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

    /// Takes the timers of callers, as far as there is room, up to one of the port's own. With a
    /// lock for each of them, threads that set timers without end held up a waiter at every one.
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

    /// How long a sleep may last before a look at the timers.
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
    /// Sets the limit of what a socket with work does from now on; answers whether it has one, or
    /// needs none.
    pub(crate) fn set_limit(&mut self, time: Duration, target: TimerTarget) -> bool {
        // Later than the clock goes is never.
        let Some(deadline) = self.core.driver.now().checked_add(time) else {
            return true;
        };
        let limit = self.core.set_timer(deadline, target);
        self.work().limit = limit;
        limit.is_some()
    }

    /// Takes back the limit of what is over. Left to run out, those of a program that connects and
    /// closes without end were hundreds of thousands, and each was looked at when it was due.
    pub(crate) fn end_limit(&mut self) {
        let limit = self.work.as_mut().and_then(|work| work.limit.take());
        let Some(timer) = limit else {
            return;
        };
        // One that has run self.out is not found.
        lock(&self.core.timers).cancel(timer);
    }
}
