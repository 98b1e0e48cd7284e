//! Waiting: the right to take packets, and the batch they come in.
//!
//! A waiter belongs to the thread that made it, because some rings may only be entered by their
//! own thread and because turns (contract C18) are counted per waiter. Its batch lives in it, so
//! that a packet nobody took is still there at the next wait.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::core::{Core, Out};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::lock;
use crate::packet::Packet;
use crate::ready::{Rest, Taken};
use crate::slot::{SlotId, SocketState};
use crate::spin;

/// A waiter with packets at hand enters the driver at least every so many waits, so that a queue
/// that never runs empty cannot shut out the sockets of the kernel.
const WAITS_WITHOUT_POLL_MAX: u32 = 8;

/// Bytes that are read into a batch before it is handed out: a quarter of a common second-level
/// cache, where 256 buffers of 64 KiB would pass through all of it and more.
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// Events that a driver is asked for beside a batch that is full already. With one, sockets that
/// always have more kept the others from being found: 40 that became ready took 631 waits.
const EVENTS_BESIDE_MIN: usize = 64;

/// What a waiter has at hand, apart from the waiter so that drivers can fill it.
#[derive(Debug)]
pub(crate) struct Local {
    /// What marks a socket's turn as this waiter's: its number, or, where nobody else waits, the
    /// number of its wait.
    pub(crate) mark: u16,
    /// Nobody else waits on this port, so that a turn ends by itself with the wait it was taken in.
    alone: bool,
    pub(crate) packets: VecDeque<Packet>,
    /// Sockets whose turn this waiter has, and has to end.
    pub(crate) held: Vec<SlotId>,
    /// Sockets that had their share of this wait and have more, marked as queued.
    pub(crate) later: Vec<u32>,
    /// Sockets that a readiness driver found ready in this wait, marked as queued.
    pub(crate) ready: VecDeque<u32>,
    limit: usize,
    /// Bytes that were read into this batch.
    pub(crate) bytes: usize,
    /// The socket whose bulk filled this batch, and how much was read from it.
    pub(crate) filled_by: Option<(u32, usize)>,
}

impl Local {
    fn new(number: u16, alone: bool) -> Self {
        Local {
            mark: number,
            alone,
            packets: VecDeque::new(),
            held: Vec::new(),
            later: Vec::new(),
            ready: VecDeque::new(),
            limit: 0,
            bytes: 0,
            filled_by: None,
        }
    }

    /// How many packets the batch still takes.
    pub(crate) fn room(&self) -> usize {
        self.limit.saturating_sub(self.packets.len())
    }

    /// How many events a driver is asked for. What comes of them beyond the batch stands in the
    /// queue, behind what waits there.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn events_max(&self) -> usize {
        if self.packets.is_empty() {
            self.room()
        } else {
            self.room().max(EVENTS_BESIDE_MIN)
        }
    }

    /// Lowers the size of the batch to this waiter's share.
    pub(crate) fn limit(&mut self, packets: usize) {
        self.limit = self.limit.min(packets);
    }

    /// Bytes were read into the batch: it takes nothing more once it is as much as the cache keeps
    /// until its packets are handled.
    #[allow(
        dead_code,
        reason = "not every system has a driver that reads at a turn"
    )]
    pub(crate) fn note_read(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes >= BATCH_BYTES_MAX {
            self.limit(self.packets.len());
        }
    }

    /// A socket had its turn, before which the batch had so many bytes. It fills the batch if most
    /// of it is its own: the last of several equals would stand behind them for nothing.
    pub(crate) fn note_turn(&mut self, index: u32, bytes_before: usize) {
        let own = self.bytes - bytes_before;
        if self.bytes >= BATCH_BYTES_MAX && own > BATCH_BYTES_MAX / 2 {
            self.filled_by = Some((index, own));
        }
    }

    /// Whether one more packet of this socket may go into the batch.
    pub(crate) fn may_take(&self, state: &SocketState, turn_packets_max: u8) -> bool {
        self.room() > 0
            && if state.turn == self.mark {
                state.taken < turn_packets_max
            } else {
                self.alone || state.turn == 0
            }
    }

    /// Takes a packet of a socket, and the socket's turn with it.
    pub(crate) fn take(&mut self, id: SlotId, state: &mut SocketState, packet: Packet) {
        if state.turn != self.mark {
            state.turn = self.mark;
            state.taken = 0;
            if !self.alone {
                self.held.push(id);
            }
        }
        state.taken += 1;
        self.packets.push_back(packet);
    }

    /// Where nobody else waits, all turns end at once: what is marked with another number has no
    /// turn. A mark that comes around again costs its socket one wait.
    pub(crate) fn end_turns_alone(&mut self) {
        debug_assert!(self.held.is_empty(), "nothing is held alone");
        self.mark = self.mark.checked_add(1).unwrap_or(1);
    }

    /// Takes a packet that needs no turn.
    pub(crate) fn push(&mut self, packet: Packet) {
        self.packets.push_back(packet);
    }
}

