//! The reading side of a stream: the zero-byte receive, and the watch for a peer that leaves.
//!
//! Both use the slot's one block, one at a time. The zero-byte receive belongs to the driver:
//! `GUARDED` is set while the system has it, whether or not the caller reads. A watch that finds it
//! there waits until it has ended, because only a close cancels a receive.

use super::{Iocp, READABLE, request, watch};
use crate::core::locked::Locked;
use crate::core::slot::Receiving;
use crate::error::ErrorKind;
use crate::sys;

impl Iocp {
    /// Waits until the socket has something to read, unless it is known to have, or a receive waits
    /// already.
    pub(super) fn arm_reading(&self, socket: &mut Locked<'_>) {
        if socket.has(READABLE) {
            return socket.enqueue();
        }
        if socket.is_guarded() {
            return;
        }
        let overlapped = socket.block().overlapped.lend();
        socket.begin_guard();
        // SAFETY: the block is the slot's, which stays until the packet is out.
        match unsafe { request::wait_readable(socket.open_handle(), overlapped) } {
            Ok(()) => self.request_made(),
            Err(code) => {
                socket.end_guard();
                socket.receive_stopped(Some(code));
            }
        }
    }

    /// Waits until the peer leaves. A cancelled receive may have left the block with the system.
    /// Then the watch first waits for that request, which also ends when the peer leaves.
    pub(super) fn arm_watch(&self, socket: &mut Locked<'_>) {
        if socket.is_guarded() {
            return;
        }
        let block = socket.block();
        let poll = block.watched.lend(watch::question(socket.open_handle()));
        let overlapped = block.overlapped.lend();
        socket.begin_reading();
        // SAFETY: both blocks are the slot's, which stays until the packet is out.
        match unsafe { watch::wait_leaving(socket.open_handle(), poll, overlapped) } {
            Ok(()) => self.request_made(),
            Err(code) => socket.receive_stopped(Some(code)),
        }
    }

    /// The zero-byte receive has ended: there is something to read, or it has failed. The caller
    /// may have cancelled its receive meanwhile, and may have requested something else.
    pub(super) fn zero_receive_ended(&self, socket: &mut Locked<'_>, failed: Option<i32>) {
        if socket.is_closing() {
            return socket.settle();
        }
        match failed {
            // We did not request that. The socket continues with what it does now.
            Some(code) if sys::is_cancelled(code) => {}
            Some(code) if socket.receiving().is_some() => {
                return socket.receive_stopped(Some(code));
            }
            Some(code) if sys::error_kind(code) == ErrorKind::Reset => socket.note_reset(),
            // A read reports what it is.
            None | Some(_) => socket.set(READABLE),
        }
        match socket.receiving() {
            Some(Receiving::Stream | Receiving::Into) if socket.has(READABLE) => {
                socket.join_ready();
            }
            Some(Receiving::Stream | Receiving::Into) => self.arm_reading(socket),
            Some(Receiving::Watch) => self.arm_watch(socket),
            None | Some(Receiving::Accept | Receiving::Connect) => {}
        }
    }
}
