//! Accepting: a stream of connections that no error of one of them can end.
//!
//! An accept that failed for its own connection's sake is skipped. Out of descriptors, memory or
//! room, the listener pauses: connections wait in its backlog, nothing spins, and it tries again
//! after 10 ms, doubling to a second, or at once when a socket of the port closes (contract C12).
//! Both are regressions of others: re-arming at once made 352,218 failures in 200 ms, and many a
//! server went deaf after one client that reset early (cpython #93821).

use std::sync::Arc;
use std::time::Duration;

use crate::accepted::{Accepted, Place};
use crate::core::{Core, Out};
use crate::due::TimerTarget;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::lock;
use crate::op::{Op, OpKind};
use crate::packet::{End, Event, PauseReason};
use crate::slot::{Receiving, SlotId, SocketState, flag};
use crate::sys::{self, AcceptFault};

const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_LAST: Duration = Duration::from_secs(1);

/// A listener that waits, and how long before it tries again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PausedListener {
    pub(crate) id: SlotId,
    retry: Duration,
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
        state.clear(flag::CANCEL_RECEIVE);
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
        let retry_in = {
            let mut paused = lock(&self.paused);
            match paused.iter_mut().find(|paused| paused.id == id) {
                Some(paused) => {
                    paused.retry = (paused.retry * 2).min(RETRY_LAST);
                    paused.retry
                }
                None => {
                    paused.push(PausedListener {
                        id,
                        retry: RETRY_FIRST,
                    });
                    RETRY_FIRST
                }
            }
        };
        if !state.has(flag::PAUSED_ACCEPT) {
            state.set(flag::PAUSED_ACCEPT);
            let name = (state.receive_sequence, OpKind::Accept);
            self.deliver(id, state, name, Event::Paused { reason, retry_in }, out);
        }
        if let Some(retry_at) = self.driver.now().checked_add(retry_in) {
            self.set_timer(retry_at, TimerTarget::Accept(id));
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
            lock(&self.paused).retain(|paused| paused.id != id);
        }
    }

    /// A socket of the port closed: whoever waited for a descriptor or for room tries at once.
    pub(crate) fn socket_gone(&self) {
        let waiting: Vec<SlotId> = lock(&self.paused).iter().map(|paused| paused.id).collect();
        for id in waiting {
            self.wake(self.ready.push_rearm(id));
        }
    }
}