/// The right to wait on a port; made by [`Port::waiter`](crate::Port::waiter).
///
/// It stays on its thread. Dropping it gives back what it had not handed out.
///
/// ```
/// use wharf_port::{Port, Wait};
/// # fn main() -> wharf_port::Result<()> {
/// let port = Port::builder().build()?;
/// let mut waiter = port.waiter()?;
/// assert!(matches!(waiter.wait(Some(std::time::Duration::ZERO))?, Wait::TimedOut));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Waiter {
    core: Arc<Core>,
    number: u16,
    local: Local,
    waits_without_poll: u32,
    /// Which of timers and queue fills this batch first; they take turns, so that neither can shut
    /// out the other.
    timers_first: bool,
    /// Turns and some rings belong to a thread: not `Send`.
    thread: PhantomData<*const ()>,
}

/// What a wait found.
///
/// ```
/// use wharf_port::{Port, Wait};
/// # fn main() -> wharf_port::Result<()> {
/// let port = Port::builder().build()?;
/// let mut waiter = port.waiter()?;
/// port.close();
/// assert!(matches!(waiter.wait(None)?, Wait::Closed));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub enum Wait<'a> {
    /// At least one packet.
    Packets(Batch<'a>),
    /// The time was up; never before it was.
    TimedOut,
    /// The port is closed; nothing more will come.
    Closed,
}

impl Waiter {
    pub(crate) fn new(core: &Arc<Core>) -> Result<Self> {
        if core.is_closed() {
            return Err(Error::new(Operation::Waiter, ErrorKind::Closed));
        }
        let waiters_max = if core.options.shared {
            core.options.waiters_max
        } else {
            1
        };
        let number = core
            .ready
            .enlist(waiters_max, &mut lock(&core.waiter_numbers));
        let number = number.ok_or(Error::new(Operation::Waiter, ErrorKind::Busy))?;
        let waiter = Waiter {
            core: Arc::clone(core),
            number,
            local: Local::new(number, !core.options.shared),
            waits_without_poll: 0,
            timers_first: false,
            thread: PhantomData,
        };
        // The waiter exists already, so that a driver that refuses this thread takes it back.
        core.driver.enter_thread()?;
        // A thread that is past its own end has no waiters to lose.
        let _ = OF_THIS_THREAD.try_with(|waiters| {
            waiters.0.borrow_mut().push((Arc::downgrade(core), number));
        });
        Ok(waiter)
    }

