//! Streaming receives: one request for many messages, with the bound of leases kept exact.
//!
//! A multishot receive stays armed while its connection talks, which saves the request for each
//! message: 5 to 10 % of the processor time of a small echo. Left alone it takes all that comes,
//! and a fast peer once filled 64 MiB of buffers with it. So each is capped, by the kernel, at the
//! bytes of the buffers that the stream may lend: bulk asks again when these are full, and a
//! connection that talks in small messages once in hundreds of them. What comes beyond the leases
//! that may be out is held here, in order, the request is ended, and nothing more is asked for
//! until all of it has been told.
//!
//! The kernel does not look again after a message that emptied the socket: a reset that comes
//! right behind it, before the message was taken, is never told by a multishot receive (TCP on
//! Linux 6.18; Unix sockets lose a FIN so). A wait for the peer's end stands guard beside it, and
//! costs nothing per message. A first receive is of one shot, so that a connection of a single
//! message needs no guard.
//!
//! An uncapped multishot receive was rejected, and so was giving
//! leases beyond the bound; kernels before 6.17, which know no cap, get one shot at a time.

use std::sync::atomic::Ordering;

use io_uring::cqueue::{more, sock_nonempty};

use super::completion::Outcome;
use super::request::{Kind, Name};
use super::{CUT, DATA_AT_HAND, LEASE_RESERVED, MANY, PEER_ENDED, TALKS, Uring, request};
use crate::core::locked::Locked;
use crate::core::pool::PoolBuffer;
use crate::core::slot::{Receiving, flag};
use crate::core::work::Held;
use crate::lock;

impl Uring {
    /// Asks for what a stream receives, once all that is held has been told.
    pub(super) fn arm_stream(&self, socket: &mut Locked<'_>) {
        socket.clear(flag::PAUSED_LEASES);
        // The lease of the coming data is counted now, which makes the bound exact.
        while socket.reserve_lease() {
            let Some(mut held) = take_held(socket) else {
                return self.ask_for_stream(socket);
            };
            if held.read > 0 {
                // A receive into a caller's buffer took a part of it.
                let bytes = socket.core.pool().bytes_of_mut(&mut held.buffer);
                bytes.copy_within(held.read..held.count, 0);
            }
            let unread = held.count - held.read;
            socket.received((held.buffer, unread));
        }
    }

    /// Nothing is held any more, and a lease is reserved: an end that waited behind the data is
    /// told, or the kernel is asked for more.
    fn ask_for_stream(&self, socket: &mut Locked<'_>) {
        if let Some(code) = take_held_end(socket) {
            socket.give_lease_back();
            return socket.receive_stopped(Some(code));
        }
        self.buffers_wanted.store(true, Ordering::Relaxed);
        let at_hand = socket.has(DATA_AT_HAND);
        socket.clear(DATA_AT_HAND);
        socket.set(LEASE_RESERVED);
        let bytes = socket.core.options().pool.buffer_bytes;
        // What a stream holds beyond its leases is taken from the others: not where buffers are
        // scarce, and not where each message would be beyond them.
        let many = self.caps_streams
            && socket.has(TALKS)
            && !socket.has(PEER_ENDED)
            && socket.core.options().leases_per_socket > 1
            && !socket.core.pool().is_scarce();
        let entry = if many {
            socket.set(MANY);
            self.guard(socket);
            let free = socket.leases_free();
            let bytes_max = bytes.saturating_mul(1 + free);
            request::receive_many(socket.open_handle(), bytes_max, at_hand)
        } else {
            request::receive(socket.open_handle(), bytes, at_hand)
        };
        self.ask_reading(socket, Kind::Stream, entry);
    }

    /// Looks out for the peer's end, as long as there is none.
    fn guard(&self, socket: &mut Locked<'_>) {
        if !socket.has(flag::GUARDED) {
            socket.set(flag::GUARDED);
            let entry = request::wait(socket.open_handle(), libc::POLLRDHUP);
            self.ask(
                Kind::Guard,
                socket.id,
                request::aimed(socket.open_handle(), entry),
            );
        }
    }

    /// The peer has ended: a receive that goes on might not hear of it, the next one does.
    pub(super) fn guard_completed(&self, socket: &mut Locked<'_>, outcome: &Outcome) {
        socket.clear(flag::GUARDED);
        if socket.has(flag::CLOSING) {
            return socket.settle();
        }
        if outcome.result.is_err_and(crate::sys::is_cancelled) {
            // Nobody asked for this end: the thread that had submitted it is gone.
            return self.guard(socket);
        }
        socket.set(PEER_ENDED);
        if socket.has(flag::ARMED) && socket.has(MANY) {
            self.cut(socket);
        }
    }

    /// Ends the stream's request, once.
    fn cut(&self, socket: &mut Locked<'_>) {
        if !socket.has(CUT) {
            socket.set(CUT);
            self.ring
                .push(request::cancel(Name::of(Kind::Stream, socket.id)));
        }
    }

