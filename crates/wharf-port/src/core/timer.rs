//! Timers: a million deadlines in one hierarchical timing wheel (contract C17).
//!
//! Setting or cancelling a timer relinks one entry of a list, however many timers there are (after
//! Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", 1987). A timer needs no allocation:
//! entries are in chunks that never move (C13), and are linked by their index.
//!
//! A deadline is a number of nanoseconds since `start`. The wheel reads it in digits of six bits
//! above a *tick* of 2^20 nanoseconds, about a millisecond. A timer is at the level of the highest
//! digit in which its deadline differs from the wheel's position, in the slot that this digit
//! names. So all of one level is due before anything of the next. The lowest bit of the lowest
//! bitmap that is not empty is the earliest slot, and nothing is ever searched. When time reaches a
//! slot above the lowest level, its timers are spread over the levels below. That happens to a
//! timer at most seven times. A tick is a power of two for two reasons. Digits are shifts then. And
//! eight levels then reach the end of a `u64`, 584 years, so no deadline is outside of the wheel
//! and needs a case of its own.
//!
//! A slot is spread in portions. With a million timers of half a minute a slot has 140,000.
//! Spreading them at once held the lock for 35 milliseconds; a portion takes a third of a
//! millisecond.
//!
//! The tick does not limit precision. An entry keeps its exact deadline and expires when that has
//! passed, never before. [`Timers::next_deadline`] returns the exact minimum of the earliest slot
//! as long as few timers share the slot. If many do, one may be late, by less than a tick.
//!
//! Rejected: a heap or an ordered map, because set and cancel each cost a walk of cache misses that
//! grows with the number of timers; a wheel that never moves a timer, as in Linux since 4.8,
//! because it is late by up to an eighth of the time; a kernel timer each, because each is a
//! descriptor and two system calls.

use std::fmt;
use std::iter;
use std::time::{Duration, Instant};

/// A tick is 2 to this power nanoseconds: 1.05 milliseconds.
const TICK_BITS: u32 = 20;
/// Bits of a digit: one bit of a `u64` says whether a slot holds timers.
const DIGIT_BITS: u32 = 6;
/// Slots of a level.
const SLOTS: u32 = 1 << DIGIT_BITS;
/// Levels of the wheel.
const LEVELS: u32 = 8;
/// The list of timers that were overdue when they were set. The other lists are numbered by level
/// and slot.
const OVERDUE: u16 = (LEVELS * SLOTS) as u16;
/// The list of an entry that is in no list.
const UNLISTED: u16 = u16::MAX;
/// Marks the end of a list of entries.
const NONE: u32 = u32::MAX;
/// A deadline past the 584 years of the wheel's clock; also the deadline of no timer at all.
const NEVER: u64 = u64::MAX;
/// Entries in one chunk. With few timers the first chunk costs only the pages that they touch.
const CHUNK_ENTRIES: u32 = 4096;
/// Timers of a slot that are compared with each other. It bounds the work, and also how many may
/// share a tick before one of them can be late.
const COMPARED_MAX: usize = 16;
/// Timers that one call moves to the levels below. The call holds the lock of the timers, and each
/// move is likely to miss the cache.
const MOVES_MAX: u32 = 1024;

const _: () = assert!(
    TICK_BITS + LEVELS * DIGIT_BITS >= u64::BITS,
    "every deadline has its place in the wheel"
);

/// A place in the table, and the generation of its timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TimerId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// One timer, or a free place: 40 bytes with a payload of 16.
struct Entry<T> {
    deadline: u64,
    value: T,
    /// The next entry of the same list, or of the free ones.
    next: u32,
    previous: u32,
    /// The generation: which timer in this place is meant. It wraps after four billion timers, like
    /// that of a socket's slot.
    generation: u32,
    list: u16,
}

/// A doubly linked list of entries.
#[derive(Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
}

const EMPTY: List = List {
    head: NONE,
    tail: NONE,
};

/// The timers of a port. All times inside are nanoseconds since `start`.
pub(crate) struct Timers<T> {
    start: Instant,
    timers_max: u32,
    /// How many entries there may be: a few more than `timers_max`.
    entries_max: u32,
    chunks: Vec<Vec<Entry<T>>>,
    /// Entries ever used; the entries after them are fresh.
    used: u32,
    /// The first free entry among those ever used.
    free: u32,
    length: u32,
    /// The position of the wheel. Every timer that was due before has been taken, and every slot of
    /// the levels above the lowest is ahead.
    position: u64,
    /// The slot that is being spread, until it is empty. The wheel is at its beginning.
    spreading: Option<u16>,
    /// Before this instant `expire` has nothing to do.
    look: u64,
    /// What `next_deadline` returns. It is never later than the tick of the earliest deadline
    /// allows, even when it is stale: taking a timer away only makes it too early.
    wake: u64,
    /// Whether the timer that `wake` came from may be gone.
    wake_is_stale: bool,
    /// When the sleepers look at the timers again, at the latest. No timer is due before.
    sleepers_look: u64,
    /// For each level, which of its slots hold timers.
    occupied: [u64; LEVELS as usize],
    lists: [List; OVERDUE as usize + 1],
}

