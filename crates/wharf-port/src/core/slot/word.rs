//! The word of a socket: its flags, its states and its driver's own bits, in 32 bits.
//!
//! Facts that exclude each other are one state: an enum in a few bits of the word. So no code can
//! write a socket that has hung up and does not close, and a `match` on a state names every case.
//! Facts that are independent of each other stay flags.
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
    /// The driver holds a request of the writing side and will report its end.
    pub(in crate::core) const SENDING: Flags = Flags(1 << 1);
    /// The caller asked to cancel what the reading side does.
    pub(in crate::core) const CANCEL_RECEIVE: Flags = Flags(1 << 2);
    /// The caller asked to cancel the send at the head of the queue.
    pub(in crate::core) const CANCEL_SEND: Flags = Flags(1 << 3);
    /// The socket waits in the ready queue, or in a waiter's list.
    pub(in crate::core) const QUEUED: Flags = Flags(1 << 4);
    /// The stream waits until one of its leases returns.
    pub(in crate::core) const PAUSED_LEASES: Flags = Flags(1 << 5);
    /// The listener waits until its connections that wait to be taken are taken. It has no leases.
    pub(in crate::core) const PAUSED_UNTAKEN: Flags = PAUSED_LEASES;
    /// The stream waits for a buffer of the pool.
    pub(in crate::core) const PAUSED_POOL: Flags = Flags(1 << 6);
    /// The listener waits for descriptors, memory or a place in the table.
    pub(in crate::core) const PAUSED_ACCEPT: Flags = Flags(1 << 7);
    /// A send was refused as full; one `SendReady` is owed.
    pub(in crate::core) const SEND_READY_OWED: Flags = Flags(1 << 8);
    /// A send failed or was cut short: nothing more can be sent.
    pub(in crate::core) const WRITE_ENDED: Flags = Flags(1 << 9);
    /// The write side was shut down, or will be when the queue is empty.
    pub(in crate::core) const SHUTDOWN: Flags = Flags(1 << 10);
    /// Nothing more is delivered about this socket: its owner dropped it.
    pub(in crate::core) const SILENT: Flags = Flags(1 << 11);
    /// A listener: its packets need no turns.
    pub(in crate::core) const LISTENER: Flags = Flags(1 << 12);
    /// The connect reached its deadline.
    pub(in crate::core) const DEADLINE: Flags = Flags(1 << 13);
    /// A connect that has not delivered its stream.
    pub(in crate::core) const CONNECTING: Flags = Flags(1 << 14);
    /// The peer's reset was reported to a receive once. Later receives get the same report. The
    /// reading side is over then.
    pub(in crate::core) const WAS_RESET: Flags = Flags(1 << 15);
    /// The connection broke, and the system has reported that once. No clean end follows.
    pub(in crate::core) const WAS_BROKEN: Flags = Flags(1 << 16);
    /// The driver also watches for the end of the peer, in addition to what the socket reads, and
    /// will report it.
    pub(in crate::core) const GUARDED: Flags = Flags(1 << 17);
    /// Another port has, or had, this listener's socket as well. It must not be shut down.
    pub(in crate::core) const SHARED_LISTENER: Flags = Flags(1 << 18);
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

/// The first of the bits that hold states, after those of `flag`.
const STATES: u32 = 19;
/// The first of the driver's own bits.
const OWN: u32 = 22;

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
    #[allow(dead_code, reason = "not every driver needs it")]
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
    const PLACE: Place = Place {
        shift: STATES,
        bits: 3,
    };

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
    }
}
