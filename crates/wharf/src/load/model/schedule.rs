//! When requests are due: an open loop, whose times do not depend on earlier requests.

use std::time::{Duration, Instant};

/// A request that starts later than this after its time counts as late.
const LATE_AFTER: Duration = Duration::from_millis(1);

/// Due times at a rate. A thread takes its share of them.
#[derive(Debug)]
pub(crate) struct Schedule {
    start: Instant,
    pace: Pace,
    /// The number of this thread.
    thread: u32,
    threads: u32,
    begun: u64,
    /// No request is due after this time, however late the thread looks. A load that was not
    /// scheduled at its end once sent what had become due since, and so more than requested.
    end: Option<Instant>,
}

/// How fast requests are due.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Pace {
    pub(crate) per_second: f64,
    /// How long the rate takes to rise evenly from zero.
    pub(crate) ramp: Duration,
}

impl Pace {
    /// The time of request `number`, counted over all threads from 0.
    ///
    /// While the rate rises, `rate / 2 * time² / ramp` requests have been due.
    fn time_of(self, number: u64) -> Duration {
        let ramp = self.ramp.as_secs_f64();
        let number = number as f64;
        let in_ramp = self.per_second * ramp / 2.0;
        let seconds = if number < in_ramp {
            (2.0 * ramp * number / self.per_second).sqrt()
        } else {
            ramp + (number - in_ramp) / self.per_second
        };
        Duration::from_secs_f64(seconds)
    }

    /// The approximate number of requests due within this time.
    fn count_within(self, elapsed: Duration) -> f64 {
        let (ramp, seconds) = (self.ramp.as_secs_f64(), elapsed.as_secs_f64());
        if seconds < ramp {
            self.per_second * seconds * seconds / (2.0 * ramp)
        } else {
            self.per_second * (ramp / 2.0 + (seconds - ramp))
        }
    }
}

/// A request that is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Due {
    pub(crate) at: Instant,
    pub(crate) late: bool,
}

impl Schedule {
    pub(crate) fn new(start: Instant, pace: Pace, thread: u32, threads: u32) -> Self {
        Schedule {
            start,
            pace,
            thread,
            threads,
            begun: 0,
            end: None,
        }
    }

    /// The same schedule with an end.
    pub(crate) fn until(self, end: Option<Instant>) -> Self {
        Schedule { end, ..self }
    }

    /// When the next request is due.
    pub(crate) fn next_at(&self) -> Instant {
        self.time_of(self.begun)
    }

    /// When this thread's own request is due, counted from 0.
    fn time_of(&self, own: u64) -> Instant {
        let number = own * u64::from(self.threads) + u64::from(self.thread);
        self.start + self.pace.time_of(number)
    }

    /// The number of due requests that were not taken. It is computed: if requests are due faster
    /// than the thread takes them, a loop over them does not end.
    pub(crate) fn overdue(&self, now: Instant) -> u64 {
        let is_due = |own: u64| {
            let at = self.time_of(own);
            at <= now && self.end.is_none_or(|end| at < end)
        };
        let until = self.end.map_or(now, |end| end.min(now));
        let elapsed = until.saturating_duration_since(self.start);
        let all = self.pace.count_within(elapsed) as u64 + 1;
        let mut own = all
            .saturating_sub(u64::from(self.thread))
            .div_ceil(u64::from(self.threads));
        // Rounding may be off by one or two.
        while is_due(own) {
            own += 1;
        }
        while own > 0 && !is_due(own - 1) {
            own -= 1;
        }
        own.saturating_sub(self.begun)
    }

    /// Drops the due requests that are late, and returns their number. They count as taken.
    pub(crate) fn give_up(&mut self, now: Instant) -> u64 {
        let late = now.checked_sub(LATE_AFTER);
        let count = late.map_or(0, |late| self.overdue(late));
        self.begun += count;
        count
    }

