//! What a thread does when it would exceed its machine, and before it ends: looking at the memory that
//! is left, touching held connections, and ending them.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use wharf_port::{Close, Event, Key, Wait, Waiter};

use super::{CONNECTION_FIRST, Connection, DRAIN_STEP, NOT_IN_TIME, Worker};
use crate::load::options::Mode;
use crate::load::work::worker::talking::Talk;
use crate::sys::limits;

/// Connects between two looks at the memory; they take some megabytes.
const LOOK_EVERY: u32 = 256;
/// How long nothing at all may come back of the messages that are under way at the end, at least and
/// with each connection of all threads: when a million end at once, some end while others still echo.
const DRAINS_WITHIN: Duration = Duration::from_secs(5);
const DRAINS_FOR_EACH: Duration = Duration::from_micros(50);
/// It is waited for in so many pieces: a load that is not scheduled for seconds has not listened for
/// more than one of them, and what came meanwhile is not lost.
const DRAIN_STEPS: u32 = 10;
/// After so many of them in which nothing came back, each connection sends its FIN: a server may answer
/// only when its peer has ended.
const ASK_AFTER_STEPS: u32 = DRAIN_STEPS / 2;
/// And so many of them there are at most: a server that answers byte by byte would keep a load for as
/// long as it likes.
const DRAIN_STEPS_MAX: u32 = 12 * DRAIN_STEPS;
/// How long ends may take, of as many connections as a process has, on a machine that is busy.
const ENDING_AT_MOST: Duration = Duration::from_secs(120);

impl Worker<'_> {
    /// Whether another connect leaves the memory that is to be left. Once it has not, it stays so.
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

    /// Another piece of the time in which something has to come back.
    pub(super) fn listen_on(&mut self) -> Result<(), String> {
        self.heard_before = self.heard;
        // All threads have as many as this one, but for one.
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

    /// Whatever has not come back by now does not count as held, but as lost.
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

    /// Ends what is open, and waits until all of it has ended.
    ///
    /// Left to the end of the process, connections of io_uring end a moment after it: what is armed
    /// on them is cancelled by a thread of the kernel's own. A server that was stopped as soon as the
    /// load had gone had then to close some of them itself, and counted them so.
    pub(super) fn end_all(&mut self, waiter: &mut Waiter) -> Result<(), String> {
        let how = match self.orders.reset {
            true => Close::Reset,
            false => Close::Flush,
        };
        let mut closing = 0;
        for place in &mut self.connections {
            // One that has ended by itself in this moment refuses.
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
                // Those that were given up before are not waited for.
                if matches!(packet.event, Event::Closed) && self.ended(packet.key) {
                    closing -= 1;
                }
            }
        }
        Ok(())
    }

    /// Whether this was the end of an open connection.
    fn ended(&mut self, key: Key) -> bool {
        let number = (key.0 - CONNECTION_FIRST) as usize;
        let before = std::mem::replace(&mut self.connections[number], Connection::Gone);
        matches!(before, Connection::Open(..))
    }
}
