//! Connecting: attempts, retries and their limit in time.

use std::sync::Arc;
use std::time::Duration;

use socket2::SockAddr;

use crate::address::Address;
use crate::connect::ConnectOptions;
use crate::core::deadlines::TimerTarget;
use crate::core::slot::{Receiving, SlotId, SocketState, flag};
use crate::core::{Core, Out};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::key::Key;
use crate::op::{Op, OpKind};
use crate::packet::{End, Event};
use crate::stream::Stream;
use crate::{lock, sys};

/// How long a connect to a Unix socket waits before it tries again; doubled each time.
const RETRY_FIRST: Duration = Duration::from_millis(1);
const RETRY_LAST: Duration = Duration::from_millis(100);

impl Core {
    pub(crate) fn connect(self: &Arc<Self>, to: &ConnectOptions, key: Key) -> Result<Op> {
        let failed = |error: std::io::Error| Error::from_io(Operation::Connect, &error);
        if self.takes_no_sockets() {
            return Err(Error::new(Operation::Connect, ErrorKind::Closed));
        }
        let handle = self.driver.open_connector(to).map_err(failed)?;
        let (id, mut guard) = match self.admit(false) {
            Ok(admitted) => admitted,
            Err(kind) => {
                self.driver.abandon(handle);
                return Err(Error::new(Operation::Connect, kind));
            }
        };
        let state = &mut *guard;
        state.key = key;
        state.handle = Some(handle);
        state.set(flag::CONNECTING);
        let associated = self.driver.associate(id, state, false);
        let address = to.address.to_system().map_err(failed);
        let deadline = TimerTarget::Deadline(id);
        let limited = to
            .at_most
            .is_none_or(|time| self.set_limit(state, time, deadline));
        if let (Ok(()), Ok(address), true) = (associated, &address, limited) {
            state.receiving = Receiving::Connect;
            state.receive_sequence = state.next_sequence();
            let op = Op::of(self.id, id, state.receive_sequence, OpKind::Connect);
            self.work(state).connect_to = Some(address.clone());
            self.driver.arm(self, id, state, &mut Out::queue());
            return Ok(op);
        }
        self.end_limit(state);
        self.recycle(state);
        let handle = state.handle.take().expect("set above");
        self.turn_away(id, state, false);
        drop(guard);
        self.driver.abandon(handle);
        if !limited {
            return Err(Error::new(Operation::Connect, ErrorKind::Full));
        }
        associated.map_err(|code| Error::from_os(Operation::Connect, code))?;
        Err(address
            .err()
            .unwrap_or(Error::new(Operation::Connect, ErrorKind::Other)))
    }

    /// The driver reports the end of a connect: the system's code when it failed.
    pub(crate) fn connected(
        &self,
        id: SlotId,
        state: &mut SocketState,
        result: Result<(), i32>,
        out: &mut Out<'_>,
    ) {
        state.clear(flag::ARMED);
        state.receiving = Receiving::Nothing;
        let name = (state.receive_sequence, OpKind::Connect);
        let to = state.work.as_mut().and_then(|work| work.connect_to.take());
        let how = match result {
            _ if state.has(flag::CLOSING) => End::Aborted,
            Ok(()) if self.meets_itself(state, to.as_ref()) => {
                // Closed in order it would stay in TIME_WAIT, and the port number with it.
                state.set(flag::CLOSE_RESET);
                End::Failed(Error::new(Operation::Connect, ErrorKind::Refused))
            }
            Ok(()) => {
                self.end_limit(state);
                self.end_retry(state);
                state.clear(flag::CONNECTING | flag::CANCEL_RECEIVE | flag::DEADLINE);
                let stream = Stream::new(self.socket(id));
                self.deliver(id, state, name, Event::Connected(stream), out);
                // A connection that is only held needs none of it.
                return self.recycle(state);
            }
            Err(_) if state.has(flag::DEADLINE) => {
                End::Failed(Error::new(Operation::Connect, ErrorKind::TimedOut))
            }
            Err(_) if state.has(flag::CANCEL_RECEIVE) => End::Cancelled,
            Err(code) => End::Failed(Error::of_connect(code)),
        };
        self.connect_failed(id, state, how, out);
    }

