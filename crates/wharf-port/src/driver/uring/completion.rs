//! Completions: what the kernel reports, and what each report means for its socket.
//!
//! A completion is matched with its socket by name, and with the request by the socket's flags. A
//! completion that matches nothing is counted. A buffer or a connection in it goes back to its
//! owner and is not lost.

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;

use io_uring::cqueue::{self, buffer_select, more};

use super::queue::COMPLETIONS_MAX;
use super::request::{Kind, Name, is_reported};
use super::{CONNECT_CONTINUED, CUT, HAS_UNDELIVERED, Uring, request};
use crate::accepted::Accepted;
use crate::core::locked::Locked;
use crate::core::place::Place;
use crate::core::pool::PoolBuffer;
use crate::core::slot::SlotId;
use crate::core::{Core, Out};
use crate::driver::Sockets;
use crate::lock;
use crate::sys::Handle;

/// How a request ended, or what a multishot request returned.
#[derive(Debug)]
pub(super) struct Outcome {
    /// A count or a descriptor, or the system's code.
    pub(super) result: Result<u32, i32>,
    pub(super) flags: u32,
    pub(super) buffer: Option<PoolBuffer>,
}

impl Uring {
    /// Processes completions. What can be done for all of them at once is done so: a lock and a
    /// counter for each took a fifth of the time in user space.
    pub(super) fn complete(
        &self,
        core: &Arc<Core>,
        completed: &[cqueue::Entry],
        out: &mut Out<'_>,
    ) {
        let ended = completed
            .iter()
            .filter(|entry| !more(entry.flags()) && is_reported(entry.user_data()));
        self.ring.ended(ended.count() as u64);
        let mut buffers = [const { None }; COMPLETIONS_MAX];
        self.take_buffers(completed, &mut buffers);
        for (completed, buffer) in completed.iter().zip(&mut buffers) {
            let outcome = Outcome {
                result: u32::try_from(completed.result()).map_err(|_| -completed.result()),
                flags: completed.flags(),
                buffer: buffer.take(),
            };
            match Name::decode(completed.user_data()) {
                Some(name) => self.complete_named(core, name, outcome, out),
                None => self.foreign(core, None, outcome),
            }
        }
    }

    /// Takes the buffers that the completions name.
    fn take_buffers(&self, completed: &[cqueue::Entry], taken: &mut [Option<PoolBuffer>]) {
        let mut buffers = lock(&self.buffers);
        for (completed, taken) in completed.iter().zip(taken) {
            let number = buffer_select(completed.flags());
            let filled = usize::try_from(completed.result()).unwrap_or(0);
            *taken = number.and_then(|number| buffers.take(number, filled));
        }
    }

    /// Processes the end of a request, also of one that the kernel has never seen.
    fn complete_named(&self, core: &Arc<Core>, name: Name, outcome: Outcome, out: &mut Out<'_>) {
        let Name { kind, id } = name;
        match kind {
            Kind::Bell => return self.ring.bell_ended(),
            Kind::Cancel | Kind::Immediate => return,
            Kind::Free => return self.place_is_free(core),
            Kind::Leave => return self.leave_gracefully(id.index),
            Kind::Start => return self.start_connect(core, id, out),
            Kind::Send
            | Kind::Guard
            | Kind::Accept
            | Kind::Connect
            | Kind::Connecting
            | Kind::Stream
            | Kind::Into
            | Kind::IntoNothing
            | Kind::Watch => {}
        }
        let Some(mut socket) = core.lock(id, out.reborrow()) else {
            return self.foreign(core, Some(kind), outcome);
        };
        if !self.expects(&socket, kind) {
            return self.foreign(core, Some(kind), outcome);
        }
        match kind {
            Kind::Accept => self.accept_completed(&mut socket, &outcome),
            Kind::Connect | Kind::Connecting => {
                self.connect_completed(&mut socket, kind, &outcome);
            }
            Kind::Stream => self.stream_completed(&mut socket, outcome),
            Kind::Into => self.filled(&mut socket, &outcome),
            Kind::IntoNothing => self.nothing_completed(&mut socket, &outcome),
            Kind::Watch => self.watch_completed(&mut socket, &outcome),
            Kind::Guard => self.guard_completed(&mut socket, &outcome),
            Kind::Send => {
                let result = sent(outcome.result, socket.has_hung_up());
                socket.send_stopped(result);
            }
            Kind::Bell
            | Kind::Cancel
            | Kind::Free
            | Kind::Leave
            | Kind::Start
            | Kind::Immediate => {}
        }
    }

