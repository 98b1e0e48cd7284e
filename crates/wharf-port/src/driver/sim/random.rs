//! The random numbers of the simulated network: one seed decides all of them.
//!
//! This is SplitMix64, in a dozen lines of our own. A crate was rejected: it may change its
//! sequence with a release, and then a seed that was kept because of a bug would no longer show
//! that bug.

/// A sequence of numbers that its seed determines.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `bound`, which is not 0. The bias of the remainder is far below what
    /// a test could notice.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Returns a number from 1 to `most`, which is not 0.
    pub(super) fn at_least_one(&mut self, most: usize) -> usize {
        1 + self.below(most as u64) as usize
    }

    /// Returns true with a probability of `per_mille` in a thousand.
    pub(super) fn chance(&mut self, per_mille: u16) -> bool {
        per_mille > 0 && self.below(1000) < u64::from(per_mille)
    }
}
