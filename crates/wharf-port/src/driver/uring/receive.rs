//! Streaming receives: one request for many messages, with an exact bound of leases.
//!
//! A multishot receive stays armed while its connection is active. That saves one request per
//! message: 5 to 10 % of the processor time of a small echo. Without a cap it takes everything that
//! arrives, and a fast peer once filled 64 MiB of buffers with it. So the kernel caps each request
//! at the bytes of the buffers that the stream may lend. A bulk stream makes the next request when
//! these buffers are full; a connection with small messages makes one for hundreds of messages.
//! Data beyond the bound of leases is held here, in order. The driver then ends the request, and
//! makes no other one before all held data has been delivered.
//!
//! The kernel does not look again after a message that emptied the socket. So a multishot receive
//! never reports a reset that arrives directly after a message and before that message was taken
//! (TCP on Linux 6.18; Unix sockets lose a FIN the same way). A second request, the guard, waits
//! for the peer's end meanwhile, and costs nothing per message. The first receive of a connection
//! is of one shot, so a connection with a single message needs no guard.
//!
//! An uncapped multishot receive was rejected, and so were leases beyond the bound. Kernels before
//! 6.17, which have no cap, get one shot at a time.

use std::sync::atomic::Ordering;

use io_uring::cqueue::{more, sock_nonempty};

use super::completion::Outcome;
use super::request::{Kind, Name};
use super::{CUT, DATA_AT_HAND, LEASE_RESERVED, MANY, PEER_ENDED, TALKS, Uring, request};
use crate::core::locked::Locked;
use crate::core::pool::PoolBuffer;
use crate::core::slot::Receiving;
use crate::core::work::Held;
use crate::lock;

impl Uring {
    /// Delivers what is held, then asks the kernel for what the stream receives next.
    pub(super) fn arm_stream(&self, socket: &mut Locked<'_>) {
        socket.end_pause();
        // The lease for the next data is counted now, which makes the bound exact.
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

    /// Nothing is held any more, and a lease is reserved. Reports the end that was waiting behind
    /// the data, or asks the kernel for more.
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
        // What a stream holds beyond its leases is missing for other streams. So there is no
        // multishot receive if buffers are scarce, and none if every message would be beyond the
        // leases.
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

    /// Waits for the peer's end, until there is one.
    fn guard(&self, socket: &mut Locked<'_>) {
        if !socket.is_guarded() {
            socket.begin_guard();
            let entry = request::wait(socket.open_handle(), libc::POLLRDHUP);
            self.ask(
                Kind::Guard,
                socket.id,
                request::aimed(socket.open_handle(), entry),
            );
        }
    }

    /// The peer has ended. A receive that continues might not report it, but the next one does.
    pub(super) fn guard_completed(&self, socket: &mut Locked<'_>, outcome: &Outcome) {
        socket.end_guard();
        if socket.is_closing() {
            return socket.settle();
        }
        if outcome.result.is_err_and(crate::sys::is_cancelled) {
            // No caller requested this end: the thread that submitted the request has ended.
            return self.guard(socket);
        }
        socket.set(PEER_ENDED);
        if socket.is_armed() && socket.has(MANY) {
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
        while socket.receiving() == Some(Receiving::Into) && !socket.is_armed() {
            let core = socket.core;
            let Some(work) = socket.queues_mut().filter(|work| !work.held.is_empty()) else {
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
            socket.end_reading();
            socket.clear(CUT | MANY);
            if sock_nonempty(outcome.flags) {
                socket.set(DATA_AT_HAND);
            }
        }
        let code = match (outcome.result, outcome.buffer.take()) {
            (Ok(count), Some(buffer)) if count > 0 => {
                socket.set(TALKS);
                self.deliver_or_hold(socket, (buffer, count as usize));
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
            return; // The kernel never does that. The request continues.
        }
        if socket.has(LEASE_RESERVED) {
            socket.clear(LEASE_RESERVED);
            socket.give_lease_back();
        }
        match code {
            Some(libc::ENOBUFS) if !socket.stops_reading() => {
                self.find_buffer(socket);
            }
            Some(libc::ENOBUFS | libc::EINTR | libc::EAGAIN) => self.go_on(socket),
            code => self.stream_stopped(socket, code),
        }
    }

    /// Delivers data within the bound of leases, and holds data beyond it.
    fn deliver_or_hold(&self, socket: &mut Locked<'_>, (buffer, count): (PoolBuffer, usize)) {
        if socket.is_closing() {
            return socket.core.buffer_returned(buffer); // No caller gets these bytes.
        }
        let leased = socket.has(LEASE_RESERVED) || !has_held(socket) && socket.reserve_lease();
        socket.clear(LEASE_RESERVED);
        if leased {
            return socket.received((buffer, count));
        }
        hold(socket, buffer, count);
        if socket.is_armed() {
            self.cut(socket);
        }
    }

    /// The request ended without data. Its end is reported after all held data.
    fn stream_stopped(&self, socket: &mut Locked<'_>, code: Option<i32>) {
        let reported_again = code.is_none_or(crate::sys::is_cancelled);
        if !has_held(socket) || socket.is_closing() {
            socket.receive_stopped(code);
        } else if reported_again {
            // The request that follows the held data reports this end again.
            self.go_on(socket);
        } else {
            let work = socket.work();
            work.held_end = code;
            self.go_on(socket);
        }
    }

    /// Data arrived when the kernel had no buffer. Gives it one more buffer of the pool, or lets
    /// the stream wait for one.
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

/// Holds data beyond the bound of leases. If buffers are scarce, a few bytes are appended to the
/// last held buffer and do not keep one of their own.
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
    socket.queues().is_some_and(|work| !work.held.is_empty())
}

fn take_held(socket: &mut Locked<'_>) -> Option<Held> {
    socket.queues_mut()?.held.pop_front()
}

/// Takes the end that was waiting behind the held data, once that data is delivered.
pub(super) fn take_held_end(socket: &mut Locked<'_>) -> Option<i32> {
    socket.queues_mut()?.held_end.take()
}