impl<T> fmt::Debug for Timers<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The number of entries says more than a million entries.
        f.debug_struct("Timers")
            .field("length", &self.length)
            .field("timers_max", &self.timers_max)
            .finish_non_exhaustive()
    }
}

impl<T: Copy> Timers<T> {
    /// Makes an empty wheel. It allocates nothing until the first timer. A deadline before `start`
    /// counts as `start`.
    pub(crate) fn new(start: Instant, timers_max: u32) -> Self {
        Timers {
            start,
            timers_max,
            entries_max: timers_max,
            chunks: Vec::new(),
            used: 0,
            free: NONE,
            length: 0,
            position: 0,
            spreading: None,
            look: NEVER,
            wake: NEVER,
            wake_is_stale: false,
            sleepers_look: NEVER,
            occupied: [0; LEVELS as usize],
            lists: [EMPTY; OVERDUE as usize + 1],
        }
    }

    /// Adds space for `timers` more, which only `insert_beyond` uses.
    pub(crate) fn with_room_beyond(mut self, timers: u32) -> Self {
        self.entries_max = self.timers_max.saturating_add(timers);
        self
    }

    /// Sets a timer, unless `timers_max` are set.
    pub(crate) fn insert(&mut self, deadline: Instant, value: T) -> Option<TimerId> {
        if self.length >= self.timers_max {
            return None;
        }
        self.insert_beyond(deadline, value)
    }

    /// Sets a timer even if `timers_max` are set.
    pub(crate) fn insert_beyond(&mut self, deadline: Instant, value: T) -> Option<TimerId> {
        let deadline = nanoseconds(deadline.saturating_duration_since(self.start));
        let index = self.allocate(deadline, value)?;
        let list = self.list_for(deadline);
        self.link(index, list);
        self.length += 1;
        self.look = self.look.min(look(list, deadline));
        self.wake = self.wake.min(deadline);
        let generation = self.entry(index).generation;
        Some(TimerId { index, generation })
    }

    /// Removes a timer. Returns `None` if it has expired, was cancelled or never existed.
    pub(crate) fn cancel(&mut self, id: TimerId) -> Option<T> {
        let chunk = self.chunks.get((id.index / CHUNK_ENTRIES) as usize)?;
        let entry = chunk.get((id.index % CHUNK_ENTRIES) as usize)?;
        if entry.generation != id.generation || entry.list == UNLISTED {
            return None;
        }
        self.wake_is_stale |= entry.deadline <= self.wake;
        Some(self.take(id.index).1)
    }

    /// Returns when to call [`expire`](Self::expire) next: at the earliest deadline. If many timers
    /// share a slot it is earlier, at the slot's beginning, or within a tick of that deadline.
    ///
    /// After an `expire` that found nothing, the result is after the `now` of that call, unless the
    /// slots that it has to spread are not all spread yet. Then call `expire` again, as soon as
    /// other work allows. Only a timer with an earlier deadline makes the result earlier. So a
    /// thread that sleeps until then must be woken for such a timer, and for nothing else. `None`
    /// means that the wheel's clock never reaches the deadline of any timer.
    pub(crate) fn next_deadline(&mut self) -> Option<Instant> {
        if self.wake_is_stale {
            self.wake_is_stale = false;
            // A crowded slot may return its own beginning, before the deadline known so far.
            self.wake = self.wake.max(self.earliest());
        }
        if self.wake == NEVER {
            return None;
        }
        self.start.checked_add(Duration::from_nanos(self.wake))
    }

    /// Returns until when a thread may sleep. A thread that is not `alone` gets the time at which
    /// the others wake, even if the timer of that time is gone. That time counts until it has
    /// passed. So it is never later for a thread that sleeps than for one that falls asleep after
    /// it. Only a timer before that time has to wake one of them.
    pub(crate) fn sleep_until(&mut self, now: Instant, alone: bool) -> Option<Instant> {
        let now = nanoseconds(now.saturating_duration_since(self.start));
        if alone || self.sleepers_look <= now {
            self.next_deadline();
            self.sleepers_look = self.wake;
        }
        if self.sleepers_look == NEVER {
            return None;
        }
        self.start
            .checked_add(Duration::from_nanos(self.sleepers_look))
    }