    /// The next request, if it is due.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Due> {
        let at = self.next_at();
        if at > now || self.end.is_some_and(|end| at >= end) {
            return None;
        }
        self.begun += 1;
        let late = now - at > LATE_AFTER;
        Some(Due { at, late })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn even(per_second: f64) -> Pace {
        let ramp = Duration::ZERO;
        Pace { per_second, ramp }
    }

    #[test]
    fn a_ramp_rises_to_the_rate_and_keeps_it() {
        let pace = Pace {
            per_second: 100.0,
            ramp: Duration::from_secs(10),
        };
        // Half of the requests of the full rate, and a quarter of those in the first half.
        for (number, seconds) in [(0, 0.0), (125, 5.0), (500, 10.0), (600, 11.0), (1500, 20.0)] {
            let time = pace.time_of(number).as_secs_f64();
            assert!((time - seconds).abs() < 1e-9, "{number}: {time}");
        }
    }

    #[test]
    fn threads_share_an_even_rate() {
        let start = Instant::now();
        let mut times: Vec<Duration> = Vec::new();
        for thread in 0..4 {
            let mut schedule = Schedule::new(start, even(1000.0), thread, 4);
            for _ in 0..25 {
                times.push(schedule.next_at() - start);
                assert!(schedule.take(start + Duration::from_secs(1)).is_some());
            }
        }
        times.sort();
        for (number, time) in times.iter().enumerate() {
            let even = Duration::from_millis(number as u64);
            assert!(
                time.abs_diff(even) < Duration::from_micros(1),
                "{number}: {time:?}"
            );
        }
    }

    #[test]
    fn what_is_overdue_is_what_could_be_taken() {
        let ramp = Pace {
            per_second: 1_000.0,
            ramp: Duration::from_secs(1),
        };
        let start = Instant::now();
        for pace in [even(1_000.0), even(3.7), even(99_999.9), ramp] {
            for (thread, threads) in [(0, 1), (1, 3), (2, 3)] {
                for (after, end) in [(0, None), (1, None), (777, None), (900, Some(500))] {
                    let end = end.map(|end| start + Duration::from_millis(end));
                    let now = start + Duration::from_millis(after);
                    let schedule = || Schedule::new(start, pace, thread, threads).until(end);
                    let mut taken = schedule();
                    let count = std::iter::from_fn(|| taken.take(now)).count() as u64;
                    assert_eq!(schedule().overdue(now), count, "{pace:?} {thread} {after}");
                    assert_eq!(taken.overdue(now), 0);
                }
            }
        }
    }

    #[test]
    fn a_rate_that_is_too_high_is_counted_at_once() {
        let start = Instant::now();
        let end = start + Duration::from_secs(36_000);
        let mut schedule = Schedule::new(start, even(1e8), 0, 1).until(Some(end));
        assert_eq!(schedule.give_up(end), 3_600_000_000_000 - 99_999);
        assert_eq!(schedule.give_up(end), 0);
    }

    #[test]
    fn nothing_is_due_at_the_end_or_after_it() {
        let start = Instant::now();
        let end = start + Duration::from_millis(200);
        let mut schedule = Schedule::new(start, even(10.0), 0, 1).until(Some(end));
        let late = start + Duration::from_secs(3);
        assert!(schedule.take(late).is_some_and(|due| due.late));
        assert!(schedule.take(late).is_some_and(|due| due.late));
        assert_eq!(schedule.take(late), None);
    }

    #[test]
    fn nothing_begins_early_and_what_begins_late_says_so() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, even(10.0), 0, 1);
        assert_eq!(
            schedule.take(start),
            Some(Due {
                at: start,
                late: false
            })
        );
        assert_eq!(schedule.take(start + Duration::from_millis(99)), None);
        let second = schedule
            .take(start + Duration::from_millis(250))
            .expect("it is due");
        assert!(second.late);
        assert_eq!(second.at, start + Duration::from_millis(100));
        assert!(schedule.take(start + Duration::from_millis(250)).is_some());
        assert_eq!(schedule.take(start + Duration::from_millis(250)), None);
    }
}
