//! The numbers of waiters. No two waiters have the same number at a time.

/// The numbers in use.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// The highest number that was ever given.
    highest: u16,
    /// Numbers up to `highest` that no waiter has.
    free: Vec<u16>,
}

impl Numbers {
    /// Returns a number from 1, unless `most` are in use.
    pub(super) fn give(&mut self, most: u16) -> Option<u16> {
        if self.given() >= most {
            return None;
        }
        Some(self.free.pop().unwrap_or_else(|| {
            self.highest += 1;
            self.highest
        }))
    }

    pub(super) fn take_back(&mut self, number: u16) {
        debug_assert!(!self.free.contains(&number), "a number is taken back once");
        self.free.push(number);
    }

    /// Returns how many numbers are in use.
    pub(super) fn given(&self) -> u16 {
        self.highest - u16::try_from(self.free.len()).expect("no more than were given")
    }
}
