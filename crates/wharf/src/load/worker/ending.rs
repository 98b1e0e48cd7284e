//! What a thread does when it would exceed its machine, and before it ends: looking at the memory that
//! is left, touching held connections, and resetting them.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use wharf_port::{Close, Event, Wait, Waiter};

use super::{Connection, Worker};
use crate::doctor;
use crate::load::worker::talking::Talk;

/// Connects between two looks at the memory; they take some megabytes.
const LOOK_EVERY: u32 = 256;
/// How long resets may take, of as many connections as a process has, on a machine that is busy.
const RESET_AT_MOST: Duration = Duration::from_secs(120);

impl Worker<'_> {
    /// Whether another connect leaves the memory that is to be left. Once it has not, it stays so.
    pub(super) fn has_memory(&mut self) -> bool {
        let Some(leave) = self.orders.leave_memory_bytes else {
            return true;
        };
        if !self.held_back
            && self.next.is_multiple_of(LOOK_EVERY)
            && doctor::memory().available_bytes < leave
        {
            self.held_back = true;
            let count = u64::from(self.orders.connections - self.next);
            self.ledger.held_back.fetch_add(count, Ordering::Relaxed);
        }
        !self.held_back
    }

    /// Whether a held connection is to send a message at the end.
    pub(super) fn is_chosen(&self, number: u32) -> bool {
        let touch = self.orders.touch;
        touch.is_some_and(|touch| touch.chooses(self.orders.seed, self.identity(number)))
    }

    /// Sends a message on each held connection that is chosen. Those that connect only now, because
    /// a slow server took longer than the load was to last, follow when they have.
    pub(super) fn touch_all(&mut self) {
        for number in 0..self.connections.len() as u32 {
            self.touch(number);
        }
    }

    /// Sends a message on a held connection, if it is chosen.
    pub(super) fn touch(&mut self, number: u32) {
        if !self.is_chosen(number) {
            return;
        }
        let talk = Talk::new(self.identity(number), self.orders.size);
        if let Connection::Open(_, place) = &mut self.connections[number as usize] {
            *place = Some(Box::new(talk));
            self.touching += 1;
            self.ledger.touched.fetch_add(1, Ordering::Relaxed);
            self.send(number, Instant::now());
        }
    }

    /// Ends what is open with RST, and waits until all of it has ended.
    pub(super) fn reset_all(&mut self, waiter: &mut Waiter) -> Result<(), String> {
        let open = self.connections.iter().filter_map(|it| match it {
            Connection::Open(socket, _) => Some(*socket),
            _ => None,
        });
        // One that has ended by itself in this moment refuses.
        let mut closing = open
            .filter(|socket| socket.close(Close::Reset).is_ok())
            .count();
        let give_up_at = Instant::now() + RESET_AT_MOST;
        while closing > 0 {
            let left = give_up_at.saturating_duration_since(Instant::now());
            let packets = match waiter.wait(Some(left)) {
                Ok(Wait::Packets(packets)) => packets,
                Ok(Wait::TimedOut | Wait::Closed) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            };
            closing -= packets
                .filter(|it| matches!(it.event, Event::Closed))
                .count()
                .min(closing);
        }
        Ok(())
    }
}