    /// Whether the driver has this request of the socket with the kernel.
    fn expects(&self, socket: &Locked<'_>, kind: Kind) -> bool {
        match kind {
            Kind::Send => socket.is_sending(),
            Kind::Guard => socket.is_guarded(),
            Kind::Accept
            | Kind::Connect
            | Kind::Connecting
            | Kind::Stream
            | Kind::Into
            | Kind::IntoNothing
            | Kind::Watch => socket.is_armed() && self.armed(socket).kind == kind,
            Kind::Bell
            | Kind::Cancel
            | Kind::Free
            | Kind::Leave
            | Kind::Start
            | Kind::Immediate => false,
        }
    }

    /// Ends a request that the kernel has never seen, as if it had been cancelled.
    pub(super) fn complete_unseen(&self, core: &Arc<Core>, name: Name, out: &mut Out<'_>) {
        let outcome = Outcome {
            result: Err(libc::ECANCELED),
            flags: 0,
            buffer: None,
        };
        self.complete_named(core, name, outcome, out);
    }

    /// Counts a completion that no request expects, and returns its buffer or connection.
    fn foreign(&self, core: &Core, kind: Option<Kind>, outcome: Outcome) {
        core.count_foreign();
        if let Some(buffer) = outcome.buffer {
            core.buffer_returned(buffer);
        }
        if kind == Some(Kind::Accept) {
            if let Ok(number) = outcome.result {
                match self.direct {
                    Some(_) => self.turn_away(number),
                    None => drop(adopt(number)),
                }
            }
        }
    }

    fn accept_completed(&self, socket: &mut Locked<'_>, outcome: &Outcome) {
        if let Some(direct) = &self.direct {
            return self.one_accept_completed(socket, direct, outcome);
        }
        let over = !more(outcome.flags);
        if over {
            socket.end_reading();
            socket.accept_ended_there();
        }
        if let Ok(descriptor) = outcome.result {
            let handle = adopt(descriptor);
            if !socket.is_closing() {
                self.deliver_accepted(socket, handle);
            }
        }
        if !over {
            // The bound is near: the remaining connections stay in the backlog.
            if !socket.has(CUT) && !self.may_accept_many(socket) {
                socket.set(CUT);
                self.cancel_reading(socket);
            }
            return;
        }
        let cut = socket.has(CUT);
        socket.clear(CUT);
        if socket.stops_reading() {
            return socket.receive_stopped(Some(libc::ECANCELED));
        }
        match outcome.result {
            Err(libc::ECANCELED) if cut => {}
            // No caller requested this end: the thread that submitted the request has ended.
            // Continue.
            Ok(_) | Err(libc::ECANCELED | libc::EINTR | libc::EAGAIN) => {}
            Err(code) => {
                if !socket.accept_failed(code) {
                    return;
                }
            }
        }
        socket.go_on_receiving();
    }

    /// Delivers an accepted connection, or keeps it until there is a place for it.
    pub(super) fn deliver_accepted(&self, socket: &mut Locked<'_>, handle: Handle) {
        let place = if socket.has(HAS_UNDELIVERED) {
            None // Connections that came first are delivered first.
        } else {
            socket.place()
        };
        if let Some(place) = place {
            return socket.accepted(with_place(handle, place));
        }
        lock(&self.undelivered).push((socket.id, handle));
        socket.set(HAS_UNDELIVERED);
        if socket.is_armed() && !socket.has(CUT) {
            socket.set(CUT);
            self.cancel_reading(socket);
        }
    }

    /// A listener closes: its undelivered connections are closed with it.
    pub(super) fn close_undelivered(&self, id: SlotId) {
        let its: Vec<_> = {
            let mut undelivered = lock(&self.undelivered);
            let (its, others) = std::mem::take(&mut *undelivered)
                .into_iter()
                .partition(|(listener, _)| *listener == id);
            *undelivered = others;
            its
        };
        for (_, handle) in its {
            self.abandon(handle);
        }
    }

    /// Delivers the connections that waited for a place. Returns whether none is left.
    pub(super) fn deliver_undelivered(&self, socket: &mut Locked<'_>) -> bool {
        while socket.has(HAS_UNDELIVERED) {
            let Some(place) = socket.place() else {
                return false;
            };
            let undelivered = {
                let mut undelivered = lock(&self.undelivered);
                let first = undelivered
                    .iter()
                    .position(|(listener, _)| *listener == socket.id);
                first.map(|first| undelivered.remove(first))
            };
            let Some((_, handle)) = undelivered else {
                socket.clear(HAS_UNDELIVERED);
                place.give_up();
                return true;
            };
            socket.accepted(with_place(handle, place));
        }
        true
    }

