//! The wheel compared with a model: an ordered map, which is slow and obviously correct.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::{
    CHUNK_ENTRIES, COMPARED_MAX, Entry, MOVES_MAX, TICK_BITS, TimerId, Timers, nanoseconds,
};

const TICK: Duration = Duration::from_nanos(1 << TICK_BITS);
const MINUTE: Duration = Duration::from_secs(60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A xorshift generator: the same numbers for the same seed, on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn seeded(seed: u64) -> Self {
        Random(0x9E37_79B9_7F4A_7C15u64.wrapping_mul(seed))
    }

    /// A duration of any magnitude: each level of the wheel is as likely as another.
    fn duration(&mut self) -> Duration {
        let magnitude = self.below(58);
        Duration::from_nanos(self.next() & ((1 << magnitude) - 1))
    }
}

/// The wheel and the model. Each operation is done to both, and the results are compared.
struct Pair {
    timers: Timers<u64>,
    /// By the number of the timer, which is its payload: the name, the deadline, and whether the
    /// deadline had already passed when the timer was set.
    model: BTreeMap<u64, (TimerId, Instant, bool)>,
    /// Deadlines with the numbers of their timers.
    order: BTreeSet<(Instant, u64)>,
    /// Places in use.
    places: BTreeSet<u32>,
    /// Names of timers that have expired or were cancelled.
    stale: Vec<TimerId>,
    start: Instant,
    now: Instant,
    /// The latest time given to `expire`.
    seen: Instant,
    /// The latest time at which `expire` found nothing.
    drained: Instant,
    inserted: u64,
    /// The last result of `next_deadline`.
    next: Option<Instant>,
    /// How many times `expire` had more to spread than one call may.
    portions: u32,
}

impl Pair {
    fn new(timers_max: u32) -> Self {
        // The clock of a machine that has just started may not reach instants before now.
        let start = Instant::now() + MINUTE;
        Pair {
            timers: Timers::new(start, timers_max),
            model: BTreeMap::new(),
            order: BTreeSet::new(),
            places: BTreeSet::new(),
            stale: Vec::new(),
            start,
            now: start,
            seen: start,
            drained: start,
            inserted: 0,
            next: None,
            portions: 0,
        }
    }

    fn insert(&mut self, deadline: Instant) {
        let before = self.next;
        let number = self.inserted;
        let Some(id) = self.timers.insert(deadline, number) else {
            assert_eq!(self.model.len(), self.timers.timers_max as usize, "full");
            return;
        };
        self.inserted += 1;
        assert!(self.places.insert(id.index), "one place for two timers");
        self.order.insert((deadline, number));
        let overdue = deadline <= self.drained;
        self.model.insert(number, (id, deadline, overdue));
        self.next = self.timers.next_deadline();
        let deadline = deadline.max(self.start);
        let lowest = before.map_or(deadline, |before| before.min(deadline));
        assert!(
            self.next.is_some_and(|next| next >= lowest),
            "a sleeper has to be woken for an earlier deadline only"
        );
        self.check();
    }

    /// Cancels a timer that was set about `numbers_ago` timers ago, if it still exists.
    fn cancel(&mut self, numbers_ago: u64) {
        let since = self.inserted.saturating_sub(numbers_ago);
        let Some((&number, &(id, ..))) = self.model.range(since..).next() else {
            return;
        };
        assert_eq!(self.timers.cancel(id), Some(number), "a live timer");
        self.check_taken(id, number);
    }

    /// Removes one timer and returns its deadline.
    fn expire(&mut self) -> Option<Instant> {
        let expired = self.timers.expire(self.now);
        // With an earlier clock reading it may find fewer.
        let forward = self.now >= self.seen;
        self.seen = self.seen.max(self.now);
        if let Some((id, number)) = expired {
            let deadline = self.check_taken(id, number);
            assert!(deadline <= self.now, "early");
            return Some(deadline);
        }
        self.check_next();
        if self.is_unfinished() {
            self.portions += 1;
            return None;
        }
        assert!(self.next.is_none_or(|next| next > self.now), "spinning");
        if forward {
            assert_eq!(self.timers.position, self.elapsed(self.now), "left behind");
            self.check_nothing_due();
            self.drained = self.now;
        }
        None
    }

    /// Removes all timers that are due. Those that were not overdue when they were set come in the
    /// order of ticks.
    fn drain(&mut self) {
        let seen = self.seen;
        let mut last = self.start;
        loop {
            match self.expire() {
                Some(deadline) if deadline > seen => {
                    assert!(self.tick(deadline) >= self.tick(last), "out of order");
                    last = deadline;
                }
                Some(_) => {}
                None if self.is_unfinished() => {}
                None => return,
            }
        }
    }

