//! The ends: of the waiter or the thread of a bound ring, and of the port.
//!
//! Closing a ring does not stop the kernel from writing to memory that was handed to it (measured:
//! 400 of 400 buffers overwritten afterwards). So the driver ends every request and waits for every
//! end. A request that does not come back in time is leaked, with all memory it points to, and
//! counted.
//!
//! A single cancel for all requests was rejected: for each request that it finds, the kernel walks
//! all that it found before (19,000 took 2.5 s). Sockets are shut down instead, each in constant
//! time.
//!
//! Only its own thread can empty a bound ring. So when its waiter goes, that thread takes all
//! requests back from the kernel. The thread that ends the port then finds them queued, or the next
//! waiter of the same thread hands them over again. Waiting for the end of the thread was rejected:
//! a thread that lived on in a pool kept the port from ever ending without a leak.

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

/// How many ends one enter waits for: fewer than fit into the completion queue.
const ENDS_MAX: u64 = 4096;

impl Uring {
    /// The waiter of a bound ring goes, on its own thread. Takes every request back from the kernel
    /// and queues it again.
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

    /// Registers this thread to close the table of its ring when the thread ends, because no other
    /// thread could close it.
    fn close_table_at_thread_end(&self, core: &Arc<Core>) {
        let late = LEFT.try_with(|left| {
            let mut rings = left.0.borrow_mut();
            rings.retain(|ring| ring.strong_count() > 0);
            if !rings.iter().any(|ring| ring.as_ptr() == Arc::as_ptr(core)) {
                rings.push(Arc::downgrade(core));
            }
        });
        if late.is_err() {
            self.ring.close_table(); // The thread's thread-locals are destroyed already.
        }
    }

    /// The thread of a bound ring ends.
    pub(super) fn thread_ends(&self, core: &Arc<Core>) {
        if self.ring.is_bound_here() {
            self.recall(core);
            self.ring.close_table();
        }
    }

    /// Ends the requests that the kernel has and those queued for it, of sockets that were all
    /// aborted. The abort has reset each socket with something left to send, because a stream that
    /// is cut short must not look complete. Returns how many requests did not come back.
    pub(super) fn finish(&self, core: &Arc<Core>) -> u64 {
        let out = &mut Out::queue();
        let may_enter = matches!(self.ring.bind(), Ok(true));
        if may_enter {
            // Sends that need not wait go out now, as they would have at the next wait. Sockets
            // without descriptors are closed by requests, so these go out too.
            let go = [
                Kind::Send,
                Kind::Cancel,
                Kind::Immediate,
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

    /// Waits, for a bounded time, until the kernel has no request any more. Of the requests queued
    /// meanwhile, only those that `more` accepts go to the kernel.
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

    /// Returns the kernel's buffers to the pool, or leaks everything if the kernel may still write.
    /// Returns how many requests are leaked.
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