    /// Tells that there will be no stream, and closes the socket that was to be one.
    pub(crate) fn connect_failed(
        &self,
        id: SlotId,
        state: &mut SocketState,
        how: End,
        out: &mut Out<'_>,
    ) {
        let name = (state.receive_sequence, OpKind::Connect);
        state.receiving = Receiving::Nothing;
        self.end_limit(state);
        self.end_retry(state);
        if let Some(work) = &mut state.work {
            work.connect_to = None;
        }
        self.driver.release(id, state);
        self.socket_gone();
        if state.has(flag::SILENT) {
            state.work = None;
            self.free_slot(id, state);
            return;
        }
        // `Closed` is not for the caller, who never had the stream: the slot goes with this packet.
        state.set(flag::HANDLE_CLOSED);
        self.deliver(id, state, name, Event::ConnectFailed { how }, out);
    }

    /// Whether a connection has this socket at both ends. TCP opens one where nobody listens and
    /// the system chose the very port number that the connect goes to (RFC 9293, 3.5: simultaneous
    /// open): whoever wrote to it would read its own bytes back.
    fn meets_itself(&self, state: &SocketState, to: Option<&SockAddr>) -> bool {
        let Some(to) = to.and_then(SockAddr::as_socket) else {
            return false;
        };
        let local = self.driver.local_address(state);
        let same_port = |local: &Address| {
            let local = local.internet();
            local.is_some_and(|local| local.port() == to.port())
        };
        let Some(local) = local.ok().filter(same_port) else {
            return false;
        };
        let peer = self.driver.peer_address(state);
        peer.is_ok_and(|peer| peer == local)
    }

    /// A driver has tried to connect a Unix socket, which succeeds or fails at once. Where the
    /// listener's backlog is full no event ever tells that there is room: it tries again, a little
    /// later each time, until the connect is cancelled or its time is over.
    ///
    /// Letting the system wait was rejected: a kernel thread of io_uring sleeps in each such connect.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn connect_tried(
        &self,
        id: SlotId,
        state: &mut SocketState,
        result: Result<(), i32>,
        out: &mut Out<'_>,
    ) {
        if result.is_err_and(sys::would_block) && self.try_later(id, state) {
            return;
        }
        self.connected(id, state, result, out);
    }

    /// Sets the timer of the next try, unless there are `timers_max`.
    fn try_later(&self, id: SlotId, state: &mut SocketState) -> bool {
        let last = state.work.as_ref().and_then(|work| work.connect_retry);
        let wait = last.map_or(RETRY_FIRST, |(_, wait)| (wait * 2).min(RETRY_LAST));
        let due = self.driver.now() + wait;
        let timer = self.set_timer(due, TimerTarget::Connect(id));
        self.work(state).connect_retry = timer.map(|timer| (timer, wait));
        timer.is_some()
    }

    /// A connect that found no room tries again.
    pub(crate) fn connect_again(self: &Arc<Self>, id: SlotId, out: &mut Out<'_>) {
        if let Some(mut state) = self.slots.lock(id) {
            if state.receiving == Receiving::Connect && !state.has(flag::ARMED) {
                self.driver.arm(self, id, &mut state, out);
            }
        }
    }

    /// Takes back the next try of a connect that is over.
    fn end_retry(&self, state: &mut SocketState) {
        let work = state.work.as_mut();
        if let Some((timer, _)) = work.and_then(|work| work.connect_retry.take()) {
            // One that has run out is not found.
            lock(&self.timers).cancel(timer);
        }
    }

    /// A connect ran into its deadline.
    pub(crate) fn connect_overdue(self: &Arc<Self>, id: SlotId, out: &mut Out<'_>) {
        let Some(mut state) = self.slots.lock(id) else {
            return;
        };
        if state.receiving != Receiving::Connect {
            return;
        }
        state.set(flag::DEADLINE);
        if state.has(flag::ARMED) {
            self.driver.cancel_receive(self, id, &mut state);
        } else {
            self.connected(id, &mut state, Err(0), out);
        }
    }
}
