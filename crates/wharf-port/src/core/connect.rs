//! Connecting: attempts, retries and their time limit.

use std::sync::Arc;
use std::time::Duration;

use socket2::SockAddr;

use crate::address::Address;
use crate::connect::ConnectOptions;
use crate::core::deadlines::TimerTarget;
use crate::core::locked::Locked;
use crate::core::slot::{Closing, Receiving, SlotId, flag};
use crate::core::{Core, Out};
use crate::driver::Direction;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::key::Key;
use crate::op::Op;
use crate::packet::{End, Event};
use crate::stream::Stream;
use crate::{lock, sys};

/// How long a connect to a Unix socket waits before it tries again. The wait doubles each time.
const RETRY_FIRST: Duration = Duration::from_millis(1);
const RETRY_LAST: Duration = Duration::from_millis(100);

impl Core {
    pub(crate) fn connect(self: &Arc<Self>, to: &ConnectOptions, key: Key) -> Result<Op> {
        let failed = |error: std::io::Error| Error::from_io(Operation::Connect, &error);
        if self.takes_no_sockets() {
            return Err(Error::new(Operation::Connect, ErrorKind::Closed));
        }
        let handle = self.driver.open_connector(to).map_err(failed)?;
        let mut socket = match self.admit(false) {
            Ok(admitted) => admitted,
            Err(kind) => {
                self.driver.abandon(handle);
                return Err(Error::new(Operation::Connect, kind));
            }
        };
        socket.key = key;
        socket.handle = Some(handle);
        socket.set(flag::CONNECTING);
        let associated = self.driver.associate(&mut socket, false);
        let address = to.address.to_system().map_err(failed);
        let deadline = TimerTarget::Deadline(socket.id);
        let limited = to
            .at_most
            .is_none_or(|time| socket.set_limit(time, deadline));
        if let (Ok(()), Ok(address), true) = (associated, &address, limited) {
            socket.receiving = Some(Receiving::Connect);
            socket.receive_sequence = socket.next_sequence();
            let op = Op::of(
                self.id,
                socket.id,
                socket.receive_sequence,
                Operation::Connect,
            );
            socket.work().connect_to = Some(address.clone());
            self.driver.arm(&mut socket);
            return Ok(op);
        }
        socket.end_limit();
        socket.recycle();
        let handle = socket.handle.take().expect("set above");
        socket.turn_away(false);
        self.driver.abandon(handle);
        if !limited {
            return Err(Error::new(Operation::Connect, ErrorKind::Full));
        }
        associated.map_err(|code| Error::from_os(Operation::Connect, code))?;
        Err(address
            .err()
            .unwrap_or(Error::new(Operation::Connect, ErrorKind::Other)))
    }

    /// A connect that found the backlog full tries again.
    pub(crate) fn connect_again(self: &Arc<Self>, id: SlotId, out: Out<'_>) {
        let Some(mut socket) = self.lock(id, out) else {
            return;
        };
        if socket.receiving == Some(Receiving::Connect) && !socket.has(flag::ARMED) {
            self.driver.arm(&mut socket);
        }
    }

    /// A connect reached its deadline.
    pub(crate) fn connect_overdue(self: &Arc<Self>, id: SlotId, out: Out<'_>) {
        let Some(mut socket) = self.lock(id, out) else {
            return;
        };
        if socket.receiving != Some(Receiving::Connect) {
            return;
        }
        socket.set(flag::DEADLINE);
        if socket.has(flag::ARMED) {
            self.driver.cancel(&mut socket, Direction::Reading);
        } else {
            socket.connected(Err(0));
        }
    }
}

