//! Turns: one waiter at a time has packets of a socket, so the socket's state needs no lock (C18).
//!
//! On a shared port a socket remembers the waiter that has its turn, and the waiter remembers which
//! turns it has to end. On a port with a single waiter that would cost a lock and a list entry per
//! packet for nothing. There a socket remembers the number of the current wait, and incrementing
//! that number ends all turns. Both are fair in the same way: a socket that has had its share of a
//! batch is queued after the others.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::core::local::Local;
use crate::core::locked::Locked;
use crate::core::slot::{SocketState, flag};
use crate::core::{Core, Out};
use crate::packet::Packet;

impl Core {
    /// Takes what a ready socket has, as far as the batch and the socket's turn allow.
    pub(crate) fn take_turn(self: &Arc<Self>, index: u32, local: &mut Local) {
        if let Some(mut socket) = self.lock_index(index, Out::batch(local)) {
            socket.clear(flag::QUEUED);
            socket.take_turn();
        }
    }

    /// Queues the sockets that have more than their share of this batch, so any waiter may take
    /// them. Listeners have no turns: the next thread takes what they have more.
    pub(crate) fn leave_to_others(&self, local: &mut Local) {
        for index in local.later.drain(..) {
            self.wake(self.ready.push_socket(index));
        }
    }

    /// Ends the turns that a waiter holds, except those of sockets whose packets it has not handed
    /// out.
    pub(crate) fn end_turns(self: &Arc<Self>, local: &mut Local) {
        self.end_shares(local);
        self.leave_to_others(local);
        if !self.options.shared {
            return local.end_turns_alone();
        }
        let mut held = std::mem::take(&mut local.held);
        held.retain(|id| {
            if local.packets.iter().any(|packet| packet.socket.is(*id)) {
                return true;
            }
            let mark = local.mark;
            let socket = self.lock(*id, Out::batch(local));
            if let Some(mut socket) = socket.filter(|socket| socket.turn == mark) {
                socket.turn = 0;
                socket.taken = 0;
                if socket.has_more() {
                    socket.enqueue_after_turn();
                }
            }
            false
        });
        local.held = held;
    }

    /// The same for the listeners of which this batch had a share. When no batch has packets of a
    /// closed listener any more, its last packet may go out.
    fn end_shares(self: &Arc<Self>, local: &mut Local) {
        let mut shares = std::mem::take(&mut local.shares);
        shares.retain_mut(|(id, taken)| {
            *taken = 0;
            if local.packets.iter().any(|packet| packet.socket.is(*id)) {
                return true;
            }
            let shared = self.options.shared;
            if let Some(mut socket) = shared.then(|| self.lock(*id, Out::queue())).flatten() {
                socket.turn = socket.turn.saturating_sub(1);
                if socket.has_more() {
                    socket.enqueue();
                }
            }
            false
        });
        local.shares = shares;
    }

    /// Takes back what a waiter that goes had not handed out.
    pub(crate) fn put_back(self: &Arc<Self>, local: &mut Local) {
        let mut turnless = Vec::new();
        for packet in std::mem::take(&mut local.packets).into_iter().rev() {
            let id = packet.socket.slot_id();
            if packet.socket.is_none() {
                turnless.push(packet);
                continue;
            }
            let mut dropped = Some(packet);
            let socket = self.lock(id, Out::queue());
            if let Some(mut socket) = socket.filter(|socket| !socket.has(flag::SILENT)) {
                let pending = &mut socket.work().pending;
                pending.extend(dropped.take());
                // It came before the others.
                pending.rotate_right(1);
                socket.enqueue();
            }
            dropped.into_iter().for_each(|packet| self.discard(packet));
        }
        turnless.reverse();
        if !turnless.is_empty() {
            self.wake(self.ready.push_turnless_front(turnless));
        }
        self.was_handed_out(local);
        self.end_turns(local);
    }

    /// The waiter of this number went. The last waiter of a closed port ends the port.
    pub(crate) fn waiter_left(self: &Arc<Self>, number: u16) {
        let (left, closed) = self.ready.dismiss(number);
        if left == 0 {
            self.no_thread_is_left(closed);
        }
    }
}

