//! Closing: how a socket leaves a port.
//!
//! `close(2)` alone does not end a request that io_uring has armed: the request continues to
//! consume bytes, and the peer gets no FIN. So a close first ends what the driver holds, waits for
//! its reports, and closes the handle last (contract C11). The slot is free again when its last
//! packet is taken.

use std::sync::Arc;
use std::time::Duration;

use crate::core::deadlines::TimerTarget;
use crate::core::locked::Locked;
use crate::core::registry::with_core;
use crate::core::slot::{Closing, SlotId, SocketState, flag};
use crate::core::{Core, Out};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::op::{Close, Op};
use crate::packet::{End, Event};
use crate::reference::SocketRef;

impl Core {
    pub(crate) fn close_socket(
        self: &Arc<Self>,
        id: SlotId,
        how: Close,
        quietly: bool,
    ) -> Result<Op> {
        let closed = Error::new(Operation::Close, ErrorKind::Closed);
        let mut socket = self.lock(id, Out::queue()).ok_or(closed)?;
        if socket.is_closing() {
            return Err(closed);
        }
        let discarded = quietly.then(|| {
            socket.set(flag::SILENT);
            self.slots.silence(id);
            socket
                .work
                .as_mut()
                .map(|work| std::mem::take(&mut work.pending))
        });
        socket.set_closing(match how {
            Close::Flush => Closing::Flushing,
            Close::Reset => Closing::Resetting,
        });
        let sequence = socket.next_sequence();
        if !socket.has(flag::ARMED) {
            socket.abort_receiving();
        }
        if how == Close::Reset && !socket.is_sending() {
            socket.end_writing(End::Aborted);
        }
        if socket.has_sends() && how == Close::Flush && !self.is_ending() {
            let time = Duration::from_millis(u64::from(self.options.flush_ms_max));
            socket.set_limit(time, TimerTarget::Flush(id));
        }
        socket.settle();
        drop(socket);
        let discarded = discarded.flatten().unwrap_or_default();
        discarded
            .into_iter()
            .for_each(|packet| self.discard(packet));
        Ok(Op::of(self.id, id, sequence, Operation::Close))
    }

    /// The time limit of a closing socket is over: it abandons what is still queued.
    pub(crate) fn flush_over(self: &Arc<Self>, id: SlotId, out: Out<'_>) {
        let Some(mut socket) = self.lock(id, out) else {
            return;
        };
        // Perhaps everything is sent, and the close waits only for reports of the driver. Then
        // nothing is cut short.
        if socket.is_closing() && socket.has_sends() {
            debug_assert_eq!(socket.closing(), Closing::Flushing, "its queue goes out");
            socket.make_abortive();
            if !socket.is_sending() {
                socket.end_writing(End::Aborted);
            }
            socket.settle();
        }
    }
}

