//! Which thread serves a connection, where the first thread accepts for all of them.
//!
//! Without a maximum, the threads take turns. With `--max-connections` there is one count for all
//! threads, and a connection that comes when it is reached waits here, accepted and not served,
//! until one leaves. It goes to the thread whose connection left.
//!
//! The first thread's port has a place for its share of the connections and one more. A connection
//! that waits takes a place there. So the port stops accepting by itself when no place is left, and
//! at least one place is free while the count is below the maximum.
//!
//! A share for each thread was rejected: with its own share full, the first thread accepted
//! nothing, though another thread had room.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use wharf_port::{Accepted, Key};

/// A connection that the system has accepted, and the key of its listener.
pub(super) type Comer = (Key, Accepted);

/// What becomes of a connection that the first thread has accepted.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Dealt<T> {
    /// The thread of this number serves it.
    To(usize, T),
    /// It waits until one leaves. `first`: no other waits.
    Waits { first: bool },
}

/// Distributes connections to threads.
#[derive(Debug)]
pub(super) struct Dealer<T>(Mutex<State<T>>);

#[derive(Debug)]
struct State<T> {
    threads: usize,
    turn: usize,
    maximum: Option<Maximum>,
    /// Connections of all threads.
    held: u32,
    /// Those of the first thread.
    held_by_first: u32,
    waiting: VecDeque<T>,
}

/// A maximum, and the part of it that the first thread may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Maximum {
    pub(super) all: u32,
    pub(super) first: u32,
}

impl<T> Dealer<T> {
    pub(super) fn new(threads: usize, maximum: Option<Maximum>) -> Self {
        Dealer(Mutex::new(State {
            threads,
            turn: 0,
            maximum,
            held: 0,
            held_by_first: 0,
            waiting: VecDeque::new(),
        }))
    }

    /// Whether it counts connections: then it knows better than a port when the maximum is reached.
    pub(super) fn counts(&self) -> bool {
        self.state().maximum.is_some()
    }

    /// A connection has come. Every one that is dealt `To` a thread leaves it once (`left`).
    pub(super) fn deal(&self, comer: T) -> Dealt<T> {
        let mut state = self.state();
        if state.maximum.is_some_and(|it| state.held >= it.all) {
            state.waiting.push_back(comer);
            let first = state.waiting.len() == 1;
            return Dealt::Waits { first };
        }
        let thread = state.next_thread();
        state.held += 1;
        state.held_by_first += u32::from(thread == 0);
        Dealt::To(thread, comer)
    }

    /// A connection of this thread has left. Returns the one that the thread serves in its place.
    pub(super) fn left(&self, thread: usize) -> Option<T> {
        let mut state = self.state();
        let next = state.waiting.pop_front();
        if next.is_none() {
            state.held -= 1;
            state.held_by_first -= u32::from(thread == 0);
        }
        next
    }

    /// Returns those that no thread has served. The server ends.
    pub(super) fn take_waiting(&self) -> VecDeque<T> {
        std::mem::take(&mut self.state().waiting)
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn next_thread(&mut self) -> usize {
        let first_is_full = self
            .maximum
            .is_some_and(|it| self.held_by_first >= it.first);
        let thread = self.turn % self.threads;
        self.turn = self.turn.wrapping_add(1);
        if thread == 0 && first_is_full {
            return self.next_thread();
        }
        thread
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dealt_to(dealer: &Dealer<u32>, count: u32) -> Vec<Option<usize>> {
        let deal = |comer| match dealer.deal(comer) {
            Dealt::To(thread, same) => {
                assert_eq!(same, comer);
                Some(thread)
            }
            Dealt::Waits { .. } => None,
        };
        (0..count).map(deal).collect()
    }

    #[test]
    fn without_a_maximum_the_threads_take_turns() {
        let dealer = Dealer::new(3, None);
        let threads = dealt_to(&dealer, 5);
        assert_eq!(threads, [0, 1, 2, 0, 1].map(Some));
    }

    #[test]
    fn the_first_thread_holds_its_share_and_the_others_the_rest() {
        let dealer = Dealer::new(3, Some(Maximum { all: 6, first: 2 }));
        assert_eq!(dealt_to(&dealer, 6), [0, 1, 2, 0, 1, 2].map(Some));
        // The first is full. Two others leave, and their places are free for two that come.
        assert_eq!(dealer.left(1), None);
        assert_eq!(dealer.left(2), None);
        assert_eq!(dealt_to(&dealer, 3), [Some(1), Some(2), None]);
    }

    #[test]
    fn those_that_wait_are_served_in_order_by_the_thread_that_has_room() {
        let dealer = Dealer::new(2, Some(Maximum { all: 1, first: 1 }));
        assert_eq!(dealer.deal(10), Dealt::To(0, 10));
        assert_eq!(dealer.deal(11), Dealt::Waits { first: true });
        assert_eq!(dealer.deal(12), Dealt::Waits { first: false });
        assert_eq!(dealer.left(0), Some(11));
        assert_eq!(dealer.deal(13), Dealt::Waits { first: false });
        assert_eq!(dealer.left(0), Some(12));
        assert_eq!(dealer.take_waiting(), [13]);
        assert_eq!(dealer.left(0), None);
        assert_eq!(dealer.deal(14), Dealt::To(1, 14));
    }
}