    /// Whether the last `expire` left something to spread.
    fn is_unfinished(&self) -> bool {
        self.now >= self.start && self.timers.look <= self.elapsed(self.now)
    }

    fn elapsed(&self, at: Instant) -> u64 {
        nanoseconds(at.saturating_duration_since(self.start))
    }

    fn tick(&self, at: Instant) -> u64 {
        self.elapsed(at) >> TICK_BITS
    }

    /// After `expire` found nothing: a timer that is due nevertheless is in a crowded tick that has
    /// not ended, and was not overdue when it was set.
    fn check_nothing_due(&self) {
        let tick = self.tick(self.now);
        let mut late = self.order.range(..=(self.now, u64::MAX)).peekable();
        if late.peek().is_some() {
            let crowd = self.order.iter().filter(|key| self.tick(key.0) == tick);
            assert!(crowd.count() > COMPARED_MAX, "late without need");
        }
        for (deadline, number) in late {
            assert_eq!(self.tick(*deadline), tick, "lost");
            assert!(!self.model[number].2, "not taken at once");
        }
    }

    /// Checks a timer that was removed: it was there, and is not there now. Returns its deadline.
    fn check_taken(&mut self, id: TimerId, number: u64) -> Instant {
        let (expected, deadline, _) = self.model.remove(&number).expect("out once");
        assert_eq!(id, expected, "the name that was given out");
        assert!(self.order.remove(&(deadline, number)));
        assert!(self.places.remove(&id.index));
        assert_eq!(self.timers.cancel(id), None, "out before");
        self.stale.push(id);
        self.check_next();
        deadline
    }

    /// Without an insert the next deadline is right, and never before the last result.
    fn check_next(&mut self) {
        let before = self.next;
        self.next = self.timers.next_deadline();
        assert!(
            self.next.is_none() || self.next >= before,
            "a sleeper would have to be woken"
        );
        self.check();
    }

    fn check(&self) {
        assert_eq!(self.timers.len(), self.model.len());
        let earliest = self.order.first().map(|key| key.0);
        assert_eq!(self.next.is_some(), earliest.is_some());
        if let (Some(next), Some(earliest)) = (self.next, earliest) {
            let end_of_tick = self.start + ticks(self.tick(earliest) + 1);
            let in_time = next < end_of_tick || next <= self.seen;
            assert!(in_time, "later than the tick of the earliest");
        }
    }

    /// Returns a time around now, of any magnitude.
    fn any_time(&self, random: &mut Random) -> Instant {
        match random.below(10) {
            0 => self.now - random.duration().min(MINUTE),
            1 => self.now,
            // Many in the same few ticks.
            2..=5 => self.now + Duration::from_nanos(random.below(3 << TICK_BITS)),
            _ => self.now + random.duration(),
        }
    }

    fn advance(&mut self, random: &mut Random) {
        let next = self.next.unwrap_or(self.now);
        self.now = match random.below(12) {
            0 => self.now + random.duration(),
            1 => self.now.max(next),
            2 => self.now.max(next - Duration::from_nanos(1)),
            // The clock of another thread, read a little earlier.
            3 => self.now - Duration::from_nanos(random.below(1 << TICK_BITS)),
            4 => self.now + TICK * random.below(5000) as u32,
            _ => self.now + Duration::from_nanos(random.below(2 << TICK_BITS)),
        };
    }
}

fn ticks(count: u64) -> Duration {
    Duration::from_nanos(count << TICK_BITS)
}

/// Does one random operation.
fn operate(pair: &mut Pair, random: &mut Random) {
    match random.below(100) {
        0..50 => pair.insert(pair.any_time(random)),
        50..70 => pair.cancel(random.below(u64::from(pair.timers.timers_max) * 2)),
        70..75 if !pair.stale.is_empty() => {
            let place = random.below(pair.stale.len() as u64) as usize;
            assert_eq!(pair.timers.cancel(pair.stale[place]), None, "stale");
        }
        70..85 => drop(pair.expire()),
        85..90 => pair.drain(),
        _ => pair.advance(random),
    }
}

/// Long after all deadlines, nothing is left.
fn finish(mut pair: Pair) {
    pair.now = pair.now.max(pair.start) + YEAR * 100;
    pair.drain();
    assert!(pair.model.is_empty(), "{} are lost", pair.model.len());
    assert_eq!(pair.next, None);
}

