//! Timers: a million deadlines in one hierarchical timing wheel (contract C17).
//!
//! Setting or cancelling a timer relinks one entry of a list, however many timers there are (after
//! Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", 1987). Nothing is allocated for a
//! timer: entries live in chunks that never move (C13) and are linked by their index.
//!
//! A deadline is a number of nanoseconds since `start`, and the wheel reads it in digits of six
//! bits above a *tick* of 2^20 nanoseconds, about a millisecond. A timer stands at the level of
//! the highest digit in which its deadline differs from the wheel's position, in the slot that
//! this digit names. So all of one level is due before anything of the next, the lowest bit of the
//! lowest bitmap that is not empty is the earliest slot, and nothing is ever searched. When time
//! reaches a slot above the lowest level its timers are spread over the levels below, which
//! happens to a timer at most seven times. A tick is a power of two because digits are shifts
//! then, and because eight levels then reach the end of a `u64`, in 584 years: no deadline is
//! outside of the wheel, so there is no case for those that would be.
//!
//! A slot is spread by portions. With a million timers of half a minute a slot has 140,000, and
//! to spread them at once held the lock for 35 milliseconds; a portion takes a third of one.
//!
//! The tick is no limit of precision. An entry keeps its exact deadline and expires when that has
//! passed, never before, and [`Timers::next_deadline`] answers the exact minimum of the earliest
//! slot as long as few timers share it. Where many do, one may be late, by less than a tick.
//!
//! Rejected: a heap or an ordered map, because set and cancel cost a walk of cache misses each
//! that grows with the number of timers; a wheel that never moves a timer, as Linux has it since
//! 4.8, because it is late by up to an eighth of the time asked for; a kernel timer each, because
//! it is a descriptor and two system calls each.

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
/// The list of timers that were overdue when they were set; the others are numbered by level and
/// slot.
const OVERDUE: u16 = (LEVELS * SLOTS) as u16;
/// The list of an entry that is in none.
const UNLISTED: u16 = u16::MAX;
/// Marks the end of a list of entries.
const NONE: u32 = u32::MAX;
/// A deadline past the 584 years of the wheel's clock; also the deadline of no timer at all.
const NEVER: u64 = u64::MAX;
/// Entries in one chunk. The first chunk of a port with few timers costs the pages they touch.
const CHUNK_ENTRIES: u32 = 4096;
/// Timers of a slot that are compared with each other; what bounds the work also bounds how many
/// may share a tick before one of them can be late.
const COMPARED_MAX: usize = 16;
/// Timers that one call moves to the levels below: the lock of the timers is held meanwhile, and
/// each is likely to miss the cache.
const MOVES_MAX: u32 = 1024;

const _: () = assert!(
    TICK_BITS + LEVELS * DIGIT_BITS >= u64::BITS,
    "every deadline has its place in the wheel"
);

/// A place in the table, and which of its successive timers is meant.
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
    /// Which of the successive timers in this place is meant. It comes round after four billion
    /// of them, as that of a socket's slot does.
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
    /// How many entries there may be: a few for timers beyond that.
    entries_max: u32,
    chunks: Vec<Vec<Entry<T>>>,
    /// Entries ever used; those behind them are fresh.
    used: u32,
    /// The first free entry among those ever used.
    free: u32,
    length: u32,
    /// Where the wheel stands. Every timer that was due before has been taken, and every slot of
    /// the levels above the lowest lies ahead.
    position: u64,
    /// The slot that is being spread, until it is empty; the wheel stands at its beginning.
    spreading: Option<u16>,
    /// Before this instant `expire` has nothing to do.
    look: u64,
    /// What `next_deadline` answers. It is never later than the earliest deadline's tick allows,
    /// also when it is stale: taking a timer away only leaves it too early.
    wake: u64,
    /// Whether a timer that `wake` may stand for is gone.
    wake_is_stale: bool,
    /// When those who sleep look at the timers again, at the latest. No timer is due before.
    told: u64,
    /// For each level, which of its slots hold timers.
    occupied: [u64; LEVELS as usize],
    lists: [List; OVERDUE as usize + 1],
}

impl<T> fmt::Debug for Timers<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A million entries would tell less than how many there are.
        f.debug_struct("Timers")
            .field("length", &self.length)
            .field("timers_max", &self.timers_max)
            .finish_non_exhaustive()
    }
}

