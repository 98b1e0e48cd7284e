//! Accepting: a stream of connections that no error of one of them can end.
//!
//! An accept that failed for its own connection's sake is skipped. Out of descriptors, memory or
//! room, the listener pauses: connections wait in its backlog, nothing spins, and it tries again
//! after 10 ms, doubling to a second, or at once when a socket of the port closes (contract C12).
//! Both are regressions of others: re-arming at once made 352,218 failures in 200 ms, and many a
//! server went deaf after one client that reset early (cpython #93821).

use std::sync::Arc;
use std::time::Duration;

use crate::accepted::Accepted;
use crate::core::deadlines::TimerTarget;
use crate::core::place::Place;
use crate::core::slot::{Receiving, SlotId, SocketState, flag};
use crate::core::timer::TimerId;
use crate::core::{Core, Out};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::lock;
use crate::op::{Op, OpKind};
use crate::packet::{End, Event, PauseReason, Side};
use crate::sys::{self, AcceptFault};

const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_LAST: Duration = Duration::from_secs(1);

/// A listener that waits, and how long before it tries again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PausedListener {
    pub(crate) id: SlotId,
    retry: Duration,
    /// When it tries again by itself. One timer, however often it tries in vain before that.
    timer: Option<TimerId>,
    /// It stands in the ready queue, called by a socket that went.
    called: bool,
}

impl Core {
    pub(crate) fn accept(self: &Arc<Self>, id: SlotId) -> Result<Op> {
        let closed = Error::new(Operation::Accept, ErrorKind::Closed);
        let mut guard = self.slots.lock(id).ok_or(closed)?;
        let state = &mut *guard;
        if state.has(flag::CLOSING) {
            return Err(closed);
        }
        if !state.has(flag::LISTENER) {
            return Err(Error::new(Operation::Accept, ErrorKind::InvalidInput));
        }
        if state.receiving != Receiving::Nothing {
            return Err(Error::new(Operation::Accept, ErrorKind::Busy));
        }
        if self.has_many_outcomes(state, Side::Reading) {
            return Err(Error::new(Operation::Accept, ErrorKind::Full));
        }
        state.receiving = Receiving::Accept;
        state.receive_sequence = state.next_sequence();
        let op = Op::of(self.id, id, state.receive_sequence, OpKind::Accept);
        self.driver.arm(self, id, state, &mut Out::queue());
        Ok(op)
    }

    /// A place for one more accepted socket, or a pause when the table is full.
    pub(crate) fn place(
        self: &Arc<Self>,
        id: SlotId,
        state: &mut SocketState,
        out: &mut Out<'_>,
    ) -> Option<Place> {
        let place = Place::keep(self);
        if place.is_none() {
            self.pause_accept(id, state, PauseReason::SocketsMax, out);
        }
        place
    }

    /// The driver brings an accepted socket.
    pub(crate) fn accepted(
        &self,
        id: SlotId,
        state: &mut SocketState,
        accepted: Accepted,
        out: &mut Out<'_>,
    ) {
        self.accept_works(id, state, out);
        let name = (state.receive_sequence, OpKind::Accept);
        self.deliver(id, state, name, Event::Accepted(accepted), out);
    }

    /// An attempt to accept met no lack of anything: a pause is over, and it says so.
    pub(crate) fn accept_works(&self, id: SlotId, state: &mut SocketState, out: &mut Out<'_>) {
        if state.has(flag::PAUSED_ACCEPT) {
            self.resumed(id, state, out);
        }
    }

    /// The driver brings the error of one accept. Answers whether to go on accepting.
    pub(crate) fn accept_failed(
        self: &Arc<Self>,
        id: SlotId,
        state: &mut SocketState,
        code: i32,
        out: &mut Out<'_>,
    ) -> bool {
        match sys::accept_fault(code) {
            AcceptFault::ThisConnection => true,
            AcceptFault::Descriptors => {
                self.pause_accept(id, state, PauseReason::TooManyOpenFiles, out);
                false
            }
            AcceptFault::Memory => {
                self.pause_accept(id, state, PauseReason::OutOfMemory, out);
                false
            }
            AcceptFault::Listener => {
                let how = End::Failed(Error::from_os(Operation::Accept, code));
                self.accept_ended(id, state, how, out);
                false
            }
        }
    }

    /// The streaming accept is over.
    pub(crate) fn accept_ended(
        &self,
        id: SlotId,
        state: &mut SocketState,
        how: End,
        out: &mut Out<'_>,
    ) {
        self.forget_pause(id, state);
        let name = (state.receive_sequence, OpKind::Accept);
        state.receiving = Receiving::Nothing;
        state.clear(flag::CANCEL_RECEIVE | flag::PAUSED_UNTAKEN);
        let event = Event::Ended { how, buffer: None };
        self.deliver(id, state, name, event, out);
    }

