//! The word of a socket: its flags, its states and its driver's own bits, in 32 bits.
//!
//! Facts that exclude each other are one state: an enum in a few bits of the word. So no code can
//! write a socket that has hung up and does not close, and a `match` on a state names every case.
//! Facts that are independent of each other stay flags. These look exclusive and are not:
//!
//! - `CANCEL_RECEIVE` outlives `ARMED`: within one report, a driver first notes the end of its
//!   request, and then asks whether the caller had cancelled it.
//! - `PAUSED_ACCEPT` and [`Pause::Untaken`]: an accept may fail for lack of descriptors while the
//!   listener's connections wait to be taken.
//! - `GUARDED` and `ARMED`: a driver may watch for the peer's end while it reads.
//! - `SILENT` says nothing about the close: a port that ends silences every socket.
//!
//! Four flags say what kind of socket it is, and do exclude each other in part: `LISTENER`,
//! `SHARED_LISTENER`, `CONNECTING` and `DEADLINE`. They stay flags because each packet is checked
//! for `LISTENER`, `SILENT` and `QUEUED` at once.
//!
//! The compiler keeps the three kinds apart. No code can set the bits of a state as if they were
//! flags. A driver cannot name a flag of the core, so it asks and reports by methods of
//! [`SocketState`](super::SocketState). The core cannot name a driver's own bits.
//!
//! A field for each state was rejected: the states alone would take all of the four bytes that the
//! word has, and one field more makes the slot of an idle connection eight bytes larger.

use std::marker::PhantomData;
use std::ops::BitOr;

/// Flags of a socket, for [`SocketState::has`](super::SocketState::has) and its neighbours.
pub(in crate::core) mod flag {
    use super::Flags;

    /// The driver holds a request of the reading side and will report its end.
    pub(in crate::core) const ARMED: Flags = Flags(1 << 0);
    /// The caller asked to cancel what the reading side does.
    pub(in crate::core) const CANCEL_RECEIVE: Flags = Flags(1 << 1);
    /// The socket waits in the ready queue, or in a waiter's list.
    pub(in crate::core) const QUEUED: Flags = Flags(1 << 2);
    /// The listener waits for descriptors, memory or a place in the table.
    pub(in crate::core) const PAUSED_ACCEPT: Flags = Flags(1 << 3);
    /// A send was refused as full; one `SendReady` is owed.
    pub(in crate::core) const SEND_READY_OWED: Flags = Flags(1 << 4);
    /// Nothing more is delivered about this socket: its owner dropped it.
    pub(in crate::core) const SILENT: Flags = Flags(1 << 5);
    /// A listener: its packets need no turns.
    pub(in crate::core) const LISTENER: Flags = Flags(1 << 6);
    /// The connect reached its deadline.
    pub(in crate::core) const DEADLINE: Flags = Flags(1 << 7);
    /// A connect that has not delivered its stream.
    pub(in crate::core) const CONNECTING: Flags = Flags(1 << 8);
    /// The driver also watches for the end of the peer, in addition to what the socket reads, and
    /// will report it.
    pub(in crate::core) const GUARDED: Flags = Flags(1 << 9);
    /// Another port has, or had, this listener's socket as well. It must not be shut down.
    pub(in crate::core) const SHARED_LISTENER: Flags = Flags(1 << 10);
}

/// Flags of the core. Only `flag` makes them.
#[derive(Clone, Copy, Debug)]
pub(in crate::core) struct Flags(u32);

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Flags(self.0 | other.0)
    }
}

/// The places of the states, one after the other behind the flags.
const CLOSING: Place = Place {
    shift: 1 + flag::SHARED_LISTENER.0.trailing_zeros(),
    bits: 3,
};
const WRITING: Place = CLOSING.next(2);
const SENDING: Place = WRITING.next(2);
const PAUSE: Place = SENDING.next(2);
const CONNECTION: Place = PAUSE.next(2);
/// The first of the driver's own bits.
const OWN: u32 = CONNECTION.end();

/// Bits that the driver `D` keeps in the word of a socket. Each driver has a type of its own here,
/// so no driver can name the bits of the core or of another driver.
pub(crate) struct Own<D> {
    bits: u32,
    driver: PhantomData<D>,
}

impl<D> Own<D> {
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) const NONE: Self = Self::of(0);

    const fn of(bits: u32) -> Self {
        Own {
            bits,
            driver: PhantomData,
        }
    }

    /// Returns the bit of this number, from 0.
    pub(crate) const fn bit(number: u32) -> Self {
        assert!(number < u32::BITS - OWN, "a driver has ten bits");
        Self::of(1 << (OWN + number))
    }

    /// The same as `|`, for constants.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) const fn or(self, other: Self) -> Self {
        Self::of(self.bits | other.bits)
    }
}

impl<D> Clone for Own<D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D> Copy for Own<D> {}

impl<D> BitOr for Own<D> {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.or(other)
    }
}

/// What `has`, `set` and `clear` take: the core's flags, or a driver's own bits.
pub(crate) trait Bits {
    fn bits(self) -> u32;
}

impl Bits for Flags {
    fn bits(self) -> u32 {
        self.0
    }
}

impl<D> Bits for Own<D> {
    fn bits(self) -> u32 {
        self.bits
    }
}

/// The bits of the word that hold one state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    shift: u32,
    bits: u32,
}

impl Place {
    /// Returns the place after this one.
    const fn next(self, bits: u32) -> Self {
        Place {
            shift: self.end(),
            bits,
        }
    }

    const fn end(self) -> u32 {
        self.shift + self.bits
    }

