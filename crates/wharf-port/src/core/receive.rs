//! Receiving and watching: one request per socket at a time, whose end is reported exactly once.
//!
//! io_uring fills concurrent receives in any order. So each socket has one request in the kernel
//! and a queue here (contract C6). A stream stops at its bound of leases, or when the pool is
//! empty, and continues when a lease returns: backpressure instead of an error.

use std::sync::Arc;

use crate::buffer::Lease;
use crate::core::locked::Locked;
use crate::core::pool::PoolBuffer;
use crate::core::slot::{Closing, Connection, Pause, Receiving, SlotId, SocketState, flag};
use crate::core::work::Into;
use crate::core::{Core, Out};
use crate::driver;
use crate::error::{Error, ErrorKind, Operation, Refused, Result};
use crate::op::{Cancel, Op};
use crate::packet::{End, Event, Leave, Side};

impl Core {
    pub(crate) fn receive(self: &Arc<Self>, id: SlotId) -> Result<Op> {
        self.start(id, Receiving::Stream)
    }

    pub(crate) fn watch(self: &Arc<Self>, id: SlotId) -> Result<Op> {
        self.start(id, Receiving::Watch)
    }

    fn start(self: &Arc<Self>, id: SlotId, receiving: Receiving) -> Result<Op> {
        let operation = receiving.operation();
        let closed = Error::new(operation, ErrorKind::Closed);
        let mut socket = self.lock(id, Out::queue()).ok_or(closed)?;
        socket
            .may_receive()
            .map_err(|kind| Error::new(operation, kind))?;
        if socket.receiving.is_some() {
            return Err(Error::new(operation, ErrorKind::Busy));
        }
        if socket.has_many_outcomes(Side::Reading) {
            return Err(Error::new(operation, ErrorKind::Full));
        }
        socket.receiving = Some(receiving);
        socket.receive_sequence = socket.next_sequence();
        let op = Op::of(self.id, id, socket.receive_sequence, operation);
        socket.go_on_receiving();
        Ok(op)
    }

    pub(crate) fn receive_into(
        self: &Arc<Self>,
        id: SlotId,
        buffer: Vec<u8>,
    ) -> Result<Op, Refused<Vec<u8>>> {
        const OPERATION: Operation = Operation::ReceiveInto;
        let Some(mut socket) = self.lock(id, Out::queue()) else {
            return Err(Refused::new(OPERATION, ErrorKind::Closed, buffer));
        };
        if let Err(kind) = socket.may_receive() {
            return Err(Refused::new(OPERATION, kind, buffer));
        }
        if !matches!(socket.receiving, None | Some(Receiving::Into)) {
            return Err(Refused::new(OPERATION, ErrorKind::Busy, buffer));
        }
        let queued = socket.work.as_ref().map_or(0, |work| work.intos.len());
        if queued >= self.options.operations_per_socket_max
            || socket.has_many_outcomes(Side::Reading)
        {
            return Err(Refused::new(OPERATION, ErrorKind::Full, buffer));
        }
        let sequence = socket.next_sequence();
        socket.work().intos.push_back(Into { buffer, sequence });
        if socket.receiving.is_none() {
            socket.receiving = Some(Receiving::Into);
            socket.go_on_receiving();
        }
        Ok(Op::of(self.id, id, sequence, Operation::ReceiveInto))
    }

    /// A lease or a descriptor is free again, or a retry is due: the socket that waited continues.
    pub(crate) fn rearm(self: &Arc<Self>, id: SlotId, out: Out<'_>) {
        let socket = self.lock(id, out);
        if socket
            .as_ref()
            .is_some_and(|it| it.has(flag::PAUSED_ACCEPT))
        {
            self.heard_the_call(id);
        }
        let Some(mut socket) = socket.filter(|it| it.waits_for_call() && !it.has(flag::ARMED))
        else {
            // The socket no longer waits: it has closed or was cancelled. Its call may have been
            // for a buffer.
            return self.pass_on_buffer();
        };
        // A listener stays marked as paused until an accept succeeds.
        socket.end_pause();
        if socket.receiving.is_some() {
            self.driver.arm(&mut socket);
        }
    }

    /// A stream that may have been called for a buffer does not take it: the next stream in the
    /// queue is called instead. Otherwise that stream would wait for a buffer to return, and
    /// perhaps none is out.
    pub(crate) fn pass_on_buffer(&self) {
        if let Some(waiting) = self.pool.next_to_serve() {
            self.wake(self.ready.push_rearm(waiting));
        }
    }

