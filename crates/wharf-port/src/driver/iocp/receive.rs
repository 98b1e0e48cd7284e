//! The reading side of a stream: the receive of no bytes, and the watch for a peer that leaves.
//!
//! Both use the slot's one block, one at a time. The receive of no bytes is the driver's own:
//! `GUARDED` is set as long as the system has it, whether or not anybody reads. A watch that finds
//! it there waits behind it, because a receive is never cancelled but by a close.

use std::sync::Arc;

use super::{Iocp, READABLE, request, watch};
use crate::core::slot::{Receiving, SlotId, SocketState, flag};
use crate::core::{Core, Out};
use crate::error::ErrorKind;
use crate::sys;

impl Iocp {
    /// Waits until the socket has something to read, unless it is known to have, or something waits
    /// already.
    pub(super) fn arm_reading(
        &self,
        core: &Arc<Core>,
        id: SlotId,
        state: &mut SocketState,
        out: &mut Out<'_>,
    ) {
        if state.has(READABLE) {
            return core.enqueue(id, state);
        }
        if state.has(flag::GUARDED) {
            return;
        }
        let overlapped = core.slots.slot(id.index).driver.overlapped.lend();
        state.set(flag::GUARDED);
        // SAFETY: the block is the slot's, which stays until the packet is out.
        match unsafe { request::wait_readable(state.open_handle(), overlapped) } {
            Ok(()) => self.request_made(),
            Err(code) => {
                state.clear(flag::GUARDED);
                core.receive_stopped(id, state, Some(code), out);
            }
        }
    }

    /// Waits until the peer leaves. A receive that was cancelled may have left the block with the
    /// system; then this waits for that one first, which the peer's leaving ends as well.
    pub(super) fn arm_watch(
        &self,
        core: &Arc<Core>,
        id: SlotId,
        state: &mut SocketState,
        out: &mut Out<'_>,
    ) {
        if state.has(flag::GUARDED) {
            return;
        }
        let block = &core.slots.slot(id.index).driver;
        let poll = block.watched.lend(watch::question(state.open_handle()));
        let overlapped = block.overlapped.lend();
        state.set(flag::ARMED);
        // SAFETY: both blocks are the slot's, which stays until the packet is out.
        match unsafe { watch::wait_leaving(state.open_handle(), poll, overlapped) } {
            Ok(()) => self.request_made(),
            Err(code) => core.receive_stopped(id, state, Some(code), out),
        }
    }

    /// The receive of no bytes has ended: there is something to read, or it has failed. Whoever asked
    /// for it may have cancelled meanwhile, and something else may be asked.
    pub(super) fn looked(
        &self,
        core: &Arc<Core>,
        id: SlotId,
        state: &mut SocketState,
        failed: Option<i32>,
        out: &mut Out<'_>,
    ) {
        if state.has(flag::CLOSING) {
            return core.settle(id, state, out);
        }
        match failed {
            // Nobody here asked for that; what the socket does now, it goes on with.
            Some(code) if sys::is_cancelled(code) => {}
            Some(code) if state.receiving != Receiving::Nothing => {
                return core.receive_stopped(id, state, Some(code), out);
            }
            Some(code) if sys::error_kind(code) == ErrorKind::Reset => state.set(flag::WAS_RESET),
            // A read tells what it is.
            None | Some(_) => state.set(READABLE),
        }
        match state.receiving {
            Receiving::Stream | Receiving::Into if state.has(READABLE) => {
                self.readable(core, id, state, out);
            }
            Receiving::Stream | Receiving::Into => self.arm_reading(core, id, state, out),
            Receiving::Watch => self.arm_watch(core, id, state, out),
            Receiving::Nothing | Receiving::Accept | Receiving::Connect => {}
        }
    }

    /// The socket joins those that are ready, unless somebody has its turn.
    fn readable(&self, core: &Arc<Core>, id: SlotId, state: &mut SocketState, out: &mut Out<'_>) {
        match &mut out.0 {
            Some(local) if core.turn_is_free(state) && !state.has(flag::QUEUED) => {
                state.set(flag::QUEUED);
                local.ready.push_back(id.index);
            }
            Some(_) => {}
            None => core.enqueue(id, state),
        }
    }
}
