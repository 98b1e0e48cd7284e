//! Packets that waiters have taken and not handed out. A port that shuts down waits for them.
//!
//! Packets about a socket keep its slot, and slots are counted. Posts and timers have no slot. A
//! waiter may leave one in its batch. Another waiter, or its own next wait, then found the queue
//! empty, closed the port, and the packet was lost. So the waiters with such packets are counted:
//! once per batch, not per packet.
//!
//! The count and `Core::is_ending` are read and written in one order (`SeqCst`). When a waiter
//! hands out the last packet there are two cases. It sees that the port shuts down, and wakes the
//! sleepers. Or it lowered the count before a sleeper looked at the count.

use std::sync::atomic::Ordering;

use super::{Ready, Wake};
use crate::core::local::Local;
use crate::lock;

impl Ready {
    /// A packet that was in no socket's queue goes into this batch. The caller holds the lock of
    /// the queue, or of the timers, from which it took the packet.
    pub(crate) fn note_at_hand(&self, local: &mut Local) {
        if !std::mem::replace(&mut local.has_turnless, true) {
            self.at_hand.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// This batch has no such packet any more. Returns whether it had one.
    pub(crate) fn note_handed_out(&self, local: &mut Local) -> bool {
        let had = std::mem::take(&mut local.has_turnless);
        if had {
            self.at_hand.fetch_sub(1, Ordering::SeqCst);
        }
        had
    }

    /// Whether any batch has such packets.
    pub(crate) fn is_any_at_hand(&self) -> bool {
        self.at_hand.load(Ordering::SeqCst) > 0
    }

    /// Closes the queue if it is empty and no batch has packets from it. Returns which threads to
    /// wake. A post that comes meanwhile is either seen or refused.
    pub(crate) fn close_if_idle(&self) -> Option<Wake> {
        let mut state = lock(&self.state);
        if state.len() > 0 || self.is_any_at_hand() {
            return None;
        }
        state.closed = true;
        Some(state.wake_all())
    }
}
