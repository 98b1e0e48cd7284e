//! Receiving and watching: one request per socket at a time, and its end told exactly once.
//!
//! io_uring fills concurrent receives in any order, so that each socket has one request in the
//! kernel and a queue here (contract C6). Streams stop by themselves at their bound of leases, or
//! when the pool is empty, and go on when a lease returns: back-pressure instead of an error.

use std::sync::Arc;

use crate::buffer::Lease;
use crate::core::pool::PoolBuffer;
use crate::core::slot::{Receiving, SlotId, SocketState, flag};
use crate::core::work::Into;
use crate::core::{Core, Out};
use crate::error::{Error, ErrorKind, Operation, Refused, Result};
use crate::op::{Cancel, Op, OpKind};
use crate::packet::{End, Event, Leave, Side};

impl Core {
    pub(crate) fn receive(self: &Arc<Self>, id: SlotId) -> Result<Op> {
        self.start(id, Receiving::Stream, Operation::Receive, OpKind::Receive)
    }

    pub(crate) fn watch(self: &Arc<Self>, id: SlotId) -> Result<Op> {
        self.start(id, Receiving::Watch, Operation::Watch, OpKind::Watch)
    }

    fn start(
        self: &Arc<Self>,
        id: SlotId,
        receiving: Receiving,
        operation: Operation,
        kind: OpKind,
    ) -> Result<Op> {
        let closed = Error::new(operation, ErrorKind::Closed);
        let mut guard = self.slots.lock(id).ok_or(closed)?;
        let state = &mut *guard;
        may_receive(state).map_err(|kind| Error::new(operation, kind))?;
        if state.receiving != Receiving::Nothing {
            return Err(Error::new(operation, ErrorKind::Busy));
        }
        if self.has_many_outcomes(state, Side::Reading) {
            return Err(Error::new(operation, ErrorKind::Full));
        }
        state.receiving = receiving;
        state.receive_sequence = state.next_sequence();
        let op = Op::of(self.id, id, state.receive_sequence, kind);
        self.go_on_receiving(id, state, &mut Out::queue());
        Ok(op)
    }

    pub(crate) fn receive_into(
        self: &Arc<Self>,
        id: SlotId,
        buffer: Vec<u8>,
    ) -> Result<Op, Refused<Vec<u8>>> {
        const OPERATION: Operation = Operation::ReceiveInto;
        let Some(mut guard) = self.slots.lock(id) else {
            return Err(Refused::new(OPERATION, ErrorKind::Closed, buffer));
        };
        let state = &mut *guard;
        if let Err(kind) = may_receive(state) {
            return Err(Refused::new(OPERATION, kind, buffer));
        }
        if !matches!(state.receiving, Receiving::Nothing | Receiving::Into) {
            return Err(Refused::new(OPERATION, ErrorKind::Busy, buffer));
        }
        let queued = state.work.as_ref().map_or(0, |work| work.intos.len());
        if queued >= self.options.operations_per_socket_max
            || self.has_many_outcomes(state, Side::Reading)
        {
            return Err(Refused::new(OPERATION, ErrorKind::Full, buffer));
        }
        let sequence = state.next_sequence();
        self.work(state).intos.push_back(Into { buffer, sequence });
        if state.receiving == Receiving::Nothing {
            state.receiving = Receiving::Into;
            self.go_on_receiving(id, state, &mut Out::queue());
        }
        Ok(Op::of(self.id, id, sequence, OpKind::ReceiveInto))
    }

    /// Lets the driver go on with what the socket reads, unless the peer is known to be gone.
    pub(crate) fn go_on_receiving(
        self: &Arc<Self>,
        id: SlotId,
        state: &mut SocketState,
        out: &mut Out<'_>,
    ) {
        while state.has(flag::WAS_RESET) && state.receiving != Receiving::Nothing {
            let reset = Error::new(operation_of(state.receiving), ErrorKind::Reset);
            self.receive_ended(id, state, End::Failed(reset), out);
        }
        if state.receiving == Receiving::Accept && self.has_many_untaken_accepts(state) {
            return;
        }
        if state.receiving != Receiving::Nothing && !state.has(flag::ARMED) {
            self.driver.arm(self, id, state, out);
        }
    }

    /// A lease or a descriptor is free again, or a retry is due: the socket that waited goes on.
    pub(crate) fn rearm(self: &Arc<Self>, id: SlotId, out: &mut Out<'_>) {
        let waiting = flag::PAUSED_LEASES | flag::PAUSED_POOL | flag::PAUSED_ACCEPT;
        let state = self.slots.lock(id);
        if state.as_ref().is_some_and(|it| it.has(flag::PAUSED_ACCEPT)) {
            self.heard_the_call(id);
        }
        let Some(mut state) = state.filter(|it| it.has(waiting) && !it.has(flag::ARMED)) else {
            // It has left the line, closed or cancelled, and its call may be for a buffer.
            return self.pass_on_buffer();
        };
        // A listener stays marked as paused until an accept succeeds.
        state.clear(flag::PAUSED_LEASES | flag::PAUSED_POOL);
        if state.receiving != Receiving::Nothing {
            self.driver.arm(self, id, &mut state, out);
        }
    }

