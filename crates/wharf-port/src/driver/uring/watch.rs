//! Waits for events of poll(2): a watch, and a receive into an empty buffer.
//!
//! poll(2) reports POLLERR as long as a socket has an error, but also as long as its error queue
//! has messages, for example the time stamps of sends that the caller has asked for (`SO_TIMESTAMPING`
//! in socket(7)). Messages are no end. Another request for one event would end at once, again and
//! again. So after such a report the driver makes a request that continues and reports changes.
//! Reading the messages was rejected: they are the caller's.

use io_uring::cqueue::more;
use io_uring::squeue::Entry;

use super::Uring;
use super::completion::Outcome;
use super::receive::take_held_end;
use super::request::{self, Kind};
use crate::core::locked::Locked;
use crate::core::slot::{Own, Receiving};
use crate::sys::{self, Handle};

/// The error queue of the socket has, or had, messages.
const ERRORS_QUEUED: Own<Uring> = Own::bit(8);

/// Events that say that the peer has left.
const LEFT: u32 = (libc::POLLRDHUP | libc::POLLHUP).unsigned_abs() as u32;
/// The event that says that there is something to read.
const DATA: u32 = libc::POLLIN.unsigned_abs() as u32;
const ERROR: u32 = libc::POLLERR.unsigned_abs() as u32;

/// A request that waits for one of these events, or for an error.
pub(super) fn wait(handle: &Handle, asks_for_changes: bool, events: i16) -> Entry {
    match asks_for_changes {
        true => request::wait_for_changes(handle, events),
        false => request::wait(handle, events),
    }
}

/// Whether poll(2) has reported messages in the socket's error queue.
pub(super) fn has_errors_queued(socket: &Locked<'_>) -> bool {
    socket.has(ERRORS_QUEUED)
}

impl Uring {
    pub(super) fn arm_watch(&self, socket: &mut Locked<'_>) {
        if let Some(code) = take_held_end(socket) {
            return socket.receive_stopped(Some(code));
        }
        let changes = has_errors_queued(socket);
        let entry = wait(socket.open_handle(), changes, libc::POLLRDHUP);
        self.ask_reading(socket, Kind::Watch, entry);
    }

    pub(super) fn watch_completed(&self, socket: &mut Locked<'_>, outcome: &Outcome) {
        debug_assert!(
            socket.receiving() == Some(Receiving::Watch),
            "matched by the caller"
        );
        let events = match outcome.result {
            Ok(events) => events,
            Err(code) => return socket.receive_stopped(Some(code)),
        };
        // The socket's pending error says whether the peer closed gracefully.
        let code = self.error_behind(socket.open_handle(), events);
        let happened = code.is_some() || events & LEFT != 0;
        if self.is_over(socket, outcome, (happened, code)) {
            socket.receive_stopped(code);
        }
    }

    /// A receive into an empty buffer ends if there is something to read.
    pub(super) fn nothing_completed(&self, socket: &mut Locked<'_>, outcome: &Outcome) {
        let events = match outcome.result {
            Ok(events) => events,
            Err(libc::EINTR | libc::EAGAIN) => {
                socket.end_reading();
                return self.go_on(socket);
            }
            Err(code) => return socket.receive_stopped(Some(code)),
        };
        let code = self.break_behind(socket, events);
        let happened = code.is_some() || events & (LEFT | DATA) != 0;
        if !self.is_over(socket, outcome, (happened, code)) {
            return;
        }
        if code.is_some() {
            return socket.receive_stopped(code);
        }
        self.has_received(socket, 0);
    }

    /// Whether the operation ends with these events. If not, it goes on by itself. `happened`:
    /// something did that ends it, perhaps an error, which the system reports only once.
    fn is_over(
        &self,
        socket: &mut Locked<'_>,
        outcome: &Outcome,
        (happened, code): (bool, Option<i32>),
    ) -> bool {
        match (happened, more(outcome.flags)) {
            (true, false) => true,
            // The request continues. Once it has ended, the next one reports this again, and the
            // error is kept until then.
            (true, true) => {
                if code.is_some() {
                    socket.work().held_end = code;
                }
                socket.clear(ERRORS_QUEUED);
                self.cancel_reading(socket);
                false
            }
            (false, false) => {
                socket.set(ERRORS_QUEUED);
                // No caller has cancelled: it goes on.
                socket.receive_stopped(Some(libc::ECANCELED));
                false
            }
            (false, true) => false,
        }
    }

    /// Returns the error behind these events that a receive would report now. There is none if a
    /// receive would return data first.
    pub(super) fn break_behind(&self, socket: &Locked<'_>, events: u32) -> Option<i32> {
        if events & ERROR == 0 {
            return None;
        }
        match self.with_descriptor(socket.open_handle(), sys::peek) {
            Ok(Err(code)) if !sys::would_block(code) => Some(code),
            Ok(_) => None,
            // Without a descriptor the driver cannot ask, so it reports the most frequent error.
            Err(_) => Some(libc::ECONNRESET),
        }
    }
}
