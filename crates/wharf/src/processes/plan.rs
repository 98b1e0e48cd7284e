//! How a work is divided: so many processes, each with so many threads.
//!
//! How many processes there are is for each command to say (`split`), from what it opens and from
//! the limit of open files.

use super::{Part, Threads};

/// Descriptors of each thread after the first: its port's own.
pub(crate) const DESCRIPTORS_PER_THREAD: u64 = 4;

/// How a work is divided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    pub(crate) processes: u32,
    pub(crate) threads: u32,
}

impl Plan {
    /// At most so many processes, each with at most so many threads: each thread has a connection
    /// at least.
    pub(crate) fn of(connections: u32, processes: u32, threads: u32) -> Self {
        let processes = processes.min(connections);
        let threads = threads.min(connections / processes);
        Plan { processes, threads }
    }

    /// One process, whose threads have a connection each at least.
    pub(crate) fn of_one(connections: u32, threads: u32) -> Self {
        Plan {
            processes: 1,
            threads: threads.min(connections),
        }
    }

    /// The threads of one part.
    pub(crate) fn threads_of(self, part: &Part) -> Threads {
        part.threads(self.threads)
    }

    /// What one process has of so many connections; the first one has the largest share.
    pub(crate) fn share(self, connections: u32, process: u32) -> u32 {
        let part = Part::new(process, self.processes);
        self.threads_of(&part).shares(connections)
    }
}
