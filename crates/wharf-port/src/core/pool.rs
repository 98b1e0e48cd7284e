//! The pool of receive buffers: a small hot set that grows in blocks up to a bound.
//!
//! Buffers are lent only while there is data, so an idle connection holds none (contract C8). The
//! free list is last in, first out: the next buffer is the one whose bytes are still in the cache.
//! A buffer per connection was rejected because of its memory. An unbounded pool was rejected
//! because a hundred peers that never read would use up all memory. At the bound a stream waits
//! here, first come first served (backpressure).
//!
//! The *checked* pool (`PoolOptions::revoke_returned`) makes the pages of a returned buffer
//! inaccessible and never uses them again. A kernel that still writes to one gets EFAULT, and a
//! program that still reads one is stopped at once. So a use after free is detected every time, and
//! not once in a million.

use std::collections::{HashSet, VecDeque};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::core::options::PoolOptions;
use crate::core::slot::{SlotId, Slots};
use crate::lock;
use crate::sys::Pages;

/// How many buffers a block holds: 256 KiB at the default size.
const BLOCK_BUFFERS: u32 = 16;
/// A lease that fills at most this part of its buffer is copied out of a pool that runs short.
const SMALL_PART: usize = 4;
/// All such copies together take at most this part of the pool.
const COPIES_PART: usize = 4;
/// The cost of a copy in addition to its bytes.
const COPY_BYTES: usize = 64;
/// If more streams than this wait, duplicates are removed.
const KEEP_WAITING: usize = 64;

/// One buffer of the pool. Whichever thread has this value owns the buffer.
///
/// Invariant: `pointer` is the start of `buffer_bytes` bytes that live as long as the pool, and no
/// other `PoolBuffer` has the same `id`. It is not `Clone`: passing it on passes on the ownership.
#[derive(Debug)]
pub(crate) struct PoolBuffer {
    pub(crate) pointer: NonNull<u8>,
    pub(crate) id: u32,
}

// SAFETY: a `PoolBuffer` is the only owner of the bytes that it points to, and these bytes belong
// to no thread.
unsafe impl Send for PoolBuffer {}
// SAFETY: a shared reference gives no access to the bytes.
unsafe impl Sync for PoolBuffer {}

#[derive(Debug)]
pub(crate) struct Pool {
    options: PoolOptions,
    state: Mutex<State>,
    /// Whether more than half of it is lent. It is written under the lock, and read for each
    /// message.
    scarce: AtomicBool,
    /// Bytes of small leases that were copied out.
    copied: AtomicUsize,
}

#[derive(Debug)]
struct State {
    free: Vec<PoolBuffer>,
    /// The memory itself. A block never moves, and is freed with the pool.
    blocks: Vec<Pages>,
    /// The number of buffers made so far, and their bytes without those that were revoked.
    made: u32,
    bytes: usize,
    /// The system had no memory when the pool last asked.
    lacks_memory: bool,
    waiting: VecDeque<SlotId>,
    /// At this length of `waiting`, duplicates are removed.
    waiting_max: usize,
}

impl Pool {
    pub(crate) fn new(options: PoolOptions) -> Self {
        let state = State {
            free: Vec::new(),
            blocks: Vec::new(),
            made: 0,
            bytes: 0,
            lacks_memory: false,
            waiting: VecDeque::new(),
            waiting_max: KEEP_WAITING,
        };
        Pool {
            options,
            state: Mutex::new(state),
            scarce: AtomicBool::new(false),
            copied: AtomicUsize::new(0),
        }
    }

    pub(crate) fn buffer_bytes(&self) -> usize {
        self.options.buffer_bytes as usize
    }

    /// Returns the bytes of buffers that exist now, lent or free.
    pub(crate) fn bytes(&self) -> usize {
        lock(&self.state).bytes
    }