impl Locked<'_> {
    /// Takes the next step of a close: wait for the queue of sends, end what the driver holds, wait
    /// for its reports, close the handle, report `Closed`.
    pub(crate) fn settle(&mut self) {
        let held = self.has(flag::ARMED | flag::GUARDED) || self.is_sending();
        match self.closing() {
            Closing::No | Closing::Closed => {}
            // The flush continues as long as its timer allows.
            Closing::Flushing if self.has_sends() => {}
            Closing::Flushing if held => self.hang_up(Closing::HungUp),
            Closing::Resetting if held => self.hang_up(Closing::HungUpToReset),
            // The reports follow.
            Closing::HungUp | Closing::HungUpToReset if held => {}
            Closing::Flushing | Closing::Resetting | Closing::HungUp | Closing::HungUpToReset => {
                self.close_handle();
            }
        }
    }

    fn hang_up(&mut self, next: Closing) {
        self.set_closing(next);
        self.core.driver.hang_up(self);
    }

    /// The driver holds nothing of the socket: the last two steps of its close.
    fn close_handle(&mut self) {
        self.give_held_back();
        self.end_limit();
        if self.has(flag::LISTENER) {
            let undelivered = self.core.driver.undelivered(self.id) as u64;
            let untaken = &self.core.counters.accepted_untaken;
            untaken.fetch_add(undelivered, std::sync::atomic::Ordering::Relaxed);
        }
        self.core.driver.release(self);
        self.set_closing(Closing::Closed);
        self.core.socket_gone();
        if self.has(flag::SILENT) {
            self.work = None;
            self.free_slot();
            return;
        }
        // No operation follows a close, so the last sequence number is that of the close.
        let name = (self.sequence, Operation::Close);
        self.deliver(name, Event::Closed);
    }

    /// From here on its close is abortive.
    pub(crate) fn make_abortive(&mut self) {
        let next = match self.closing() {
            Closing::No | Closing::Flushing | Closing::Resetting => Closing::Resetting,
            Closing::HungUp | Closing::HungUpToReset => Closing::HungUpToReset,
            Closing::Closed => Closing::Closed,
        };
        self.set_closing(next);
    }

    /// Frees the slot. A listener that waits for a place tries at once.
    pub(crate) fn free_slot(&mut self) {
        self.core.slots.free(self.id, &mut self.state);
        self.core.socket_gone();
        self.core.last_may_be_gone();
    }

    /// Ends a socket because the port ends: it reports nothing and flushes nothing.
    pub(crate) fn abort(&mut self) {
        match self.closing() {
            Closing::No => self.set_closing(Closing::Flushing),
            Closing::Flushing | Closing::Resetting | Closing::HungUp | Closing::HungUpToReset => {}
            Closing::Closed => {
                self.work = None;
                self.free_slot();
                return;
            }
        }
        if self.has_sends() {
            // A stream that is cut short must not look complete to its peer, so it is reset. The
            // reset also makes `settle` ask the driver to end what it holds: no thread waits for a
            // flush any more.
            self.make_abortive();
        }
        if !self.has(flag::ARMED) {
            self.abort_receiving();
        }
        if self.is_gone() {
            return; // A connect without a request in the kernel is gone already.
        }
        if !self.is_sending() {
            self.end_writing(End::Aborted);
        }
        self.settle();
    }
}

impl SocketState {
    /// Whether something to send is queued or with the driver.
    pub(crate) fn has_sends(&self) -> bool {
        let work = self.work.as_ref();
        work.is_some_and(|work| !work.sends.is_empty())
    }
}

pub(crate) fn close_quietly(socket: SocketRef) {
    with_core(socket.port, |core| {
        // If the socket is gone or closing already, the drop has nothing to do.
        let _ = core.close_socket(socket.slot_id(), Close::Flush, true);
    });
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use crate::core::Out;
    use crate::core::slot::Closing;
    use crate::{Close, DriverChoice, DriverKind, Event, Port, Wait};

    /// On io_uring a close waits for a receive that it has cancelled. If its time runs out
    /// meanwhile, a stream that was sent completely must not be reset.
    #[test]
    fn a_flush_that_runs_out_after_the_last_byte_cuts_nothing() {
        let uring = DriverChoice::Require(DriverKind::Uring);
        let Ok(port) = Port::builder().driver(uring).build() else {
            return; // No other driver waits there.
        };
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("a bound socket");
        let mut peer = TcpStream::connect(address).expect("it listens");
        let (socket, _) = listener.accept().expect("it has connected");
        let socket = port.associate(socket, 1.into()).expect("room").set_aside();
        let mut waiter = port.waiter().expect("a fresh port");
        socket.receive().expect("nothing else reads");
        let nothing = waiter.wait(Some(Duration::ZERO));
        assert!(matches!(nothing, Ok(Wait::TimedOut)));
        drop(nothing);
        socket.close(Close::Flush).expect("it is open");
        let id = socket.slot_id();
        let hung_up = || {
            let state = port.core.slots.lock(id).expect("its end is not in");
            assert_eq!(state.closing(), Closing::HungUp);
        };
        hung_up();
        port.core.flush_over(id, Out::queue());
        hung_up();
        let mut closed = false;
        while !closed {
            if let Wait::Packets(packets) = waiter.wait(None).expect("it waits") {
                closed = packets
                    .into_iter()
                    .any(|it| matches!(it.event, Event::Closed));
            }
        }
        assert_eq!(peer.read(&mut [0; 1]).expect("no reset"), 0);
    }
}