    /// A stream that may have been called for a buffer does not take it: the next one in the line
    /// is called instead. Without this it would wait for a buffer to return, and none may be out.
    pub(crate) fn pass_on_buffer(&self) {
        if let Some(waiting) = self.pool.next_to_serve() {
            self.wake(self.ready.push_rearm(waiting));
        }
    }

    /// Room for one more lease of a stream, or a pause until one returns.
    pub(crate) fn reserve_lease(&self, id: SlotId, state: &mut SocketState) -> bool {
        // Marked first, because the lease that returns clears nothing under the slot's lock.
        let reserved = self.slots.reserve_lease(id, self.options.leases_per_socket);
        if !reserved {
            state.set(flag::PAUSED_LEASES);
            self.pass_on_buffer();
        }
        reserved
    }

    /// The driver brings a filled buffer of a stream, its lease already counted.
    pub(crate) fn received(
        self: &Arc<Self>,
        id: SlotId,
        state: &mut SocketState,
        (buffer, count): (PoolBuffer, usize),
        out: &mut Out<'_>,
    ) {
        use std::sync::atomic::Ordering;
        self.counters.leases.fetch_add(1, Ordering::Relaxed);
        let lease = Lease::new(self, buffer, count, id);
        if state.has(flag::CLOSING) {
            return; // The caller has closed: these bytes are nobody's.
        }
        let name = (state.receive_sequence, OpKind::Receive);
        self.deliver(id, state, name, Event::Received(lease), out);
    }

    /// The driver has filled the head of the callers' buffers.
    pub(crate) fn received_into(
        self: &Arc<Self>,
        id: SlotId,
        state: &mut SocketState,
        count: usize,
        out: &mut Out<'_>,
    ) {
        let work = state
            .work
            .as_mut()
            .expect("a receive into a buffer keeps its work");
        let head = work.intos.front().expect("the head was being filled");
        if count == 0 && !head.buffer.is_empty() {
            return self.receive_ended(id, state, End::Finished, out);
        }
        let Into { buffer, sequence } = work.intos.pop_front().expect("looked at above");
        let more = !work.intos.is_empty();
        let event = Event::ReceivedInto { buffer, count };
        if !more {
            state.receiving = Receiving::Nothing;
        }
        self.deliver(id, state, (sequence, OpKind::ReceiveInto), event, out);
    }

    /// What the socket was reading is over without the event it asked for; of several queued
    /// receives, the first.
    pub(crate) fn receive_ended(
        &self,
        id: SlotId,
        state: &mut SocketState,
        how: End,
        out: &mut Out<'_>,
    ) {
        let receiving = state.receiving;
        let how = match how {
            End::Finished if state.has(flag::WAS_BROKEN) => {
                End::Failed(Error::new(operation_of(receiving), ErrorKind::Reset))
            }
            how => how,
        };
        match how.error_kind() {
            Some(ErrorKind::Reset) => state.set(flag::WAS_RESET),
            Some(ErrorKind::TimedOut | ErrorKind::Unreachable) => state.set(flag::WAS_BROKEN),
            _ => {}
        }
        let mut sequence = state.receive_sequence;
        let mut returned = None;
        match receiving {
            Receiving::Nothing => return,
            Receiving::Accept => return self.accept_ended(id, state, how, out),
            Receiving::Connect => return self.connect_failed(id, state, how, out),
            Receiving::Watch => state.receiving = Receiving::Nothing,
            Receiving::Stream => {
                state.receiving = Receiving::Nothing;
                self.pass_on_buffer();
            }
            Receiving::Into => {
                let work = state
                    .work
                    .as_mut()
                    .expect("a receive into a buffer keeps its work");
                let into = work
                    .intos
                    .pop_front()
                    .expect("a receive into a buffer is queued");
                sequence = into.sequence;
                returned = Some(into.buffer);
                if work.intos.is_empty() {
                    state.receiving = Receiving::Nothing;
                }
            }
        }
        state.clear(flag::CANCEL_RECEIVE | flag::PAUSED_LEASES | flag::PAUSED_POOL);
        let name = (sequence, kind_of(receiving));
        let event = match (receiving, how) {
            (Receiving::Watch, End::Finished) => Event::PeerLeft(Leave::Finished),
            (Receiving::Watch, End::Failed(error)) => Event::PeerLeft(leave_of(error)),
            _ => Event::Ended {
                how,
                buffer: returned,
            },
        };
        self.deliver(id, state, name, event, out);
    }

