//! Accepting: by one request for many connections far from every bound, one by one near it.
//!
//! What the kernel accepts by one request before anybody looks cannot be called back into the
//! backlog. A request that takes many up to the bound was rejected: 1,901 connections beyond it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::request::Kind;
use super::{Uring, request};
use crate::core::slot::{SlotId, SocketState};
use crate::core::{Core, Out};

/// With fewer free places than this a listener accepts one connection at a time: what the kernel
/// accepts by one request before anybody looks is bounded by the room for completions alone.
const PLACES_FOR_MANY: u32 = 8192;
/// The same where fewer connections than this may wait to be taken.
const UNTAKEN_FOR_MANY: usize = 512;

impl Uring {
    pub(super) fn arm_accept(
        &self,
        core: &Arc<Core>,
        id: SlotId,
        state: &mut SocketState,
        out: &mut Out<'_>,
    ) {
        if !self.tell_untold(core, id, state, out) {
            return;
        }
        let Some(place) = core.place(id, state, out) else {
            return;
        };
        place.give_up();
        if let Some(direct) = &self.direct {
            return self.arm_burst(core, id, state, direct, out);
        }
        let many = self.may_accept_many(core, state);
        let entry = request::accept(state.open_handle(), many);
        core.counters.accepts_posted.fetch_add(1, Ordering::Relaxed);
        self.ask_reading(Kind::Accept, id, state, entry);
    }

    /// Whether a listener may take what comes by one request: far from the port's bound, and while
    /// its connections are taken.
    pub(super) fn may_accept_many(&self, core: &Core, state: &SocketState) -> bool {
        let free = self.sockets_max.saturating_sub(core.slots.live());
        let untaken = state.work.as_ref().map_or(0, |work| work.pending.len());
        let most = core.options.operations_per_socket_max;
        free >= PLACES_FOR_MANY && most >= UNTAKEN_FOR_MANY && untaken <= most / 2
    }
}