    pub(crate) fn cancel_receive(self: &Arc<Self>, op: Op, out: Out<'_>) -> Cancel {
        let id = op.slot_id();
        let Some(mut socket) = self.lock(id, out) else {
            return Cancel::NotFound;
        };
        let doing = socket.receiving.map(Receiving::operation);
        if socket.is_closing() || doing != Some(op.operation) {
            return Cancel::NotFound;
        }
        if socket.receiving == Some(Receiving::Into) {
            let work = socket
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
                socket.deliver((op.sequence, op.operation), event);
                return Cancel::Requested;
            }
        } else if socket.receive_sequence != op.sequence {
            return Cancel::NotFound;
        }
        if socket.has(flag::CANCEL_RECEIVE) {
            return Cancel::NotFound;
        }
        if socket.has(flag::ARMED) {
            socket.set(flag::CANCEL_RECEIVE);
            self.driver.cancel(&mut socket, driver::Direction::Reading);
        } else {
            socket.receive_ended(End::Cancelled);
            if socket.handle.is_some() {
                socket.go_on_receiving();
            }
        }
        Cancel::Requested
    }
}

impl Locked<'_> {
    /// Lets the driver continue what the socket reads, unless the peer is known to be gone.
    pub(crate) fn go_on_receiving(&mut self) {
        while let Some(receiving) = self
            .receiving
            .filter(|_| self.connection() == Connection::Reset)
        {
            let reset = Error::new(receiving.operation(), ErrorKind::Reset);
            self.receive_ended(End::Failed(reset));
        }
        if self.receiving == Some(Receiving::Accept) && self.has_many_pending_accepts() {
            return;
        }
        if self.receiving.is_some() && !self.has(flag::ARMED) {
            self.core.driver.arm(self);
        }
    }

    /// Reserves one more lease of a stream, or pauses the stream until one returns.
    #[inline]
    pub(crate) fn reserve_lease(&mut self) -> bool {
        // A refusal marks the stream as waiting in the same atomic step that found no lease free.
        // So a lease that returns right after it, without the slot's lock, queues the stream. The
        // waiter that takes the entry needs this lock, and so finds the pause.
        let reserved = self
            .core
            .slots
            .reserve_lease(self.id, self.core.options.leases_per_socket);
        if !reserved {
            self.set_pause(Pause::Buffers);
            self.core.pass_on_buffer();
        }
        reserved
    }

    /// The data for which a lease was reserved did not come.
    pub(crate) fn give_lease_back(&self) {
        let leases_max = self.core.options.leases_per_socket;
        self.core.slots.return_lease(self.id, leases_max);
    }

    /// Returns how many more leases the stream may have out.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn leases_free(&self) -> u32 {
        let leases_max = self.core.options.leases_per_socket;
        self.core.slots.leases_free(self.id, leases_max)
    }

    /// The driver reports a filled buffer of a stream. Its lease is already counted.
    pub(crate) fn received(&mut self, (buffer, count): (PoolBuffer, usize)) {
        use std::sync::atomic::Ordering;
        self.core.counters.leases.fetch_add(1, Ordering::Relaxed);
        let lease = Lease::new(self.core, buffer, count, self.id);
        if self.is_closing() {
            return; // The caller has closed: it gets no more bytes.
        }
        let name = (self.receive_sequence, Operation::Receive);
        self.deliver(name, Event::Received(lease));
    }

    /// The driver has filled the first of the callers' buffers.
    pub(crate) fn received_into(&mut self, count: usize) {
        let work = self
            .work
            .as_mut()
            .expect("a receive into a buffer keeps its work");
        let head = work.intos.front().expect("the head was being filled");
        if count == 0 && !head.buffer.is_empty() {
            return self.receive_ended(End::Finished);
        }
        let Into { buffer, sequence } = work.intos.pop_front().expect("looked at above");
        let more = !work.intos.is_empty();
        let event = Event::ReceivedInto { buffer, count };
        if !more {
            self.receiving = None;
        }
        self.deliver((sequence, Operation::ReceiveInto), event);
    }

    /// The socket's operation ended without the event that it waits for. Of several queued
    /// receives, the first one ended.
    pub(crate) fn receive_ended(&mut self, how: End) {
        let Some(receiving) = self.receiving else {
            return self.note_break(how);
        };
        let how = match how {
            End::Finished => match self.connection() {
                Connection::Whole => how,
                Connection::Broken | Connection::Reset => {
                    End::Failed(Error::new(receiving.operation(), ErrorKind::Reset))
                }
            },
            how => how,
        };
        self.note_break(how);
        let mut sequence = self.receive_sequence;
        let event = match receiving {
            Receiving::Accept => return self.accept_ended(how),
            Receiving::Connect => return self.connect_failed(how),
            Receiving::Watch => {
                self.receiving = None;
                watch_ended(how)
            }
            Receiving::Stream => {
                self.receiving = None;
                self.core.pass_on_buffer();
                Event::Ended { how, buffer: None }
            }
            Receiving::Into => {
                let work = self
                    .work
                    .as_mut()
                    .expect("a receive into a buffer keeps its work");
                let into = work
                    .intos
                    .pop_front()
                    .expect("a receive into a buffer is queued");
                sequence = into.sequence;
                if work.intos.is_empty() {
                    self.receiving = None;
                }
                let buffer = Some(into.buffer);
                Event::Ended { how, buffer }
            }
        };
        self.clear(flag::CANCEL_RECEIVE);
        self.end_pause();
        self.deliver((sequence, receiving.operation()), event);
    }

    /// Remembers an end that broke the connection.
    fn note_break(&mut self, how: End) {
        match how.error_kind() {
            Some(ErrorKind::Reset) => self.note_reset(),
            Some(ErrorKind::TimedOut | ErrorKind::Unreachable) => self.note_broken(),
            _ => {}
        }
    }

    /// Remembers that the connection is broken. What is known of a reset stays.
    pub(crate) fn note_broken(&mut self) {
        let next = match self.connection() {
            Connection::Whole | Connection::Broken => Connection::Broken,
            Connection::Reset => Connection::Reset,
        };
        self.set_connection(next);
    }

    /// The driver reports that a request of the reading side ended, with a system code or cleanly.
    /// Decides what that means, and continues if it ends nothing.
    pub(crate) fn receive_stopped(&mut self, code: Option<i32>) {
        self.clear(flag::ARMED);
        if self.is_closing() {
            self.abort_receiving();
            return self.settle();
        }
        let cancelled = code.is_some_and(crate::sys::is_cancelled);
        let how = match code {
            _ if cancelled && self.has(flag::CANCEL_RECEIVE) => End::Cancelled,
            // No caller asked for this end: the thread that had submitted the request is gone.
            // Continue.
            Some(_) if cancelled => return self.go_on_receiving(),
            Some(code) => {
                let operation = self.receiving.map(Receiving::operation);
                let operation = operation.unwrap_or(Operation::Receive);
                End::Failed(Error::from_os(operation, code))
            }
            None => End::Finished,
        };
        self.receive_ended(how);
        self.go_on_receiving();
    }

    /// Ends everything that the reading side has queued, because the socket closes.
    pub(crate) fn abort_receiving(&mut self) {
        while let Some(receiving) = self.receiving.filter(|_| self.closing() != Closing::Closed) {
            self.receive_ended(End::Aborted);
            if receiving == Receiving::Connect {
                return;
            }
        }
    }
}

impl SocketState {
    /// Whether something calls the socket when it can continue to read or to accept.
    fn waits_for_call(&self) -> bool {
        self.is_paused() || self.has(flag::PAUSED_ACCEPT)
    }

    fn may_receive(&self) -> Result<(), ErrorKind> {
        if self.is_closing() {
            return Err(ErrorKind::Closed);
        }
        if self.has(flag::CONNECTING) {
            return Err(ErrorKind::NotConnected);
        }
        if self.has(flag::LISTENER) {
            return Err(ErrorKind::InvalidInput);
        }
        Ok(())
    }
}

/// What the end of a watch says about the peer.
fn watch_ended(how: End) -> Event {
    match how {
        End::Finished => Event::PeerLeft(Leave::Finished),
        End::Failed(error) => Event::PeerLeft(leave_of(error)),
        End::Cancelled | End::Aborted => Event::Ended { how, buffer: None },
    }
}

fn leave_of(error: Error) -> Leave {
    if error.kind() == ErrorKind::Reset {
        Leave::Reset
    } else {
        Leave::Broken(error)
    }
}
