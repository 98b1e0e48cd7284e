//! One command in several processes: the parent starts the children, gives orders, and adds up
//! their results.
//!
//! A process has a limit of open files that only root can raise, and a machine holds more
//! connections than that. So the program starts itself again, with the same command line and
//! `--part`. Parent and child talk in lines over the child's standard input and output: the parent
//! sends a word, the child sends a JSON object. A child ends at once when its standard input
//! closes, so a killed parent leaves no children behind. Shared memory was rejected: it needs
//! unsafe code and works differently on every system. Files and signals were rejected: files
//! outlive their writer, and signals may reach other processes.

mod child;
pub(crate) mod descriptors;
pub(crate) mod division;
mod parent;
pub(crate) mod plan;

use serde::{Deserialize, Serialize};

pub(crate) use child::Child;
pub(crate) use parent::{Member, Parent, Status};

/// The most processes that one command starts.
pub(crate) const PROCESSES_MAX: u32 = 256;
/// Descriptors that a process needs in addition to its connections.
pub(crate) const DESCRIPTORS_BESIDES: u64 = 64;

/// The part of the work that a process has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    /// The number of the process, from 0, and the number of processes.
    pub(crate) process: u32,
    pub(crate) processes: u32,
    /// The addresses to listen on, once an earlier process has found them.
    #[serde(default)]
    pub(crate) addresses: Vec<String>,
}

/// An order to a child, one word a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    Begin,
    /// Report the current state.
    Tell,
    Stop,
    /// Every process has read what is held: close it.
    Leave,
}

/// A report of a child, one object a line.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told<S> {
    /// The child is ready. A server reports its addresses.
    Ready(Vec<String>),
    /// A line to print.
    Line(String),
    Standing(S),
    /// The child is done, and holds its connections until it may leave.
    Holds,
    /// The final state.
    Over(S),
    /// The child could not begin, or not go on.
    Failed(String),
}

impl Part {
    /// The whole work, in one process.
    pub(crate) fn whole() -> Self {
        Part::new(0, 1)
    }

    pub(crate) fn new(process: u32, processes: u32) -> Self {
        Part {
            process,
            processes,
            addresses: Vec::new(),
        }
    }

    /// Its name in messages, if there are several processes.
    pub(crate) fn name(&self) -> Option<String> {
        let (number, processes) = (self.process + 1, self.processes);
        (processes > 1).then(|| format!("process {number} of {processes}"))
    }

    /// The threads of this process among those of all; each process has `each`.
    pub(crate) fn threads(&self, each: u32) -> Threads {
        Threads {
            first: self.process * each,
            count: each,
            total: self.processes * each,
        }
    }
}

/// The threads of one process, numbered over all processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Threads {
    pub(crate) first: u32,
    pub(crate) count: u32,
    pub(crate) total: u32,
}

impl Threads {
    /// The share of a thread. The first threads take the remainder.
    pub(crate) fn share(self, thread: u32, of: u32) -> u32 {
        of / self.total + u32::from(thread < of % self.total)
    }

    /// The share of all threads of this process.
    pub(crate) fn shares(self, of: u32) -> u32 {
        let mine = self.first..self.first + self.count;
        mine.map(|thread| self.share(thread, of)).sum()
    }
}

impl Order {
    const ALL: [(Order, &'static str); 4] = [
        (Order::Begin, "begin"),
        (Order::Tell, "tell"),
        (Order::Stop, "stop"),
        (Order::Leave, "leave"),
    ];

    fn word(self) -> &'static str {
        let found = Order::ALL.iter().find(|(order, _)| *order == self);
        found.expect("all are there").1
    }

    fn of(word: &str) -> Option<Self> {
        let found = Order::ALL.iter().find(|(_, known)| *known == word);
        found.map(|(order, _)| *order)
    }
}

/// The number of processes for these pieces, if each process has descriptors for `room` of them.
///
/// # Errors
/// If that is impossible, the number of processes that it would take.
pub(crate) fn needed(pieces: u64, room: u64) -> Result<u32, Option<u64>> {
    if room == 0 {
        return Err(None);
    }
    let processes = pieces.div_ceil(room).max(1);
    match u32::try_from(processes) {
        Ok(few) if few <= PROCESSES_MAX => Ok(few),
        _ => Err(Some(processes)),
    }
}

/// Raises the limit of descriptors as far as the system allows, and returns it; the highest number
/// if the system knows no limit.
pub(crate) fn raise_descriptors() -> u64 {
    rlimit::increase_nofile_limit(u64::MAX).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_in_one_share() {
        for (processes, each, of) in [(1, 1, 1), (3, 1, 50_000), (3, 2, 7), (7, 3, 1000)] {
            let mut sum = 0;
            let mut next = 0;
            for process in 0..processes {
                let threads = Part::new(process, processes).threads(each);
                assert_eq!((threads.first, threads.total), (next, processes * each));
                next += threads.count;
                sum += threads.shares(of);
            }
            assert_eq!(sum, of, "{processes} times {each}");
        }
    }

    #[test]
    fn as_many_processes_as_the_room_asks_for() {
        for (pieces, room, processes) in [(1, 100, 1), (100, 100, 1), (101, 100, 2), (0, 1, 1)] {
            assert_eq!(needed(pieces, room), Ok(processes), "{pieces} in {room}");
        }
        assert_eq!(needed(u64::MAX, u64::MAX), Ok(1));
        assert_eq!(needed(257, 1), Err(Some(257)));
        assert_eq!(needed(1, 0), Err(None));
    }

    #[test]
    fn orders_are_words() {
        for (order, word) in Order::ALL {
            assert_eq!(Order::of(word), Some(order));
            assert_eq!(order.word(), word);
        }
        assert_eq!(Order::of(""), None);
    }
}
