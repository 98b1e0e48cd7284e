//! The ends: when the thread of a bound ring goes, and when the port goes.
//!
//! Closing a ring does not stop the kernel from writing to what was handed to it (measured: 400 of
//! 400 buffers overwritten afterwards). So every request is ended and every end is waited for;
//! what does not come back in time is leaked with all it points to, and counted.
//!
//! One cancel for all was rejected: for each request it finds, the kernel walks all those that it
//! found before (19,000 took 2.5 s). Sockets are shut down instead, each in constant time.
//!
//! A bound ring can be emptied by its own thread alone. So that thread takes all requests back from
//! the kernel when its waiter goes: whichever thread ends the port then finds them queued, and the
//! next waiter of that thread hands them over again. To wait with that for the end of the thread was
//! rejected: one that lives on in a pool kept the port from ever ending without a leak.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use io_uring::squeue::Entry;

use super::queue::Purpose;
use super::request::{Kind, Name, is_reported};
use super::{Uring, request};
use crate::core::{Core, Out};
use crate::driver::silence::Silence;
use crate::lock;

/// How many ends one enter asks for: fewer than there is room for.
const ENDS_MAX: u64 = 4096;

impl Uring {
    /// The waiter of a bound ring goes, on its thread: takes every request back from the kernel.
    /// They are queued again.
    pub(super) fn recall(&self, core: &Arc<Core>) {
        if !self.ring.is_bound_here() {
            return;
        }
        for index in 0..core.places_used() {
            if let Some(socket) = core.lock_index(index, Out::queue()) {
                self.cancel_all(&socket);
            }
        }
        self.empty_kernel(core, &mut Out::queue(), |kind| kind == Kind::Cancel);
        if self.direct.is_some() {
            self.close_table_at_thread_end(core);
        }
    }

    /// Sees to it that this thread, when it ends, closes what is in its ring's table: no other
    /// could.
    fn close_table_at_thread_end(&self, core: &Arc<Core>) {
        let late = LEFT.try_with(|left| {
            let mut rings = left.0.borrow_mut();
            rings.retain(|ring| ring.strong_count() > 0);
            if !rings.iter().any(|ring| ring.as_ptr() == Arc::as_ptr(core)) {
                rings.push(Arc::downgrade(core));
            }
        });
        if late.is_err() {
            self.ring.close_table(); // The thread is past its own end.
        }
    }

    /// The thread of a bound ring ends.
    pub(super) fn thread_ends(&self, core: &Arc<Core>) {
        if self.ring.is_bound_here() {
            self.recall(core);
            self.ring.close_table();
        }
    }

    /// Ends what the kernel has and what is queued for it, of sockets that were all aborted: those with
    /// something to send were reset by that, because a stream that is cut short must not look finished.
    /// Answers how many requests did not come back.
    pub(super) fn finish(&self, core: &Arc<Core>) -> u64 {
        let out = &mut Out::queue();
        let may_enter = matches!(self.ring.bind(), Ok(true));
        if may_enter {
            // Sends that need not wait go out now, as they would have at the next wait.
            // And sockets without descriptors are closed by requests.
            let go = [
                Kind::Send,
                Kind::Cancel,
                Kind::Aside,
                Kind::Free,
                Kind::Leave,
            ];
            let others = self.ring.take_queued(|kind| !go.contains(&kind));
            self.end_unseen(core, &others, out);
            if self.enter_to_end(Duration::ZERO, 0).is_ok() {
                self.reap(core, out);
            }
        }
        if may_enter {
            self.empty_kernel(core, out, |_| true);
        } else {
            self.reap(core, out);
        }
        while self.ring.has_queued() {
            let all = self.ring.take_queued(|_| true);
            self.end_unseen(core, &all, out);
        }
        self.close_buffers(core, may_enter)
    }

    /// Waits, for a bounded time, until the kernel has nothing more. Of what is queued meanwhile,
    /// only `more` goes to it.
    fn empty_kernel(&self, core: &Arc<Core>, out: &mut Out<'_>, more: impl Fn(Kind) -> bool) {
        self.ring.push(request::cancel(Name::own(Kind::Bell)));
        let mut silence = Silence::default();
        let mut kept = VecDeque::new();
        loop {
            kept.append(&mut self.ring.take_queued(|kind| !more(kind)));
            let left = (self.ring.unended(), self.ring.is_bell_armed());
            if left == (0, false) || silence.is_too_long() {
                break;
            }
            let (begun, want) = (Instant::now(), left.0.clamp(1, ENDS_MAX) as u32);
            if self.enter_to_end(Silence::STEP, want).is_err() {
                break;
            }
            self.reap(core, out);
            let now = (self.ring.unended(), self.ring.is_bell_armed());
            silence.waited(begun.elapsed(), now != left);
        }
        self.ring.put_back(kept);
    }

    pub(super) fn enter_to_end(&self, at_most: Duration, want: u32) -> Result<(), i32> {
        // SAFETY: no waiter is left, or the only one there can be is going on this thread, and
        // `bind` lets it.
        unsafe { self.ring.enter(Some(at_most), Purpose::End { want }) }
    }

    fn end_unseen(&self, core: &Arc<Core>, unseen: &VecDeque<Entry>, out: &mut Out<'_>) {
        for entry in unseen
            .iter()
            .filter(|entry| is_reported(entry.get_user_data()))
        {
            if let Some(name) = Name::decode(entry.get_user_data()) {
                self.complete_unseen(core, name, out);
            }
        }
    }

    /// Gives the kernel's buffers back to the pool, or leaks all of it when the kernel may still
    /// write. Answers how many requests are leaked.
    fn close_buffers(&self, core: &Arc<Core>, may_enter: bool) -> u64 {
        let leaked = self.ring.unended() + u64::from(self.ring.is_bell_armed());
        if leaked > 0 {
            // The port's tables, its buffers and this ring are never freed.
            mem::forget(Arc::clone(core));
            return leaked;
        }
        if may_enter && lock(&self.buffers).is_open() {
            // Without requests the kernel looks at no buffer, registered or not.
            let _ = self.ring.unregister_buffers();
        }
        for buffer in lock(&self.buffers).close() {
            core.buffer_returned(buffer);
        }
        0
    }
}

/// The bound rings with a table whose waiters this thread had and dropped.
struct Left(RefCell<Vec<Weak<Core>>>);

thread_local! {
    static LEFT: Left = const { Left(RefCell::new(Vec::new())) };
}

impl Drop for Left {
    fn drop(&mut self) {
        for ring in self.0.take() {
            if let Some(core) = ring.upgrade() {
                core.thread_ends();
            }
        }
    }
}

#[cfg(test)]
mod tests;
