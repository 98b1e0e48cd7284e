//! Accepts, one at a time, as long as the backlog has connections.

use super::{Poll, READABLE};
use crate::accepted::Accepted;
use crate::core::locked::Locked;
use crate::sys;

impl Poll {
    pub(super) fn accept_one(&self, socket: &mut Locked<'_>) {
        if !socket.has(READABLE) {
            return;
        }
        let Some(place) = socket.place() else {
            return socket.clear(READABLE);
        };
        match sys::accept(socket.open_handle()) {
            Ok(handle) => {
                let accepted = Accepted {
                    handle,
                    peer: None,
                    place: Some(place),
                };
                socket.accepted(accepted);
            }
            Err(code) if sys::would_block(code) => {
                place.give_up();
                socket.clear(READABLE);
                // There was a free slot and a descriptor: edges count again from now on.
                socket.accept_works();
            }
            Err(code) => {
                place.give_up();
                if !socket.accept_failed(code) {
                    socket.clear(READABLE);
                }
            }
        }
    }
}
