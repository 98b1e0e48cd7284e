//! When things are to begin: an open loop, whose times do not depend on what became of them.

use std::time::{Duration, Instant};

/// What begins later than this after its time counts as late.
const LATE_AFTER: Duration = Duration::from_millis(1);

/// Times at an even rate.
#[derive(Debug)]
pub(crate) struct Schedule {
    start: Instant,
    seconds_each: f64,
    begun: u64,
}

/// One time that has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Due {
    pub(crate) at: Instant,
    pub(crate) late: bool,
}

impl Schedule {
    /// A share of one in `threads` of so many a second, from the place of this thread among them.
    pub(crate) fn new(start: Instant, per_second: f64, thread: u16, threads: u16) -> Self {
        let offset = Duration::from_secs_f64(f64::from(thread) / per_second);
        Schedule {
            start: start + offset,
            seconds_each: f64::from(threads) / per_second,
            begun: 0,
        }
    }

    /// When the next is to begin.
    pub(crate) fn next_at(&self) -> Instant {
        self.start + Duration::from_secs_f64(self.begun as f64 * self.seconds_each)
    }

    /// The next, if its time has come.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Due> {
        let at = self.next_at();
        if at > now {
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

    #[test]
    fn threads_share_an_even_rate() {
        let start = Instant::now();
        let mut times: Vec<Duration> = Vec::new();
        for thread in 0..4 {
            let mut schedule = Schedule::new(start, 1000.0, thread, 4);
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
    fn nothing_begins_early_and_what_begins_late_says_so() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, 10.0, 0, 1);
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
