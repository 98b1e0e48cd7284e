//! Which threads a change wakes, and how many.
//!
//! All of it happens under the lock of the queue. The caller wakes the threads afterwards.

use std::thread::Thread;

use super::{State, Wake};

/// What a thread in the driver may know of deadlines: when it entered, this many wake-ups for a
/// nearer deadline had been sent.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Entered(u64);

impl State {
    pub(super) fn enter(&mut self) -> Entered {
        self.polling += 1;
        self.news
    }

    pub(super) fn leave(&mut self, entered: Entered, wakes: u32) {
        self.polling -= 1;
        self.waking = self.waking.saturating_sub(wakes);
        if entered != self.news {
            self.behind_news -= 1;
        }
    }

    /// Wakes all waiters that sleep in the driver, to look at the deadlines.
    pub(super) fn wake_drivers(&mut self) -> Wake {
        self.count_news();
        let asleep = self.polling.saturating_sub(self.waking);
        self.waking += asleep;
        match asleep {
            0 => Wake::NoThread,
            asleep => Wake::Driver(asleep),
        }
    }

    fn count_news(&mut self) {
        self.news.0 += 1;
        self.behind_news = self.polling;
    }

    /// Whether threads are in the driver, all of them since before the last news of a nearer
    /// deadline, and none is being woken. Then the thread that leaves has to wake one of them.
    ///
    /// A wake-up is for any thread in the driver. So a thread that enters after the news may consume
    /// one that was meant for an earlier sleeper. As long as it stays in the driver this does no
    /// harm, because it knows the deadline and sleeps no longer than until then.
    pub(super) fn no_sleeper_knows_the_news(&self) -> bool {
        self.polling > 0 && self.polling == self.behind_news && self.waking == 0
    }

    pub(super) fn wake_one(&mut self) -> Wake {
        if let Some((_, thread)) = self.parked.pop() {
            return Wake::Parked(thread);
        }
        if self.polling > self.waking {
            self.waking += 1;
            return Wake::Driver(1);
        }
        Wake::NoThread
    }

    pub(super) fn wake_parked(&mut self) -> Wake {
        match self.parked.pop() {
            Some((_, thread)) => Wake::Parked(thread),
            None => Wake::NoThread,
        }
    }

    /// Wakes every sleeper, because all of them have to look again, also at the time left.
    pub(super) fn wake_all(&mut self) -> Wake {
        self.count_news();
        self.wake_many(usize::MAX)
    }

    /// Wakes up to `count` sleepers. Parked ones come first, as in `wake_one`.
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
