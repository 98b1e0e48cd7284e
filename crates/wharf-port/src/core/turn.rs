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
use crate::core::slot::{SlotId, SocketState, flag};
use crate::core::{Core, Out};
use crate::packet::Packet;

impl Core {
    /// Puts a socket into the ready queue, unless it is there or somebody has its turn.
    pub(crate) fn enqueue(&self, id: SlotId, state: &mut SocketState) {
        if self.turn_is_free(state) && !state.has(flag::QUEUED) {
            state.set(flag::QUEUED);
            self.wake(self.ready.push_socket(id.index));
        }
    }

    /// Whether no other waiter has the socket's turn; there is none on a single-waiter port.
    pub(crate) fn turn_is_free(&self, state: &SocketState) -> bool {
        state.turn == 0 || !self.options.shared || state.has(flag::LISTENER)
    }

    /// Sees to it that a socket which has more is looked at again: after the turn that a waiter
    /// has of it, and on a single-waiter port after this wait.
    pub(crate) fn look_again(&self, id: SlotId, state: &mut SocketState, local: &mut Local) {
        let passes_by = !self.options.shared || state.has(flag::LISTENER);
        if passes_by && local.room() > 0 && !state.has(flag::QUEUED) {
            // It has had its share: in the queue it would come up again and again in this wait.
            state.set(flag::QUEUED);
            local.later.push(id.index);
        } else {
            self.enqueue_after_turn(id, state, local);
        }
    }

    /// A socket that had its turn has more: it stands behind the others, and where its bulk has
    /// filled most of the batch, behind all that bring less.
    fn enqueue_after_turn(&self, id: SlotId, state: &mut SocketState, local: &Local) {
        let filled_by = local.filled_by.filter(|(index, _)| *index == id.index);
        match filled_by {
            None => self.enqueue(id, state),
            Some((index, bytes)) if self.turn_is_free(state) && !state.has(flag::QUEUED) => {
                state.set(flag::QUEUED);
                self.wake(self.ready.push_bulk(index, bytes));
            }
            Some(_) => {}
        }
    }

    /// Takes what a ready socket has, as far as the batch and the socket's turn allow.
    pub(crate) fn take_turn(self: &Arc<Self>, index: u32, local: &mut Local) {
        if let Some((id, mut state)) = self.slots.lock_index(index) {
            state.clear(flag::QUEUED);
            self.take_turn_of(id, &mut state, local);
        }
    }

    /// The same for a socket that is locked already, and in no queue.
    pub(crate) fn take_turn_of(
        self: &Arc<Self>,
        id: SlotId,
        state: &mut SocketState,
        local: &mut Local,
    ) {
        if !self.turn_is_free(state) && state.turn != local.mark {
            return; // Whoever has the turn puts the socket back when it ends.
        }
        while self.has_share(id, state, local) && has_pending(state) {
            let pending = state.work.as_mut().map(|work| &mut work.pending);
            let Some(packet) = pending.and_then(VecDeque::pop_front) else {
                break;
            };
            let last = packet.is_last();
            local.take_share(id, state, packet);
            if last {
                return self.recycle(state);
            }
        }
        if !state.has(flag::CLOSING) {
            self.tell_send_ready(id, state, &mut Out(Some(local)));
            if state.has(flag::LISTENER) {
                self.accepts_were_taken(id, state, &mut Out(Some(local)));
            }
        }
        let before = local.bytes;
        self.driver.advance(self, id, state, &mut Out(Some(local)));
        local.note_turn(id.index, before);
        self.recycle(state);
        if state.generation == id.generation && self.has_more(state) {
            self.look_again(id, state, local);
        }
    }

    /// Whether one more packet of this socket may go into the batch: by its turn, or a listener's
    /// share.
    pub(crate) fn has_share(&self, id: SlotId, state: &SocketState, local: &Local) -> bool {
        let turn_packets_max = self.options.turn_packets_max;
        if state.has(flag::LISTENER) {
            local.may_take_of_listener(id, turn_packets_max)
        } else {
            local.may_take(state, turn_packets_max)
        }
    }

    /// Lets all have what passed by this batch, whose share of it is taken. Listeners know no turns:
    /// what they have more is for whichever thread comes next.
    pub(crate) fn leave_to_others(&self, local: &mut Local) {
        for index in local.later.drain(..) {
            self.wake(self.ready.push_socket(index));
        }
    }

    /// Whether a socket has something that a turn would bring forth.
    fn has_more(&self, state: &SocketState) -> bool {
        has_pending(state) || self.driver.has_more(state)
    }

    /// Ends the turns a waiter holds, but for the sockets whose packets it has not handed out.
    pub(crate) fn end_turns(&self, local: &mut Local) {
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
            if let Some(mut state) = self.slots.lock(*id) {
                if state.turn == local.mark {
                    state.turn = 0;
                    state.taken = 0;
                    if self.has_more(&state) {
                        self.enqueue_after_turn(*id, &mut state, local);
                    }
                }
            }
            false
        });
        local.held = held;
    }

    /// The same for the listeners of which this batch had a share. When no batch has packets of a
    /// closed one any more, its last packet may go out.
    fn end_shares(&self, local: &mut Local) {
        let mut shares = std::mem::take(&mut local.shares);
        shares.retain_mut(|(id, taken)| {
            *taken = 0;
            if local.packets.iter().any(|packet| packet.socket.is(*id)) {
                return true;
            }
            if self.options.shared {
                if let Some(mut state) = self.slots.lock(*id) {
                    state.turn = state.turn.saturating_sub(1);
                    if self.has_more(&state) {
                        self.enqueue(*id, &mut state);
                    }
                }
            }
            false
        });
        local.shares = shares;
    }

    /// Takes back what a waiter that goes had not handed out.
    pub(crate) fn put_back(&self, local: &mut Local) {
        let mut loose = Vec::new();
        for packet in std::mem::take(&mut local.packets).into_iter().rev() {
            let id = packet.socket.slot_id();
            if packet.socket.is_none() {
                loose.push(packet);
                continue;
            }
            let mut dropped = Some(packet);
            if let Some(mut state) = self.slots.lock(id) {
                if !state.has(flag::SILENT) {
                    let pending = &mut self.work(&mut state).pending;
                    pending.extend(dropped.take());
                    // It came before the others.
                    pending.rotate_right(1);
                    self.enqueue(id, &mut state);
                }
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

/// Whether a packet waits that may go into a batch now.
fn has_pending(state: &SocketState) -> bool {
    let work = state.work.as_ref();
    let first = work.and_then(|work| work.pending.front());
    first.is_some_and(|packet| !is_too_early(state, packet))
}

/// Whether this is the last packet of a listener of which another batch has packets still. The slot
/// goes with it, and they would be taken for those of a dropped one.
pub(crate) fn is_too_early(state: &SocketState, packet: &Packet) -> bool {
    packet.is_last() && state.has(flag::LISTENER) && state.turn > 0
}