    /// Stops accepting for a while; the first time since the last success it says so.
    pub(crate) fn pause_accept(
        &self,
        id: SlotId,
        state: &mut SocketState,
        reason: PauseReason,
        out: &mut Out<'_>,
    ) {
        let (retry_in, has_timer) = {
            let mut paused = lock(&self.paused);
            match paused.iter_mut().find(|paused| paused.id == id) {
                // A socket that went has called it, and in vain: the next try is due as it was.
                Some(paused) if paused.timer.is_some() => (paused.retry, true),
                Some(paused) => {
                    paused.retry = (paused.retry * 2).min(RETRY_LAST);
                    (paused.retry, false)
                }
                None => {
                    paused.push(PausedListener {
                        id,
                        retry: RETRY_FIRST,
                        timer: None,
                        called: false,
                    });
                    (RETRY_FIRST, false)
                }
            }
        };
        if !state.has(flag::PAUSED_ACCEPT) {
            state.set(flag::PAUSED_ACCEPT);
            let name = (state.receive_sequence, OpKind::Accept);
            self.deliver(id, state, name, Event::Paused { reason, retry_in }, out);
        }
        if has_timer {
            return;
        }
        if let Some(retry_at) = self.driver.now().checked_add(retry_in) {
            // Whoever finds it due waits for this slot's lock before it takes note of that.
            let timer = self.set_timer(retry_at, TimerTarget::Accept(id));
            self.with_pause(id, |paused| paused.timer = timer);
        }
    }

    fn with_pause(&self, id: SlotId, change: impl FnOnce(&mut PausedListener)) {
        let mut paused = lock(&self.paused);
        if let Some(paused) = paused.iter_mut().find(|paused| paused.id == id) {
            change(paused);
        }
    }

    /// The retry of a paused listener is due.
    pub(crate) fn retry_accept(self: &Arc<Self>, id: SlotId, out: &mut Out<'_>) {
        if let Some(state) = self.slots.lock(id) {
            self.with_pause(id, |paused| paused.timer = None);
            drop(state);
        }
        self.rearm(id, out);
    }

    /// A listener was called because a socket went. From here on the next one calls it again.
    pub(crate) fn heard_the_call(&self, id: SlotId) {
        self.with_pause(id, |paused| paused.called = false);
    }

    /// Whether as many of the listener's connections wait to be taken as it may have operations:
    /// then the others stay in its backlog, until half of these are taken.
    pub(crate) fn has_many_untaken_accepts(&self, state: &mut SocketState) -> bool {
        let work = state.work.as_ref();
        let untaken = work.map_or(0, |work| work.pending.len());
        let full = untaken >= self.options.operations_per_socket_max;
        if full {
            state.set(flag::PAUSED_UNTAKEN);
        }
        full
    }

    /// Connections of a listener were taken: it goes on if it had stopped for them.
    pub(crate) fn accepts_were_taken(
        self: &Arc<Self>,
        id: SlotId,
        state: &mut SocketState,
        out: &mut Out<'_>,
    ) {
        let work = state.work.as_ref();
        let untaken = work.map_or(0, |work| work.pending.len());
        if state.has(flag::PAUSED_UNTAKEN) && untaken <= self.options.operations_per_socket_max / 2
        {
            state.clear(flag::PAUSED_UNTAKEN);
            self.go_on_receiving(id, state, out);
        }
    }

    fn resumed(&self, id: SlotId, state: &mut SocketState, out: &mut Out<'_>) {
        self.forget_pause(id, state);
        let name = (state.receive_sequence, OpKind::Accept);
        self.deliver(id, state, name, Event::Resumed, out);
    }

    fn forget_pause(&self, id: SlotId, state: &mut SocketState) {
        if state.has(flag::PAUSED_ACCEPT) {
            state.clear(flag::PAUSED_ACCEPT);
            let mut paused = lock(&self.paused);
            let place = paused.iter().position(|paused| paused.id == id);
            let timer = place.and_then(|place| paused.swap_remove(place).timer);
            drop(paused);
            if let Some(timer) = timer {
                lock(&self.timers).cancel(timer);
            }
        }
    }

    /// A socket of the port closed: whoever waited for a descriptor or for room tries at once.
    pub(crate) fn socket_gone(&self) {
        let called: Vec<SlotId> = {
            let mut paused = lock(&self.paused);
            let others = paused.iter_mut().filter(|paused| !paused.called);
            let call = |paused: &mut PausedListener| {
                paused.called = true;
                paused.id
            };
            others.map(call).collect()
        };
        for id in called {
            self.wake(self.ready.push_rearm(id));
        }
    }
}
