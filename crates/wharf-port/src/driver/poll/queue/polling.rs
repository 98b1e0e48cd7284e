//! kqueue and similar pollers, through the crate `polling`.
//!
//! Only one thread may wait at a time, so the port has one leader and parks the other waiters. The
//! crate reports only "readable" and "writable". So a watch for the peer's leaving looks at the
//! socket itself, and does not see a FIN that is queued after unread data (a named difference).

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use polling::{Event, Events, PollMode};

use crate::core::slot::SlotId;
use crate::sys::{self, Handle};

/// What a socket is registered for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Interest {
    /// Only that the peer leaves. Here data wakes a thread too.
    Watch,
    All,
}

/// What an event reports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) peer_ended: bool,
    pub(super) broken: bool,
    pub(super) urgent: bool,
}

#[derive(Debug)]
pub(super) struct Poller {
    poller: polling::Poller,
    /// Wake-ups that were requested and that no call of `wait` has returned.
    wakes: AtomicU32,
}

impl Poller {
    /// `polling` documents that only one thread may wait.
    pub(super) const CONCURRENT: bool = false;
    /// No event reports that the peer has left.
    pub(super) const REPORTS_LEAVING: bool = false;

    /// No read is taken for the last one here, whatever it returns.
    pub(super) fn stops_short(_handle: &Handle) -> bool {
        false
    }

    pub(super) fn new() -> Result<Self, i32> {
        let poller = polling::Poller::new().map_err(|error| sys::code_of(&error))?;
        Ok(Poller {
            poller,
            wakes: AtomicU32::new(0),
        })
    }

    pub(super) fn add(&self, handle: &Handle, id: SlotId, interest: Interest) -> Result<(), i32> {
        let (event, mode) = (event_of(id, interest), PollMode::Edge);
        // SAFETY: `forget` deletes the socket from the poller, and `Poll::release` calls `forget`
        // before it closes the handle, on every path.
        let added = unsafe { self.poller.add_with_mode(handle, event, mode) };
        added.map_err(|error| sys::code_of(&error))
    }

    pub(super) fn change(
        &self,
        handle: &Handle,
        id: SlotId,
        interest: Interest,
    ) -> Result<(), i32> {
        self.poller
            .modify_with_mode(handle.as_fd(), event_of(id, interest), PollMode::Edge)
            .map_err(|error| sys::code_of(&error))
    }

    /// The descriptor is about to be closed.
    pub(super) fn forget(&self, handle: &Handle, _is_shared: bool) {
        // A socket that was never registered is not found. That is fine.
        let _ = self.poller.delete(handle.as_fd());
    }

    /// Waits for events, at most this long. Calls `report` with each event and with the number of
    /// events left, including this one. Returns the number of wake-ups used.
    pub(super) fn wait(
        &self,
        at_most: Option<Duration>,
        events_max: usize,
        mut report: impl FnMut(usize, SlotId, Seen),
    ) -> Result<u32, i32> {
        let capacity = std::num::NonZeroUsize::new(events_max.clamp(1, 256)).expect("one or more");
        let mut events = Events::with_capacity(capacity);
        match self.poller.wait(&mut events, at_most) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(sys::code_of(&error)),
        }
        let found = events.len();
        for (place, event) in events.iter().enumerate() {
            let generation = u32::try_from(event.key >> 32).expect("a key is 64 bits wide");
            let id = SlotId {
                index: event.key as u32,
                generation,
            };
            let broken = event.is_err().unwrap_or(false);
            report(
                found - place,
                id,
                Seen {
                    readable: event.readable,
                    writable: event.writable,
                    peer_ended: false,
                    broken,
                    urgent: false,
                },
            );
        }
        Ok(self.wakes.swap(0, Ordering::AcqRel))
    }

    pub(super) fn wake(&self, threads: u32) {
        self.wakes.fetch_add(threads, Ordering::AcqRel);
        // The poller remembers a notification until a thread waits.
        let _ = self.poller.notify();
    }
}

fn event_of(id: SlotId, interest: Interest) -> Event {
    let key = ((id.generation as usize) << 32) | id.index as usize;
    match interest {
        Interest::Watch => Event::readable(key),
        Interest::All => Event::all(key),
    }
}
