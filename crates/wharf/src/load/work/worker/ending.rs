//! What a thread does before it exceeds the memory, and before it ends: it checks the available
//! memory, touches held connections, and closes them.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use wharf_port::{Close, Event, Key, Wait, Waiter};

use super::{CONNECTION_FIRST, Connection, DRAIN_STEP, NOT_IN_TIME, Worker};
use crate::load::options::Mode;
use crate::load::work::worker::talking::Talk;
use crate::sys::limits;

/// Connects between two checks of the memory; they take some megabytes.
const LOOK_EVERY: u32 = 256;
/// How long no reply may arrive at the end, at least and with each connection of all threads: when
/// a million close at once, some close while others still echo.
const DRAINS_WITHIN: Duration = Duration::from_secs(5);
const DRAINS_FOR_EACH: Duration = Duration::from_micros(50);
/// The wait is divided into this number of steps. A load that is not scheduled for seconds misses
/// only one step, and what arrives meanwhile is not lost.
const DRAIN_STEPS: u32 = 10;
/// After this number of steps without a reply, each connection sends its FIN: some servers reply
/// only when their peer has finished.
const ASK_AFTER_STEPS: u32 = DRAIN_STEPS / 2;
/// The most steps: a server that replies byte by byte would otherwise keep a load as long as it
/// likes.
const DRAIN_STEPS_MAX: u32 = 12 * DRAIN_STEPS;
/// A limit on the time of the closes, for all connections of a process on a busy machine.
const ENDING_AT_MOST: Duration = Duration::from_secs(120);

impl Worker<'_> {
    /// Whether another connect leaves the requested memory. Once it does not, the result stays.
    pub(super) fn has_memory(&mut self) -> bool {
        let Some(leave) = self.orders.leave_memory_bytes else {
            return true;
        };
        if !self.held_back
            && self.next.is_multiple_of(LOOK_EVERY)
            && limits::memory().available_bytes < leave
        {
            self.held_back = true;
            let count = u64::from(self.orders.connections - self.next);
            self.ledger.held_back.fetch_add(count, Ordering::Relaxed);
        }
        !self.held_back
    }

    /// Whether a held connection sends a message at the end.
    pub(super) fn is_chosen(&self, number: u32) -> bool {
        let touch = self.orders.touch;
        touch.is_some_and(|touch| touch.chooses(self.orders.seed, self.identity(number)))
    }

    /// Sends a message on each chosen connection. A slow server may take longer than the load was
    /// to last: connections that connect only now follow when they have connected.
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

    /// Waits another step for replies.
    pub(super) fn listen_on(&mut self) -> Result<(), String> {
        self.heard_before = self.heard;
        // All threads have the same number of connections, give or take one.
        let all = self.orders.connections.saturating_mul(self.orders.threads);
        let patience = DRAINS_WITHIN + DRAINS_FOR_EACH * all;
        self.at(Instant::now() + patience / DRAIN_STEPS, DRAIN_STEP)
    }

    pub(super) fn drain(&mut self) -> Result<(), String> {
        self.drain_steps += 1;
        self.silent_steps += 1;
        if self.heard > self.heard_before {
            self.silent_steps = 0;
        }
        if self.silent_steps == ASK_AFTER_STEPS && self.orders.mode.talks() {
            for number in 0..self.connections.len() {
                self.finish(number as u32);
            }
        }
        if self.silent_steps < DRAIN_STEPS && self.drain_steps < DRAIN_STEPS_MAX {
            return self.listen_on();
        }
        self.give_up();
        Ok(())
    }

    /// A connection without its reply now counts as lost, and not as held.
    fn give_up(&mut self) {
        for number in 0..self.connections.len() {
            if matches!(&self.connections[number], Connection::Connecting(..)) {
                // It stays unfinished in the ledger.
                self.connections[number] = Connection::Gone;
            }
            let waits = |talk: &Option<Box<Talk>>| talk.as_ref().is_some_and(|it| it.waits());
            let touched = matches!(&self.connections[number], Connection::Open(_, it) if waits(it));
            if self.orders.mode != Mode::Hold || touched {
                self.gone(number as u32, NOT_IN_TIME);
            }
        }
        self.connecting = 0;
    }

    /// Closes what is open, and waits until all of it has closed.
    ///
    /// If the exit of the process closed them, connections of io_uring would close a moment later:
    /// a kernel thread cancels their armed requests. A server that was stopped just after the load
    /// then had to close some of them, and counted them as its own closes.
    pub(super) fn end_all(&mut self, waiter: &mut Waiter) -> Result<(), String> {
        let how = match self.orders.reset {
            true => Close::Reset,
            false => Close::Flush,
        };
        let mut closing = 0;
        for place in &mut self.connections {
            // A connection that ended by itself at this moment refuses.
            match place {
                Connection::Open(socket, _) if socket.close(how).is_ok() => closing += 1,
                _ => *place = Connection::Gone,
            }
        }
        let give_up_at = Instant::now() + ENDING_AT_MOST;
        while closing > 0 {
            let left = give_up_at.saturating_duration_since(Instant::now());
            let packets = match waiter.wait(Some(left)) {
                Ok(Wait::Packets(packets)) => packets,
                Ok(Wait::TimedOut | Wait::Closed) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            };
            for packet in packets {
                // Connections that were given up before are not waited for.
                if matches!(packet.event, Event::Closed) && self.ended(packet.key) {
                    closing -= 1;
                }
            }
        }
        Ok(())
    }

    /// Whether this was the close of an open connection.
    fn ended(&mut self, key: Key) -> bool {
        let number = (key.0 - CONNECTION_FIRST) as usize;
        let before = std::mem::replace(&mut self.connections[number], Connection::Gone);
        matches!(before, Connection::Open(..))
    }
}