    /// Waits until there are packets, `at_most` so long; without a limit when it is `None`.
    ///
    /// Ends the turns of the packets handed out before. Packets that were not taken from the last
    /// batch come first.
    ///
    /// # Errors
    /// Only when the port itself is broken; a failed operation is a packet.
    ///
    /// ```
    /// # use wharf_port::{Port, Wait};
    /// # fn main() -> wharf_port::Result<()> {
    /// # let port = Port::builder().build()?;
    /// let mut waiter = port.waiter()?;
    /// port.post(1.into(), 2).unwrap();
    /// assert!(matches!(waiter.wait(None)?, Wait::Packets(_)));
    /// # Ok(()) }
    /// ```
    pub fn wait(&mut self, at_most: Option<Duration>) -> Result<Wait<'_>> {
        self.core.end_turns(&mut self.local);
        let deadline = at_most.and_then(|limit| self.core.driver.now().checked_add(limit));
        self.local.limit = self.core.options.batch_max;
        self.local.bytes = 0;
        self.local.filled_by = None;
        self.waits_without_poll += 1;
        self.timers_first = !self.timers_first;
        let mut slept = false;
        loop {
            if self.core.is_closed() {
                return Ok(Wait::Closed);
            }
            self.take_ready()?;
            if !self.local.packets.is_empty() {
                return Ok(Wait::Packets(Batch { waiter: self }));
            }
            if !self.local.later.is_empty() {
                // A mark has come around, so that a socket seemed to have had its share.
                self.core.end_turns(&mut self.local);
                continue;
            }
            if slept && deadline.is_some_and(|deadline| self.core.driver.now() >= deadline) {
                return Ok(Wait::TimedOut);
            }
            slept |= self.sleep(deadline)?;
        }
    }

    /// Fills the batch with what is ready, without sleeping.
    fn take_ready(&mut self) -> Result<()> {
        let core = Arc::clone(&self.core);
        if self.timers_first {
            core.expire_timers(&mut self.local);
        }
        self.take_queued();
        if !self.timers_first {
            core.expire_timers(&mut self.local);
        }
        if self.local.packets.is_empty() {
            return Ok(());
        }
        // What a driver brought in this very wait may want to enter it again: at the next wait.
        let due = self.waits_without_poll >= WAITS_WITHOUT_POLL_MAX
            || (self.waits_without_poll > 0 && core.driver.wants_entry());
        if due && core.ready.try_enter() {
            self.poll(Some(Duration::ZERO))?;
        }
        Ok(())
    }

    /// Takes this waiter's share of what is queued.
    fn take_queued(&mut self) {
        let core = &self.core;
        if self.local.packets.is_empty() {
            self.local.limit(core.ready.share(0));
        }
        while let Some(taken) = core.ready.take(&mut self.local) {
            match taken {
                Taken::Socket(index) => core.take_turn(index, &mut self.local),
                Taken::Loose(packet) => core.take_loose(packet, &mut self.local),
                Taken::Rearm(id) => core.rearm(id, &mut Out(Some(&mut self.local))),
            }
        }
        if self.local.packets.is_empty() {
            self.local.limit = core.options.batch_max;
        }
    }

    /// Sleeps until something happens or the time is up; answers whether it slept at all.
    fn sleep(&mut self, deadline: Option<Instant>) -> Result<bool> {
        match self.core.ready.rest(self.number) {
            Rest::Ready => Ok(false),
            Rest::Poll => {
                let timeout = self.time_left(deadline, true);
                self.poll(timeout)?;
                Ok(true)
            }
            Rest::Park => {
                match self.time_left(deadline, false) {
                    Some(timeout) => std::thread::park_timeout(timeout),
                    None => std::thread::park(),
                }
                self.core.ready.unparked(self.number);
                Ok(true)
            }
        }
    }

    /// The time until `deadline`, and until the next timer where this waiter keeps the time.
    fn time_left(&self, deadline: Option<Instant>, keeps_time: bool) -> Option<Duration> {
        let core = &self.core;
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

    /// Enters the driver, which the ready queue allowed, and takes what it finds.
    fn poll(&mut self, timeout: Option<Duration>) -> Result<()> {
        self.waits_without_poll = 0;
        let core = Arc::clone(&self.core);
        let polled = self.enter(&core, timeout);
        let wakes = *polled.as_ref().unwrap_or(&0);
        core.wake(core.ready.woke(wakes));
        self.share_out();
        match polled {
            Ok(_) => Ok(()),
            Err(code) => Err(Error::from_os(Operation::Wait, code)),
        }
    }

    /// Enters the driver: to sleep, and before that, where the port was built so, to look again and
    /// again.
    fn enter(&mut self, core: &Arc<Core>, timeout: Option<Duration>) -> Result<u32, i32> {
        let spin = core.options.spin_us_max;
        if spin == 0 || !core.driver.may_spin() {
            return core.driver.poll(core, timeout, &mut self.local);
        }
        let local = &mut self.local;
        let start = Instant::now();
        let spin = Duration::from_micros(spin.into());
        spin::poll(
            spin,
            timeout,
            || start.elapsed(),
            |timeout| {
                let wakes = core.driver.poll(core, timeout, local)?;
                let found = !local.packets.is_empty() || !local.ready.is_empty();
                Ok(spin::Polled { wakes, found })
            },
        )
    }

    /// Takes this waiter's share of the sockets that the driver found ready; the others go to the
    /// queue, for those who wait.
    fn share_out(&mut self) {
        if self.local.ready.is_empty() {
            return;
        }
        let share = self.core.ready.share(self.local.ready.len());
        if self.local.packets.is_empty() {
            self.local.limit(share);
        }
        while let Some(index) = self.local.ready.pop_front() {
            if self.local.room() > 0 {
                self.core.take_turn(index, &mut self.local);
            } else {
                self.core.wake(self.core.ready.push_socket(index));
            }
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let _ = OF_THIS_THREAD.try_with(|waiters| {
            let is_this = |(core, number): &(Weak<Core>, u16)| {
                *number == self.number && core.as_ptr() == Arc::as_ptr(&self.core)
            };
            waiters.0.borrow_mut().retain(|waiter| !is_this(waiter));
        });
        self.core.put_back(&mut self.local);
        if !self.core.is_closed() {
            self.core.driver.leave_thread(&self.core, false);
        }
        lock(&self.core.waiter_numbers).push(self.number);
        let (left, closed) = self.core.ready.dismiss();
        if closed && left == 0 {
            self.core.end();
        } else if left > 0 {
            // What this waiter had not taken may be all there is to wake somebody for.
            self.core.wake(self.core.ready.wake_all());
        }
    }
}

/// The waiters a thread has and has not dropped.
///
/// A waiter may be forgotten (`mem::forget` is safe), and with its thread nobody is left who could
/// end its turns or enter its ring; then this ends them in its place.
struct OfThisThread(RefCell<Vec<(Weak<Core>, u16)>>);

thread_local! {
    static OF_THIS_THREAD: OfThisThread = const { OfThisThread(RefCell::new(Vec::new())) };
}

impl Drop for OfThisThread {
    fn drop(&mut self) {
        for (core, number) in self.0.take() {
            if let Some(core) = core.upgrade() {
                core.waiter_forgotten(number);
            }
        }
    }
}

/// Packets, as an iterator; made by [`Waiter::wait`].
///
/// Dropping it ends the turns of the packets taken from it; packets not taken come first at the
/// next wait.
///
/// ```
/// use wharf_port::{Port, Wait};
/// # fn main() -> wharf_port::Result<()> {
/// let port = Port::builder().build()?;
/// let mut waiter = port.waiter()?;
/// port.post(1.into(), 5).unwrap();
/// port.post(1.into(), 6).unwrap();
/// let Wait::Packets(batch) = waiter.wait(None)? else { unreachable!() };
/// assert_eq!(batch.count(), 2);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Batch<'a> {
    waiter: &'a mut Waiter,
}

impl Iterator for Batch<'_> {
    type Item = Packet;

    fn next(&mut self) -> Option<Packet> {
        self.waiter.local.packets.pop_front()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let packets = self.waiter.local.packets.len();
        (packets, Some(packets))
    }
}

impl ExactSizeIterator for Batch<'_> {}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        // On a single-waiter port nobody else could have the turn: the next wait ends it.
        if self.waiter.core.options.shared {
            self.waiter.core.end_turns(&mut self.waiter.local);
        }
    }
}

/// Counts a port handle that goes; the last one closes the port.
pub(crate) fn handle_gone(core: &Arc<Core>) {
    if core.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
        core.close();
    }
}
