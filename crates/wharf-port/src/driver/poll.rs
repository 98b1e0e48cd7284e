//! Readiness: epoll on Linux, kqueue and its like elsewhere.
//!
//! Each socket is registered once, edge-triggered, when its first operation needs it; operations
//! cost no further registration calls. Reads happen when a waiter has the socket's turn, into a
//! buffer that is taken only once there is something to read. Writes are tried at once and go on
//! when the poller says so.
//!
//! One-shot registrations, two `epoll_ctl` per operation, were rejected: where io_uring is
//! forbidden, in most containers, this driver *is* the product. So was one thread that polls for
//! all: epoll wakes one of several waiting threads for each edge, last come first served, which is
//! the completion port's own order.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use crate::core::local::Local;
use crate::core::options::Options;
use crate::core::slot::{Receiving, SlotId, SocketState, flag};
use crate::core::{Core, Out};
use crate::error::{Error, Operation};
use crate::packet::End;
use crate::sys;

use super::reading::{self, READABLE};
use super::{Driver, Unavailable};
use queue::{Interest, Poller};

mod accept;
mod completion;
// With `--cfg wharf_polling` the contract suite meets here what other systems run on.
#[cfg(all(target_os = "linux", not(wharf_polling)))]
#[path = "poll/queue/epoll.rs"]
mod queue;
#[cfg(any(not(target_os = "linux"), wharf_polling))]
#[path = "poll/queue/polling.rs"]
mod queue;

/// The last write filled the socket's buffer.
const WRITE_BLOCKED: u32 = 2 << flag::DRIVER_SHIFT;
/// The peer has sent FIN.
const PEER_ENDED: u32 = 4 << flag::DRIVER_SHIFT;
/// The connection is broken; the socket's error says how.
const BROKEN: u32 = 8 << flag::DRIVER_SHIFT;
/// What says that more may stand behind a short read: of data and a FIN that came together there is
/// one event, and so there is of data with an urgent byte in it, before which a read stops. Where
/// the poller does not tell of these, it may always be so.
const MORE_MAY_FOLLOW: u32 = if Poller::TELLS_LEAVING {
    PEER_ENDED | BROKEN | URGENT | STOPS_SHORT
} else {
    READABLE
};
/// Registered for the peer's leaving only.
const REGISTERED_WATCH: u32 = 16 << flag::DRIVER_SHIFT;
/// Registered for everything.
const REGISTERED_ALL: u32 = 32 << flag::DRIVER_SHIFT;
/// An event told of an urgent byte that nobody has read past since.
const URGENT: u32 = 64 << flag::DRIVER_SHIFT;
/// Reads of this socket may stop anywhere, not only where it is empty.
const STOPS_SHORT: u32 = 128 << flag::DRIVER_SHIFT;

/// The socket came from the caller, who may have another descriptor of it.
const FOREIGN: u32 = 256 << flag::DRIVER_SHIFT;

/// Bytes that go out at a time: the slot is locked meanwhile, and a peer that reads as fast as this
/// side sends lets a call go on for as long as there are bytes.
const SEND_BYTES_MAX: usize = 1 << 20;
/// Slices of the send queue that one call takes.
const SLICES_MAX: usize = 16;

/// The readiness driver.
#[derive(Debug)]
pub(crate) struct Poll {
    poller: Poller,
}

impl Poll {
    pub(crate) fn new(_options: &Options) -> Result<Self, Unavailable> {
        let poller = Poller::new().map_err(|code| {
            (
                "the system gives no poller: raise its limit of files",
                Some(code),
            )
        })?;
        Ok(Poll { poller })
    }

    /// Registers the socket for what its operation needs; answers whether a call was made, whose
    /// first event tells how the socket stands.
    fn register(
        &self,
        id: SlotId,
        state: &mut SocketState,
        interest: Interest,
    ) -> Result<bool, i32> {
        let handle = state.open_handle();
        match interest {
            _ if state.has(REGISTERED_ALL) => return Ok(false),
            Interest::Watch if state.has(REGISTERED_WATCH) => return Ok(false),
            Interest::All if state.has(REGISTERED_WATCH) => {
                self.poller.change(handle, id, interest)?;
            }
            Interest::Watch | Interest::All => self.poller.add(handle, id, interest)?,
        }
        if !state.has(flag::LISTENER) && Poller::stops_short(state.open_handle()) {
            state.set(STOPS_SHORT);
        }
        state.set(match interest {
            Interest::Watch => REGISTERED_WATCH,
            Interest::All => REGISTERED_ALL,
        });
        Ok(true)
    }