impl Locked<'_> {
    /// Queues the socket, unless it is queued already or a waiter has its turn.
    pub(crate) fn enqueue(&mut self) {
        if self.turn_is_free() && !self.has(flag::QUEUED) {
            self.set(flag::QUEUED);
            self.core.wake(self.core.ready.push_socket(self.id.index));
        }
    }

    /// Whether no other waiter has the socket's turn. On a single-waiter port none ever has.
    pub(in crate::core) fn turn_is_free(&self) -> bool {
        self.turn == 0 || !self.core.options.shared || self.has(flag::LISTENER)
    }

    /// Makes sure that a socket which has more is looked at again: after its current turn, and on a
    /// single-waiter port after this wait.
    pub(crate) fn look_again(&mut self) {
        let passes_by = !self.core.options.shared || self.has(flag::LISTENER);
        let index = self.id.index;
        let may_wait = passes_by && !self.has(flag::QUEUED);
        match self.local().filter(|local| may_wait && local.room() > 0) {
            Some(local) => {
                // It has had its share. In the queue it would come up again and again in this wait.
                local.later.push(index);
                self.set(flag::QUEUED);
            }
            None => self.enqueue_after_turn(),
        }
    }

    /// A socket that had its turn has more. It is queued after the others. If its bulk has filled
    /// most of the batch, it is queued after all smaller senders.
    fn enqueue_after_turn(&mut self) {
        let filled_by = self.out.0.as_ref().and_then(|local| local.filled_by);
        let filled_by = filled_by.filter(|(index, _)| *index == self.id.index);
        match filled_by {
            None => self.enqueue(),
            Some((index, bytes)) if self.turn_is_free() && !self.has(flag::QUEUED) => {
                self.set(flag::QUEUED);
                self.core.wake(self.core.ready.push_bulk(index, bytes));
            }
            Some(_) => {}
        }
    }

    /// Takes what the socket has into the batch at hand. The socket is in no queue.
    fn take_turn(&mut self) {
        let mark = self.out.0.as_ref().map_or(0, |local| local.mark);
        if !self.turn_is_free() && self.turn != mark {
            return; // The waiter with the turn queues the socket when the turn ends.
        }
        while self.has_pending() && self.has_share() {
            let pending = self.state.work.as_mut().map(|work| &mut work.pending);
            let Some(packet) = pending.and_then(VecDeque::pop_front) else {
                break;
            };
            let last = packet.is_last();
            if let Some(local) = &mut self.out.0 {
                local.take_share(self.id, &mut self.state, packet);
            }
            if last {
                return self.recycle();
            }
        }
        if !self.is_closing() {
            self.deliver_send_ready_if_owed();
            if self.has(flag::LISTENER) {
                self.accepts_were_taken();
            }
        }
        let before = self.out.0.as_ref().map_or(0, |local| local.bytes);
        let more = self.advance();
        if let Some(local) = &mut self.out.0 {
            local.note_turn(self.id.index, before);
        }
        self.recycle();
        if !self.is_gone() && (more || self.has_pending()) {
            self.look_again();
        }
    }

    /// Lets the driver read, accept or report, step by step, as far as the batch and the turn
    /// allow. Returns whether it has more.
    fn advance(&mut self) -> bool {
        let driver = &self.core.driver;
        while self.has_share() {
            driver.advance(self);
            if !driver.has_more(self) {
                return false;
            }
        }
        driver.has_more(self)
    }

    /// The driver reports that a turn of the socket would deliver something. The socket gets it at
    /// once, while it is locked and in the cache, unless this waiter found others before it.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    #[inline]
    pub(crate) fn became_ready(&mut self) {
        let passes = self.turn_is_free() && !self.has(flag::QUEUED);
        if passes && !self.waits_behind_others() && self.may_take() {
            self.take_turn();
        } else {
            self.join_ready();
        }
    }

    /// Whether one more packet of this socket may go into the batch: by its turn, or by a
    /// listener's share.
    pub(in crate::core) fn has_share(&self) -> bool {
        if self.has(flag::LISTENER) {
            self.may_take_of_listener()
        } else {
            self.may_take()
        }
    }

    /// Whether a turn of the socket would deliver something.
    fn has_more(&self) -> bool {
        self.has_pending() || self.core.driver.has_more(self)
    }
}

impl SocketState {
    /// Whether a packet waits that may go into a batch now.
    fn has_pending(&self) -> bool {
        let work = self.work.as_ref();
        let first = work.and_then(|work| work.pending.front());
        first.is_some_and(|packet| !self.is_too_early(packet))
    }

    /// Whether this is the last packet of a listener, and another batch still has packets of it.
    /// The slot is freed with the last packet. Then the other packets would be treated like those
    /// of a dropped listener.
    pub(crate) fn is_too_early(&self, packet: &Packet) -> bool {
        packet.is_last() && self.has(flag::LISTENER) && self.turn > 0
    }
}
