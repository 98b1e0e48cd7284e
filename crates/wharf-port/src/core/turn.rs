//! Turns: one waiter at a time has packets of a socket, so that its state needs no lock (C18).
//!
//! On a shared port a socket remembers the waiter that has its turn, and the waiter which sockets
//! it has to give back. Where nobody else waits, that would be a lock and a list for every packet
//! of which nobody ever makes use: there the mark is the number of the wait, and all turns end by
//! counting it up. What both have in common is the fairness: a socket that has had its share of a
//! batch stands behind the others.

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

    /// Lets all have what passed by this batch, whose share of it is taken. Listeners know no turns:
    /// what they have more is for whichever thread comes next.
    pub(crate) fn leave_to_others(&self, local: &mut Local) {
        for index in local.later.drain(..) {
            self.wake(self.ready.push_socket(index));
        }
    }

    /// Ends the turns a waiter holds, but for the sockets whose packets it has not handed out.
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
    /// closed one any more, its last packet may go out.
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
        let mut loose = Vec::new();
        for packet in std::mem::take(&mut local.packets).into_iter().rev() {
            let id = packet.socket.slot_id();
            if packet.socket.is_none() {
                loose.push(packet);
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
        loose.reverse();
        if !loose.is_empty() {
            self.wake(self.ready.push_loose_front(loose));
        }
        self.was_handed_out(local);
        self.end_turns(local);
    }

    /// The waiter of this number went; the last one of a closed port ends it.
    pub(crate) fn waiter_left(self: &Arc<Self>, number: u16) {
        let (left, closed) = self.ready.dismiss(number);
        if left == 0 {
            self.nobody_is_left(closed);
        }
    }
}

impl Locked<'_> {
    /// Puts the socket into the ready queue, unless it is there or somebody has its turn.
    pub(crate) fn enqueue(&mut self) {
        if self.turn_is_free() && !self.has(flag::QUEUED) {
            self.set(flag::QUEUED);
            self.core.wake(self.core.ready.push_socket(self.id.index));
        }
    }

    /// Whether no other waiter has the socket's turn; there is none on a single-waiter port.
    pub(crate) fn turn_is_free(&self) -> bool {
        self.turn == 0 || !self.core.options.shared || self.has(flag::LISTENER)
    }

    /// Sees to it that a socket which has more is looked at again: after the turn that a waiter
    /// has of it, and on a single-waiter port after this wait.
    pub(crate) fn look_again(&mut self) {
        let passes_by = !self.core.options.shared || self.has(flag::LISTENER);
        let index = self.id.index;
        let may_wait = passes_by && !self.has(flag::QUEUED);
        match self.local().filter(|local| may_wait && local.room() > 0) {
            Some(local) => {
                // It has had its share: in the queue it would come up again and again in this wait.
                local.later.push(index);
                self.set(flag::QUEUED);
            }
            None => self.enqueue_after_turn(),
        }
    }

    /// A socket that had its turn has more: it stands behind the others, and where its bulk has
    /// filled most of the batch, behind all that bring less.
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

    /// Takes what the socket has, which is in no queue, into the batch at hand.
    pub(crate) fn take_turn(&mut self) {
        let mark = self.out.0.as_ref().map_or(0, |local| local.mark);
        if !self.turn_is_free() && self.turn != mark {
            return; // Whoever has the turn puts the socket back when it ends.
        }
        while self.has_share() && self.has_pending() {
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
        if !self.has(flag::CLOSING) {
            self.tell_send_ready();
            if self.has(flag::LISTENER) {
                self.accepts_were_taken();
            }
        }
        let before = self.out.0.as_ref().map_or(0, |local| local.bytes);
        self.core.driver.advance(self);
        if let Some(local) = &mut self.out.0 {
            local.note_turn(self.id.index, before);
        }
        self.recycle();
        if !self.is_gone() && self.has_more() {
            self.look_again();
        }
    }

    /// Whether one more packet of this socket may go into the batch: by its turn, or a listener's
    /// share.
    pub(crate) fn has_share(&self) -> bool {
        if self.has(flag::LISTENER) {
            self.may_take_of_listener()
        } else {
            self.may_take()
        }
    }

    /// Whether the socket has something that a turn would bring forth.
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

    /// Whether this is the last packet of a listener of which another batch has packets still. The
    /// slot goes with it, and they would be taken for those of a dropped one.
    pub(crate) fn is_too_early(&self, packet: &Packet) -> bool {
        packet.is_last() && self.has(flag::LISTENER) && self.turn > 0
    }
}
