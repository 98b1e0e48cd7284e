//! Packets that waiters have taken and not handed out: a port that ends in order waits for them.
//!
//! Those about a socket keep its slot, which is counted. Posts and timers stand in no slot, and one
//! that a waiter had left in its batch was lost when another waiter, or its own next wait, found
//! the queue empty and closed the port. So the waiters that have such packets are counted: once for
//! a batch, not for each packet.
//!
//! The count and `Core::is_ending` are read and written in one order (`SeqCst`). The waiter that
//! hands out the last packet either sees that the port ends, and wakes the sleepers, or it lowered
//! the count before a sleeper looked at it.

use std::sync::atomic::Ordering;

use super::{Ready, Wake};
use crate::core::local::Local;
use crate::lock;

impl Ready {
    /// A packet that stood in no socket's queue goes into this batch. Called under the lock that it
    /// was taken out of the queue, or of the timers, with.
    pub(crate) fn note_at_hand(&self, local: &mut Local) {
        if !std::mem::replace(&mut local.has_loose, true) {
            self.at_hand.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// This batch has none of them any more. Returns whether it had.
    pub(crate) fn note_handed_out(&self, local: &mut Local) -> bool {
        let had = std::mem::take(&mut local.has_loose);
        if had {
            self.at_hand.fetch_sub(1, Ordering::SeqCst);
        }
        had
    }

    /// Whether a batch has some of them.
    pub(crate) fn is_any_at_hand(&self) -> bool {
        self.at_hand.load(Ordering::SeqCst) > 0
    }

    /// Closes the queue if it is empty and no batch has what was in it. Returns whom to wake. A
    /// post that comes meanwhile is either seen or refused.
    pub(crate) fn close_if_idle(&self) -> Option<Wake> {
        let mut state = lock(&self.state);
        if state.len() > 0 || self.is_any_at_hand() {
            return None;
        }
        state.closed = true;
        Some(state.wake_all())
    }
}
