//! One work in several processes: this one starts the others, orders them, and adds up.
//!
//! A process has a bound of open files that root alone can raise, and a machine holds more
//! connections than that. So the program starts itself again, with the same command line and
//! `--part`, and the two talk in lines over the standard input and output of the part: a word down,
//! an object of JSON up. A part that reads the end of its input ends at once, so that nobody has to
//! look for the children of a process that was killed. Shared memory was rejected, because it needs
//! unsafe code and works differently on every system; files and signals because they outlive those
//! who wrote them, or reach others.

mod child;
pub(crate) mod descriptors;
pub(crate) mod division;
mod parent;
pub(crate) mod plan;

use serde::{Deserialize, Serialize};

pub(crate) use child::Child;
pub(crate) use parent::{Member, Parent, Status};

/// Processes that one command starts at most.
pub(crate) const PROCESSES_MAX: u32 = 256;
/// Descriptors that a process needs besides its connections.
pub(crate) const DESCRIPTORS_BESIDES: u64 = 64;

/// Which part of a work a process has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    /// Its number, from 0, and how many there are.
    pub(crate) process: u32,
    pub(crate) processes: u32,
    /// Where to listen, when an earlier part has found that out.
    #[serde(default)]
    pub(crate) addresses: Vec<String>,
}

/// What a part is told, a word a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    Begin,
    /// Tell how it stands.
    Tell,
    Stop,
    /// Everybody has seen what is held: end it.
    Leave,
}

/// What a part tells, an object a line.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told<S> {
    /// It could begin; a server tells where it listens.
    Ready(Vec<String>),
    /// A line to print.
    Line(String),
    Standing(S),
    /// It has come to its end, and holds what it holds until it may leave.
    Holds,
    /// How it stood at its end.
    Over(S),
    /// It could not begin, or not go on.
    Failed(String),
}

impl Part {
    /// All of a work.
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

    /// Its name among people, if there are several.
    pub(crate) fn name(&self) -> Option<String> {
        let (number, processes) = (self.process + 1, self.processes);
        (processes > 1).then(|| format!("process {number} of {processes}"))
    }

    /// The threads of this part among those of all, where each part has so many.
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
    /// What a thread has of so many; the first ones have what is left over.
    pub(crate) fn share(self, thread: u32, of: u32) -> u32 {
        of / self.total + u32::from(thread < of % self.total)
    }

    /// What all threads of this process have of it.
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

/// How many processes a work needs, where each has room for so many of its pieces.
///
/// # Errors
/// The number of processes that would do, where that is not possible.
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

/// All the descriptors that the system allows a process; no bound where it knows none.
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
