//! The word of a socket: its flags, its states and its driver's own bits, in 32 bits.
//!
//! Facts that exclude each other are one state: an enum in a few bits of the word. So no code can
//! write a socket that has hung up and does not close, and a `match` on a state names every case.
//! Facts that are independent of each other stay flags.
//!
//! A field for each state was rejected: the states alone would take all of the four bytes that the
//! word has, and one field more makes the slot of an idle connection eight bytes larger.

/// Flags of a socket, for [`SocketState::has`](super::SocketState::has) and its neighbours.
pub(crate) mod flag {
    /// The driver holds a request of the reading side and will report its end.
    pub(crate) const ARMED: u32 = 1 << 0;
    /// The driver holds a request of the writing side and will report its end.
    pub(crate) const SENDING: u32 = 1 << 1;
    /// The caller asked to cancel what the reading side does.
    pub(crate) const CANCEL_RECEIVE: u32 = 1 << 2;
    /// The caller asked to cancel the send at the head of the queue.
    pub(crate) const CANCEL_SEND: u32 = 1 << 3;
    /// The socket waits in the ready queue, or in a waiter's list.
    pub(crate) const QUEUED: u32 = 1 << 4;
    /// The stream waits until one of its leases returns.
    pub(crate) const PAUSED_LEASES: u32 = 1 << 5;
    /// The listener waits until its connections that wait to be taken are taken. It has no leases.
    pub(crate) const PAUSED_UNTAKEN: u32 = PAUSED_LEASES;
    /// The stream waits for a buffer of the pool.
    pub(crate) const PAUSED_POOL: u32 = 1 << 6;
    /// The listener waits for descriptors, memory or a place in the table.
    pub(crate) const PAUSED_ACCEPT: u32 = 1 << 7;
    /// A send was refused as full; one `SendReady` is owed.
    pub(crate) const SEND_READY_OWED: u32 = 1 << 8;
    /// A send failed or was cut short: nothing more can be sent.
    pub(crate) const WRITE_ENDED: u32 = 1 << 9;
    /// The write side was shut down, or will be when the queue is empty.
    pub(crate) const SHUTDOWN: u32 = 1 << 10;
    /// Nothing more is delivered about this socket: its owner dropped it.
    pub(crate) const SILENT: u32 = 1 << 11;
    /// A listener: its packets need no turns.
    pub(crate) const LISTENER: u32 = 1 << 12;
    /// The connect reached its deadline.
    pub(crate) const DEADLINE: u32 = 1 << 13;
    /// A connect that has not delivered its stream.
    pub(crate) const CONNECTING: u32 = 1 << 14;
    /// The peer's reset was reported to a receive once. Later receives get the same report. The
    /// reading side is over then.
    pub(crate) const WAS_RESET: u32 = 1 << 15;
    /// The connection broke, and the system has reported that once. No clean end follows.
    pub(crate) const WAS_BROKEN: u32 = 1 << 16;
    /// The driver also watches for the end of the peer, in addition to what the socket reads, and
    /// will report it.
    pub(crate) const GUARDED: u32 = 1 << 17;
    /// Another port has, or had, this listener's socket as well. It must not be shut down.
    pub(crate) const SHARED_LISTENER: u32 = 1 << 18;
    /// Three bits from here on hold the state [`Closing`](super::Closing).
    pub(super) const CLOSING_SHIFT: u32 = 19;
    /// Bits from here on belong to the driver.
    pub(crate) const DRIVER_SHIFT: u32 = 22;
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
        shift: flag::CLOSING_SHIFT,
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

    pub(super) fn has(self, flags: u32) -> bool {
        self.0 & flags != 0
    }

    pub(super) fn set(&mut self, flags: u32) {
        self.0 |= flags;
    }

    pub(super) fn clear(&mut self, flags: u32) {
        self.0 &= !flags;
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
