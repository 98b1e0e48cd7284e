//! Resident memory: of the process, and of each connection that it holds.
//!
//! The process is measured from outside, as `ps` would, and not by adding up structures: what an
//! operator pays for is what the system has given. Reading it costs a fraction of a millisecond,
//! so the peak is caught by measuring each time there are an eighth more connections than before.

use std::fs::File;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys;

/// So many connections make a first measurement worth its time.
const FIRST_SAMPLE: u64 = 256;

/// The memory at the highest count of connections that was measured.
#[derive(Debug)]
pub(crate) struct Peak {
    next_sample: AtomicU64,
    sample: Mutex<Option<Sample>>,
}

/// How much there was, at so many connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sample {
    pub(crate) connections: u64,
    pub(crate) resident_bytes: u64,
}

/// A descriptor kept back, so that memory can be read when all the others are taken.
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

    /// Takes note of a count of connections; measures if it is a good deal higher than before.
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
    /// Any file will do; this program's own is the one that exists on every system.
    pub(crate) fn keep() -> Self {
        let file = sys::program().and_then(File::open);
        Spare { _file: file.ok() }
    }

    /// Lets it go.
    pub(crate) fn none() -> Self {
        Spare { _file: None }
    }
}

/// What the process has in memory now; nothing where the system does not tell.
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
        let first = peak.sample().expect("the system tells");
        assert_eq!(first.connections, 10_000);
        assert!(first.resident_bytes > 0);
        peak.reached(11_249);
        assert_eq!(peak.sample(), Some(first));
        peak.reached(11_250);
        assert_eq!(peak.sample().map(|sample| sample.connections), Some(11_250));
    }
}