    /// Tries to send what an event will tell to be possible: nobody may wait for that.
    fn try_again(core: &Arc<Core>, id: SlotId, state: &mut SocketState) {
        let work = state.work.as_ref();
        if work.is_some_and(|work| !work.sends.is_empty()) {
            let out = &mut Out::queue();
            state.clear(WRITE_BLOCKED);
            core.go_on_sending(id, state, out);
            core.settle(id, state, out);
        }
    }

    fn start_connect(
        &self,
        core: &Arc<Core>,
        id: SlotId,
        state: &mut SocketState,
        out: &mut Out<'_>,
    ) {
        let work = state.work.as_ref();
        let address = work.and_then(|work| work.connect_to.as_ref());
        let address = address.expect("a connect has its address");
        let tried = sys::connect(state.open_handle(), address);
        if address.is_unix() && !tried.is_err_and(sys::in_progress) {
            return core.connect_tried(id, state, tried, out);
        }
        let result = match tried {
            Err(code) if sys::in_progress(code) => match self.register(id, state, Interest::All) {
                Ok(_) => return,
                Err(code) => Err(code),
            },
            result => result,
        };
        core.connected(id, state, result, out);
    }

    /// Stops sending although there is room. The poller tells of that room anew, behind what else
    /// has happened meanwhile.
    fn send_later(&self, core: &Arc<Core>, id: SlotId, state: &mut SocketState, out: &mut Out<'_>) {
        state.set(WRITE_BLOCKED);
        let told = match self.register(id, state, Interest::All) {
            Ok(false) => self.poller.change(state.open_handle(), id, Interest::All),
            registered => registered.map(|_| ()),
        };
        if let Err(code) = told {
            core.send_failed(id, state, code, out);
        }
    }

    fn tell_leave(&self, core: &Arc<Core>, id: SlotId, state: &mut SocketState, out: &mut Out<'_>) {
        let broken = state.has(BROKEN);
        let code = broken.then(|| sys::take_error(state.open_handle()));
        if let Some(code) = code.flatten() {
            let error = Error::from_os(Operation::Watch, code);
            core.receive_ended(id, state, End::Failed(error), out);
        } else if state.has(PEER_ENDED | BROKEN) {
            core.receive_ended(id, state, End::Finished, out);
        }
    }
}

fn queued_bytes(state: &SocketState) -> usize {
    state.work.as_ref().map_or(0, |work| work.queued_bytes)
}

impl Driver for Poll {
    fn concurrent(&self) -> bool {
        Poller::CONCURRENT
    }

    fn associate(&self, _id: SlotId, state: &mut SocketState, accepted: bool) -> Result<(), i32> {
        // On Linux what this driver accepted does not block already (accept4).
        if accepted && cfg!(target_os = "linux") {
            return Ok(());
        }
        if !accepted && !state.has(flag::CONNECTING | flag::LISTENER) {
            state.set(FOREIGN);
        }
        sys::set_nonblocking(state.open_handle(), true)
    }

    fn arm(&self, core: &Arc<Core>, id: SlotId, state: &mut SocketState, out: &mut Out<'_>) {
        let interest = match state.receiving {
            Receiving::Nothing => return,
            Receiving::Connect => return self.start_connect(core, id, state, out),
            Receiving::Watch => Interest::Watch,
            Receiving::Accept | Receiving::Stream | Receiving::Into => Interest::All,
        };
        match self.register(id, state, interest) {
            Ok(_) if state.receiving == Receiving::Accept => {
                // Connections may wait of which an edge has told before a pause.
                state.set(READABLE);
                core.enqueue(id, state);
            }
            Ok(true) => {}
            Ok(false) => {
                // Its event may have come when it was not watched yet.
                self.look_for_leaving(core, id, state, out);
                if self.has_more(state) {
                    core.enqueue(id, state);
                }
            }
            Err(code) => core.receive_stopped(id, state, Some(code), out),
        }
    }

    fn send_at_once(
        &self,
        id: SlotId,
        state: &mut SocketState,
        bytes: &[u8],
    ) -> Option<Result<usize, i32>> {
        if state.has(WRITE_BLOCKED) {
            return Some(Ok(0));
        }
        let bytes = &bytes[..bytes.len().min(SEND_BYTES_MAX)];
        Some(match sys::send_one(state.open_handle(), bytes) {
            Err(code) if sys::interrupted(code) => Ok(0),
            Err(code) if sys::would_block(code) => {
                state.set(WRITE_BLOCKED);
                self.register(id, state, Interest::All).map(|_| 0)
            }
            result => result,
        })
    }

