//! How a waiter takes packets: first what is ready, then what the driver reports, with sleep in
//! between.
//!
//! It is separate from the waiter, because the end of the thread may give up the waiter's place
//! (`seat`). Then the packets that were taken and not handed out are found here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::local::Local;
use crate::core::ready::{Entered, Rest, Taken};
use crate::core::{Core, Out, spin};
use crate::error::{Error, Operation, Result};

/// A waiter with packets at hand enters the driver at least once in this many waits. So a queue
/// that never runs empty cannot starve the sockets of the kernel.
const WAITS_WITHOUT_POLL_MAX: u32 = 8;

/// What a waiter remembers from one wait to the next.
#[derive(Debug)]
pub(crate) struct Taking {
    number: u16,
    pub(crate) local: Local,
    waits_without_poll: u32,
    /// Whether timers or the queue fill this batch first. They alternate, so neither can starve the
    /// other.
    timers_first: bool,
    /// It was woken while it was parked, maybe to lead, and has not slept since.
    called: bool,
}

/// What a wait found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// Packets, in the batch.
    Packets,
    /// The time is up.
    Nothing,
    /// The port is closed.
    Closed,
}

impl Taking {
    pub(crate) fn new(number: u16, alone: bool) -> Self {
        Taking {
            number,
            local: Local::new(number, alone),
            waits_without_poll: 0,
            timers_first: false,
            called: false,
        }
    }

    /// Waits until there are packets, at most for `at_most`.
    pub(crate) fn wait(&mut self, core: &Arc<Core>, at_most: Option<Duration>) -> Result<Found> {
        let found = self.fill(core, at_most);
        if std::mem::take(&mut self.called) {
            // A waiter that was called to lead and has other things to do calls the next one.
            core.wake(core.ready.hand_over());
        }
        found
    }

    fn fill(&mut self, core: &Arc<Core>, at_most: Option<Duration>) -> Result<Found> {
        if !self.local.packets.is_empty() {
            core.forget_dropped(&mut self.local.packets);
            core.was_handed_out(&mut self.local);
        }
        core.end_turns(&mut self.local);
        let deadline = at_most.and_then(|limit| core.driver.now().checked_add(limit));
        self.local.begin(core.options.batch_max);
        self.waits_without_poll += 1;
        self.timers_first = !self.timers_first;
        let mut slept = false;
        loop {
            if core.is_closed() {
                return Ok(Found::Closed);
            }
            self.take_ready(core)?;
            if !self.local.packets.is_empty() {
                if core.options.shared {
                    core.leave_to_others(&mut self.local);
                }
                return Ok(Found::Packets);
            }
            if !self.local.later.is_empty() {
                // The mark has wrapped, so a socket seemed to have had its share.
                core.end_turns(&mut self.local);
                continue;
            }
            if slept && deadline.is_some_and(|deadline| core.driver.now() >= deadline) {
                return Ok(Found::Nothing);
            }
            slept |= self.sleep(core, deadline)?;
        }
    }

    /// Fills the batch with what is ready, without sleeping.
    fn take_ready(&mut self, core: &Arc<Core>) -> Result<()> {
        if self.timers_first {
            core.expire_timers(&mut self.local);
        }
        self.take_queued(core);
        if !self.timers_first {
            core.expire_timers(&mut self.local);
        }
        if self.local.packets.is_empty() {
            return Ok(());
        }
        // The driver may want to be entered again because of what it reported in this wait. That
        // happens at the next wait.
        let due = self.waits_without_poll >= WAITS_WITHOUT_POLL_MAX
            || (self.waits_without_poll > 0 && core.driver.wants_entry());
        if due {
            if let Some(entered) = core.ready.try_enter() {
                self.poll(core, entered, Some(Duration::ZERO))?;
            }
        }
        Ok(())
    }

    /// Takes this waiter's share of what is queued.
    fn take_queued(&mut self, core: &Arc<Core>) {
        if self.local.packets.is_empty() {
            self.local.limit(core.ready.share(0));
        }
        while let Some(taken) = core.ready.take(&mut self.local) {
            match taken {
                Taken::Socket(index) => core.take_turn(index, &mut self.local),
                Taken::Turnless(packet) => self.local.push(packet),
                Taken::Rearm(id) => core.rearm(id, Out::batch(&mut self.local)),
            }
        }
        if self.local.packets.is_empty() {
            self.local.widen(core.options.batch_max);
        }
    }

    /// Sleeps until something happens or the time is up. Returns whether it slept at all.
    fn sleep(&mut self, core: &Arc<Core>, deadline: Option<Instant>) -> Result<bool> {
        core.driver.step();
        match core.ready.rest(self.number) {
            Rest::Ready => Ok(false),
            Rest::Poll(entered) => {
                self.called = false;
                let timeout = time_left(core, deadline, true);
                self.poll(core, entered, timeout)?;
                Ok(true)
            }
            Rest::Park => {
                core.driver.park(time_left(core, deadline, false));
                self.called = core.ready.unparked(self.number);
                Ok(true)
            }
        }
    }

    /// Enters the driver, as the ready queue allowed, and takes what it finds.
    fn poll(
        &mut self,
        core: &Arc<Core>,
        entered: Entered,
        timeout: Option<Duration>,
    ) -> Result<()> {
        self.waits_without_poll = 0;
        let polled = self.enter(core, timeout);
        let wakes = std::mem::take(&mut self.local.wakes);
        core.wake(core.ready.woke(entered, wakes));
        self.share_out(core);
        polled.map_err(|code| Error::from_os(Operation::Wait, code))
    }

    /// Enters the driver to sleep, and busy-polls before that if the port was built so. The driver
    /// counts the wake-ups it used, also when it fails.
    fn enter(&mut self, core: &Arc<Core>, timeout: Option<Duration>) -> Result<(), i32> {
        let local = &mut self.local;
        let spin = core.options.spin_us_max;
        if spin == 0 || !core.may_spin {
            return core.driver.poll(core, timeout, local);
        }
        let start = Instant::now();
        let spin = Duration::from_micros(spin.into());
        spin::poll(
            spin,
            timeout,
            || start.elapsed(),
            |timeout| {
                core.driver.poll(core, timeout, local)?;
                Ok(local.wakes > 0 || !local.packets.is_empty() || !local.ready.is_empty())
            },
        )
    }

    /// Takes this waiter's share of the sockets that the driver found ready. The others go to the
    /// queue, for other waiters.
    fn share_out(&mut self, core: &Arc<Core>) {
        if self.local.ready.is_empty() {
            return;
        }
        let share = core.ready.share(self.local.ready.len());
        if self.local.packets.is_empty() {
            self.local.limit(share);
        }
        while let Some(index) = self.local.ready.pop_front() {
            if self.local.room() > 0 {
                core.take_turn(index, &mut self.local);
            } else {
                core.wake(core.ready.push_socket(index));
            }
        }
    }
}

/// Returns the time until `deadline`. For a waiter that keeps the time, also considers the next
/// timer.
fn time_left(core: &Core, deadline: Option<Instant>, keeps_time: bool) -> Option<Duration> {
    let own = deadline.map(|deadline| deadline.saturating_duration_since(core.driver.now()));
    let timer = if keeps_time {
        core.until_next_timer()
    } else {
        None
    };
    match (own, timer) {
        (Some(own), Some(timer)) => Some(own.min(timer)),
        (own, timer) => own.or(timer),
    }
}
