//! The core of a port: every table and queue, and how a packet finds its waiter.
//!
//! Each port has one `Core`, whatever the driver. Its methods are in the modules named after what
//! they do (`accept`, `receive`, `send`, `close`, `connect`, `listen`, `deadlines`). Its fields are
//! private to these modules. A driver works on a socket only through a `Locked`.
//!
//! Locks, in the order in which they may be taken: one slot; then, each alone, the ready queue, the
//! timers, the pool, the driver's own. No thread holds two slots. Under a slot's lock only
//! non-blocking system calls are made.

#[cfg(test)]
mod tests;

pub(crate) mod accept;
pub(crate) mod associate;
pub(crate) mod close;
pub(crate) mod connect;
pub(crate) mod count;
pub(crate) mod deadlines;
pub(crate) mod end;
pub(crate) mod listen;
pub(crate) mod local;
pub(crate) mod locked;
pub(crate) mod options;
pub(crate) mod place;
pub(crate) mod pool;
pub(crate) mod post;
pub(crate) mod ready;
pub(crate) mod receive;
pub(crate) mod registry;
pub(crate) mod room;
pub(crate) mod seat;
pub(crate) mod send;
pub(crate) mod shortage;
pub(crate) mod slot;
pub(crate) mod spin;
pub(crate) mod taking;
pub(crate) mod timer;
pub(crate) mod turn;
pub(crate) mod work;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::core::options::Options;
use crate::driver::kind::DriverReport;
use crate::driver::{Abilities, Driver, Submit};
use crate::error::Operation;
use crate::lock;
use crate::op::Op;
use crate::packet::{Event, Packet, Side};
use count::Counters;
use deadlines::TimerTarget;
use end::Ending;
use local::Local;
use locked::Locked;
use pool::{Pool, PoolBuffer};
use ready::{Entered, Ready, Wake};

use crate::reference::SocketRef;
use crate::sys;
use slot::{SlotId, Slots, flag};
use timer::Timers;
use work::Work;

pub(crate) struct Core {
    pub(in crate::core) id: u32,
    pub(in crate::core) options: Options,
    pub(in crate::core) slots: Slots,
    pub(in crate::core) ready: Ready,
    pub(in crate::core) timers: Mutex<Timers<TimerTarget>>,
    pub(in crate::core) pool: Pool,
    pub(in crate::core) driver: Box<dyn Driver>,
    /// [`Abilities::defers`], which every call asks for.
    pub(in crate::core) defers: bool,
    /// [`Abilities::may_spin`].
    pub(in crate::core) may_spin: bool,
    pub(in crate::core) report: DriverReport,
    pub(in crate::core) counters: Counters,
    pub(in crate::core) ending: Ending,
    pub(in crate::core) paused: Mutex<Vec<accept::PausedListener>>,
    /// How many `Port` handles exist. The drop of the last one closes the port.
    pub(in crate::core) handles: AtomicUsize,
    #[allow(
        clippy::vec_box,
        reason = "a work block keeps its address while the system uses it"
    )]
    pub(in crate::core) spare: Mutex<Vec<Box<Work>>>,
    /// The system had no memory, and a timer is set to ask again.
    pub(in crate::core) lacks_memory: AtomicBool,
    ended: Mutex<bool>,
    /// How often the process had forked when the port was built. A fork has another count.
    forks: u32,
}

/// The destination of a packet: the batch of the waiter that found it, or the queue.
#[derive(Debug)]
pub(crate) struct Out<'a>(pub(crate) Option<&'a mut Local>);

impl<'a> Out<'a> {
    /// All packets go to the queue: the caller is no waiter.
    pub(crate) fn queue() -> Self {
        Out(None)
    }

    /// Packets go into this batch, as far as it takes them.
    pub(crate) fn batch(local: &'a mut Local) -> Self {
        Out(Some(local))
    }

    /// The same destination, for a step that this step takes.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn reborrow(&mut self) -> Out<'_> {
        Out(self.0.as_deref_mut())
    }
}

impl Core {
    pub(crate) fn new(
        options: Options,
        driver: Box<dyn Driver>,
        mut report: DriverReport,
    ) -> Arc<Self> {
        let id = registry::next_port();
        let Abilities {
            concurrent,
            defers,
            may_spin,
            features,
        } = driver.abilities();
        report.features = features;
        let core = Arc::new(Core {
            id,
            slots: Slots::new(options.sockets_max),
            ready: Ready::new(!concurrent),
            timers: Mutex::new(
                Timers::new(driver.now(), options.timers_max)
                    .with_room_beyond(deadlines::timers_beyond(&options)),
            ),
            pool: Pool::new(options.pool),
            defers,
            may_spin,
            driver,
            report,
            counters: Counters::default(),
            ending: Ending::default(),
            paused: Mutex::new(Vec::new()),
            handles: AtomicUsize::new(1),
            spare: Mutex::new(Vec::new()),
            lacks_memory: AtomicBool::new(false),
            ended: Mutex::new(false),
            forks: sys::forks(),
            options,
        });
        registry::insert(&core);
        core
    }