    /// Returns a buffer; `None` if the pool has grown to its bound and all of it is lent.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn take(&self) -> Option<PoolBuffer> {
        self.take_from(&mut lock(&self.state))
    }

    fn take_from(&self, state: &mut State) -> Option<PoolBuffer> {
        if state.free.is_empty() {
            self.grow(state);
        }
        let buffer = state.free.pop();
        self.note_lent(state);
        buffer
    }

    /// Records whether the pool runs short, for threads that ask without its lock.
    fn note_lent(&self, state: &State) {
        let free = state.free.len() * self.buffer_bytes();
        let scarce = state.bytes - free.min(state.bytes) > self.options.pool_bytes_max / 2;
        if self.scarce.load(Ordering::Relaxed) != scarce {
            self.scarce.store(scarce, Ordering::Relaxed);
        }
    }

    /// Takes up to `count` buffers, under one lock.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn take_many(&self, count: usize, mut each: impl FnMut(PoolBuffer)) {
        let mut state = lock(&self.state);
        for _ in 0..count {
            match self.take_from(&mut state) {
                Some(buffer) => each(buffer),
                None => return,
            }
        }
    }

    /// Like `take`. If there is no buffer, `waiter` is remembered, and a later `give` returns it.
    pub(crate) fn take_or_wait(&self, waiter: SlotId, slots: &Slots) -> Option<PoolBuffer> {
        let mut state = lock(&self.state);
        let buffer = self.take_from(&mut state);
        if buffer.is_none() {
            state.wait(waiter, slots);
        }
        buffer
    }

    /// Whether the system had no memory when the pool last grew.
    pub(crate) fn lacks_memory(&self) -> bool {
        lock(&self.state).lacks_memory
    }

    /// Adds a stream to those that wait for a buffer.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn wait(&self, waiter: SlotId, slots: &Slots) {
        lock(&self.state).wait(waiter, slots);
    }

    /// Removes the stream that has waited longest for a buffer, and returns it.
    pub(crate) fn next_waiting(&self) -> Option<SlotId> {
        lock(&self.state).waiting.pop_front()
    }

    /// The same, if there is a buffer for it.
    pub(crate) fn next_to_serve(&self) -> Option<SlotId> {
        let mut state = lock(&self.state);
        let room = self.options.pool_bytes_max.saturating_sub(state.bytes);
        if state.free.is_empty() && room < self.buffer_bytes() {
            return None;
        }
        state.waiting.pop_front()
    }

    /// Returns the bytes of a buffer.
    pub(crate) fn bytes_of<'b>(&self, buffer: &'b PoolBuffer) -> &'b [u8] {
        // SAFETY: a `PoolBuffer` is the only owner of its bytes. The bytes are initialised from the
        // start. They live as long as the pool, and the pool outlives every buffer.
        unsafe { std::slice::from_raw_parts(buffer.pointer.as_ptr(), self.buffer_bytes()) }
    }

    /// Returns the bytes of a buffer, to fill them.
    pub(crate) fn bytes_of_mut<'b>(&self, buffer: &'b mut PoolBuffer) -> &'b mut [u8] {
        // SAFETY: as in `bytes_of`, and the borrow of the buffer is exclusive.
        unsafe { std::slice::from_raw_parts_mut(buffer.pointer.as_ptr(), self.buffer_bytes()) }
    }

    /// Whether so much of the pool is lent that queued leases should leave it.
    pub(crate) fn is_scarce(&self) -> bool {
        self.scarce.load(Ordering::Relaxed)
    }

    /// Whether a lease of this many bytes is to be copied, so it does not hold a whole buffer of a
    /// pool that runs short. The copy is counted until `copy_is_gone`.
    pub(crate) fn copies_out(&self, bytes: usize) -> bool {
        if !self.is_scarce() || bytes > self.buffer_bytes() / SMALL_PART {
            return false;
        }
        let cost = bytes + COPY_BYTES;
        let before = self.copied.fetch_add(cost, Ordering::Relaxed);
        let room = before + cost <= self.options.pool_bytes_max / COPIES_PART;
        if !room {
            self.copied.fetch_sub(cost, Ordering::Relaxed);
        }
        room
    }

    /// A copy of this many bytes was dropped.
    pub(crate) fn copy_is_gone(&self, bytes: usize) {
        self.copied.fetch_sub(bytes + COPY_BYTES, Ordering::Relaxed);
    }

    /// Takes a buffer back. Returns the stream that has waited longest for one, if any did.
    pub(crate) fn give(&self, buffer: PoolBuffer) -> Option<SlotId> {
        let mut state = lock(&self.state);
        if self.options.revoke_returned {
            let pages = &state.blocks[buffer.id as usize];
            pages.revoke();
            state.bytes -= self.buffer_bytes();
        } else {
            state.free.push(buffer);
        }
        self.note_lent(&state);
        state.waiting.pop_front()
    }

    fn grow(&self, state: &mut State) {
        // A revoked buffer is a mapping of its own, so revoking it leaves the others.
        let buffers = if self.options.revoke_returned {
            1
        } else {
            BLOCK_BUFFERS
        };
        let bytes_each = self.buffer_bytes();
        let room = (self.options.pool_bytes_max.saturating_sub(state.bytes)) / bytes_each;
        let buffers = (buffers as usize).min(room);
        if buffers == 0 {
            return;
        }
        let pages = Pages::new(buffers * bytes_each);
        state.lacks_memory = pages.is_none();
        let Some(pages) = pages else {
            return;
        };
        for index in 0..buffers {
            let pointer = pages.at(index * bytes_each);
            let id = state.made;
            state.made += 1;
            state.free.push(PoolBuffer { pointer, id });
        }
        state.bytes += buffers * bytes_each;
        state.blocks.push(pages);
    }
}