#[test]
fn agrees_with_the_model() {
    for seed in 1..=50 {
        let mut random = Random::seeded(seed);
        let mut pair = Pair::new([1, 5, 60, 300][seed as usize % 4]);
        for _ in 0..2000 {
            operate(&mut pair, &mut random);
        }
        finish(pair);
    }
}

#[test]
fn agrees_with_the_model_while_large_slots_are_spread() {
    for seed in 1..=20 {
        let mut random = Random::seeded(seed);
        let mut pair = Pair::new(8 * MOVES_MAX);
        for round in 1..=3 {
            // About the four seconds of one slot of the third level, and some of the next.
            let slot = pair.tick(pair.now) / 4096 + 1 + random.below(100);
            let slot = pair.start + ticks(slot * 4096);
            for _ in 0..2 * MOVES_MAX + random.below(20) as u32 {
                pair.insert(slot + ticks(random.below(5000)));
            }
            while pair.portions < round && pair.next.is_some() {
                pair.now = pair.now.max(pair.next.unwrap());
                let _ = pair.expire();
            }
            for _ in 0..random.below(100) {
                operate(&mut pair, &mut random);
            }
        }
        assert!(pair.portions >= 3, "none was large");
        finish(pair);
    }
}

#[test]
fn a_deadline_ahead_of_a_slot_half_spread_is_known() {
    let mut pair = Pair::new(2 * MOVES_MAX);
    let slot = pair.start + ticks(4096 * 10);
    // The last ones to be spread are not the first to be due.
    for _ in 0..MOVES_MAX {
        pair.insert(slot + ticks(100));
    }
    pair.insert(slot + ticks(3000));
    pair.now = slot + ticks(50);
    assert_eq!(pair.expire(), None);
    assert_eq!(pair.portions, 1);
    assert_eq!(pair.next, Some(slot + ticks(100)));
    pair.insert(pair.now + ticks(70));
    pair.insert(pair.now + ticks(20));
    pair.drain();
    assert_eq!(pair.next, Some(slot + ticks(70)));
    finish(pair);
}

#[test]
fn a_sleeper_wakes_for_each_timer_and_seldom_for_nothing() {
    let mut random = Random::seeded(7);
    let mut pair = Pair::new(1000);
    for _ in 0..1000 {
        pair.insert(pair.start + random.duration());
    }
    let mut for_nothing = 0;
    while let Some(next) = pair.timers.next_deadline() {
        pair.now = next;
        let left = pair.timers.len();
        pair.drain();
        for_nothing += u32::from(pair.timers.len() == left);
    }
    assert_eq!(pair.timers.len(), 0);
    // At most once for each slot above the lowest level that is crowded.
    assert!(for_nothing <= 100, "{for_nothing} times for nothing");
}

#[test]
fn few_timers_wake_a_sleeper_at_their_deadline_and_never_before() {
    let mut pair = Pair::new(10);
    for after in [0.0001, 0.0012, 0.0013, 0.7, 30.0, 30.001, 3600.0, 1e8, 1e9] {
        pair.insert(pair.start + Duration::from_secs_f64(after));
    }
    let deadlines: Vec<Instant> = pair.order.iter().map(|key| key.0).collect();
    for deadline in deadlines {
        assert_eq!(pair.timers.next_deadline(), Some(deadline));
        pair.now = deadline - Duration::from_nanos(1);
        assert_eq!(pair.expire(), None);
        pair.now = deadline;
        assert_eq!(pair.expire(), Some(deadline));
    }
    assert_eq!(pair.timers.next_deadline(), None);
}

#[test]
fn a_crowded_tick_is_out_when_it_is_over() {
    let mut random = Random::seeded(3);
    let mut pair = Pair::new(1000);
    let tick = pair.start + ticks(5000);
    for _ in 0..1000 {
        let within = Duration::from_nanos(random.below(1 << TICK_BITS));
        pair.insert(tick + within);
    }
    pair.now = tick - Duration::from_nanos(1);
    assert_eq!(pair.expire(), None);
    while pair.now < tick + TICK {
        pair.now += Duration::from_micros(10);
        pair.drain();
    }
    assert_eq!(pair.timers.len(), 0);
}

#[test]
fn overdue_timers_expire_at_once_and_first() {
    let mut pair = Pair::new(100);
    pair.now += MINUTE;
    assert_eq!(pair.expire(), None);
    // Enough timers in the current tick that not all are compared.
    for _ in 0..50 {
        pair.insert(pair.now + Duration::from_nanos(1));
    }
    let overdue = [pair.start - MINUTE, pair.start, pair.now];
    for deadline in overdue {
        pair.insert(deadline);
    }
    assert_eq!(overdue.map(|_| pair.expire()), overdue.map(Some));
    assert_eq!(pair.expire(), None);
    pair.now += Duration::from_nanos(1);
    pair.drain();
    assert_eq!(pair.timers.len(), 0);
}

