//! Requests that the kernel has not seen: what is in our own queue can still be taken back.

use std::collections::VecDeque;

use io_uring::squeue::Entry;

use super::Ring;
use crate::core::slot::SlotId;
use crate::driver::uring::request::{Kind, Name};
use crate::lock;

impl Ring {
    /// Whether requests wait for a thread to enter.
    pub(in crate::driver::uring) fn has_queued(&self) -> bool {
        !lock(&self.queue).entries.is_empty()
    }

    /// Takes requests of these kinds that the kernel has not seen.
    pub(in crate::driver::uring) fn take_queued(
        &self,
        chosen: impl Fn(Kind) -> bool,
    ) -> VecDeque<Entry> {
        let mut queue = lock(&self.queue);
        let entries = std::mem::take(&mut queue.entries);
        let (taken, left) = entries.into_iter().partition(|entry| {
            Name::decode(entry.get_user_data()).is_some_and(|name| chosen(name.kind))
        });
        queue.entries = left;
        taken
    }

    /// Takes the request that sends for this socket, if the kernel has not seen it.
    pub(in crate::driver::uring) fn take_send(&self, id: SlotId) -> bool {
        let name = Name::of(Kind::Send, id).encode();
        let mut queue = lock(&self.queue);
        let mut entries = queue.entries.iter();
        // It was queued just now, so the search starts at the end.
        let place = entries.rposition(|entry| entry.get_user_data() == name);
        place
            .and_then(|place| queue.entries.remove(place))
            .is_some()
    }

    /// Whether a request to send waits for a thread to enter.
    pub(in crate::driver::uring) fn has_queued_send(&self) -> bool {
        let queue = lock(&self.queue);
        let mut names = queue.entries.iter().map(Entry::get_user_data);
        names.any(|name| Name::decode(name).is_some_and(|name| name.kind == Kind::Send))
    }

    /// Puts requests back that were taken, before those that were queued since.
    pub(in crate::driver::uring) fn put_back(&self, mut entries: VecDeque<Entry>) {
        let mut queue = lock(&self.queue);
        entries.append(&mut queue.entries);
        queue.entries = entries;
    }
}
