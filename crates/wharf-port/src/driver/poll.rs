//! Readiness: epoll on Linux, kqueue and similar pollers on other Unix systems.
//!
//! Each socket is registered once, edge-triggered, when its first operation needs it. Later
//! operations make no registration calls. The driver reads a socket when a waiter has its turn,
//! into a buffer that it takes only once there is something to read. It tries a write at once, and
//! continues when the poller reports that the socket is writable.
//!
//! One-shot registrations, with two `epoll_ctl` per operation, were rejected: where io_uring is
//! forbidden, as in most containers, this driver *is* the product. One thread that polls for all
//! was rejected too. For each edge epoll wakes one of the waiting threads, the last one that began
//! to wait. A completion port wakes threads in the same order.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use crate::core::local::Local;
use crate::core::locked::Locked;
use crate::core::options::Options;
use crate::core::send::PART_BYTES_MAX;
use crate::core::slot::{Own, Receiving};
use crate::core::{Core, Out};
use crate::error::{Error, Operation};
use crate::packet::End;
use crate::sys;

use super::reading;
use super::{Abilities, Direction, Driver, Sockets, Submit, Threads, Transmitted, Unavailable};
use queue::{Interest, Poller};

mod accept;
mod completion;
// With `--cfg wharf_polling` the contract suite tests on Linux what other systems run on.
#[cfg(all(target_os = "linux", not(wharf_polling)))]
#[path = "poll/queue/epoll.rs"]
mod queue;
#[cfg(any(not(target_os = "linux"), wharf_polling))]
#[path = "poll/queue/polling.rs"]
mod queue;

/// As far as is known, the next read would return something.
const READABLE: Own<Poll> = reading::readable();
/// The last write filled the socket's buffer.
const WRITE_BLOCKED: Own<Poll> = Own::bit(1);
/// The peer has sent FIN.
const PEER_ENDED: Own<Poll> = Own::bit(2);
/// The connection is broken. The socket's pending error says how.
const BROKEN: Own<Poll> = Own::bit(3);
/// The flags that say that more may follow a short read. If data and a FIN arrive together, there
/// is only one event for both. The same holds for data with an urgent byte in it, before which a
/// read stops. On a poller that does not report a FIN or an urgent byte, more may always follow.
const MORE_MAY_FOLLOW: Own<Poll> = if Poller::REPORTS_LEAVING {
    PEER_ENDED.or(BROKEN).or(URGENT).or(STOPS_SHORT)
} else {
    READABLE
};
/// Registered only for the peer's leaving.
const REGISTERED_WATCH: Own<Poll> = Own::bit(4);
/// Registered for everything.
const REGISTERED_ALL: Own<Poll> = Own::bit(5);
/// An event has reported an urgent byte, and no read has passed it yet.
const URGENT: Own<Poll> = Own::bit(6);
/// Reads of this socket may stop anywhere, not only where it is empty.
const STOPS_SHORT: Own<Poll> = Own::bit(7);

/// The socket came from the caller, who may have another descriptor of it.
const FOREIGN: Own<Poll> = Own::bit(8);