    /// Returns the number by which handles find this port.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Returns the bounds that the port was built with.
    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// Returns the pool of receive buffers.
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    pub(crate) fn report(&self) -> &DriverReport {
        &self.report
    }

    pub(crate) fn socket(&self, id: SlotId) -> SocketRef {
        SocketRef {
            port: self.id,
            slot: id.index,
            generation: id.generation,
        }
    }

    /// Carries out a wake-up that the ready queue asked for.
    pub(crate) fn wake(&self, wake: Wake) {
        match wake {
            Wake::NoThread => {}
            // A wake-up in a fork would wake the parent's threads.
            _ if self.is_forked() => {}
            Wake::Driver(threads) => self.driver.wake(threads),
            Wake::Parked(thread) => self.driver.unpark(&thread),
            Wake::Many(threads, parked) => {
                if threads > 0 {
                    self.driver.wake(threads);
                }
                parked.iter().for_each(|it| self.driver.unpark(it));
            }
        }
    }

    /// Whether a packet in a batch is handed out. It is not if its socket was dropped after it
    /// came. The last packet of a socket frees the slot.
    #[inline]
    pub(crate) fn hand_out(self: &Arc<Self>, packet: &Packet) -> bool {
        if packet.socket.is_none() {
            if matches!(packet.event, Event::TimerCancelled) {
                self.counters
                    .timer_ends_pending
                    .fetch_sub(1, Ordering::Relaxed);
            }
            return true;
        }
        let id = packet.socket.slot_id();
        let delivers = self.slots.delivers_about(id);
        if delivers && packet.is_last() {
            if let Some(mut socket) = self.lock(id, Out::queue()) {
                socket.recycle();
                socket.free_slot();
            }
        }
        delivers
    }

    /// Drops a packet that no caller gets, with no slot locked. If it carries an accepted socket,
    /// that socket is closed and counted.
    #[cold]
    pub(crate) fn discard(&self, packet: Packet) {
        if matches!(packet.event, Event::Accepted(_)) {
            self.counters
                .accepted_untaken
                .fetch_add(1, Ordering::Relaxed);
        }
        drop(packet);
    }

    /// Removes the packets left in a batch whose sockets were dropped since.
    pub(crate) fn forget_dropped(&self, packets: &mut VecDeque<Packet>) {
        for _ in 0..packets.len() {
            let packet = packets.pop_front().expect("as many as were counted");
            if packet.socket.is_none() || self.slots.delivers_about(packet.socket.slot_id()) {
                packets.push_back(packet);
            } else {
                self.discard(packet);
            }
        }
    }

    /// A lease was dropped. If its stream waited for that, it continues.
    pub(crate) fn lease_returned(&self, socket: SlotId) {
        if self.is_forked() {
            return;
        }
        self.counters.leases.fetch_sub(1, Ordering::Relaxed);
        if self
            .slots
            .return_lease(socket, self.options.leases_per_socket)
        {
            self.wake(self.ready.push_rearm(socket));
        }
    }

    /// A buffer of the pool is free again. The stream that has waited longest for one continues.
    pub(crate) fn buffer_returned(&self, buffer: PoolBuffer) {
        if self.is_forked() {
            return;
        }
        if let Some(waiting) = self.pool.give(buffer) {
            self.wake(self.ready.push_rearm(waiting));
        }
    }

