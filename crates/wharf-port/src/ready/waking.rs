//! Whom a change wakes, and how many of them.
//!
//! All of it happens under the lock of the queue; the caller carries the answer out afterwards.

use std::thread::Thread;

use super::{State, Wake};

impl State {
    pub(super) fn wake_one(&mut self) -> Wake {
        if let Some((_, thread)) = self.parked.pop() {
            return Wake::Parked(thread);
        }
        if self.polling > self.waking {
            self.waking += 1;
            return Wake::Driver(1);
        }
        Wake::Nobody
    }

    pub(super) fn wake_parked(&mut self) -> Wake {
        match self.parked.pop() {
            Some((_, thread)) => Wake::Parked(thread),
            None => Wake::Nobody,
        }
    }

    pub(super) fn wake_all(&mut self) -> Wake {
        self.wake_many(usize::MAX)
    }

    /// Wakes so many sleepers, if there are; those that are parked first, as `wake_one` does.
    pub(super) fn wake_many(&mut self, count: usize) -> Wake {
        let stay = self.parked.len().saturating_sub(count);
        let parked: Vec<Thread> = self
            .parked
            .drain(stay..)
            .map(|(_, thread)| thread)
            .collect();
        let asleep = self.polling.saturating_sub(self.waking);
        let left = u32::try_from(count - parked.len()).unwrap_or(u32::MAX);
        let sleeping = asleep.min(left);
        self.waking += sleeping;
        Wake::Many(sleeping, parked)
    }
}
