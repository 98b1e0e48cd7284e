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

use std::sync::Arc;
use std::sync::atomic::Ordering;

use io_uring::cqueue::{more, sock_nonempty};

use super::completion::Outcome;
use super::request::{Kind, Name};
use super::{CUT, DATA_AT_HAND, LEASE_RESERVED, MANY, PEER_ENDED, TALKS, Uring, request};
use crate::core::pool::PoolBuffer;
use crate::core::slot::{Receiving, SlotId, SocketState, flag};
use crate::core::work::Held;
use crate::core::{Core, Out};
use crate::lock;

impl Uring {
    /// Asks for what a stream receives, once all that is held has been told.
    pub(super) fn arm_stream(
        &self,
        core: &Arc<Core>,
        id: SlotId,
        state: &mut SocketState,
        out: &mut Out<'_>,
    ) {
        state.clear(flag::PAUSED_LEASES);
        // The lease of the coming data is counted now, which makes the bound exact.
        while core.reserve_lease(id, state) {
            let Some(mut held) = take_held(state) else {
                return self.ask_for_stream(core, id, state, out);
            };
            if held.read > 0 {
                // A receive into a caller's buffer took a part of it.
                let bytes = core.pool.bytes_of_mut(&mut held.buffer);
                bytes.copy_within(held.read..held.count, 0);
            }
            let unread = held.count - held.read;
            core.received(id, state, (held.buffer, unread), out);
        }
    }

    /// Nothing is held any more, and a lease is reserved: an end that waited behind the data is
    /// told, or the kernel is asked for more.
    fn ask_for_stream(
        &self,
        core: &Arc<Core>,
        id: SlotId,
        state: &mut SocketState,
        out: &mut Out<'_>,
    ) {
        if let Some(code) = take_held_end(state) {
            core.slots.return_lease(id, core.options.leases_per_socket);
            return core.receive_stopped(id, state, Some(code), out);
        }
        self.buffers_wanted.store(true, Ordering::Relaxed);
        let at_hand = state.has(DATA_AT_HAND);
        state.clear(DATA_AT_HAND);
        state.set(LEASE_RESERVED);
        let bytes = core.options.pool.buffer_bytes;
        // What a stream holds beyond its leases is taken from the others: not where buffers are
        // scarce, and not where each message would be beyond them.
        let many = self.caps_streams
            && state.has(TALKS)
            && !state.has(PEER_ENDED)
            && core.options.leases_per_socket > 1
            && !core.pool.is_scarce();
        let entry = if many {
            state.set(MANY);
            self.guard(id, state);
            let free = core.slots.leases_free(id, core.options.leases_per_socket);
            let bytes_max = bytes.saturating_mul(1 + free);
            request::receive_many(state.open_handle(), bytes_max, at_hand)
        } else {
            request::receive(state.open_handle(), bytes, at_hand)
        };
        self.ask_reading(Kind::Stream, id, state, entry);
    }

    /// Looks out for the peer's end, as long as there is none.
    fn guard(&self, id: SlotId, state: &mut SocketState) {
        if !state.has(flag::GUARDED) {
            state.set(flag::GUARDED);
            let entry = request::wait(state.open_handle(), libc::POLLRDHUP);
            self.ask(Kind::Guard, id, request::aimed(state.open_handle(), entry));
        }
    }

    /// The peer has ended: a receive that goes on might not hear of it, the next one does.
    pub(super) fn guard_completed(
        &self,
        core: &Arc<Core>,
        id: SlotId,
        state: &mut SocketState,
        outcome: &Outcome,
        out: &mut Out<'_>,
    ) {
        state.clear(flag::GUARDED);
        if state.has(flag::CLOSING) {
            return core.settle(id, state, out);
        }
        if outcome.result.is_err_and(crate::sys::is_cancelled) {
            // Nobody asked for this end: the thread that had submitted it is gone.
            return self.guard(id, state);
        }
        state.set(PEER_ENDED);
        if state.has(flag::ARMED) && state.has(MANY) {
            self.cut(id, state);
        }
    }

    /// Ends the stream's request, once.
    fn cut(&self, id: SlotId, state: &mut SocketState) {
        if !state.has(CUT) {
            state.set(CUT);
            self.ring.push(request::cancel(Name::of(Kind::Stream, id)));
        }
    }

    /// Copies what a stream has left into the callers' buffers, before the kernel is asked.
    pub(super) fn fill_from_held(
        &self,
        core: &Arc<Core>,
        id: SlotId,
        state: &mut SocketState,
        out: &mut Out<'_>,
    ) {
        while state.receiving == Receiving::Into && !state.has(flag::ARMED) {
            let Some(work) = state.work.as_mut().filter(|work| !work.held.is_empty()) else {
                return;
            };
            let into = work.intos.front_mut();
            let into = into.expect("a receive into a buffer is queued");
            let held = work.held.front_mut().expect("looked at above");
            let unread = &core.pool.bytes_of(&held.buffer)[held.read..held.count];
            let count = unread.len().min(into.buffer.len());
            into.buffer[..count].copy_from_slice(&unread[..count]);
            held.read += count;
            if held.read == held.count {
                let held = work.held.pop_front().expect("looked at above");
                core.buffer_returned(held.buffer);
            }
            core.received_into(id, state, count, out);
        }
    }