    /// Whether a timer with this deadline is due before the sleepers look again. Then the caller
    /// wakes them.
    pub(crate) fn is_news(&mut self, deadline: Instant) -> bool {
        let deadline = nanoseconds(deadline.saturating_duration_since(self.start));
        let news = deadline < self.sleepers_look;
        self.sleepers_look = self.sleepers_look.min(deadline);
        news
    }

    /// Removes one timer whose deadline is at or before `now`, in the order of their ticks. Timers
    /// that were overdue when they were set come first.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<(TimerId, T)> {
        // A timer that was due before `start` counts as due at `start`, so nothing is due before
        // that.
        let now = nanoseconds(now.checked_duration_since(self.start)?).min(NEVER - 1);
        if self.look <= now {
            self.wake_is_stale = true;
            if let Some(index) = self.find_due(now) {
                return Some(self.take(index));
            }
        }
        if self.look > now {
            self.position = self.position.max(now);
        }
        None
    }

    /// Returns how many timers are set.
    pub(crate) fn len(&self) -> usize {
        self.length as usize
    }

    /// Returns a timer that is due, after it has spread the slots that time has reached. If it
    /// returns `None` and `look` is ahead, nothing is due. Otherwise there was more to spread than
    /// one call may.
    fn find_due(&mut self, now: u64) -> Option<u32> {
        let mut moves_left = MOVES_MAX;
        while let Some(list) = self.first_list() {
            let (index, deadline) = self.soonest(list);
            self.look = look(list, deadline);
            if self.look > now {
                return None;
            }
            if level(list) == 0 {
                return Some(index);
            }
            if moves_left == 0 {
                return None;
            }
            self.spread(list, &mut moves_left);
        }
        self.look = NEVER;
        None
    }

    /// Moves the wheel to the beginning of this slot, and its timers to the levels below. These are
    /// empty before that: otherwise one of their slots would be the first.
    fn spread(&mut self, list: u16, moves_left: &mut u32) {
        self.position = self.look;
        self.spreading = Some(list);
        // The last timer that leaves the list ends the spreading.
        while self.spreading.is_some() && *moves_left > 0 {
            let index = self.lists[usize::from(list)].head;
            self.unlink(index);
            self.link(index, self.list_for(self.entry(index).deadline));
            *moves_left -= 1;
        }
    }

    /// Returns the list with the earliest timer. A list that is being spread comes first.
    fn first_list(&self) -> Option<u16> {
        if self.spreading.is_some() {
            return self.spreading;
        }
        if self.lists[usize::from(OVERDUE)].head != NONE {
            return Some(OVERDUE);
        }
        let (level, occupied) = (0..).zip(self.occupied).find(|(_, slots)| *slots != 0)?;
        Some((level * SLOTS + occupied.trailing_zeros()) as u16)
    }

    /// Returns the earliest timer among the first ones of a list that is not empty, and its
    /// deadline.
    fn soonest(&self, list: u16) -> (u32, u64) {
        self.walk(list)
            .take(COMPARED_MAX)
            .map(|index| (index, self.entry(index).deadline))
            .min_by_key(|(_, deadline)| *deadline)
            .expect("a list that is marked as occupied holds a timer")
    }

    /// Returns the earliest deadline. If finding it would take long, returns the earliest that it
    /// may be.
    fn earliest(&self) -> u64 {
        let Some(list) = self.first_list() else {
            return NEVER;
        };
        let (_, deadline) = self.soonest(list);
        let crowded = self.walk(list).nth(COMPARED_MAX).is_some();
        if crowded || self.spreading.is_some() {
            return look(list, deadline);
        }
        deadline
    }

    /// Returns the entries of a list, first in first out.
    fn walk(&self, list: u16) -> impl Iterator<Item = u32> {
        let some = |index: u32| (index != NONE).then_some(index);
        let head = self.lists[usize::from(list)].head;
        iter::successors(some(head), move |index| some(self.entry(*index).next))
    }

    /// Returns the list of a timer, for the current position of the wheel.
    fn list_for(&self, deadline: u64) -> u16 {
        if deadline <= self.position {
            return OVERDUE;
        }
        let differing = (deadline ^ self.position) >> TICK_BITS;
        let level = differing.checked_ilog2().unwrap_or(0) / DIGIT_BITS;
        let slot = (deadline >> shift(level)) as u32 % SLOTS;
        (level * SLOTS + slot) as u16
    }

    /// Appends an entry to a list.
    fn link(&mut self, index: u32, list: u16) {
        let tail = self.lists[usize::from(list)].tail;
        let entry = self.entry_mut(index);
        entry.list = list;
        entry.previous = tail;
        entry.next = NONE;
        self.lists[usize::from(list)].tail = index;
        if tail == NONE {
            self.lists[usize::from(list)].head = index;
            self.set_occupied(list);
        } else {
            self.entry_mut(tail).next = index;
        }
    }

    /// Removes an entry from its list.
    fn unlink(&mut self, index: u32) {
        let entry = self.entry(index);
        let (next, previous, list) = (entry.next, entry.previous, entry.list);
        if next == NONE && previous == NONE {
            self.set_empty(list);
            return;
        }
        match next {
            NONE => self.lists[usize::from(list)].tail = previous,
            next => self.entry_mut(next).previous = previous,
        }
        match previous {
            NONE => self.lists[usize::from(list)].head = next,
            previous => self.entry_mut(previous).next = next,
        }
    }

    fn set_occupied(&mut self, list: u16) {
        if list != OVERDUE {
            self.occupied[level(list) as usize] |= 1 << (u32::from(list) % SLOTS);
        }
    }

    fn set_empty(&mut self, list: u16) {
        self.lists[usize::from(list)] = EMPTY;
        self.spreading = self.spreading.filter(|spreading| *spreading != list);
        if list != OVERDUE {
            self.occupied[level(list) as usize] &= !(1 << (u32::from(list) % SLOTS));
        }
    }

    /// Returns an entry for a new timer, not yet in a list; `None` if all are in use.
    fn allocate(&mut self, deadline: u64, value: T) -> Option<u32> {
        if self.free != NONE {
            let index = self.free;
            let entry = self.entry_mut(index);
            entry.deadline = deadline;
            entry.value = value;
            self.free = entry.next;
            return Some(index);
        }
        if self.used == self.entries_max {
            return None;
        }
        let index = self.used;
        self.chunk_for(index).push(Entry {
            deadline,
            value,
            next: NONE,
            previous: NONE,
            generation: 0,
            list: UNLISTED,
        });
        self.used += 1;
        Some(index)
    }

    /// Returns the chunk for a fresh entry, with memory for it.
    fn chunk_for(&mut self, index: u32) -> &mut Vec<Entry<T>> {
        if index % CHUNK_ENTRIES == 0 {
            // The whole directory is allocated at once, so it never moves either.
            let chunks_max = self.entries_max.div_ceil(CHUNK_ENTRIES) as usize;
            self.chunks.reserve_exact(chunks_max - self.chunks.len());
            let entries = CHUNK_ENTRIES.min(self.entries_max - index);
            self.chunks.push(Vec::with_capacity(entries as usize));
        }
        &mut self.chunks[(index / CHUNK_ENTRIES) as usize]
    }

    /// Removes a timer from its list and frees its entry.
    fn take(&mut self, index: u32) -> (TimerId, T) {
        self.unlink(index);
        let free = self.free;
        let entry = self.entry_mut(index);
        let generation = entry.generation;
        let value = entry.value;
        entry.generation = generation.wrapping_add(1);
        entry.list = UNLISTED;
        entry.next = free;
        self.free = index;
        self.length -= 1;
        (TimerId { index, generation }, value)
    }

    fn entry(&self, index: u32) -> &Entry<T> {
        &self.chunks[(index / CHUNK_ENTRIES) as usize][(index % CHUNK_ENTRIES) as usize]
    }

    fn entry_mut(&mut self, index: u32) -> &mut Entry<T> {
        &mut self.chunks[(index / CHUNK_ENTRIES) as usize][(index % CHUNK_ENTRIES) as usize]
    }
}

/// Returns when a timer in this list needs a look: at its deadline on the lowest level; otherwise
/// at the beginning of its slot, to spread it.
fn look(list: u16, deadline: u64) -> u64 {
    match level(list) {
        0 => deadline,
        level => deadline >> shift(level) << shift(level),
    }
}

/// Returns the level of a list. Overdue timers need no spreading, like those of the lowest level.
fn level(list: u16) -> u32 {
    match list {
        OVERDUE => 0,
        list => u32::from(list) / SLOTS,
    }
}

/// Returns how far the digit of a level is from the right.
fn shift(level: u32) -> u32 {
    TICK_BITS + level * DIGIT_BITS
}

/// Returns the length in nanoseconds, up to [`NEVER`].
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(NEVER)
}

#[cfg(test)]
mod sleepers;
#[cfg(test)]
mod tests;
