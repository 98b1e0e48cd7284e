//! Resident memory: of the process, and for each connection that it holds.
//!
//! We measure the process from outside, as `ps` does, and do not add up structures: an operator
//! pays for the memory that the system has given. A reading takes a fraction of a millisecond. To
//! catch the peak we measure whenever there are an eighth more connections than before.

use std::fs::File;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys;

/// From this number of connections on, a first measurement is worth its time.
const FIRST_SAMPLE: u64 = 256;

/// The memory at the highest measured number of connections.
#[derive(Debug)]
pub(crate) struct Peak {
    next_sample: AtomicU64,
    sample: Mutex<Option<Sample>>,
}

/// Resident bytes, and the number of connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sample {
    pub(crate) connections: u64,
    pub(crate) resident_bytes: u64,
}

/// A spare descriptor, so that memory can be read when all others are in use.
#[derive(Debug)]
pub(crate) struct Spare {
    _file: Option<File>,
}

impl Peak {
    pub(crate) fn new() -> Self {
        Peak {
            next_sample: AtomicU64::new(FIRST_SAMPLE),
            sample: Mutex::new(None),
        }
    }

    /// Records a number of connections; measures if it is an eighth higher than before.
    pub(crate) fn reached(&self, connections: u64) {
        let next = self.next_sample.load(Ordering::Relaxed);
        if connections < next {
            return;
        }
        let after = connections + (connections / 8).max(FIRST_SAMPLE);
        let order = Ordering::Relaxed;
        if self
            .next_sample
            .compare_exchange(next, after, order, order)
            .is_err()
        {
            return; // Another thread measures.
        }
        if let Some(resident_bytes) = resident_bytes() {
            let sample = Sample {
                connections,
                resident_bytes,
            };
            *lock(&self.sample) = Some(sample);
        }
    }

    pub(crate) fn sample(&self) -> Option<Sample> {
        *lock(&self.sample)
    }
}

impl Spare {
    /// Any file works. This program's own exists on every system.
    pub(crate) fn keep() -> Self {
        let file = sys::program().and_then(File::open);
        Spare { _file: file.ok() }
    }

    /// Closes it.
    pub(crate) fn none() -> Self {
        Spare { _file: None }
    }
}

/// The resident memory of the process; `None` if the system does not report it.
pub(crate) fn resident_bytes() -> Option<u64> {
    memory_stats::memory_stats().map(|stats| stats.physical_mem as u64)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_when_there_are_a_good_deal_more() {
        let peak = Peak::new();
        peak.reached(FIRST_SAMPLE - 1);
        assert_eq!(peak.sample(), None);
        peak.reached(10_000);
        let first = peak.sample().expect("the system reports it");
        assert_eq!(first.connections, 10_000);
        assert!(first.resident_bytes > 0);
        peak.reached(11_249);
        assert_eq!(peak.sample(), Some(first));
        peak.reached(11_250);
        assert_eq!(peak.sample().map(|sample| sample.connections), Some(11_250));
    }
}