/// The most slices of the send queue that one call takes.
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
                "the system cannot create a poller: raise its limit on open files",
                Some(code),
            )
        })?;
        Ok(Poll { poller })
    }

    /// Registers the socket for what its operation needs. Returns whether it made a call. The first
    /// event after such a call reports the current state of the socket.
    fn register(&self, socket: &mut Locked<'_>, interest: Interest) -> Result<bool, i32> {
        let handle = socket.open_handle();
        match interest {
            _ if socket.has(REGISTERED_ALL) => return Ok(false),
            Interest::Watch if socket.has(REGISTERED_WATCH) => return Ok(false),
            Interest::All if socket.has(REGISTERED_WATCH) => {
                self.poller.change(handle, socket.id, interest)?;
            }
            Interest::Watch | Interest::All => self.poller.add(handle, socket.id, interest)?,
        }
        if !socket.is_listener() && Poller::stops_short(socket.open_handle()) {
            socket.set(STOPS_SHORT);
        }
        socket.set(match interest {
            Interest::Watch => REGISTERED_WATCH,
            Interest::All => REGISTERED_ALL,
        });
        Ok(true)
    }

    /// Tries to send although no event has reported space: there may be no waiter to take the
    /// event.
    fn try_again(socket: &mut Locked<'_>) {
        let work = socket.queues();
        if work.is_some_and(|work| !work.sends.is_empty()) {
            socket.clear(WRITE_BLOCKED);
            socket.go_on_sending();
            socket.settle();
        }
    }

    /// Sends for all sockets, part after part of each queue, as long as the system takes whole
    /// parts.
    fn try_all(core: &Arc<Core>) {
        for index in 0..core.places_used() {
            while let Some(mut socket) = core.lock_index(index, Out::queue()) {
                let before = queued_bytes(&socket);
                Self::try_again(&mut socket);
                let sent = before - queued_bytes(&socket);
                if sent < PART_BYTES_MAX {
                    break;
                }
            }
        }
    }

    fn start_connect(&self, socket: &mut Locked<'_>) {
        let work = socket.queues();
        let address = work.and_then(|work| work.connect_to.as_ref());
        let address = address.expect("a connect has its address");
        let tried = sys::connect(socket.open_handle(), address);
        if address.is_unix() && !tried.is_err_and(sys::in_progress) {
            return socket.connect_tried(tried);
        }
        let result = match tried {
            Err(code) if sys::in_progress(code) => match self.register(socket, Interest::All) {
                Ok(_) => return,
                Err(code) => Err(code),
            },
            result => result,
        };
        socket.connected(result);
    }

    /// Waits for the event that reports space to write.
    fn wait_writable(&self, socket: &mut Locked<'_>) -> Result<(), i32> {
        socket.set(WRITE_BLOCKED);
        self.register(socket, Interest::All).map(|_| ())
    }

    /// The same although there is space. The poller reports that space again, after the other
    /// events that have happened meanwhile.
    fn send_later(&self, socket: &mut Locked<'_>) -> Result<(), i32> {
        socket.set(WRITE_BLOCKED);
        if self.register(socket, Interest::All)? {
            return Ok(());
        }
        let handle = socket.open_handle();
        self.poller.change(handle, socket.id, Interest::All)
    }

    fn report_leave(&self, socket: &mut Locked<'_>) {
        let broken = socket.has(BROKEN);
        let code = broken.then(|| sys::take_error(socket.open_handle()));
        if let Some(code) = code.flatten() {
            let error = Error::from_os(Operation::Watch, code);
            socket.receive_ended(End::Failed(error));
        } else if socket.has(PEER_ENDED) {
            socket.receive_ended(End::Finished);
        } else {
            // The poller reports the same for messages in the socket's error queue, such as the
            // time stamps that the caller has asked for. They are no end.
            socket.clear(BROKEN);
        }
    }
}

fn queued_bytes(socket: &Locked<'_>) -> usize {
    socket.queues().map_or(0, |work| work.queued_bytes)
}

impl Driver for Poll {
    fn abilities(&self) -> Abilities {
        Abilities {
            concurrent: Poller::CONCURRENT,
            defers: false,
            may_spin: true,
            features: Vec::new(),
        }
    }

    fn associate(&self, socket: &mut Locked<'_>, accepted: bool) -> Result<(), i32> {
        // On Linux a socket that this driver accepted is already non-blocking (accept4).
        if accepted && cfg!(target_os = "linux") {
            return Ok(());
        }
        if !accepted && socket.is_stream() {
            socket.set(FOREIGN);
        }
        sys::set_nonblocking(socket.open_handle(), true)
    }

    fn arm(&self, socket: &mut Locked<'_>) {
        let interest = match socket.receiving() {
            None => return,
            Some(Receiving::Connect) => return self.start_connect(socket),
            Some(Receiving::Watch) => Interest::Watch,
            Some(Receiving::Accept | Receiving::Stream | Receiving::Into) => Interest::All,
        };
        match self.register(socket, interest) {
            Ok(_) if socket.receiving() == Some(Receiving::Accept) => {
                // Connections may wait whose edge came before a pause.
                socket.set(READABLE);
                socket.enqueue();
            }
            Ok(true) => {}
            Ok(false) => {
                // The event may have come before this operation began.
                self.look_for_leaving(socket);
                if self.has_more(socket) {
                    socket.enqueue();
                }
            }
            Err(code) => socket.receive_stopped(Some(code)),
        }
    }

