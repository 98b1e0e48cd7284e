//! Space for sends: how full a queue may be, which sends are refused, and when the caller learns
//! that there is space again.
//!
//! It is separate from `send` because a driver may learn late which bytes went out. So a full queue
//! is checked twice before a send is refused.

use std::sync::Arc;

use crate::core::locked::Locked;
use crate::core::slot::{SlotId, SocketState, Writing, flag};
use crate::core::{Core, Out};
use crate::driver::Submit;
use crate::error::ErrorKind;
use crate::error::Operation;
use crate::packet::{Event, Side};

impl Core {
    /// Locks a socket that takes `count` more bytes. A queue that is full only because no thread
    /// has waited since is not full: `Full` means that the peer is slow, or the bound small.
    pub(crate) fn lock_with_room(
        self: &Arc<Self>,
        id: SlotId,
        count: usize,
        reported: bool,
    ) -> Result<Locked<'_>, ErrorKind> {
        self.submit_if_late();
        for looks_again in [true, false] {
            let mut socket = self.lock(id, Out::queue()).ok_or(ErrorKind::Closed)?;
            socket.may_send()?;
            let many_pending = match reported {
                true => socket.has_many_pending(),
                // It may be cancelled, and then it has an outcome.
                false => socket.has_many_outcomes(Side::Writing),
            };
            if !many_pending && !socket.queue_is_full(count) {
                return Ok(socket);
            }
            if !looks_again || !socket.has_sends() {
                socket.set(flag::SEND_READY_OWED);
                return Err(ErrorKind::Full);
            }
            drop(socket);
            self.driver.submit(self, Submit::ForRoom(id));
        }
        Err(ErrorKind::Full)
    }
}

impl Locked<'_> {
    fn queue_is_full(&self, bytes: usize) -> bool {
        self.work.as_ref().is_some_and(|work| {
            !work.sends.is_empty()
                && (work.queued_bytes.saturating_add(bytes)
                    > self.core.options.send_queue_bytes_max
                    || work.sends.len() >= self.core.options.operations_per_socket_max)
        })
    }

    /// Whether the sends that wait and the outcomes that wait to be taken are as many as there may
    /// be operations. The queue alone bounds nothing on systems where sends go out at once.
    fn has_many_pending(&self) -> bool {
        let work = self.work.as_ref();
        let most = self.core.options.operations_per_socket_max;
        work.is_some_and(|work| work.sends.len() + work.pending.len() >= most)
    }

    /// Delivers `SendReady` after a refusal, once half of the bound is free.
    pub(crate) fn deliver_send_ready_if_owed(&mut self) {
        if !self.has(flag::SEND_READY_OWED) {
            return;
        }
        let half = self.core.options.send_queue_bytes_max / 2;
        let operations = self.core.options.operations_per_socket_max / 2;
        let under_half = self.work.as_ref().is_none_or(|work| {
            work.queued_bytes < half.max(1)
                && work.sends.len() <= operations
                && work.pending.len() <= operations
        });
        if under_half {
            self.clear(flag::SEND_READY_OWED);
            let name = (self.sequence, Operation::Send);
            self.deliver(name, Event::SendReady);
        }
    }
}

impl SocketState {
    /// Whether this socket takes sends.
    pub(crate) fn may_send(&self) -> Result<(), ErrorKind> {
        if self.is_closing() {
            return Err(ErrorKind::Closed);
        }
        match self.writing() {
            Writing::Shut => Err(ErrorKind::BrokenPipe),
            Writing::Open | Writing::Ended if self.is_connecting() => Err(ErrorKind::NotConnected),
            Writing::Open | Writing::Ended if self.is_listener() => Err(ErrorKind::InvalidInput),
            Writing::Ended => Err(ErrorKind::Aborted),
            Writing::Open => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use crate::core::Out;
    use crate::core::work::Queued;
    use crate::{Buffer, Port};

    /// No case can fill a queue to the last byte, because the system decides how much of it to
    /// take.
    #[test]
    fn a_send_may_fill_the_queue_to_the_last_byte() {
        const BOUND: usize = 1000;
        let port = Port::builder().send_queue_bytes_max(BOUND).build();
        let port = port.expect("a driver of this system");
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("a bound socket");
        let socket = TcpStream::connect(address).expect("it listens");
        let stream = port.associate(socket, 1.into()).expect("room");
        let core = &port.core;
        let id = stream.socket().slot_id();
        let mut socket = core.lock(id, Out::queue()).expect("it is open");
        assert!(!socket.queue_is_full(2 * BOUND), "an empty queue");
        let work = socket.work();
        work.queued_bytes = 400;
        work.sends.push_back(Queued::Bytes {
            sequence: 1,
            buffer: Buffer::from(vec![0; 400]),
            reported: false,
        });
        assert!(!socket.queue_is_full(600));
        assert!(socket.queue_is_full(601));
        let work = socket.work();
        work.sends.clear();
        work.queued_bytes = 0;
    }
}