    fn transmit(&self, core: &Arc<Core>, id: SlotId, state: &mut SocketState, out: &mut Out<'_>) {
        let mut left = SEND_BYTES_MAX;
        while !state.has(WRITE_BLOCKED) && core.has_bytes_to_send(id, state, out) {
            if left == 0 {
                return self.send_later(core, id, state, out);
            }
            let work = state.work.as_ref().expect("there are bytes to send");
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = work.unsent(&mut slices, left);
            let result = sys::send(state.open_handle(), &slices[..count]);
            match result {
                Ok(count) => {
                    left -= count;
                    core.sent(id, state, count, out);
                }
                Err(code) if sys::interrupted(code) => {}
                Err(code) if sys::would_block(code) => {
                    state.set(WRITE_BLOCKED);
                    if let Err(code) = self.register(id, state, Interest::All) {
                        core.send_failed(id, state, code, out);
                    }
                }
                Err(code) => core.send_failed(id, state, code, out),
            }
        }
    }

    fn make_room(&self, core: &Arc<Core>, id: SlotId) {
        if let Some(mut state) = core.slots.lock(id) {
            Self::try_again(core, id, &mut state);
        }
    }

    fn flush_at_end(&self, core: &Arc<Core>) {
        for index in 0..core.slots.used() {
            // Part after part, for as long as the system takes whole ones.
            while let Some((id, mut state)) = core.slots.lock_index(index) {
                let before = queued_bytes(&state);
                Self::try_again(core, id, &mut state);
                let sent = before - queued_bytes(&state);
                if sent < SEND_BYTES_MAX {
                    break;
                }
            }
        }
    }

    fn cancel_receive(&self, _core: &Core, _id: SlotId, _state: &mut SocketState) {
        debug_assert!(false, "nothing is ever with the system");
    }

    fn cancel_send(&self, _id: SlotId, _state: &mut SocketState) {
        debug_assert!(false, "nothing is ever with the system");
    }

    fn hang_up(&self, _id: SlotId, _state: &mut SocketState) {
        debug_assert!(false, "nothing is ever with the system");
    }

    fn release(&self, _id: SlotId, state: &mut SocketState) {
        let Some(handle) = state.handle.take() else {
            return;
        };
        self.poller
            .forget(&handle, state.has(flag::SHARED_LISTENER | FOREIGN));
        if state.has(flag::CLOSE_RESET) {
            sys::close_with_reset(handle);
        } else if state.has(flag::LISTENER | flag::CONNECTING) {
            drop(handle);
        } else {
            sys::close_in_order(handle);
        }
    }

    fn advance(&self, core: &Arc<Core>, id: SlotId, state: &mut SocketState, out: &mut Out<'_>) {
        if state.has(flag::CLOSING) {
            return;
        }
        match state.receiving {
            Receiving::Nothing | Receiving::Connect => {}
            Receiving::Accept => self.accept_some(core, id, state, out),
            Receiving::Stream => reading::stream(core, id, state, MORE_MAY_FOLLOW, out),
            Receiving::Into => reading::into(core, id, state, MORE_MAY_FOLLOW, out),
            Receiving::Watch => self.tell_leave(core, id, state, out),
        }
        if !state.has(READABLE) {
            // It was read past the urgent byte; of a new one tells a new event.
            state.clear(URGENT);
        }
    }

    fn has_more(&self, state: &SocketState) -> bool {
        match state.receiving {
            Receiving::Nothing | Receiving::Connect => false,
            Receiving::Watch => state.has(PEER_ENDED | BROKEN),
            Receiving::Accept => state.has(READABLE),
            Receiving::Into | Receiving::Stream => reading::has_more(state),
        }
    }

    fn poll(
        &self,
        core: &Arc<Core>,
        at_most: Option<Duration>,
        local: &mut Local,
        wakes: &mut u32,
    ) -> Result<(), i32> {
        let mut shared_out = !local.packets.is_empty();
        *wakes += self
            .poller
            .wait(at_most, local.events_max(), |left, id, seen| {
                if !std::mem::replace(&mut shared_out, true) {
                    local.limit(core.ready.share_inside(left));
                }
                self.note(core, id, seen, local);
            })?;
        Ok(())
    }

    fn wake(&self, threads: u32) {
        self.poller.wake(threads);
    }

    fn end(&self, _core: &Arc<Core>) -> u64 {
        0 // Nothing is ever with the system, so every socket was closed by its abort.
    }
}

#[cfg(test)]
mod tests;
