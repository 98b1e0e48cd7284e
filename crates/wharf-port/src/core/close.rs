//! Closing: how a socket leaves a port.
//!
//! `close(2)` alone does not end what io_uring has armed, it goes on
//! stealing bytes and the peer gets no FIN; so a close first ends what the driver holds, waits for
//! its reports, and closes the handle last (contract C11). The slot is free again when its last
//! packet is taken.

use std::sync::Arc;
use std::time::Duration;

use crate::core::deadlines::TimerTarget;
use crate::core::registry::with_core;
use crate::core::slot::{SlotId, SocketState, flag};
use crate::core::{Core, Out};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::op::{Close, Op, OpKind};
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
        let mut guard = self.slots.lock(id).ok_or(closed)?;
        let state = &mut *guard;
        if state.has(flag::CLOSING | flag::HANDLE_CLOSED) {
            return Err(closed);
        }
        let discarded = quietly.then(|| {
            state.set(flag::SILENT);
            self.slots.silence(id);
            state
                .work
                .as_mut()
                .map(|work| std::mem::take(&mut work.pending))
        });
        state.set(flag::CLOSING);
        let sequence = state.next_sequence();
        let out = &mut Out::queue();
        if how == Close::Reset {
            state.set(flag::CLOSE_RESET);
        }
        if !state.has(flag::ARMED) {
            self.abort_receiving(id, state, out);
        }
        if how == Close::Reset && !state.has(flag::SENDING) {
            self.end_writing(id, state, End::Aborted, out);
        }
        if has_sends(state) && how == Close::Flush && !self.is_ending() {
            let time = Duration::from_millis(u64::from(self.options.flush_ms_max));
            self.set_limit(state, time, TimerTarget::Flush(id));
        }
        self.settle(id, state, out);
        drop(guard);
        let discarded = discarded.flatten().unwrap_or_default();
        discarded
            .into_iter()
            .for_each(|packet| self.discard(packet));
        Ok(Op::of(self.id, id, sequence, OpKind::Close))
    }

    /// A closing socket has had its time: what is still queued is given up.
    pub(crate) fn flush_over(self: &Arc<Self>, id: SlotId, out: &mut Out<'_>) {
        let Some(mut guard) = self.slots.lock(id) else {
            return;
        };
        let state = &mut *guard;
        // All may be out, and only the driver's reports be waited for: then nothing is cut short.
        if state.has(flag::CLOSING) && has_sends(state) {
            debug_assert!(
                !state.has(flag::HUNG_UP | flag::HANDLE_CLOSED),
                "it flushes"
            );
            state.set(flag::CLOSE_RESET);
            if !state.has(flag::SENDING) {
                self.end_writing(id, state, End::Aborted, out);
            }
            self.settle(id, state, out);
        }
    }

    /// Takes the next step of a close: wait for the queue, end what the driver holds, wait for
    /// that, close the handle, tell.
    pub(crate) fn settle(&self, id: SlotId, state: &mut SocketState, out: &mut Out<'_>) {
        if !state.has(flag::CLOSING) || state.has(flag::HANDLE_CLOSED) {
            return;
        }
        if has_sends(state) && !state.has(flag::CLOSE_RESET) {
            return; // The flush goes on, for as long as its timer allows.
        }
        if state.has(flag::ARMED | flag::SENDING | flag::GUARDED) {
            if !state.has(flag::HUNG_UP) {
                state.set(flag::HUNG_UP);
                self.driver.hang_up(id, state);
            }
            return;
        }
        self.give_held_back(state);
        self.end_limit(state);
        if state.has(flag::LISTENER) {
            let untold = self.driver.untold(id) as u64;
            let untaken = &self.counters.accepted_untaken;
            untaken.fetch_add(untold, std::sync::atomic::Ordering::Relaxed);
        }
        self.driver.release(id, state);
        state.set(flag::HANDLE_CLOSED);
        self.socket_gone();
        if state.has(flag::SILENT) {
            state.work = None;
            self.free_slot(id, state);
            return;
        }
        // No operation follows a close, so that the last number is the close's own.
        let name = (state.sequence, OpKind::Close);
        self.deliver(id, state, name, Event::Closed, out);
    }

    /// Gives a slot back; a listener that waits for room tries at once.
    pub(crate) fn free_slot(&self, id: SlotId, state: &mut SocketState) {
        self.slots.free(id, state);
        self.socket_gone();
        self.last_may_be_gone();
    }

    /// Ends a socket because the port ends: nothing is told, nothing is flushed.
    pub(crate) fn abort(&self, id: SlotId, state: &mut SocketState) {
        if state.has(flag::HANDLE_CLOSED) {
            state.work = None;
            self.free_slot(id, state);
            return;
        }
        state.set(flag::CLOSING);
        if has_sends(state) {
            // A stream that is cut short must not look like one that came to its end. And what
            // the driver holds has to be asked to end: nobody waits for a flush any more.
            state.set(flag::CLOSE_RESET);
        }
        let out = &mut Out::queue();
        if !state.has(flag::ARMED) {
            self.abort_receiving(id, state, out);
        }
        if state.generation != id.generation {
            return; // A connect without a request in the kernel is gone already.
        }
        if !state.has(flag::SENDING) {
            self.end_writing(id, state, End::Aborted, out);
        }
        self.settle(id, state, out);
    }
}

/// Whether something to send is queued or with the driver.
fn has_sends(state: &SocketState) -> bool {
    let work = state.work.as_ref();
    work.is_some_and(|work| !work.sends.is_empty())
}

pub(crate) fn close_quietly(socket: SocketRef) {
    with_core(socket.port, |core| {
        // A socket that is gone, or being closed already, is what the drop wanted.
        let _ = core.close_socket(socket.slot_id(), Close::Flush, true);
    });
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use crate::core::Out;
    use crate::core::slot::flag;
    use crate::{Close, DriverChoice, DriverKind, Event, Port, Wait};

    /// On io_uring a close waits for a receive that it has ended. When its time runs out meanwhile,
    /// the stream that was sent whole must not be reset.
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
            assert!(state.has(flag::HUNG_UP) && !state.has(flag::HANDLE_CLOSED));
            assert!(!state.has(flag::CLOSE_RESET));
        };
        hung_up();
        port.core.flush_over(id, &mut Out::queue());
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
