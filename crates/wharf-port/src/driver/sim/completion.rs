//! Reports: what the port learns of its requests, and in which of its states.
//!
//! The counterpart of a completion queue's reader. Each report is matched with its request and
//! with the socket's flags; one that does not match is a bug of the core and ends the test.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::request::{Outcome, Side};
use super::socket::SocketId;
use super::{Sim, code};
use crate::core::slot::{Receiving, SlotId, SocketState, flag};
use crate::core::{Core, Out};

impl Sim {
    pub(super) fn report(
        &self,
        core: &Arc<Core>,
        (socket, side): (SocketId, Side),
        outcome: Outcome,
        out: &mut Out<'_>,
    ) {
        let id = self.shared.with(|world| world.slot_of(socket));
        let id = id.expect("a socket with a request is associated");
        let Some(mut guard) = core.slots.lock(id) else {
            panic!("driver's contract 2: the slot was freed before {outcome:?} was reported");
        };
        let state = &mut *guard;
        let held = match side {
            Side::Reading => flag::ARMED,
            Side::Writing => flag::SENDING,
        };
        assert!(
            state.has(held),
            "driver's contract 1: the socket does not know of {outcome:?}"
        );
        self.shared.with(|world| {
            let socket = world.sockets.at_mut(socket).expect("it has a slot");
            let request = socket.request_mut(side);
            request.as_ref().expect("it was asked for").check(state);
            if outcome.is_last() {
                *request = None;
                world.requests -= 1;
            }
        });
        let accepted = matches!(outcome, Outcome::Accepted(_));
        tell(core, id, state, outcome, out);
        let goes_on = state.receiving == Receiving::Accept && !state.has(flag::CLOSING);
        if accepted && goes_on && core.has_many_untaken_accepts(state) {
            self.shared
                .with(|world| Self::cancel_side(world, state.open_handle(), Side::Reading));
        }
    }
}

fn tell(
    core: &Arc<Core>,
    id: SlotId,
    state: &mut SocketState,
    outcome: Outcome,
    out: &mut Out<'_>,
) {
    match outcome {
        Outcome::Accepted(accepted) => {
            if !state.has(flag::CLOSING) {
                core.accepted(id, state, *accepted, out);
            }
        }
        Outcome::AcceptEnded(code) => accept_ended(core, id, state, code, out),
        Outcome::Connected(result) => core.connected(id, state, result, out),
        Outcome::Received(buffer, count) => {
            state.clear(flag::ARMED);
            core.received(id, state, (buffer, count), out);
            go_on(core, id, state, out);
        }
        Outcome::NoBuffer => no_buffer(core, id, state, out),
        Outcome::ReceivedInto(bytes) => {
            // What was to be cancelled has succeeded; the cancel is over with it.
            state.clear(flag::ARMED | flag::CANCEL_RECEIVE);
            let work = state.work.as_mut().expect("checked");
            let into = work.intos.front_mut().expect("checked");
            into.buffer[..bytes.len()].copy_from_slice(&bytes);
            core.received_into(id, state, bytes.len(), out);
            go_on(core, id, state, out);
        }
        Outcome::Stopped(code) => {
            if state.receiving == Receiving::Stream {
                core.slots.return_lease(id, core.options.leases_per_socket);
            }
            core.receive_stopped(id, state, code, out);
        }
        Outcome::Sent(result) => core.send_stopped(id, state, result, out),
    }
}

/// After a request that left nothing to tell: the next one, unless the end was asked for.
fn go_on(core: &Arc<Core>, id: SlotId, state: &mut SocketState, out: &mut Out<'_>) {
    if state.has(flag::CLOSING | flag::CANCEL_RECEIVE) {
        core.receive_stopped(id, state, Some(code::CANCELLED), out);
    } else {
        core.go_on_receiving(id, state, out);
    }
}

fn accept_ended(
    core: &Arc<Core>,
    id: SlotId,
    state: &mut SocketState,
    code: Option<i32>,
    out: &mut Out<'_>,
) {
    state.clear(flag::ARMED);
    core.counters.accepts_posted.fetch_sub(1, Ordering::Relaxed);
    if state.has(flag::CLOSING | flag::CANCEL_RECEIVE) {
        return core.receive_stopped(id, state, Some(code::CANCELLED), out);
    }
    match code {
        // For want of a place: asking again finds one, or waits for it.
        None | Some(code::CANCELLED) => {}
        Some(code) => {
            if !core.accept_failed(id, state, code, out) {
                return;
            }
        }
    }
    core.go_on_receiving(id, state, out);
}

/// Data came and the pool had no buffer: the stream waits for one, or tries again.
fn no_buffer(core: &Arc<Core>, id: SlotId, state: &mut SocketState, out: &mut Out<'_>) {
    state.clear(flag::ARMED);
    core.slots.return_lease(id, core.options.leases_per_socket);
    if state.has(flag::CLOSING | flag::CANCEL_RECEIVE) {
        return go_on(core, id, state, out);
    }
    match core.buffer_or_wait(id) {
        Some(buffer) => {
            core.buffer_returned(buffer);
            core.go_on_receiving(id, state, out);
        }
        None => state.set(flag::PAUSED_POOL),
    }
}
