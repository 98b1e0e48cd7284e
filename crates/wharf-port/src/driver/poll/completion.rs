//! Events: what the poller tells of a socket, where other drivers have completions.

use std::sync::Arc;

use super::queue::Seen;
use super::{BROKEN, PEER_ENDED, Poll, Poller, READABLE, URGENT, WRITE_BLOCKED};
use crate::core::local::Local;
use crate::core::slot::{Receiving, SlotId, SocketState, flag};
use crate::core::{Core, Out};
use crate::driver::Driver;
use crate::sys;

impl Poll {
    /// Takes note of one event; the socket joins those that are ready if that brings something.
    pub(super) fn note(&self, core: &Arc<Core>, id: SlotId, seen: Seen, local: &mut Local) {
        let Some(mut guard) = core.slots.lock(id) else {
            return;
        };
        let state = &mut *guard;
        if seen.readable && !state.has(flag::PAUSED_ACCEPT) {
            state.set(READABLE);
        }
        if seen.peer_ended {
            state.set(PEER_ENDED | READABLE);
        }
        if seen.broken {
            state.set(BROKEN | READABLE);
        }
        if seen.urgent {
            state.set(URGENT);
        }
        let mut out = Out(Some(local));
        self.look_for_leaving(core, id, state, &mut out);
        if seen.writable || seen.broken {
            state.clear(WRITE_BLOCKED);
            if state.receiving == Receiving::Connect {
                let result = sys::take_error(state.open_handle()).map_or(Ok(()), Err);
                // The kernel reports the rest of this event only once, so it is kept.
                core.connected(id, state, result, &mut out);
            } else if state
                .work
                .as_ref()
                .is_some_and(|work| !work.sends.is_empty())
            {
                core.go_on_sending(id, state, &mut out);
                core.settle(id, state, &mut out);
            }
        }
        // The slot may have been freed by what the event brought.
        if state.generation != id.generation
            || !self.has_more(state)
            || !core.turn_is_free(state)
            || state.has(flag::QUEUED)
        {
            return;
        }
        if local.ready.is_empty() && local.may_take(state, core.options.turn_packets_max) {
            // Its turn is now, with the socket locked and in the cache already.
            return core.take_turn_of(id, state, local);
        }
        state.set(flag::QUEUED);
        local.ready.push_back(id.index);
    }

    /// Looks whether the peer of a watched socket has left, where no event tells that.
    pub(super) fn look_for_leaving(
        &self,
        core: &Arc<Core>,
        id: SlotId,
        state: &mut SocketState,
        out: &mut Out<'_>,
    ) {
        if Poller::TELLS_LEAVING || state.receiving != Receiving::Watch {
            return;
        }
        match sys::peek(state.open_handle()) {
            Ok(0) => state.set(PEER_ENDED),
            Err(code) if !sys::would_block(code) => {
                core.receive_stopped(id, state, Some(code), out);
            }
            _ => {}
        }
    }
}
