//! Completions: whose request a packet ends, and what that means for its socket.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use windows_sys::Win32::Networking::WinSock::WSAECONNRESET;
use windows_sys::Win32::System::IO::OVERLAPPED;

use super::queue::Dequeued;
use super::{COLLECTED_MAX, Iocp, request, watch};
use crate::core::slot::{Receiving, SlotId, SocketState, flag};
use crate::core::work::Work;
use crate::core::{Core, Out};
use crate::driver::Driver;
use crate::sys;

impl Iocp {
    /// Finds whose request a packet ends, and reports it.
    pub(super) fn completed(
        &self,
        core: &Arc<Core>,
        index: u32,
        address: *mut OVERLAPPED,
        out: &mut Out<'_>,
    ) {
        let Some((id, mut guard)) = core.slots.lock_index(index) else {
            core.counters
                .foreign_packets
                .fetch_add(1, Ordering::Relaxed);
            return;
        };
        let state = &mut *guard;
        let block = &core.slots.slot(index).driver;
        let is_sending = |work: &Work| work.driver.is_sending(address);
        let (armed, sending) = (state.has(flag::ARMED), state.has(flag::SENDING));
        let guarded = state.has(flag::GUARDED);
        if armed && block.overlapped.address() == address {
            self.outstanding.fetch_sub(1, Ordering::Relaxed);
            self.reading_side_ended(core, id, state, out);
        } else if guarded && block.overlapped.address() == address {
            self.outstanding.fetch_sub(1, Ordering::Relaxed);
            state.clear(flag::GUARDED);
            self.looked(core, id, state, block.overlapped.result().err(), out);
        } else if sending && state.work.as_deref().is_some_and(is_sending) {
            self.outstanding.fetch_sub(1, Ordering::Relaxed);
            self.writing_side_ended(core, id, state, out);
        } else if guarded && self.listeners.has_posted(id, address) {
            self.outstanding.fetch_sub(1, Ordering::Relaxed);
            self.accept_ended_with(core, id, state, address);
        } else {
            core.counters
                .foreign_packets
                .fetch_add(1, Ordering::Relaxed);
        }
    }

    fn reading_side_ended(
        &self,
        core: &Arc<Core>,
        id: SlotId,
        state: &mut SocketState,
        out: &mut Out<'_>,
    ) {
        let block = &core.slots.slot(id.index).driver;
        let result = block.overlapped.result();
        match state.receiving {
            Receiving::Connect => {
                let result = match &state.handle {
                    Some(handle) => result.and_then(|_| request::finish_connect(handle)),
                    None => Err(sys::CANCELLED),
                };
                core.connected(id, state, result, out);
            }
            Receiving::Watch => {
                let code = match result {
                    Err(code) => Some(code),
                    Ok(_) if block.watched.events() & watch::ABORTED != 0 => Some(WSAECONNRESET),
                    Ok(_) => None,
                };
                core.receive_stopped(id, state, code, out);
            }
            Receiving::Nothing | Receiving::Accept | Receiving::Stream | Receiving::Into => {
                debug_assert!(false, "the reading side has no other request");
            }
        }
    }

    fn writing_side_ended(
        &self,
        core: &Arc<Core>,
        id: SlotId,
        state: &mut SocketState,
        out: &mut Out<'_>,
    ) {
        let work = state.work.as_mut().expect("a send keeps its work");
        match work.driver.sending().result() {
            // Whatever it fails with once the handle is closed is our own close: Wine says 6 as well,
            // "invalid handle", where the request had gone to the system again.
            Err(code) if sys::is_cancelled(code) || state.has(flag::HUNG_UP) => {
                core.send_cut_short(id, state, out);
            }
            result => core.send_stopped(id, state, result, out),
        }
    }

    /// Takes note of what has ended, without waiting and without being a waiter. Returns how much
    /// that was.
    pub(super) fn collect(&self, core: &Arc<Core>) -> usize {
        let (mut ended, mut wakes) = (0, 0);
        // The next wait meets the same error and reports it.
        let _ = self
            .queue
            .dequeue(Some(Duration::ZERO), COLLECTED_MAX, |packet| match packet {
                Dequeued::Wake => wakes += 1,
                Dequeued::Request(index, address) => {
                    ended += 1;
                    self.completed(core, index, address, &mut Out::queue());
                }
            });
        // They are for those who wait.
        self.wake(wakes);
        ended
    }
}
