//! Requests: what the port has requested of the network and has no end of yet.
//!
//! A request remembers which memory it was lent. Each of its steps and its report compare that with
//! what the socket still has. A real system cannot do this: here a buffer that is given up too
//! early is detected at once and every time, and not as a wrong byte once in a million.

use crate::accepted::Accepted;
use crate::core::pool::PoolBuffer;
use crate::core::slot::{Receiving, SocketState};
use crate::core::work::{Queued, Work};
use crate::driver::Direction;

/// What was requested: on either side what the socket does there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    Read(Receiving),
    Send,
}

impl Asked {
    pub(super) fn direction(self) -> Direction {
        match self {
            Asked::Read(_) => Direction::Reading,
            Asked::Send => Direction::Writing,
        }
    }

    /// Whether the socket is still at this.
    fn is_of(self, state: &SocketState) -> bool {
        match self {
            Asked::Read(receiving) => state.receiving() == Some(receiving),
            Asked::Send => true,
        }
    }
}

/// Address and length of each buffer that a request was lent.
#[derive(PartialEq, Eq, Debug, Default)]
pub(super) struct Memory(Vec<(usize, usize)>);

impl Memory {
    /// Returns those of the first `count` queued sends.
    pub(super) fn of_sends(work: &Work, count: usize) -> Self {
        let buffers = work.sends.iter().take(count).filter_map(Queued::bytes);
        Memory(buffers.map(place_of).collect())
    }

    /// Returns that of the first caller's buffer that waits to be filled.
    pub(super) fn of_into(work: &Work) -> Self {
        let buffers = work.intos.iter().take(1).map(|into| &*into.buffer);
        Memory(buffers.map(place_of).collect())
    }

    /// Returns how many buffers these are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}

fn place_of(bytes: &[u8]) -> (usize, usize) {
    (bytes.as_ptr().addr(), bytes.len())
}

/// A request, from the call that made it to its last report.
#[derive(Debug)]
pub(super) struct Request {
    /// Tells it apart from other requests of its socket, for events that come after its end.
    pub(super) number: u64,
    pub(super) asked: Asked,
    pub(super) memory: Memory,
    /// How many bytes of a send the system has.
    pub(super) progress: usize,
    /// A step is scheduled.
    pub(super) stepping: bool,
    /// Its end is decided, and the report is scheduled.
    pub(super) over: bool,
    /// It will end as cancelled although the port has not cancelled it.
    pub(super) doomed: bool,
    /// The time of its last report so far. The end comes after that.
    pub(super) reports_until_ns: u64,
}

impl Request {
    /// Checks that the socket still has what the request was lent, and still does what was
    /// requested.
    ///
    /// # Panics
    /// If it does not. A real system would then write to memory that belongs to something else by
    /// now.
    pub(super) fn check(&self, state: &SocketState) {
        let work = state.queues();
        let now = match self.asked {
            Asked::Send => work.map(|work| Memory::of_sends(work, self.memory.count())),
            Asked::Read(Receiving::Into) => work.map(Memory::of_into),
            Asked::Read(
                Receiving::Accept | Receiving::Connect | Receiving::Stream | Receiving::Watch,
            ) => None,
        };
        let now = now.unwrap_or_default();
        assert!(
            now == self.memory,
            "contract C3: {:?} was lent {:?}, which is {now:?} before its end",
            self.asked,
            self.memory
        );
        assert!(
            self.asked.is_of(state),
            "driver's contract 2: {:?} is with the network, and the socket is at {:?}",
            self.asked,
            state.receiving()
        );
    }
}

/// How a request ended, or what a multishot request returned.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A connection. The accept continues.
    Accepted(Box<Accepted>),
    /// The accept is over, with a code of the system or because the port has no free slot.
    AcceptEnded(Option<i32>),
    Connected(Result<(), i32>),
    /// Bytes of a stream, in a buffer of the pool.
    Received(PoolBuffer, usize),
    /// There were bytes, but no buffer for them.
    NoBuffer,
    /// Bytes for the caller's buffer.
    ReceivedInto(Vec<u8>),
    /// Nothing more to read or to watch: a graceful end, or a code.
    Stopped(Option<i32>),
    Sent(Result<usize, i32>),
}

impl Outcome {
    /// Whether the request is over after this.
    pub(super) fn is_last(&self) -> bool {
        match self {
            Outcome::Accepted(_) => false,
            Outcome::AcceptEnded(_)
            | Outcome::Connected(_)
            | Outcome::Received(..)
            | Outcome::NoBuffer
            | Outcome::ReceivedInto(_)
            | Outcome::Stopped(_)
            | Outcome::Sent(_) => true,
        }
    }
}