    /// Copies what a stream has left into the callers' buffers, before the kernel is asked.
    pub(super) fn fill_from_held(&self, socket: &mut Locked<'_>) {
        while socket.receiving == Receiving::Into && !socket.has(flag::ARMED) {
            let core = socket.core;
            let Some(work) = socket.work.as_mut().filter(|work| !work.held.is_empty()) else {
                return;
            };
            let into = work.intos.front_mut();
            let into = into.expect("a receive into a buffer is queued");
            let held = work.held.front_mut().expect("looked at above");
            let unread = &core.pool().bytes_of(&held.buffer)[held.read..held.count];
            let count = unread.len().min(into.buffer.len());
            into.buffer[..count].copy_from_slice(&unread[..count]);
            held.read += count;
            if held.read == held.count {
                let held = work.held.pop_front().expect("looked at above");
                core.buffer_returned(held.buffer);
            }
            socket.received_into(count);
        }
    }

    pub(super) fn stream_completed(&self, socket: &mut Locked<'_>, mut outcome: Outcome) {
        let over = !more(outcome.flags);
        if over {
            socket.clear(flag::ARMED | CUT | MANY);
            if sock_nonempty(outcome.flags) {
                socket.set(DATA_AT_HAND);
            }
        }
        let code = match (outcome.result, outcome.buffer.take()) {
            (Ok(count), Some(buffer)) if count > 0 => {
                socket.set(TALKS);
                self.bring(socket, (buffer, count as usize));
                if over {
                    self.go_on(socket);
                }
                return;
            }
            (result, unused) => {
                if let Some(buffer) = unused {
                    socket.core.buffer_returned(buffer);
                }
                result.err()
            }
        };
        if !over {
            return; // The kernel never does that; the request goes on.
        }
        if socket.has(LEASE_RESERVED) {
            socket.clear(LEASE_RESERVED);
            socket.give_lease_back();
        }
        match code {
            Some(libc::ENOBUFS) if !socket.has(flag::CLOSING | flag::CANCEL_RECEIVE) => {
                self.find_buffer(socket);
            }
            Some(libc::ENOBUFS | libc::EINTR | libc::EAGAIN) => self.go_on(socket),
            code => self.stream_stopped(socket, code),
        }
    }

    /// Tells of data within the bound of leases, and holds what is beyond it.
    fn bring(&self, socket: &mut Locked<'_>, (buffer, count): (PoolBuffer, usize)) {
        if socket.has(flag::CLOSING) {
            return socket.core.buffer_returned(buffer); // The caller has closed: these bytes are nobody's.
        }
        let leased = socket.has(LEASE_RESERVED) || !has_held(socket) && socket.reserve_lease();
        socket.clear(LEASE_RESERVED);
        if leased {
            return socket.received((buffer, count));
        }
        hold(socket, buffer, count);
        if socket.has(flag::ARMED) {
            self.cut(socket);
        }
    }

    /// The request ended without data. Its end is told behind what is held.
    fn stream_stopped(&self, socket: &mut Locked<'_>, code: Option<i32>) {
        let told_again = code.is_none_or(crate::sys::is_cancelled);
        if !has_held(socket) || socket.has(flag::CLOSING) {
            socket.receive_stopped(code);
        } else if told_again {
            // Whoever asks after the data learns of the end again.
            self.go_on(socket);
        } else {
            let work = socket.work();
            work.held_end = code;
            self.go_on(socket);
        }
    }

    /// Data came when the kernel had no buffer. One more of the pool, or a place in the line.
    fn find_buffer(&self, socket: &mut Locked<'_>) {
        if !lock(&self.buffers).is_open() {
            // Not even the ring of buffers could be made.
            return socket.wait_for_memory();
        }
        let Some(buffer) = socket.buffer_or_wait() else {
            return;
        };
        let left_over = lock(&self.buffers).provide(buffer);
        if let Some(buffer) = left_over {
            socket.core.buffer_returned(buffer);
        }
        socket.set(DATA_AT_HAND);
        socket.go_on_receiving();
    }
}

/// Keeps data beyond the bound of leases. Where buffers run short, a few bytes join those that came
/// before instead of holding one of their own.
fn hold(socket: &mut Locked<'_>, buffer: PoolBuffer, count: usize) {
    let core = socket.core;
    let held = &mut socket.work().held;
    let last = held
        .back_mut()
        .filter(|last| core.pool().is_scarce() && last.count + count <= core.pool().buffer_bytes());
    let Some(last) = last else {
        let read = 0;
        return held.push_back(Held {
            buffer,
            count,
            read,
        });
    };
    let space = core.pool().bytes_of_mut(&mut last.buffer);
    space[last.count..last.count + count].copy_from_slice(&core.pool().bytes_of(&buffer)[..count]);
    last.count += count;
    core.buffer_returned(buffer);
}

fn has_held(socket: &Locked<'_>) -> bool {
    socket
        .work
        .as_ref()
        .is_some_and(|work| !work.held.is_empty())
}

fn take_held(socket: &mut Locked<'_>) -> Option<Held> {
    socket.work.as_mut()?.held.pop_front()
}

/// The end that waited behind what was held, once that is told.
pub(super) fn take_held_end(socket: &mut Locked<'_>) -> Option<i32> {
    socket.work.as_mut()?.held_end.take()
}
