//! The state of one socket, as the lock of its slot guards it.
//!
//! What the socket should be doing is here and in its [`Work`], the same for every driver. Small
//! facts share one word (`word`). The fields are private to `core/`. A driver has the methods of the
//! last `impl`, its own bits of the word, and the queues in the [`Work`].

use super::word::{Bits, Closing, Connection, Pause, Sending, Word, Writing, flag};
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
    pub(in crate::core) key: Key,
    pub(in crate::core) work: Option<Box<Work>>,
    pub(in crate::core) handle: Option<sys::Handle>,
    pub(in crate::core) generation: u32,
    pub(super) word: Word,
    /// Counts this socket's operations, so each has its own number.
    pub(in crate::core) sequence: u32,
    /// The number of the operation in `receiving`.
    pub(in crate::core) receive_sequence: u32,
    /// The waiter that has the turn; 0 for none. For a listener, which has no turns: how many
    /// batches of a shared port have packets of it.
    pub(in crate::core) turn: u16,
    /// Packets of this socket in the batch of that waiter.
    pub(in crate::core) taken: u8,
    pub(in crate::core) receiving: Option<Receiving>,
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

    /// Whether one of these bits is set: flags of the core, or a driver's own.
    pub(crate) fn has(&self, bits: impl Bits) -> bool {
        self.word.has(bits)
    }

    pub(crate) fn set(&mut self, bits: impl Bits) {
        self.word.set(bits);
    }

    pub(crate) fn clear(&mut self, bits: impl Bits) {
        self.word.clear(bits);
    }

    /// Returns how far its close is.
    pub(in crate::core) fn closing(&self) -> Closing {
        self.word.state()
    }

    pub(in crate::core) fn set_closing(&mut self, closing: Closing) {
        self.word.put(closing);
    }

    /// Whether it closes, or is closed.
    pub(crate) fn is_closing(&self) -> bool {
        !self.word.is(Closing::No)
    }

    /// Whether its close is abortive.
    pub(crate) fn is_resetting(&self) -> bool {
        self.word.is(Closing::Resetting) || self.word.is(Closing::HungUpToReset)
    }

    pub(in crate::core) fn writing(&self) -> Writing {
        self.word.state()
    }

    pub(in crate::core) fn set_writing(&mut self, writing: Writing) {
        self.word.put(writing);
    }

    /// The driver has submitted a request of the writing side, and will report its end.
    pub(in crate::core) fn begin_sending(&mut self) {
        self.word.put(Sending::Request);
    }

    pub(in crate::core) fn end_sending(&mut self) {
        self.word.put(Sending::Nothing);
    }

    /// Whether the caller has cancelled a send of the driver's request.
    pub(in crate::core) fn is_send_cancelled(&self) -> bool {
        self.word.is(Sending::Cancelled)
    }

    pub(in crate::core) fn note_send_cancelled(&mut self) {
        debug_assert!(self.is_sending(), "only a request can be cancelled");
        self.word.put(Sending::Cancelled);
    }

    pub(in crate::core) fn is_in(&self, pause: Pause) -> bool {
        self.word.is(pause)
    }

    pub(in crate::core) fn set_pause(&mut self, pause: Pause) {
        self.word.put(pause);
    }

    pub(in crate::core) fn connection(&self) -> Connection {
        self.word.state()
    }

    pub(in crate::core) fn set_connection(&mut self, connection: Connection) {
        self.word.put(connection);
    }

    /// Returns a new number for an operation of this socket.
    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Returns how many packets of this socket wait in its queue.
    pub(crate) fn packets_pending(&self) -> usize {
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

/// What the face and a driver ask a socket, and report to it. Flags of the core have no name outside
/// it.
impl SocketState {
    pub(crate) fn key(&self) -> Key {
        self.key
    }

    /// Returns what the reading side is to do.
    pub(crate) fn receiving(&self) -> Option<Receiving> {
        self.receiving
    }

    /// Returns the queues of a busy socket.
    pub(crate) fn queues(&self) -> Option<&Work> {
        self.work.as_deref()
    }

    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn queues_mut(&mut self) -> Option<&mut Work> {
        self.work.as_deref_mut()
    }

    /// Returns the queues and the handle of a socket that has something queued for the driver.
    ///
    /// # Panics
    /// If nothing is queued, or the handle is closed.
    pub(crate) fn queues_and_handle(&mut self) -> (&mut Work, &sys::Handle) {
        let work = self.work.as_deref_mut();
        let handle = self.handle.as_ref();
        (
            work.expect("a socket with something queued has its work"),
            handle.expect("a socket that sends or receives is open"),
        )
    }

    pub(crate) fn handle(&self) -> Option<&sys::Handle> {
        self.handle.as_ref()
    }

    /// Takes the handle, to close it.
    pub(crate) fn take_handle(&mut self) -> Option<sys::Handle> {
        self.handle.take()
    }

    /// The open socket goes on under another handle.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn replace_handle(&mut self, handle: sys::Handle) {
        self.handle = Some(handle);
    }

    /// The driver made a request of the reading side, and will report its end.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn begin_reading(&mut self) {
        self.set(flag::ARMED);
    }

    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn end_reading(&mut self) {
        self.clear(flag::ARMED);
    }

    /// Whether the driver has a request of the reading side.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn is_armed(&self) -> bool {
        self.has(flag::ARMED)
    }

    /// Whether the driver has a request of the writing side.
    pub(crate) fn is_sending(&self) -> bool {
        !self.word.is(Sending::Nothing)
    }

    /// The driver holds something more of the socket than the requests of its two sides, and will
    /// report its end.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn begin_guard(&mut self) {
        self.set(flag::GUARDED);
    }

    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn end_guard(&mut self) {
        self.clear(flag::GUARDED);
    }

    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn is_guarded(&self) -> bool {
        self.has(flag::GUARDED)
    }

    /// A receive has succeeded although its cancel was requested. The cancel is over with it.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn forget_cancel(&mut self) {
        self.clear(flag::CANCEL_RECEIVE);
    }

    /// The stream tries again, whatever it waited for.
    pub(crate) fn end_pause(&mut self) {
        self.set_pause(Pause::No);
    }

    /// Whether the stream waits for a lease or for a buffer, or the listener until its connections
    /// are taken.
    pub(crate) fn is_paused(&self) -> bool {
        !self.word.is(Pause::No)
    }

    /// Whether the listener waits for descriptors, memory or a place in the table.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn is_accept_paused(&self) -> bool {
        self.has(flag::PAUSED_ACCEPT)
    }

    /// The peer has reset the connection, and no operation reads that could report it.
    pub(crate) fn note_reset(&mut self) {
        self.set_connection(Connection::Reset);
    }

    /// Whether what it reads must end: it closes, or the caller has cancelled that.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn stops_reading(&self) -> bool {
        self.is_closing() || self.has(flag::CANCEL_RECEIVE)
    }

    /// Whether what it sends must end: its close is abortive or has hung up, or the caller has
    /// cancelled the send.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn stops_sending(&self) -> bool {
        self.is_resetting() || self.has_hung_up() || self.is_send_cancelled()
    }

    /// Whether its close has asked the driver to end what it holds.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn has_hung_up(&self) -> bool {
        self.word.is(Closing::HungUp) || self.word.is(Closing::HungUpToReset)
    }

    pub(crate) fn is_listener(&self) -> bool {
        self.has(flag::LISTENER)
    }

    /// Whether another port has, or had, this listener's socket as well.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn is_shared_listener(&self) -> bool {
        self.has(flag::SHARED_LISTENER)
    }

    /// Whether it is a connect that has not delivered its stream.
    pub(crate) fn is_connecting(&self) -> bool {
        self.has(flag::CONNECTING)
    }

    /// Whether it is a connect that has reached its deadline.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn is_overdue(&self) -> bool {
        self.has(flag::DEADLINE)
    }

    /// Whether it is a connection: neither a listener nor a connect.
    pub(crate) fn is_stream(&self) -> bool {
        !self.has(flag::LISTENER | flag::CONNECTING)
    }
}
