//! How long the end of a port waits for the system while it gives nothing back.
//!
//! One deadline for all was rejected: a process that is stopped meanwhile, or not scheduled for
//! seconds, has not waited for all of that time, and leaked what had come back long before. So each
//! wait counts for a step at most, and what comes back begins the time anew.

use std::time::Duration;

/// So long nothing may come back. What a thread that is gone had asked for comes back by way of a
/// thread of the kernel: where there were eight busy threads for each processor, 2 s were once too
/// short for that.
const LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Silence {
    waited: Duration,
}

impl Silence {
    /// How long one wait may take, and how much of the limit it uses up at most.
    pub(super) const STEP: Duration = Duration::from_millis(50);

    pub(super) fn is_too_long(&self) -> bool {
        self.waited >= LIMIT
    }

    /// A wait is over that took so long, and brought something or nothing.
    pub(super) fn waited(&mut self, took: Duration, came: bool) {
        self.waited = match came {
            true => Duration::ZERO,
            false => self.waited + took.min(Self::STEP),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: u128 = LIMIT.as_millis() / Silence::STEP.as_millis();

    #[test]
    fn standing_still_is_no_waiting_and_what_comes_begins_it_anew() {
        let long = Duration::from_secs(5);
        let mut silence = Silence::default();
        for _ in 0..STEPS - 1 {
            silence.waited(long, false);
        }
        assert!(!silence.is_too_long());
        silence.waited(long, true);
        for step in 0..STEPS {
            assert!(!silence.is_too_long(), "after {step} steps");
            silence.waited(long, false);
        }
        assert!(silence.is_too_long());
    }
}
