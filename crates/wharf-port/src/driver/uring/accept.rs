//! Accepting: by one request for many connections far from every bound, one by one near it.
//!
//! What the kernel accepts by one request before anybody looks cannot be called back into the
//! backlog. A request that takes many up to the bound was rejected: 1,901 connections beyond it.

use super::request::Kind;
use super::{Uring, request};
use crate::core::locked::Locked;

/// With fewer free places than this a listener accepts one connection at a time: what the kernel
/// accepts by one request before anybody looks is bounded by the room for completions alone.
const PLACES_FOR_MANY: u32 = 8192;
/// The same where fewer connections than this may wait to be taken.
const UNTAKEN_FOR_MANY: usize = 512;

impl Uring {
    pub(super) fn arm_accept(&self, socket: &mut Locked<'_>) {
        if !self.tell_untold(socket) {
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

    /// Whether a listener may take what comes by one request: far from the port's bound, and while
    /// its connections are taken.
    pub(super) fn may_accept_many(&self, socket: &Locked<'_>) -> bool {
        let free = socket.core.places_left();
        let untaken = socket.untaken();
        let most = socket.core.options().operations_per_socket_max;
        free >= PLACES_FOR_MANY && most >= UNTAKEN_FOR_MANY && untaken <= most / 2
    }
}
