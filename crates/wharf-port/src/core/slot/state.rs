//! The state of one socket, as the lock of its slot guards it.
//!
//! What the socket should be doing is here and in its [`Work`], the same for every driver. Small
//! facts share one word (`word`).

use super::word::{Closing, Word, flag};
use crate::core::work::Work;
use crate::error::Operation;
use crate::key::Key;
use crate::sys;

/// What the reading side of a socket is doing; at most one thing at a time.
///
/// A part of [`Operation`], so that the `match` in a driver's `arm` lists what can be armed and
/// nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Receiving {
    Accept,
    Connect,
    Stream,
    Into,
    Watch,
}

impl Receiving {
    /// Its name in packets and errors.
    pub(crate) fn operation(self) -> Operation {
        match self {
            Receiving::Accept => Operation::Accept,
            Receiving::Connect => Operation::Connect,
            Receiving::Stream => Operation::Receive,
            Receiving::Into => Operation::ReceiveInto,
            Receiving::Watch => Operation::Watch,
        }
    }
}

/// One socket, as its lock guards it.
#[derive(Debug)]
pub(crate) struct SocketState {
    pub(crate) key: Key,
    pub(crate) work: Option<Box<Work>>,
    pub(crate) handle: Option<sys::Handle>,
    pub(crate) generation: u32,
    pub(super) word: Word,
    /// Counts this socket's operations, so each has its own number.
    pub(crate) sequence: u32,
    /// The number of the operation in `receiving`.
    pub(crate) receive_sequence: u32,
    /// The waiter that has the turn; 0 for none. For a listener, which has no turns: how many
    /// batches of a shared port have packets of it.
    pub(crate) turn: u16,
    /// Packets of this socket in the batch of that waiter.
    pub(crate) taken: u8,
    pub(crate) receiving: Option<Receiving>,
}

impl SocketState {
    pub(super) fn unused() -> Self {
        SocketState {
            key: Key(0),
            work: None,
            handle: None,
            generation: 0,
            word: Word::default(),
            sequence: 0,
            receive_sequence: 0,
            turn: 0,
            taken: 0,
            receiving: None,
        }
    }

    /// Whether it has an open handle, or anything to remember of one.
    pub(super) fn is_used(&self) -> bool {
        self.handle.is_some() || !self.word.is_empty()
    }

    /// Whether one of these flags is set.
    pub(crate) fn has(&self, flags: u32) -> bool {
        self.word.has(flags)
    }

    pub(crate) fn set(&mut self, flags: u32) {
        self.word.set(flags);
    }

    pub(crate) fn clear(&mut self, flags: u32) {
        self.word.clear(flags);
    }

    /// Returns how far its close is.
    pub(crate) fn closing(&self) -> Closing {
        self.word.state()
    }

    pub(in crate::core) fn set_closing(&mut self, closing: Closing) {
        self.word.put(closing);
    }

    /// Whether it closes, or is closed.
    pub(crate) fn is_closing(&self) -> bool {
        !self.word.is(Closing::No)
    }

    /// Whether what it reads must end: it closes, or the caller has cancelled that.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn stops_reading(&self) -> bool {
        self.is_closing() || self.has(flag::CANCEL_RECEIVE)
    }

    /// Whether its close is abortive.
    pub(crate) fn is_resetting(&self) -> bool {
        self.word.is(Closing::Resetting) || self.word.is(Closing::HungUpToReset)
    }

    /// Whether its close has asked the driver to end what it holds.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn has_hung_up(&self) -> bool {
        self.word.is(Closing::HungUp) || self.word.is(Closing::HungUpToReset)
    }

    /// Returns a new number for an operation of this socket.
    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Returns how many packets of this socket wait in its queue.
    pub(crate) fn untaken(&self) -> usize {
        self.work.as_ref().map_or(0, |work| work.pending.len())
    }

    /// Whether packets of this socket wait in its queue.
    #[inline]
    pub(crate) fn has_packets(&self) -> bool {
        let work = self.work.as_ref();
        work.is_some_and(|work| !work.pending.is_empty())
    }

    /// Returns the open handle.
    ///
    /// # Panics
    /// If the handle is closed. Callers hold a socket that is not closed yet.
    pub(crate) fn open_handle(&self) -> &sys::Handle {
        self.handle
            .as_ref()
            .expect("the socket is open until its close is over")
    }
}
