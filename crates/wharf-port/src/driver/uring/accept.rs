//! Accepts. Far from every bound one request accepts many connections; near a bound each request
//! accepts one.
//!
//! A connection that the kernel has accepted cannot go back into the backlog, even if no thread has
//! looked at it. One request for many up to the bound was rejected: 1,901 connections came beyond
//! it.

use super::request::Kind;
use super::{Uring, request};
use crate::core::locked::Locked;

/// With fewer free slots than this, a listener accepts one connection at a time. A request for many
/// is bounded only by the space for completions.
const PLACES_FOR_MANY: u32 = 8192;
/// The same, if fewer unclaimed connections than this are allowed.
const UNCLAIMED_FOR_MANY: usize = 512;

impl Uring {
    pub(super) fn arm_accept(&self, socket: &mut Locked<'_>) {
        if !self.deliver_undelivered(socket) {
            return;
        }
        let Some(place) = socket.place() else {
            return;
        };
        place.give_up();
        if let Some(direct) = &self.direct {
            return self.arm_burst(socket, direct);
        }
        let many = self.may_accept_many(socket);
        let entry = request::accept(socket.open_handle(), many);
        socket.accept_begun_there();
        self.ask_reading(socket, Kind::Accept, entry);
    }

    /// Whether a listener may accept many connections by one request: if the port is far from its
    /// bound, and the caller keeps taking the connections.
    pub(super) fn may_accept_many(&self, socket: &Locked<'_>) -> bool {
        let free = socket.core.places_left();
        let pending = socket.packets_pending();
        let most = socket.core.options().operations_per_socket_max;
        free >= PLACES_FOR_MANY && most >= UNCLAIMED_FOR_MANY && pending <= most / 2
    }
}
