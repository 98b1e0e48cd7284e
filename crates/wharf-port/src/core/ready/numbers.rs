//! The numbers of waiters: one that a waiter has is given to no other.

/// Which numbers are given.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// The highest number that was ever given.
    highest: u16,
    /// Those up to it that nobody has.
    free: Vec<u16>,
}

impl Numbers {
    /// A number from 1, unless so many are given.
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

    /// How many numbers are given.
    pub(super) fn given(&self) -> u16 {
        self.highest - u16::try_from(self.free.len()).expect("no more than were given")
    }
}