    const fn mask(self) -> u32 {
        ((1 << self.bits) - 1) << self.shift
    }
}

/// A state that has its place in the word. Its first case, of code 0, is that of a fresh socket.
pub(super) trait State: Copy {
    const PLACE: Place;

    /// Returns the state of this code. There may be codes that no state has and no code writes.
    /// The last case takes them, because a panic here would cost each call a branch.
    fn of(code: u32) -> Self;

    fn code(self) -> u32;
}

/// How far the close of a socket is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Closing {
    /// It is not closing.
    No,
    /// The queue of sends goes out first.
    Flushing,
    /// What was queued is aborted. The driver does not know yet that the socket closes.
    Resetting,
    /// The queue was empty, and the driver was asked to end what it holds.
    HungUp,
    /// The close is abortive, and the driver was asked to end what it holds.
    HungUpToReset,
    /// The handle is closed. The socket's last packet is in the queue.
    Closed,
}

impl State for Closing {
    const PLACE: Place = CLOSING;

    fn of(code: u32) -> Self {
        match code {
            0 => Closing::No,
            1 => Closing::Flushing,
            2 => Closing::Resetting,
            3 => Closing::HungUp,
            4 => Closing::HungUpToReset,
            5.. => Closing::Closed,
        }
    }

    fn code(self) -> u32 {
        self as u32
    }
}

/// Whether the socket takes sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Writing {
    Open,
    /// The write side was shut down, or will be when the queue is empty. It stays so if a send
    /// before the shutdown fails.
    Shut,
    /// A send failed or was cut short: nothing more can be sent.
    Ended,
}

impl State for Writing {
    const PLACE: Place = WRITING;

    fn of(code: u32) -> Self {
        match code {
            0 => Writing::Open,
            1 => Writing::Shut,
            2.. => Writing::Ended,
        }
    }

    fn code(self) -> u32 {
        self as u32
    }
}

/// What the driver has of the writing side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sending {
    Nothing,
    /// A request, whose end it will report.
    Request,
    /// A request of which the caller has cancelled one send.
    Cancelled,
}

impl State for Sending {
    const PLACE: Place = SENDING;

    fn of(code: u32) -> Self {
        match code {
            0 => Sending::Nothing,
            1 => Sending::Request,
            2.. => Sending::Cancelled,
        }
    }

    fn code(self) -> u32 {
        self as u32
    }
}

/// Why the socket reads or accepts nothing more for now, although the caller has asked for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pause {
    No,
    /// The stream waits for a lease that returns or for a buffer of the pool, and perhaps for both.
    /// The count of its leases and the pool know which, and call it.
    Buffers,
    /// The listener waits until its connections that wait to be taken are taken.
    Untaken,
}

impl State for Pause {
    const PLACE: Place = PAUSE;

    fn of(code: u32) -> Self {
        match code {
            0 => Pause::No,
            1 => Pause::Buffers,
            2.. => Pause::Untaken,
        }
    }

    fn code(self) -> u32 {
        self as u32
    }
}

/// What is known about the end of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Connection {
    Whole,
    /// It broke, and the system has reported that once. No clean end follows.
    Broken,
    /// The peer's reset was reported to a receive once. Later receives get the same report. The
    /// reading side is over then.
    Reset,
}

impl State for Connection {
    const PLACE: Place = CONNECTION;

    fn of(code: u32) -> Self {
        match code {
            0 => Connection::Whole,
            1 => Connection::Broken,
            2.. => Connection::Reset,
        }
    }

    fn code(self) -> u32 {
        self as u32
    }
}

/// The word.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Word(u32);

impl Word {
    /// Whether it is the word of a fresh socket.
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn has(self, bits: impl Bits) -> bool {
        self.0 & bits.bits() != 0
    }

    pub(super) fn set(&mut self, bits: impl Bits) {
        self.0 |= bits.bits();
    }

    pub(super) fn clear(&mut self, bits: impl Bits) {
        self.0 &= !bits.bits();
    }

    pub(super) fn state<S: State>(self) -> S {
        S::of((self.0 & S::PLACE.mask()) >> S::PLACE.shift)
    }

    /// Whether this is the state. Cheaper than to decode it.
    pub(super) fn is<S: State>(self, state: S) -> bool {
        self.0 & S::PLACE.mask() == state.code() << S::PLACE.shift
    }

    pub(super) fn put<S: State>(&mut self, state: S) {
        self.0 = self.0 & !S::PLACE.mask() | state.code() << S::PLACE.shift;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each state is read as it was put, and changes nothing else.
    fn each_comes_back<S: State + PartialEq + std::fmt::Debug>(states: &[S]) {
        for around in [0, !S::PLACE.mask()] {
            let mut word = Word(around);
            for state in states {
                word.put(*state);
                assert_eq!(word.state::<S>(), *state);
                let same = states.iter().filter(|it| word.is(**it));
                assert_eq!(same.count(), 1);
            }
            word.put(states[0]);
            assert_eq!(word.0, around, "the first has the code 0");
        }
    }

    #[test]
    fn each_state_comes_back_and_changes_no_other() {
        each_comes_back(&[
            Closing::No,
            Closing::Flushing,
            Closing::Resetting,
            Closing::HungUp,
            Closing::HungUpToReset,
            Closing::Closed,
        ]);
        each_comes_back(&[Writing::Open, Writing::Shut, Writing::Ended]);
        each_comes_back(&[Sending::Nothing, Sending::Request, Sending::Cancelled]);
        each_comes_back(&[Pause::No, Pause::Buffers, Pause::Untaken]);
        each_comes_back(&[Connection::Whole, Connection::Broken, Connection::Reset]);
    }
}