    /// The driver reports that a request of the reading side ended with a system code, or in
    /// order when there is none. Decides what that means, and goes on if it means nothing.
    pub(crate) fn receive_stopped(
        self: &Arc<Self>,
        id: SlotId,
        state: &mut SocketState,
        code: Option<i32>,
        out: &mut Out<'_>,
    ) {
        state.clear(flag::ARMED);
        if state.has(flag::CLOSING) {
            self.abort_receiving(id, state, out);
            return self.settle(id, state, out);
        }
        let cancelled = code.is_some_and(crate::sys::is_cancelled);
        let how = match code {
            _ if cancelled && state.has(flag::CANCEL_RECEIVE) => End::Cancelled,
            // Nobody asked for this end: the thread that had submitted it is gone. Go on.
            Some(_) if cancelled => return self.go_on_receiving(id, state, out),
            Some(code) => End::Failed(Error::from_os(operation_of(state.receiving), code)),
            None => End::Finished,
        };
        self.receive_ended(id, state, how, out);
        self.go_on_receiving(id, state, out);
    }

    /// Ends everything the reading side has queued, because the socket closes.
    pub(crate) fn abort_receiving(&self, id: SlotId, state: &mut SocketState, out: &mut Out<'_>) {
        while state.receiving != Receiving::Nothing && !state.has(flag::HANDLE_CLOSED) {
            let last = state.receiving == Receiving::Connect;
            self.receive_ended(id, state, End::Aborted, out);
            if last {
                return;
            }
        }
    }

    pub(crate) fn cancel_receive(self: &Arc<Self>, op: Op, out: &mut Out<'_>) -> Cancel {
        let id = op.slot_id();
        let Some(mut guard) = self.slots.lock(id) else {
            return Cancel::NotFound;
        };
        let state = &mut *guard;
        if state.has(flag::CLOSING) || kind_of(state.receiving) != op.kind {
            return Cancel::NotFound;
        }
        if state.receiving == Receiving::Into {
            let work = state
                .work
                .as_mut()
                .expect("a receive into a buffer keeps its work");
            let place = work
                .intos
                .iter()
                .position(|into| into.sequence == op.sequence);
            let Some(place) = place else {
                return Cancel::NotFound;
            };
            if place > 0 {
                let into = work.intos.remove(place).expect("found above");
                let event = Event::Ended {
                    how: End::Cancelled,
                    buffer: Some(into.buffer),
                };
                self.deliver(id, state, (op.sequence, op.kind), event, out);
                return Cancel::Requested;
            }
        } else if state.receive_sequence != op.sequence {
            return Cancel::NotFound;
        }
        if state.has(flag::CANCEL_RECEIVE) {
            return Cancel::NotFound;
        }
        if state.has(flag::ARMED) {
            state.set(flag::CANCEL_RECEIVE);
            self.driver.cancel_receive(self, id, state);
        } else {
            self.receive_ended(id, state, End::Cancelled, out);
            if state.handle.is_some() {
                self.go_on_receiving(id, state, out);
            }
        }
        Cancel::Requested
    }
}

fn may_receive(state: &SocketState) -> Result<(), ErrorKind> {
    if state.has(flag::CLOSING | flag::HANDLE_CLOSED) {
        return Err(ErrorKind::Closed);
    }
    if state.has(flag::CONNECTING) {
        return Err(ErrorKind::NotConnected);
    }
    if state.has(flag::LISTENER) {
        return Err(ErrorKind::InvalidInput);
    }
    Ok(())
}

fn leave_of(error: Error) -> Leave {
    if error.kind() == ErrorKind::Reset {
        Leave::Reset
    } else {
        Leave::Broken(error)
    }
}

fn operation_of(receiving: Receiving) -> Operation {
    match receiving {
        Receiving::Accept => Operation::Accept,
        Receiving::Connect => Operation::Connect,
        Receiving::Into => Operation::ReceiveInto,
        Receiving::Watch => Operation::Watch,
        Receiving::Stream | Receiving::Nothing => Operation::Receive,
    }
}

fn kind_of(receiving: Receiving) -> OpKind {
    match receiving {
        Receiving::Accept => OpKind::Accept,
        Receiving::Connect => OpKind::Connect,
        Receiving::Into => OpKind::ReceiveInto,
        Receiving::Watch => OpKind::Watch,
        Receiving::Stream => OpKind::Receive,
        // No operation has this kind while nothing is read.
        Receiving::Nothing => OpKind::Close,
    }
}
