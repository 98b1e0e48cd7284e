//! The messages of `load echo`: when each is sent, and what is done about what comes back.

use std::sync::atomic::Ordering;
use std::time::Instant;

use wharf_port::{Buffer, Close, ErrorKind};

use super::{Connection, FINISHED, MESSAGE_DUE, Worker};
use crate::load::ledger::record;
use crate::load::options::Mode;
use crate::load::traffic::Traffic;

/// A connection that talks.
#[derive(Debug)]
pub(super) struct Talk {
    traffic: Traffic,
    /// A message that found the queue full, until there is room.
    refused: Option<Buffer>,
    /// Times of messages that wait behind it.
    overdue: Vec<Instant>,
    /// Its last message was sent, and its FIN.
    finished: bool,
}

impl Talk {
    pub(super) fn new(identity: u32, message_bytes: u32) -> Self {
        Talk {
            traffic: Traffic::new(identity, message_bytes),
            refused: None,
            overdue: Vec::new(),
            finished: false,
        }
    }

    /// Messages whose time came while none could be sent.
    pub(super) fn unsent(&self) -> u64 {
        self.overdue.len() as u64
    }

    /// Whether a message has not come back.
    pub(super) fn waits(&self) -> bool {
        self.traffic.under_way() > 0
    }
}

impl Worker<'_> {
    pub(super) fn start_talking(&mut self, number: u32) -> Result<(), String> {
        let talk = Talk::new(self.identity(number), self.orders.size);
        if let Connection::Open(_, place) = &mut self.connections[number as usize] {
            *place = Some(Box::new(talk));
        }
        if self.stopping {
            self.finish(number);
        } else if self.orders.requests.is_none() {
            for _ in 0..self.orders.pipeline {
                self.send(number, Instant::now());
            }
        } else if std::mem::take(&mut self.nobody_talks) {
            return self.send_due();
        }
        Ok(())
    }

    /// Sends the messages of the open loop whose time has come, in turn on all connections.
    pub(super) fn send_due(&mut self) -> Result<(), String> {
        if self.stopping {
            return Ok(());
        }
        while let Some(requests) = &self.orders.requests {
            let (now, at) = (Instant::now(), requests.next_at());
            if at > now {
                return self.at(at, MESSAGE_DUE);
            }
            let Some(number) = self.next_talker() else {
                // It keeps its time, for whoever connects next.
                self.nobody_talks = true;
                break;
            };
            let due = self.orders.requests.as_mut().and_then(|it| it.take(now));
            let Some(due) = due else {
                break; // It would be due after the end.
            };
            self.ledger
                .messages_late
                .fetch_add(u64::from(due.late), Ordering::Relaxed);
            self.send(number, due.at);
        }
        Ok(())
    }

    /// Counts the messages that were due before the end and had nobody to send them.
    pub(super) fn count_unsent(&mut self) {
        let end = self.stopped_at.unwrap_or_else(Instant::now);
        while let Some(due) = self.orders.requests.as_mut().and_then(|it| it.take(end)) {
            // One of the last moment is no more than that.
            self.ledger.unsent(u64::from(due.late));
        }
    }

    fn next_talker(&mut self) -> Option<u32> {
        // Those after the next have not begun to connect.
        let begun = self.next as usize;
        for _ in 0..begun {
            let number = self.next_talker % begun;
            self.next_talker = number + 1;
            if matches!(self.connections[number], Connection::Open(_, Some(_))) {
                return Some(number as u32);
            }
        }
        None
    }

    pub(super) fn send(&mut self, number: u32, begun: Instant) {
        let Connection::Open(socket, Some(talk)) = &mut self.connections[number as usize] else {
            return;
        };
        if talk.refused.is_some() {
            return talk.overdue.push(begun);
        }
        let message = talk.traffic.begin(self.noise, begun);
        let bytes = message.len() as u64;
        match socket.send(message) {
            Ok(_) => {
                self.ledger.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
            }
            Err(refused) if refused.error.kind() == ErrorKind::Full => {
                talk.refused = Some(refused.value);
            }
            // The end of the connection tells itself.
            Err(_) => {}
        }
    }

    /// Sends what found the queue full.
    pub(super) fn send_on(&mut self, number: u32) {
        let Connection::Open(socket, Some(talk)) = &mut self.connections[number as usize] else {
            return;
        };
        let Some(message) = talk.refused.take() else {
            return;
        };
        let bytes = message.len() as u64;
        match socket.send(message) {
            Ok(_) => {
                self.ledger.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
            }
            Err(refused) => talk.refused = Some(refused.value),
        }
        for begun in std::mem::take(&mut talk.overdue) {
            self.send(number, begun);
        }
        if self.stopping {
            self.finish(number);
        }
    }

    pub(super) fn received(&mut self, number: u32, bytes: &[u8]) {
        let Connection::Open(_, Some(talk)) = &mut self.connections[number as usize] else {
            return;
        };
        let count = bytes.len() as u64;
        self.ledger
            .bytes_received
            .fetch_add(count, Ordering::Relaxed);
        let mut complete = 0;
        let right = {
            let mut latencies = self.latencies.lock().expect("nobody panics with it");
            talk.traffic
                .receive(self.noise, bytes, Instant::now(), |latency| {
                    complete += 1;
                    record(&mut latencies.message, latency);
                })
        };
        self.ledger.messages.fetch_add(complete, Ordering::Relaxed);
        if self.orders.mode == Mode::Hold {
            self.touching -= complete as u32;
        }
        if let Err(corrupt) = right {
            self.ledger.corrupt.fetch_add(1, Ordering::Relaxed);
            return self.gone(number, &format!("wrong byte at {}", corrupt.place));
        }
        if !self.stopping && self.orders.requests.is_none() {
            for _ in 0..complete {
                self.send(number, Instant::now());
            }
        }
    }

    pub(super) fn peer_finished(&mut self, number: u32) {
        let Connection::Open(socket, Some(talk)) = &self.connections[number as usize] else {
            return self.gone(number, FINISHED);
        };
        if talk.finished && talk.traffic.under_way() == 0 {
            // All came back, and its FIN: the connection is closed in order.
            if socket.close(Close::Flush).is_err() {
                self.closed(number);
            }
        } else {
            self.gone(number, FINISHED);
        }
    }

    /// Sends the FIN, behind every message.
    pub(super) fn finish(&mut self, number: u32) {
        let Connection::Open(socket, Some(talk)) = &mut self.connections[number as usize] else {
            return;
        };
        self.ledger.unsent(talk.overdue.len() as u64);
        talk.overdue.clear();
        if talk.refused.is_none() && !std::mem::replace(&mut talk.finished, true) {
            // Where it is refused, the connection has ended, which tells itself.
            let _ = socket.shutdown();
        }
    }
}