impl State {
    /// Adds a stream at the end of the queue. A stream that got a turn for another reason tries
    /// again, and is in the queue twice. A stream that has closed leaves its entry. Both would make
    /// the queue longer than the number of streams. So all entries are checked once the queue has
    /// doubled.
    fn wait(&mut self, waiter: SlotId, slots: &Slots) {
        if self.waiting.len() >= self.waiting_max {
            let mut seen = HashSet::new();
            self.waiting
                .retain(|it| slots.delivers_about(*it) && seen.insert(*it));
            self.waiting_max = KEEP_WAITING.max(2 * self.waiting.len());
        }
        self.waiting.push_back(waiter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_no_longer_than_there_are_streams() {
        let slots = Slots::new(4);
        let pool = Pool::new(PoolOptions {
            buffer_bytes: 512,
            pool_bytes_max: 512,
            ..PoolOptions::default()
        });
        let id = |_| slots.allocate(false).expect("room for four").0;
        let streams: Vec<SlotId> = (0..3).map(id).collect();
        let held = pool.take().expect("there is one");
        for round in 0..10_000 {
            assert!(pool.take_or_wait(streams[round % 3], &slots).is_none());
        }
        assert!(lock(&pool.state).waiting.len() <= 2 * KEEP_WAITING);
        assert_eq!(pool.next_to_serve(), None, "no buffer is free");
        // The order is that of arrival.
        assert_eq!(pool.give(held), Some(streams[0]));
        assert_eq!(pool.next_to_serve(), Some(streams[1]));
        assert_eq!(pool.next_to_serve(), Some(streams[2]));
    }

    #[test]
    fn a_pool_is_scarce_once_more_than_half_of_what_it_may_have_is_lent() {
        let pool = Pool::new(PoolOptions {
            buffer_bytes: 512,
            pool_bytes_max: 8 * 512,
            ..PoolOptions::default()
        });
        let half: Vec<_> = (0..4).map_while(|_| pool.take()).collect();
        assert_eq!((half.len(), pool.is_scarce()), (4, false));
        let more = pool.take().expect("there are eight");
        assert!(pool.is_scarce());
        pool.give(more);
        assert!(!pool.is_scarce());
        for buffer in half {
            pool.give(buffer);
        }
    }

    #[test]
    fn copies_have_a_bound_of_their_own() {
        let options = PoolOptions {
            buffer_bytes: 4096,
            pool_bytes_max: 64 * 4096,
            ..PoolOptions::default()
        };
        let pool = Pool::new(options);
        assert!(!pool.copies_out(1), "it is not scarce");
        let lent: Vec<_> = (0..64).map_while(|_| pool.take()).collect();
        assert!(pool.is_scarce());
        let copies = (0..).take_while(|_| pool.copies_out(8)).count();
        assert_eq!(
            copies,
            options.pool_bytes_max / COPIES_PART / (8 + COPY_BYTES)
        );
        pool.copy_is_gone(8);
        assert!(pool.copies_out(8) && !pool.copies_out(8));
        for buffer in lent {
            pool.give(buffer);
        }
    }
}
