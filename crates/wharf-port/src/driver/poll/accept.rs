//! Accepting, as long as the backlog has connections and the batch has room.

use std::sync::Arc;

use super::{Poll, READABLE};
use crate::accepted::Accepted;
use crate::core::slot::{Receiving, SlotId, SocketState};
use crate::core::{Core, Out};
use crate::sys;

impl Poll {
    pub(super) fn accept_some(
        &self,
        core: &Arc<Core>,
        id: SlotId,
        state: &mut SocketState,
        out: &mut Out<'_>,
    ) {
        while state.receiving == Receiving::Accept
            && state.has(READABLE)
            && out.may_take_of_listener(core, id)
        {
            let Some(place) = core.place(id, state, out) else {
                state.clear(READABLE);
                return;
            };
            match sys::accept(state.open_handle()) {
                Ok(handle) => {
                    let accepted = Accepted {
                        handle,
                        peer: None,
                        place: Some(place),
                    };
                    core.accepted(id, state, accepted, out);
                }
                Err(code) if sys::would_block(code) => {
                    place.give_up();
                    state.clear(READABLE);
                    // Room and a descriptor were there: edges count again from here on.
                    core.accept_works(id, state, out);
                }
                Err(code) => {
                    place.give_up();
                    if !core.accept_failed(id, state, code, out) {
                        state.clear(READABLE);
                    }
                }
            }
        }
    }
}