    pub(super) fn stream_completed(
        &self,
        core: &Arc<Core>,
        id: SlotId,
        state: &mut SocketState,
        mut outcome: Outcome,
        out: &mut Out<'_>,
    ) {
        let over = !more(outcome.flags);
        if over {
            state.clear(flag::ARMED | CUT | MANY);
            if sock_nonempty(outcome.flags) {
                state.set(DATA_AT_HAND);
            }
        }
        let code = match (outcome.result, outcome.buffer.take()) {
            (Ok(count), Some(buffer)) if count > 0 => {
                state.set(TALKS);
                self.bring(core, id, state, (buffer, count as usize), out);
                if over {
                    self.go_on(core, id, state, out);
                }
                return;
            }
            (result, unused) => {
                if let Some(buffer) = unused {
                    core.buffer_returned(buffer);
                }
                result.err()
            }
        };
        if !over {
            return; // The kernel never does that; the request goes on.
        }
        if state.has(LEASE_RESERVED) {
            state.clear(LEASE_RESERVED);
            core.slots.return_lease(id, core.options.leases_per_socket);
        }
        match code {
            Some(libc::ENOBUFS) if !state.has(flag::CLOSING | flag::CANCEL_RECEIVE) => {
                self.find_buffer(core, id, state, out);
            }
            Some(libc::ENOBUFS | libc::EINTR | libc::EAGAIN) => self.go_on(core, id, state, out),
            code => self.stream_stopped(core, id, state, code, out),
        }
    }

    /// Tells of data within the bound of leases, and holds what is beyond it.
    fn bring(
        &self,
        core: &Arc<Core>,
        id: SlotId,
        state: &mut SocketState,
        (buffer, count): (PoolBuffer, usize),
        out: &mut Out<'_>,
    ) {
        if state.has(flag::CLOSING) {
            return core.buffer_returned(buffer); // The caller has closed: these bytes are nobody's.
        }
        let leased = state.has(LEASE_RESERVED) || !has_held(state) && core.reserve_lease(id, state);
        state.clear(LEASE_RESERVED);
        if leased {
            return core.received(id, state, (buffer, count), out);
        }
        hold(core, state, buffer, count);
        if state.has(flag::ARMED) {
            self.cut(id, state);
        }
    }

    /// The request ended without data. Its end is told behind what is held.
    fn stream_stopped(
        &self,
        core: &Arc<Core>,
        id: SlotId,
        state: &mut SocketState,
        code: Option<i32>,
        out: &mut Out<'_>,
    ) {
        let told_again = code.is_none_or(crate::sys::is_cancelled);
        if !has_held(state) || state.has(flag::CLOSING) {
            core.receive_stopped(id, state, code, out);
        } else if told_again {
            // Whoever asks after the data learns of the end again.
            self.go_on(core, id, state, out);
        } else {
            let work = core.work(state);
            work.held_end = code;
            self.go_on(core, id, state, out);
        }
    }

    /// Data came when the kernel had no buffer. One more of the pool, or a place in the line.
    fn find_buffer(
        &self,
        core: &Arc<Core>,
        id: SlotId,
        state: &mut SocketState,
        out: &mut Out<'_>,
    ) {
        if !lock(&self.buffers).is_open() {
            // Not even the ring of buffers could be made.
            core.pool.wait(id, &core.slots);
            state.set(flag::PAUSED_POOL);
            return core.ask_for_memory_again();
        }
        let Some(buffer) = core.buffer_or_wait(id) else {
            state.set(flag::PAUSED_POOL);
            return;
        };
        let left_over = lock(&self.buffers).provide(buffer);
        if let Some(buffer) = left_over {
            core.buffer_returned(buffer);
        }
        state.set(DATA_AT_HAND);
        core.go_on_receiving(id, state, out);
    }
}

/// Keeps data beyond the bound of leases. Where buffers run short, a few bytes join those that came
/// before instead of holding one of their own.
fn hold(core: &Core, state: &mut SocketState, buffer: PoolBuffer, count: usize) {
    let held = &mut core.work(state).held;
    let last = held
        .back_mut()
        .filter(|last| core.pool.is_scarce() && last.count + count <= core.pool.buffer_bytes());
    let Some(last) = last else {
        let read = 0;
        return held.push_back(Held {
            buffer,
            count,
            read,
        });
    };
    let space = core.pool.bytes_of_mut(&mut last.buffer);
    space[last.count..last.count + count].copy_from_slice(&core.pool.bytes_of(&buffer)[..count]);
    last.count += count;
    core.buffer_returned(buffer);
}

fn has_held(state: &SocketState) -> bool {
    state
        .work
        .as_ref()
        .is_some_and(|work| !work.held.is_empty())
}

fn take_held(state: &mut SocketState) -> Option<Held> {
    state.work.as_mut()?.held.pop_front()
}

/// The end that waited behind what was held, once that is told.
pub(super) fn take_held_end(state: &mut SocketState) -> Option<i32> {
    state.work.as_mut()?.held_end.take()
}