    fn send_at_once(&self, socket: &mut Locked<'_>, bytes: &[u8]) -> Option<Result<usize, i32>> {
        if socket.has(WRITE_BLOCKED) {
            return Some(Ok(0));
        }
        Some(match sys::send_one(socket.open_handle(), bytes) {
            Err(code) if sys::interrupted(code) => Ok(0),
            Err(code) if sys::would_block(code) => self.wait_writable(socket).map(|()| 0),
            result => result,
        })
    }

    fn transmit(&self, socket: &mut Locked<'_>, bytes_max: usize) -> Transmitted {
        if socket.has(WRITE_BLOCKED) {
            return Transmitted::Blocked;
        }
        let waits = if bytes_max == 0 {
            self.send_later(socket)
        } else {
            let work = socket.queues().expect("there are bytes to send");
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = work.unsent(&mut slices, bytes_max);
            match sys::send(socket.open_handle(), &slices[..count]) {
                Ok(count) => return Transmitted::Sent(count),
                Err(code) if sys::interrupted(code) => return Transmitted::Sent(0),
                Err(code) if sys::would_block(code) => self.wait_writable(socket),
                Err(code) => Err(code),
            }
        };
        waits.map_or_else(Transmitted::Failed, |()| Transmitted::Blocked)
    }

    fn cancel(&self, _socket: &mut Locked<'_>, _side: Direction) {
        debug_assert!(false, "nothing is ever with the system");
    }

    fn hang_up(&self, _socket: &mut Locked<'_>) {
        debug_assert!(false, "nothing is ever with the system");
    }

    fn release(&self, socket: &mut Locked<'_>) {
        let Some(handle) = socket.take_handle() else {
            return;
        };
        self.poller
            .forget(&handle, socket.is_shared_listener() || socket.has(FOREIGN));
        if socket.is_resetting() {
            sys::close_with_reset(handle);
        } else if !socket.is_stream() {
            drop(handle);
        } else {
            sys::close_gracefully(handle);
        }
    }

    fn advance(&self, socket: &mut Locked<'_>) {
        if socket.is_closing() {
            return;
        }
        match socket.receiving() {
            None | Some(Receiving::Connect) => {}
            Some(Receiving::Accept) => self.accept_one(socket),
            Some(Receiving::Stream) => reading::stream(socket, MORE_MAY_FOLLOW),
            Some(Receiving::Into) => reading::into(socket, MORE_MAY_FOLLOW),
            Some(Receiving::Watch) => self.report_leave(socket),
        }
        if !socket.has(READABLE) {
            // The reads have passed the urgent byte. A new one causes a new event.
            socket.clear(URGENT);
        }
    }

    fn has_more(&self, socket: &Locked<'_>) -> bool {
        match socket.receiving() {
            None | Some(Receiving::Connect) => false,
            Some(Receiving::Watch) => socket.has(PEER_ENDED | BROKEN),
            Some(Receiving::Accept) => socket.has(READABLE),
            Some(Receiving::Into | Receiving::Stream) => reading::has_more::<Poll>(socket),
        }
    }

    fn submit(&self, core: &Arc<Core>, why: Submit) {
        match why {
            Submit::Now => {}
            Submit::ForRoom(id) => {
                if let Some(mut socket) = core.lock(id, Out::queue()) {
                    Self::try_again(&mut socket);
                }
            }
            Submit::AtEnd => Self::try_all(core),
        }
    }

    fn poll(
        &self,
        core: &Arc<Core>,
        at_most: Option<Duration>,
        local: &mut Local,
    ) -> Result<(), i32> {
        let mut shared_out = !local.packets.is_empty();
        let events_max = local.events_max();
        let wakes = self.poller.wait(at_most, events_max, |left, id, seen| {
            if !std::mem::replace(&mut shared_out, true) {
                local.limit(core.share_inside(left));
            }
            self.note(core, id, seen, local);
        })?;
        local.wakes += wakes;
        Ok(())
    }

    fn wake(&self, threads: u32) {
        self.poller.wake(threads);
    }

    fn end(&self, _core: &Arc<Core>) -> u64 {
        0 // Nothing is ever with the system, so every socket was closed by its abort.
    }
}

impl Sockets for Poll {}

impl Threads for Poll {}

#[cfg(test)]
mod tests;
