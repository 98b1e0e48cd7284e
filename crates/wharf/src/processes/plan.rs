//! How a command is divided: the number of processes, and of threads in each.
//!
//! Each command computes its number of processes (`split`), from what it opens and from the limit
//! of open files.

use super::{Part, Threads};

/// Descriptors of each thread after the first: those of its port.
pub(crate) const DESCRIPTORS_PER_THREAD: u64 = 4;

/// How a command is divided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    pub(crate) processes: u32,
    pub(crate) threads: u32,
}

impl Plan {
    /// At most this many processes, each with at most this many threads. Each thread has at least
    /// one connection.
    pub(crate) fn of(connections: u32, processes: u32, threads: u32) -> Self {
        let processes = processes.min(connections);
        let threads = threads.min(connections / processes);
        Plan { processes, threads }
    }

    /// One process, whose threads have at least one connection each.
    pub(crate) fn of_one(connections: u32, threads: u32) -> Self {
        Plan {
            processes: 1,
            threads: threads.min(connections),
        }
    }

    /// The threads of one process.
    pub(crate) fn threads_of(self, part: &Part) -> Threads {
        part.threads(self.threads)
    }

    /// The share of one process. The first one has the largest.
    pub(crate) fn share(self, connections: u32, process: u32) -> u32 {
        let part = Part::new(process, self.processes);
        self.threads_of(&part).shares(connections)
    }
}