    fn connect_completed(&self, socket: &mut Locked<'_>, kind: Kind, outcome: &Outcome) {
        let asked = socket.stops_reading() || socket.is_overdue();
        let result = match outcome.result {
            Err(libc::ECANCELED | libc::EINTR) if !asked => {
                // The thread that submitted the request has ended. The connect itself continues.
                socket.set(CONNECT_CONTINUED);
                let entry = request::wait(socket.open_handle(), libc::POLLOUT);
                return self.ask_reading(socket, Kind::Connecting, entry);
            }
            Err(code) => Err(code),
            Ok(_) if kind == Kind::Connecting => {
                self.take_error(socket.open_handle()).map_or(Ok(()), Err)
            }
            Ok(_) => Ok(()),
        };
        socket.clear(CONNECT_CONTINUED);
        socket.connected(result);
    }

    /// Continues after a request that had nothing to deliver, unless the caller has requested the
    /// end.
    pub(super) fn go_on(&self, socket: &mut Locked<'_>) {
        if socket.stops_reading() {
            socket.receive_stopped(Some(libc::ECANCELED));
        } else {
            socket.go_on_receiving();
        }
    }

    fn filled(&self, socket: &mut Locked<'_>, outcome: &Outcome) {
        match outcome.result {
            // Our own close has made this end. It is not the peer's.
            Ok(0) if socket.has_hung_up() => {
                socket.end_reading();
                self.go_on(socket);
            }
            Ok(count) => self.has_received(socket, count as usize),
            Err(libc::EINTR | libc::EAGAIN) => {
                socket.end_reading();
                self.go_on(socket);
            }
            Err(code) => socket.receive_stopped(Some(code)),
        }
    }

    /// A receive into a buffer has ended well, with this many bytes.
    pub(super) fn has_received(&self, socket: &mut Locked<'_>, count: usize) {
        socket.end_reading();
        // It has succeeded although a cancel was requested. The cancel is over with it.
        socket.forget_cancel();
        socket.received_into(count);
        self.go_on(socket);
    }
}

/// Returns what the end of a send means. An interruption before the first byte is not a failure,
/// and an error after our own reset is reported as cancelled.
fn sent(result: Result<u32, i32>, hung_up: bool) -> Result<usize, i32> {
    match result {
        Ok(count) => Ok(count as usize),
        Err(_) if hung_up => Err(libc::ECANCELED),
        // Nothing went out, so the rest of the queue is sent again. `Uring::associate` says why a
        // request that should wait may end with EAGAIN.
        Err(libc::EINTR | libc::EAGAIN) => Ok(0),
        Err(code) => Err(code),
    }
}

/// Makes an accepted connection with the place that was kept for it.
fn with_place(handle: Handle, mut place: Place) -> Accepted {
    if let Some(direct) = handle.place() {
        place.mark(direct.into());
    }
    Accepted {
        handle,
        peer: None,
        place: Some(place),
    }
}

/// Takes ownership of the descriptor that an accept returned.
fn adopt(descriptor: u32) -> Handle {
    let descriptor = i32::try_from(descriptor).expect("descriptors are not negative");
    // SAFETY: the kernel made it for this completion, and no other code looks at the completion.
    unsafe { OwnedFd::from_raw_fd(descriptor) }.into()
}

#[cfg(test)]
mod tests {
    use super::sent;

    /// The kernel of this machine returns neither. Others do, if a signal or a full buffer comes
    /// first.
    #[test]
    fn an_interrupted_send_has_not_failed() {
        for hung_up in [false, true] {
            assert_eq!(sent(Ok(7), hung_up), Ok(7));
        }
        assert_eq!(sent(Err(libc::EINTR), false), Ok(0));
        assert_eq!(sent(Err(libc::EAGAIN), false), Ok(0));
        assert_eq!(sent(Err(libc::EPIPE), false), Err(libc::EPIPE));
        assert_eq!(sent(Err(libc::EPIPE), true), Err(libc::ECANCELED));
        assert_eq!(sent(Err(libc::EINTR), true), Err(libc::ECANCELED));
    }
}
