//! The reading side of a stream: the receive of no bytes, and the watch for a peer that leaves.
//!
//! Both use the slot's one block, one at a time. The receive of no bytes is the driver's own:
//! `GUARDED` is set as long as the system has it, whether or not anybody reads. A watch that finds
//! it there waits behind it, because a receive is never cancelled but by a close.

use super::{Iocp, READABLE, request, watch};
use crate::core::locked::Locked;
use crate::core::slot::{Receiving, flag};
use crate::error::ErrorKind;
use crate::sys;

impl Iocp {
    /// Waits until the socket has something to read, unless it is known to have, or something waits
    /// already.
    pub(super) fn arm_reading(&self, socket: &mut Locked<'_>) {
        if socket.has(READABLE) {
            return socket.enqueue();
        }
        if socket.has(flag::GUARDED) {
            return;
        }
        let overlapped = socket.block().overlapped.lend();
        socket.set(flag::GUARDED);
        // SAFETY: the block is the slot's, which stays until the packet is out.
        match unsafe { request::wait_readable(socket.open_handle(), overlapped) } {
            Ok(()) => self.request_made(),
            Err(code) => {
                socket.clear(flag::GUARDED);
                socket.receive_stopped(Some(code));
            }
        }
    }

    /// Waits until the peer leaves. A receive that was cancelled may have left the block with the
    /// system; then this waits for that one first, which the peer's leaving ends as well.
    pub(super) fn arm_watch(&self, socket: &mut Locked<'_>) {
        if socket.has(flag::GUARDED) {
            return;
        }
        let block = socket.block();
        let poll = block.watched.lend(watch::question(socket.open_handle()));
        let overlapped = block.overlapped.lend();
        socket.set(flag::ARMED);
        // SAFETY: both blocks are the slot's, which stays until the packet is out.
        match unsafe { watch::wait_leaving(socket.open_handle(), poll, overlapped) } {
            Ok(()) => self.request_made(),
            Err(code) => socket.receive_stopped(Some(code)),
        }
    }

    /// The receive of no bytes has ended: there is something to read, or it has failed. Whoever asked
    /// for it may have cancelled meanwhile, and something else may be asked.
    pub(super) fn looked(&self, socket: &mut Locked<'_>, failed: Option<i32>) {
        if socket.has(flag::CLOSING) {
            return socket.settle();
        }
        match failed {
            // Nobody here asked for that; what the socket does now, it goes on with.
            Some(code) if sys::is_cancelled(code) => {}
            Some(code) if socket.receiving != Receiving::Nothing => {
                return socket.receive_stopped(Some(code));
            }
            Some(code) if sys::error_kind(code) == ErrorKind::Reset => socket.set(flag::WAS_RESET),
            // A read tells what it is.
            None | Some(_) => socket.set(READABLE),
        }
        match socket.receiving {
            Receiving::Stream | Receiving::Into if socket.has(READABLE) => {
                self.readable(socket);
            }
            Receiving::Stream | Receiving::Into => self.arm_reading(socket),
            Receiving::Watch => self.arm_watch(socket),
            Receiving::Nothing | Receiving::Accept | Receiving::Connect => {}
        }
    }

    /// The socket joins those that are ready, unless somebody has its turn.
    fn readable(&self, socket: &mut Locked<'_>) {
        if socket.turn_is_free() && !socket.has(flag::QUEUED) {
            socket.join_ready();
        }
    }
}
