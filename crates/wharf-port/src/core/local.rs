//! What a waiter has at hand: the batch that it fills, and the sockets whose turn it has.
//!
//! It is separate from the waiter for two reasons. Drivers fill it. And it outlives a waiter that
//! was forgotten: the end of the thread gives back its packets (`seat`).

use std::collections::VecDeque;

use crate::core::slot::{SlotId, SocketState, flag};
use crate::packet::Packet;

/// Bytes that are read into a batch before it is handed out: a quarter of a common second-level
/// cache. 256 buffers of 64 KiB would not fit into that cache.
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// Events that a driver is asked for if the batch is full already. With one event, sockets that
/// always have more data hid the others: finding 40 sockets that became ready took 631 waits.
const EVENTS_BESIDE_MIN: usize = 64;

/// What a waiter has at hand.
#[derive(Debug)]
pub(crate) struct Local {
    /// The mark of a turn of this waiter: the waiter's number. On a port with a single waiter it is
    /// the number of the wait.
    pub(crate) mark: u16,
    /// No other waiter uses this port. So a turn ends with the wait that took it.
    alone: bool,
    pub(crate) packets: VecDeque<Packet>,
    /// Sockets whose turn this waiter has and must end.
    pub(crate) held: Vec<SlotId>,
    /// Listeners with packets in this batch, and the number of these packets.
    pub(crate) shares: Vec<(SlotId, u8)>,
    /// Sockets that had their share of this wait and have more. They are marked as queued.
    pub(crate) later: Vec<u32>,
    /// Sockets that a readiness driver found ready in this wait. They are marked as queued.
    pub(crate) ready: VecDeque<u32>,
    /// This batch has, or had, packets that were in no socket's queue (`Ready::note_at_hand`).
    pub(crate) has_turnless: bool,
    limit: usize,
    /// Bytes that were read into this batch.
    pub(crate) bytes: usize,
    /// The socket whose bulk filled this batch, and how much was read from it.
    pub(crate) filled_by: Option<(u32, usize)>,
    /// Wake-ups that the driver has used in this wait.
    pub(crate) wakes: u32,
}

impl Local {
    pub(crate) fn new(number: u16, alone: bool) -> Self {
        Local {
            mark: number,
            alone,
            packets: VecDeque::new(),
            held: Vec::new(),
            shares: Vec::new(),
            later: Vec::new(),
            ready: VecDeque::new(),
            has_turnless: false,
            limit: 0,
            bytes: 0,
            filled_by: None,
            wakes: 0,
        }
    }

    /// A wait begins. Its batch takes at most `batch_max` packets.
    pub(crate) fn begin(&mut self, batch_max: usize) {
        self.limit = batch_max;
        self.bytes = 0;
        self.filled_by = None;
    }

    /// Nothing was taken yet: the batch takes `batch_max` packets again.
    pub(crate) fn widen(&mut self, batch_max: usize) {
        self.limit = batch_max;
    }

    /// Returns how many more packets the batch takes.
    pub(crate) fn room(&self) -> usize {
        self.limit.saturating_sub(self.packets.len())
    }

    /// Returns how many events to ask a driver for. Events beyond the batch go to the queue, after
    /// its entries.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn events_max(&self) -> usize {
        if self.packets.is_empty() {
            self.room()
        } else {
            self.room().max(EVENTS_BESIDE_MIN)
        }
    }

    /// Lowers the size of the batch to this waiter's share.
    pub(crate) fn limit(&mut self, packets: usize) {
        self.limit = self.limit.min(packets);
    }

    /// Bytes were read into the batch. It takes nothing more once it has as many bytes as the cache
    /// keeps until the packets are handled.
    #[allow(
        dead_code,
        reason = "not every system has a driver that reads at a turn"
    )]
    pub(crate) fn note_read(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes >= BATCH_BYTES_MAX {
            self.limit(self.packets.len());
        }
    }

    /// A socket had its turn; the batch had `bytes_before` bytes before it. The socket counts as
    /// the one that fills the batch only if most bytes are its own. Otherwise the last of several
    /// equal sockets would be queued after the others without reason.
    pub(crate) fn note_turn(&mut self, index: u32, bytes_before: usize) {
        let own = self.bytes - bytes_before;
        if self.bytes >= BATCH_BYTES_MAX && own > BATCH_BYTES_MAX / 2 {
            self.filled_by = Some((index, own));
        }
    }

    /// Whether one more packet of this socket may go into the batch.
    pub(crate) fn may_take(&self, state: &SocketState, turn_packets_max: u8) -> bool {
        self.room() > 0
            && if state.turn == self.mark {
                state.taken < turn_packets_max
            } else {
                self.alone || state.turn == 0
            }
    }

    /// Takes a packet of a socket, and the socket's turn with it.
    pub(crate) fn take(&mut self, id: SlotId, state: &mut SocketState, packet: Packet) {
        if state.turn != self.mark {
            state.turn = self.mark;
            state.taken = 0;
            if !self.alone {
                self.held.push(id);
            }
        }
        state.taken += 1;
        self.packets.push_back(packet);
    }

    /// Whether one more packet of this listener may go into the batch.
    pub(crate) fn may_take_of_listener(&self, id: SlotId, packets_max: u8) -> bool {
        let share = self.shares.iter().find(|(listener, _)| *listener == id);
        self.room() > 0 && share.is_none_or(|(_, taken)| *taken < packets_max)
    }

    /// Takes a packet of a socket: with its turn, or, of a listener, as a part of its share.
    pub(crate) fn take_share(&mut self, id: SlotId, state: &mut SocketState, packet: Packet) {
        if !state.has(flag::LISTENER) {
            return self.take(id, state, packet);
        }
        match self.shares.iter_mut().find(|(listener, _)| *listener == id) {
            Some((_, taken)) => *taken += 1,
            None => {
                self.shares.push((id, 1));
                if !self.alone {
                    state.turn += 1;
                }
            }
        }
        self.packets.push_back(packet);
    }

    /// On a port with a single waiter all turns end at once: a socket with another mark has no
    /// turn. The mark wraps. A socket that still has the same mark then waits for one more wait.
    pub(crate) fn end_turns_alone(&mut self) {
        debug_assert!(self.held.is_empty(), "nothing is held alone");
        self.mark = self.mark.checked_add(1).unwrap_or(1);
    }

    /// Takes a packet that needs no turn.
    pub(crate) fn push(&mut self, packet: Packet) {
        self.packets.push_back(packet);
    }
}

#[cfg(test)]
mod tests {
    //! What fills a batch, besides packets.

    use super::*;

    #[test]
    fn a_batch_takes_no_more_bytes_than_a_cache_keeps() {
        let mut local = Local::new(1, false);
        local.begin(8);
        local.note_read(BATCH_BYTES_MAX - 1);
        assert_eq!(local.room(), 8);
        local.note_read(1);
        assert_eq!((local.room(), local.bytes), (0, BATCH_BYTES_MAX));
        local.widen(8);
        assert_eq!(local.room(), 8, "for whoever took nothing");
        local.begin(4);
        assert_eq!((local.room(), local.bytes), (4, 0));
    }
}
