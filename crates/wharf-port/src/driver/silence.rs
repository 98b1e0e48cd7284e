//! How long the end of a port waits for requests to come back while the system returns none.
//!
//! A single deadline for all was rejected. A process that is stopped in between, or not scheduled
//! for seconds, has not really waited for all of that time, and it leaked requests that had come
//! back long before. So each wait counts as one step at most, and every request that comes back
//! restarts the time.

use std::time::Duration;

/// The longest time in which no request comes back. A kernel thread returns the requests of a
/// thread that has ended. With eight busy threads per processor, a limit of 2 s was once too short
/// for that.
const LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Silence {
    waited: Duration,
}

impl Silence {
    /// How long one wait may take, and the most that it uses up of the limit.
    pub(super) const STEP: Duration = Duration::from_millis(50);

    pub(super) fn is_too_long(&self) -> bool {
        self.waited >= LIMIT
    }

    /// Records a wait that took this long, and whether anything came back.
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
    fn a_stopped_process_does_not_wait_and_a_request_that_comes_back_restarts_the_time() {
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
