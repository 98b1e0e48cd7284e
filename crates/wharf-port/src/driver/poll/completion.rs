//! Events: what the poller reports of a socket. Other drivers have completions in their place.

use std::sync::Arc;

use super::queue::Seen;
use super::{BROKEN, PEER_ENDED, Poll, Poller, READABLE, URGENT, WRITE_BLOCKED};
use crate::core::local::Local;
use crate::core::locked::Locked;
use crate::core::slot::{Receiving, SlotId};
use crate::core::{Core, Out};
use crate::driver::Driver;
use crate::sys;

impl Poll {
    /// Records one event. If the socket then has something to deliver, it takes its turn or joins
    /// the ready queue.
    pub(super) fn note(&self, core: &Arc<Core>, id: SlotId, seen: Seen, local: &mut Local) {
        let Some(mut socket) = core.lock(id, Out::batch(local)) else {
            return;
        };
        if seen.readable && !socket.is_accept_paused() {
            socket.set(READABLE);
        }
        if seen.peer_ended {
            socket.set(PEER_ENDED | READABLE);
        }
        if seen.broken {
            socket.set(BROKEN | READABLE);
        }
        if seen.urgent {
            socket.set(URGENT);
        }
        self.look_for_leaving(&mut socket);
        if seen.writable || seen.broken {
            socket.clear(WRITE_BLOCKED);
            if socket.receiving() == Some(Receiving::Connect) {
                let result = sys::take_error(socket.open_handle()).map_or(Ok(()), Err);
                // The kernel reports the rest of this event only once, so the flags are kept.
                socket.connected(result);
            } else if socket.has_sends() {
                socket.go_on_sending();
                socket.settle();
            }
        }
        // The event may have ended the socket, and its slot may be free.
        if !socket.is_gone() && self.has_more(&socket) {
            socket.became_ready();
        }
    }

    /// Checks whether the peer of a watched socket has left, on pollers that do not report it.
    pub(super) fn look_for_leaving(&self, socket: &mut Locked<'_>) {
        if Poller::REPORTS_LEAVING || socket.receiving() != Some(Receiving::Watch) {
            return;
        }
        match sys::peek(socket.open_handle()) {
            Ok(0) => socket.set(PEER_ENDED),
            Err(code) if !sys::would_block(code) => {
                socket.receive_stopped(Some(code));
            }
            _ => {}
        }
    }
}