impl<T: Copy> Timers<T> {
    /// No timers yet, and no memory either until the first one. A deadline before `start` counts
    /// as `start`.
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
            told: NEVER,
            occupied: [0; LEVELS as usize],
            lists: [EMPTY; OVERDUE as usize + 1],
        }
    }

    /// Has room for so many more, which `insert_beyond` alone takes.
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

    /// The same for one that has to be set also where `timers_max` are.
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

    /// Takes a timer out; nothing if it has expired, was cancelled or never was.
    pub(crate) fn cancel(&mut self, id: TimerId) -> Option<T> {
        let chunk = self.chunks.get((id.index / CHUNK_ENTRIES) as usize)?;
        let entry = chunk.get((id.index % CHUNK_ENTRIES) as usize)?;
        if entry.generation != id.generation || entry.list == UNLISTED {
            return None;
        }
        self.wake_is_stale |= entry.deadline <= self.wake;
        Some(self.take(id.index).1)
    }

    /// When to call [`expire`](Self::expire) next: at the earliest deadline. Where many timers share
    /// a slot it is earlier, at the slot's beginning, or within a tick of that deadline.
    ///
    /// After an `expire` that found nothing the answer lies ahead of the time that was given to
    /// it, unless the slots it has to spread are not all spread yet: then call again, as soon as
    /// other work allows. Only a timer with an earlier deadline makes the answer earlier: a thread
    /// that sleeps until then has to be woken for such a timer, and for nothing else. Nothing
    /// means that no timer is set whose deadline the wheel's clock will ever reach.
    pub(crate) fn next_deadline(&mut self) -> Option<Instant> {
        if self.wake_is_stale {
            self.wake_is_stale = false;
            // A slot that got crowded may answer its own beginning, before what was known.
            self.wake = self.wake.max(self.earliest());
        }
        if self.wake == NEVER {
            return None;
        }
        self.start.checked_add(Duration::from_nanos(self.wake))
    }

    /// Until when a thread may sleep. Where it is not `alone`, others sleep until then already:
    /// the answer is what they were told, though that timer may be gone, until it is past. So it is
    /// never later for a thread that sleeps than for one that falls asleep after it, and only a timer
    /// before it is news to any of them.
    pub(crate) fn sleep_until(&mut self, now: Instant, alone: bool) -> Option<Instant> {
        let now = nanoseconds(now.saturating_duration_since(self.start));
        if alone || self.told <= now {
            self.next_deadline();
            self.told = self.wake;
        }
        if self.told == NEVER {
            return None;
        }
        self.start.checked_add(Duration::from_nanos(self.told))
    }

    /// Whether a timer with this deadline is due before those who sleep look again. The caller wakes
    /// them then.
    pub(crate) fn is_news(&mut self, deadline: Instant) -> bool {
        let deadline = nanoseconds(deadline.saturating_duration_since(self.start));
        let news = deadline < self.told;
        self.told = self.told.min(deadline);
        news
    }

    /// Takes out one timer whose deadline is at or before `now`, in the order of their ticks;
    /// those that were overdue when they were set come first.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<(TimerId, T)> {
        // What was due before `start` counts as due then, so before that nothing is.
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

    /// How many timers are set.
    pub(crate) fn len(&self) -> usize {
        self.length as usize
    }

    /// A timer that is due, after spreading the slots that time has reached. Nothing is due if
    /// `look` lies ahead then; else there was more to spread than one call may.
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

    /// Moves the wheel to the beginning of this slot, and its timers to the levels below. Those
    /// are empty before, or a slot of theirs would be the first.
    fn spread(&mut self, list: u16, moves_left: &mut u32) {
        self.position = self.look;
        self.spreading = Some(list);
        // The last one that leaves the list ends the spreading.
        while self.spreading.is_some() && *moves_left > 0 {
            let index = self.lists[usize::from(list)].head;
            self.unlink(index);
            self.link(index, self.list_for(self.entry(index).deadline));
            *moves_left -= 1;
        }
    }

    /// The list that holds the earliest timer, unless one that is being spread comes before.
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

    /// The earliest timer among the first ones of a list that is not empty, and its deadline.
    fn soonest(&self, list: u16) -> (u32, u64) {
        self.walk(list)
            .take(COMPARED_MAX)
            .map(|index| (index, self.entry(index).deadline))
            .min_by_key(|(_, deadline)| *deadline)
            .expect("a list that is marked as occupied holds a timer")
    }

    /// The earliest deadline; what it may be, if finding it would take long.
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

    /// The entries of a list, first in first out.
    fn walk(&self, list: u16) -> impl Iterator<Item = u32> {
        let some = |index: u32| (index != NONE).then_some(index);
        let head = self.lists[usize::from(list)].head;
        iter::successors(some(head), move |index| some(self.entry(*index).next))
    }

    /// Where a timer belongs, as the wheel stands now.
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

    /// Takes an entry out of its list.
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

    /// An entry for a new timer, not yet in a list; nothing when all are in use.
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

    /// The chunk that a fresh entry goes to, with memory for it.
    fn chunk_for(&mut self, index: u32) -> &mut Vec<Entry<T>> {
        if index % CHUNK_ENTRIES == 0 {
            // The whole directory at once, so that it never moves either.
            let chunks_max = self.entries_max.div_ceil(CHUNK_ENTRIES) as usize;
            self.chunks.reserve_exact(chunks_max - self.chunks.len());
            let entries = CHUNK_ENTRIES.min(self.entries_max - index);
            self.chunks.push(Vec::with_capacity(entries as usize));
        }
        &mut self.chunks[(index / CHUNK_ENTRIES) as usize]
    }

    /// Takes a timer out of its list and gives its entry back.
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

/// When a timer in this list needs a look: at its deadline on the lowest level, else where its
/// slot begins, to be spread.
fn look(list: u16, deadline: u64) -> u64 {
    match level(list) {
        0 => deadline,
        level => deadline >> shift(level) << shift(level),
    }
}

/// The level of a list. Overdue timers need no spreading, as those of the lowest level.
fn level(list: u16) -> u32 {
    match list {
        OVERDUE => 0,
        list => u32::from(list) / SLOTS,
    }
}

/// How far the digit of a level is from the right.
fn shift(level: u32) -> u32 {
    TICK_BITS + level * DIGIT_BITS
}

/// The length in nanoseconds, up to [`NEVER`].
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(NEVER)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod told;