impl Locked<'_> {
    /// The driver reports the end of a connect: the system's code when it failed.
    pub(crate) fn connected(&mut self, result: Result<(), i32>) {
        self.clear(flag::ARMED);
        self.receiving = None;
        let name = (self.receive_sequence, Operation::Connect);
        let to = self.work.as_mut().and_then(|work| work.connect_to.take());
        let how = match result {
            _ if self.is_closing() => End::Aborted,
            Ok(()) if self.meets_itself(to.as_ref()) => {
                // With a clean close it would stay in TIME_WAIT, and so would the port number.
                self.make_abortive();
                End::Failed(Error::new(Operation::Connect, ErrorKind::Refused))
            }
            Ok(()) => {
                self.end_limit();
                self.end_retry();
                self.clear(flag::CONNECTING | flag::CANCEL_RECEIVE | flag::DEADLINE);
                let stream = Stream::new(self.core.socket(self.id));
                self.deliver(name, Event::Connected(stream));
                // A connection that is only held needs no work block.
                return self.recycle();
            }
            Err(_) if self.has(flag::DEADLINE) => {
                End::Failed(Error::new(Operation::Connect, ErrorKind::TimedOut))
            }
            Err(_) if self.has(flag::CANCEL_RECEIVE) => End::Cancelled,
            Err(code) => End::Failed(Error::of_connect(code)),
        };
        self.connect_failed(how);
    }

    /// Reports that there will be no stream, and closes the socket of the connect.
    pub(crate) fn connect_failed(&mut self, how: End) {
        let name = (self.receive_sequence, Operation::Connect);
        self.receiving = None;
        self.end_limit();
        self.end_retry();
        if let Some(work) = &mut self.work {
            work.connect_to = None;
        }
        self.core.driver.release(self);
        self.core.socket_gone();
        if self.has(flag::SILENT) {
            self.work = None;
            self.free_slot();
            return;
        }
        // The caller never had the stream, so there is no `Closed`. The slot is freed with this
        // packet.
        self.set_closing(Closing::Closed);
        self.deliver(name, Event::ConnectFailed { how });
    }

    /// Whether a connection has this socket at both ends. TCP opens such a connection if no socket
    /// listens and the system chose the destination port as the source port (RFC 9293, 3.5:
    /// simultaneous open). A program that wrote to it would read its own bytes back.
    fn meets_itself(&self, to: Option<&SockAddr>) -> bool {
        let Some(to) = to.and_then(SockAddr::as_socket) else {
            return false;
        };
        let local = self.core.driver.local_address(self.open_handle());
        let same_port = |local: &Address| {
            let local = local.as_socket_addr();
            local.is_some_and(|local| local.port() == to.port())
        };
        let Some(local) = local.ok().filter(same_port) else {
            return false;
        };
        let peer = self.core.driver.peer_address(self.open_handle());
        peer.is_ok_and(|peer| peer == local)
    }

    /// A driver has tried to connect a Unix socket. Such a connect succeeds or fails at once. If
    /// the listener's backlog is full, no event reports when it has space. So the connect tries
    /// again, a little later each time, until it is cancelled or its time is over.
    ///
    /// Letting the system wait was rejected: in each such connect a kernel thread of io_uring
    /// sleeps.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn connect_tried(&mut self, result: Result<(), i32>) {
        if result.is_err_and(sys::would_block) && self.try_later() {
            return;
        }
        self.connected(result);
    }

    /// Sets the timer of the next attempt, unless `timers_max` timers are set.
    fn try_later(&mut self) -> bool {
        let last = self.work.as_ref().and_then(|work| work.connect_retry);
        let wait = last.map_or(RETRY_FIRST, |(_, wait)| (wait * 2).min(RETRY_LAST));
        let due = self.core.driver.now() + wait;
        let timer = self.core.set_timer(due, TimerTarget::Connect(self.id));
        self.work().connect_retry = timer.map(|timer| (timer, wait));
        timer.is_some()
    }

    /// Cancels the next attempt of a connect that is over.
    fn end_retry(&mut self) {
        let work = self.work.as_mut();
        if let Some((timer, _)) = work.and_then(|work| work.connect_retry.take()) {
            // A timer that has expired is not found.
            lock(&self.core.timers).cancel(timer);
        }
    }
}