    /// Whether the port takes no requests any more: it was closed, or this process is a fork of the
    /// one that built it.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_forked() || self.ready.is_closed()
    }

    /// Whether this process is a fork of the one that built the port. Callers check this before
    /// they take any lock, because a thread that does not exist in this process may hold the lock.
    pub(crate) fn is_forked(&self) -> bool {
        sys::forks() != self.forks
    }

    /// Submits what is queued, without waiting.
    pub(crate) fn submit(self: &Arc<Self>) {
        self.driver.submit(self, Submit::Now);
    }

    /// Lets the calling thread into the driver without a waiter, if no thread is inside.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn enter_to_submit(&self) -> Option<Entered> {
        self.ready.enter_to_submit()
    }

    /// Returns the share of a waiter that is inside the driver, of what is ready and `extra` more.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn share_inside(&self, extra: usize) -> usize {
        self.ready.share_inside(extra)
    }

    /// Counts a new port handle.
    pub(crate) fn handle_made(&self) {
        self.handles.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a port handle that was dropped. The last one closes the port.
    pub(crate) fn handle_gone(self: &Arc<Self>) {
        if self.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.close();
        }
    }

    /// Closes the port: every waiter is notified. What is left is ended once no waiter is left.
    pub(crate) fn close(self: &Arc<Self>) {
        if self.is_forked() {
            return self.let_go();
        }
        let (first, wake, waiters) = self.ready.close();
        self.wake(wake);
        if first && waiters == 0 {
            self.end();
        }
    }

    /// The calling thread begins to wait.
    #[inline]
    pub(crate) fn wait_begins(&self) {
        if self.defers {
            self.driver.wait_begins(self);
        }
    }

    /// Submits what is queued if the calling thread has been away from `wait` for long.
    #[inline]
    pub(crate) fn submit_if_late(self: &Arc<Self>) {
        if self.defers {
            self.driver.submit_if_late(self);
        }
    }

    /// A thread without a waiter had entered the driver to submit what is queued. It left the
    /// driver and used `wakes` wake-ups there.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn leave_after_submit(self: &Arc<Self>, entered: Entered, wakes: u32) {
        self.wake(self.ready.woke(entered, wakes));
        let (left, closed) = self.ready.leave_after_submit();
        if left == 0 {
            self.no_thread_is_left(closed);
        }
    }

    /// The last thread that was in the driver, or might have entered it, went. A closed port is
    /// ended. A port that shuts down is closed, because no thread is left that would do its work or
    /// keep its time.
    pub(crate) fn no_thread_is_left(self: &Arc<Self>, closed: bool) {
        if closed {
            self.end();
        } else if self.is_ending() {
            self.close();
        }
    }

    /// Ends everything, once, after the close, when no waiter is left.
    pub(crate) fn end(self: &Arc<Self>) {
        if std::mem::replace(&mut *lock(&self.ended), true) {
            return;
        }
        self.driver.submit(self, Submit::AtEnd);
        let mut packets: Vec<Packet> = self.ready.drain().into();
        for index in 0..self.slots.used() {
            if let Some(mut socket) = self.lock_index(index, Out::queue()) {
                if let Some(work) = &mut socket.work {
                    packets.extend(work.pending.drain(..));
                }
                socket.count_unsent();
                socket.set(flag::SILENT);
                socket.turn = 0;
                socket.abort();
            }
        }
        self.drop_accepted(&mut packets);
        let leaked = self.driver.end(self);
        self.counters
            .operations_leaked
            .fetch_add(leaked, Ordering::Relaxed);
        drop(packets);
        lock(&self.spare).clear();
        registry::remove(self.id);
    }

    /// In a fork: closes this process's copies of the descriptors, and touches nothing that the
    /// parent still uses. A shutdown here would end the parent's connections.
    fn let_go(&self) {
        self.slots.let_handles_go();
    }

    /// Closes accepted sockets that no waiter took, while the driver can still do it.
    fn drop_accepted(&self, packets: &mut Vec<Packet>) {
        let before = packets.len();
        packets.retain(|packet| !matches!(packet.event, Event::Accepted(_)));
        let dropped = before - packets.len();
        self.counters
            .accepted_untaken
            .fetch_add(dropped as u64, Ordering::Relaxed);
    }
}

impl Locked<'_> {
    /// Hands a packet about a socket to a waiter: at once if the current thread may have it,
    /// otherwise through the queue, after the packets that wait there.
    #[inline]
    pub(crate) fn deliver(&mut self, (sequence, operation): (u32, Operation), event: Event) {
        let op = Op::of(self.core.id, self.id, sequence, operation);
        let packet = Packet {
            key: self.key,
            op,
            socket: self.core.socket(self.id),
            event,
        };
        let packets_max = self.core.options.turn_packets_max;
        let passes = !self.has(flag::SILENT | flag::LISTENER | flag::QUEUED) && !self.has_packets();
        match &mut self.out.0 {
            Some(local) if passes && local.may_take(&self.state, packets_max) => {
                local.take(self.id, &mut self.state, packet);
            }
            _ => self.deliver_otherwise(packet),
        }
    }

    /// The same for a packet that is not simply the next one of a socket.
    #[inline(never)]
    fn deliver_otherwise(&mut self, packet: Packet) {
        if self.has(flag::SILENT) {
            return;
        }
        let passes = !self.has_packets() && !self.has(flag::QUEUED);
        if passes && self.has_share() && !self.is_too_early(&packet) {
            if let Some(local) = &mut self.out.0 {
                return local.take_share(self.id, &mut self.state, packet);
            }
        }
        self.work().pending.push_back(packet);
        self.enqueue();
    }

    /// Whether `operations_per_socket_max` ends of operations of one side wait to be taken. What a
    /// socket accepts and receives has its own bounds.
    pub(crate) fn has_many_outcomes(&self, side: Side) -> bool {
        let most = self.core.options.operations_per_socket_max;
        let pending = self.work.as_ref().map(|work| &work.pending);
        // Nearly always there are fewer packets of all kinds.
        pending.is_some_and(|pending| {
            pending.len() >= most
                && pending.iter().filter(|it| it.is_outcome_of(side)).count() >= most
        })
    }
}

/// It omits the tables: a packet that is printed names its port in one word.
impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Core({} on {})", self.id, self.report.kind)
    }
}