#[test]
fn nothing_is_due_before_the_start() {
    let mut pair = Pair::new(2);
    pair.insert(pair.start - Duration::from_secs(1));
    assert_eq!(pair.timers.next_deadline(), Some(pair.start));
    pair.now -= Duration::from_secs(2);
    assert_eq!(pair.expire(), None);
    pair.now = pair.start;
    assert!(pair.expire().is_some());
}

#[test]
fn a_deadline_past_the_clock_never_comes_and_can_be_cancelled() {
    let start = Instant::now();
    let mut timers = Timers::new(start, 4);
    let never = timers.insert(start + YEAR * 1000, 1).unwrap();
    let last = start + Duration::from_nanos(u64::MAX - 1);
    let late = timers.insert(last, 2).unwrap();
    assert_eq!(timers.next_deadline(), Some(last));
    assert_eq!(timers.expire(last - TICK), None);
    assert_eq!(timers.expire(start + YEAR * 2000), Some((late, 2)));
    assert_eq!(timers.next_deadline(), None);
    assert_eq!(timers.expire(start + YEAR * 2000), None);
    assert_eq!(timers.cancel(never), Some(1));
    assert_eq!(timers.len(), 0);
}

#[test]
fn the_bound_refuses_and_a_free_place_is_used_again() {
    let start = Instant::now();
    let mut timers = Timers::new(start, 3);
    let ids = [0, 1, 2].map(|value| timers.insert(start + MINUTE, value).unwrap());
    assert_eq!(timers.insert(start, 3), None);
    assert_eq!(timers.cancel(ids[1]), Some(1));
    let again = timers.insert(start + MINUTE, 4).unwrap();
    assert_eq!(again.index, ids[1].index, "the place of the one that left");
    assert_eq!(timers.cancel(ids[1]), None, "its name is over");
    assert_eq!(timers.insert(start, 5), None);
    assert_eq!(timers.cancel(again), Some(4));
    assert_eq!(Timers::new(start, 0).insert(start, 0), None);
}

#[test]
fn a_name_that_was_never_given_out_cancels_nothing() {
    let start = Instant::now();
    let mut timers = Timers::new(start, 10);
    let id = timers.insert(start, 0).unwrap();
    for index in [1, 9, CHUNK_ENTRIES, u32::MAX] {
        assert_eq!(timers.cancel(TimerId { index, ..id }), None);
    }
    assert_eq!(timers.cancel(id), Some(0));
    let next = TimerId {
        generation: id.generation + 1,
        ..id
    };
    assert_eq!(timers.cancel(next), None, "its timer has not been set yet");
}

#[test]
fn a_million_timers_cost_their_chunks_and_no_more() {
    const MILLION: u32 = 1_000_000;
    let start = Instant::now();
    let mut random = Random::seeded(1);
    let mut timers = Timers::new(start, MILLION);
    assert_eq!(timers.chunks.capacity(), 0, "nothing before the first");
    let mut addresses = Vec::new();
    // In the last round all are in one list, of which `expire` looks at a few.
    for within in [60_000_000_000, 60_000_000_000, 1000] {
        let mut ids = Vec::new();
        for value in 0..MILLION {
            let deadline = start + Duration::from_nanos(random.below(within) + 1);
            ids.push(timers.insert(deadline, value).unwrap());
        }
        assert_eq!(timers.insert(start, 0), None);
        let chunks: Vec<_> = timers.chunks.iter().map(Vec::as_ptr).collect();
        assert_eq!(chunks.len(), MILLION.div_ceil(CHUNK_ENTRIES) as usize);
        assert!(addresses.is_empty() || addresses == chunks, "a chunk moved");
        addresses = chunks;
        let entries: usize = timers.chunks.iter().map(Vec::capacity).sum();
        assert_eq!(entries, MILLION as usize, "the last chunk is no larger");
        // The even ones are cancelled, the odd ones expire.
        for (id, value) in ids.into_iter().zip(0..).step_by(2) {
            assert_eq!(timers.cancel(id), Some(value));
        }
        while timers.next_deadline().is_some() {
            let expired = timers.expire(start + MINUTE);
            assert!(expired.is_none_or(|(_, value)| value % 2 == 1));
        }
        assert_eq!(timers.len(), 0);
    }
}

#[test]
fn an_entry_is_small() {
    assert_eq!(size_of::<Entry<[u64; 2]>>(), 40);
}
