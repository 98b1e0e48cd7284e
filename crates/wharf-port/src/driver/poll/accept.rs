//! Accepts, as long as the backlog has connections and the batch has space.

use super::{Poll, READABLE};
use crate::accepted::Accepted;
use crate::core::locked::Locked;
use crate::core::slot::Receiving;
use crate::sys;

impl Poll {
    pub(super) fn accept_some(&self, socket: &mut Locked<'_>) {
        while socket.receiving() == Some(Receiving::Accept)
            && socket.has(READABLE)
            && socket.may_take_of_listener()
        {
            let Some(place) = socket.place() else {
                socket.clear(READABLE);
                return;
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
}
