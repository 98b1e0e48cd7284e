//! Completions: which request a packet ends, and what that means for its socket.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use windows_sys::Win32::Networking::WinSock::WSAECONNRESET;
use windows_sys::Win32::System::IO::OVERLAPPED;

use super::queue::Dequeued;
use super::{COLLECTED_MAX, Iocp, request, watch};
use crate::core::locked::Locked;
use crate::core::slot::Receiving;
use crate::core::work::Work;
use crate::core::{Core, Out};
use crate::driver::Driver;
use crate::sys;

impl Iocp {
    /// Finds which request a packet ends, and reports it.
    pub(super) fn completed(
        &self,
        core: &Arc<Core>,
        index: u32,
        address: *mut OVERLAPPED,
        out: &mut Out<'_>,
    ) {
        let Some(mut socket) = core.lock_index(index, out.reborrow()) else {
            core.count_foreign();
            return;
        };
        let block = socket.block();
        let is_sending = |work: &Work| work.driver.is_sending(address);
        let (armed, sending) = (socket.is_armed(), socket.is_sending());
        let guarded = socket.is_guarded();
        if armed && block.overlapped.address() == address {
            self.outstanding.fetch_sub(1, Ordering::Relaxed);
            self.reading_side_ended(&mut socket);
        } else if guarded && block.overlapped.address() == address {
            self.outstanding.fetch_sub(1, Ordering::Relaxed);
            socket.end_guard();
            self.zero_receive_ended(&mut socket, block.overlapped.result().err());
        } else if sending && socket.queues().is_some_and(is_sending) {
            self.outstanding.fetch_sub(1, Ordering::Relaxed);
            self.writing_side_ended(&mut socket);
        } else if guarded && self.listeners.has_posted(socket.id, address) {
            self.outstanding.fetch_sub(1, Ordering::Relaxed);
            self.accept_ended_with(&mut socket, address);
        } else {
            core.count_foreign();
        }
    }

    fn reading_side_ended(&self, socket: &mut Locked<'_>) {
        let block = socket.block();
        let result = block.overlapped.result();
        match socket.receiving() {
            Some(Receiving::Connect) => {
                let result = match socket.handle() {
                    Some(handle) => result.and_then(|_| request::finish_connect(handle)),
                    None => Err(sys::CANCELLED),
                };
                socket.connected(result);
            }
            Some(Receiving::Watch) => {
                let code = match result {
                    Err(code) => Some(code),
                    Ok(_) if block.watched.events() & watch::ABORTED != 0 => Some(WSAECONNRESET),
                    Ok(_) => None,
                };
                socket.receive_stopped(code);
            }
            None | Some(Receiving::Accept | Receiving::Stream | Receiving::Into) => {
                debug_assert!(false, "the reading side has no other request");
            }
        }
    }

    fn writing_side_ended(&self, socket: &mut Locked<'_>) {
        let work = socket.queues_mut().expect("a send keeps its work");
        match work.driver.sending().result() {
            // After the handle is closed, every failure is due to our own close. Wine also reports
            // 6, "invalid handle", if the request had gone to the system again.
            Err(code) if sys::is_cancelled(code) || socket.has_hung_up() => {
                socket.send_cut_short();
            }
            result => socket.send_stopped(result),
        }
    }

    /// Processes what has ended, without waiting and without being a waiter. Returns how many
    /// requests that was.
    pub(super) fn collect(&self, core: &Arc<Core>) -> usize {
        let (mut ended, mut wakes) = (0, 0);
        // The next wait gets the same error and reports it.
        let _ = self
            .queue
            .dequeue(Some(Duration::ZERO), COLLECTED_MAX, |packet| match packet {
                Dequeued::Wake => wakes += 1,
                Dequeued::Request(index, address) => {
                    ended += 1;
                    self.completed(core, index, address, &mut Out::queue());
                }
            });
        // These wake-ups are for the waiters.
        self.wake(wakes);
        ended
    }
}
