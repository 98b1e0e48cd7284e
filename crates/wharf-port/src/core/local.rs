//! What a waiter has at hand: the batch it fills, and the sockets whose turn it has.
//!
//! It is apart from the waiter because drivers fill it, and because it outlives a waiter that was
//! forgotten: the end of the thread gives back what is in it (`seat`).

use std::collections::VecDeque;

use crate::core::slot::{SlotId, SocketState, flag};
use crate::packet::Packet;

/// Bytes that are read into a batch before it is handed out: a quarter of a common second-level
/// cache, where 256 buffers of 64 KiB would pass through all of it and more.
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// Events that a driver is asked for beside a batch that is full already. With one, sockets that
/// always have more kept the others from being found: 40 that became ready took 631 waits.
const EVENTS_BESIDE_MIN: usize = 64;

/// What a waiter has at hand.
#[derive(Debug)]
pub(crate) struct Local {
    /// What marks a socket's turn as this waiter's: its number, or, where nobody else waits, the
    /// number of its wait.
    pub(crate) mark: u16,
    /// Nobody else waits on this port, so that a turn ends by itself with the wait it was taken in.
    alone: bool,
    pub(crate) packets: VecDeque<Packet>,
    /// Sockets whose turn this waiter has, and has to end.
    pub(crate) held: Vec<SlotId>,
    /// Listeners with packets in this batch, and how many these are.
    pub(crate) shares: Vec<(SlotId, u8)>,
    /// Sockets that had their share of this wait and have more, marked as queued.
    pub(crate) later: Vec<u32>,
    /// Sockets that a readiness driver found ready in this wait, marked as queued.
    pub(crate) ready: VecDeque<u32>,
    /// This batch has, or had, packets that stood in no socket's queue (`Ready::note_at_hand`).
    pub(crate) has_loose: bool,
    limit: usize,
    /// Bytes that were read into this batch.
    pub(crate) bytes: usize,
    /// The socket whose bulk filled this batch, and how much was read from it.
    pub(crate) filled_by: Option<(u32, usize)>,
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
            has_loose: false,
            limit: 0,
            bytes: 0,
            filled_by: None,
        }
    }

    /// A wait begins, whose batch takes so many packets.
    pub(crate) fn begin(&mut self, batch_max: usize) {
        self.limit = batch_max;
        self.bytes = 0;
        self.filled_by = None;
    }

    /// Nothing was taken yet: the batch takes so many packets again.
    pub(crate) fn widen(&mut self, batch_max: usize) {
        self.limit = batch_max;
    }

    /// How many packets the batch still takes.
    pub(crate) fn room(&self) -> usize {
        self.limit.saturating_sub(self.packets.len())
    }

    /// How many events a driver is asked for. What comes of them beyond the batch stands in the
    /// queue, behind what waits there.
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

    /// Bytes were read into the batch: it takes nothing more once it is as much as the cache keeps
    /// until its packets are handled.
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

    /// A socket had its turn, before which the batch had so many bytes. It fills the batch if most
    /// of it is its own: the last of several equals would stand behind them for nothing.
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

    /// Where nobody else waits, all turns end at once: what is marked with another number has no
    /// turn. A mark that comes around again costs its socket one wait.
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
