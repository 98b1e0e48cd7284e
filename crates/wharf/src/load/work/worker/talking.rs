//! The messages of `load echo`: when each is sent, and how replies are handled.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use wharf_port::{Buffer, Close, ErrorKind};

use super::{Connection, FINISHED, LOOK, MESSAGE_DUE, NOT_IN_TIME, Worker};
use crate::load::model::ledger::record;
use crate::load::model::schedule::Schedule;
use crate::load::model::traffic::Traffic;
use crate::load::options::Mode;

/// The most messages of one turn, and their bytes. Otherwise a rate that no machine can reach would
/// be all that a thread works on, and it would read no reply.
const MESSAGES_A_TURN: u32 = 256;
const BYTES_A_TURN: u64 = 1 << 20;
/// The most messages of an open loop that a thread has in flight, with a minimum for each
/// connection. Messages beyond that are counted, and take no memory.
const UNDER_WAY_MAX: usize = 65_536;
const UNDER_WAY_LEAST: usize = 4;
/// How often a thread reports the age of its oldest message, at least and with each connection.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LOOK_FOR_EACH: Duration = Duration::from_micros(10);

/// A connection that talks.
#[derive(Debug)]
pub(super) struct Talk {
    traffic: Traffic,
    /// A message that the full queue refused, until there is space.
    refused: Option<Buffer>,
    /// Due times of closed-loop messages that wait for it, at most as many as may be in flight.
    waiting: Vec<Instant>,
    /// It is in the queue of connections for the next message of an open loop.
    has_turn: bool,
    /// It has sent its last message, and its FIN.
    finished: bool,
}

impl Talk {
    pub(super) fn new(identity: u32, message_bytes: u32) -> Self {
        Talk {
            traffic: Traffic::new(identity, message_bytes),
            refused: None,
            waiting: Vec::new(),
            has_turn: false,
            finished: false,
        }
    }

    /// Whether a message has no reply yet.
    pub(super) fn waits(&self) -> bool {
        self.traffic.under_way() > 0
    }

    /// The start time of each message without a reply.
    pub(super) fn waiting_since(&self) -> impl Iterator<Item = Instant> + '_ {
        self.traffic.waiting()
    }

    /// Whether the load, and not the peer, ended it while messages were in flight.
    pub(super) fn is_cut_short(&self) -> bool {
        self.finished && self.waits()
    }
}

impl Worker<'_> {
    pub(super) fn start_talking(&mut self, number: u32) -> Result<(), String> {
        let talk = Talk::new(self.identity(number), self.orders.size);
        if let Connection::Open(_, place) = &mut self.connections[number as usize] {
            *place = Some(Box::new(talk));
        }
        if self.stopping {
            self.finish_if_answered(number);
        } else if self.orders.requests.is_none() {
            for _ in 0..self.orders.pipeline {
                self.send(number, Instant::now());
            }
        } else {
            return self.give_turn(number);
        }
        Ok(())
    }

    /// Queues a connection for the next message of an open loop, if it can send one.
    pub(super) fn give_turn(&mut self, number: u32) -> Result<(), String> {
        if self.orders.requests.is_none() || self.stopping || !self.takes_more(number) {
            return Ok(());
        }
        if let Connection::Open(_, Some(talk)) = &mut self.connections[number as usize]
            && !std::mem::replace(&mut talk.has_turn, true)
        {
            self.talkers.push_back(number);
        }
        self.send_due()
    }

    /// Whether a connection can send another message of an open loop.
    fn takes_more(&self, number: u32) -> bool {
        let share = UNDER_WAY_MAX / self.connections.len().max(1);
        match &self.connections[number as usize] {
            Connection::Open(_, Some(talk)) => {
                let room = talk.traffic.under_way() < share.max(UNDER_WAY_LEAST);
                room && talk.refused.is_none() && !talk.finished
            }
            _ => false,
        }
    }

    /// Sends messages of the open loop that are due, round-robin on all connections that can send.
    /// A turn sends a bounded number; a timer that is due starts the next turn.
    pub(super) fn send_due(&mut self) -> Result<(), String> {
        if self.stopping || self.message_is_timed {
            return Ok(());
        }
        let (mut messages, mut bytes) = (0, 0);
        while let Some(requests) = &self.orders.requests {
            let (now, at) = (Instant::now(), requests.next_at());
            let has_done_its_turn = messages >= MESSAGES_A_TURN || bytes >= BYTES_A_TURN;
            if at > now || has_done_its_turn {
                self.message_is_timed = true;
                return self.at(at.max(now), MESSAGE_DUE);
            }
            // If no connection can send, the message keeps its due time for the next one that can.
            let Some(number) = self.next_talker() else {
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
            messages += 1;
            bytes += u64::from(self.orders.size);
        }
        Ok(())
    }

    /// Whether a message is due, and a connection can send it.
    pub(super) fn can_send_due(&self) -> bool {
        let requests = self.orders.requests.as_ref();
        let is_due = requests.is_some_and(|it| it.overdue(Instant::now()) > 0);
        is_due && !self.talkers.is_empty()
    }

    /// Counts the messages that were due before the end and that no connection could send.
    pub(super) fn count_unsent(&mut self) {
        let end = *self.stopped_at.get_or_insert_with(Instant::now);
        let Some(requests) = &mut self.orders.requests else {
            return;
        };
        let oldest = requests.next_at();
        let count = requests.give_up(end);
        if count > 0 {
            self.never_answered(oldest);
            self.ledger.unsent(count);
        }
    }

    /// The next in the queue. It moves to the end.
    fn next_talker(&mut self) -> Option<u32> {
        while let Some(number) = self.talkers.pop_front() {
            let takes_more = self.takes_more(number);
            if let Connection::Open(_, Some(talk)) = &mut self.connections[number as usize] {
                talk.has_turn = takes_more;
            }
            if takes_more {
                self.talkers.push_back(number);
                return Some(number);
            }
        }
        None
    }

    /// A message with this start time will have no reply.
    pub(super) fn never_answered(&mut self, since: Instant) {
        let oldest = self.oldest_lost.get_or_insert(since);
        *oldest = since.min(*oldest);
    }

    /// Reports what this thread owes, now and again after a while.
    pub(super) fn look(&mut self) -> Result<(), String> {
        self.tell_owed();
        let connections = self.orders.connections.min(self.next);
        let pause = LOOK_EVERY + LOOK_FOR_EACH * connections;
        self.at(Instant::now() + pause, LOOK)
    }

    /// Reports the number of messages that are due and not sent, and the start time of the oldest
    /// message without a reply.
    pub(super) fn tell_owed(&mut self) {
        let requests = self.orders.requests.as_ref();
        let overdue = requests.filter(|_| self.stopped_at.is_none());
        let now = Instant::now();
        let count = overdue.map_or(0, |it| it.overdue(now));
        let next = overdue.filter(|_| count > 0).map(Schedule::next_at);
        let waiting = self.connections.iter().filter_map(|it| match it {
            Connection::Open(_, Some(talk)) => talk.waiting_since().next(),
            _ => None,
        });
        let oldest = waiting.chain(next).chain(self.oldest_lost).min();
        self.ledger.tell_owed(self.orders.thread, count, oldest);
    }

    pub(super) fn send(&mut self, number: u32, begun: Instant) {
        let Connection::Open(socket, Some(talk)) = &mut self.connections[number as usize] else {
            return;
        };
        if talk.refused.is_some() {
            return talk.waiting.push(begun);
        }
        let message = talk.traffic.begin(self.noise, begun);
        let bytes = message.len() as u64;
        self.ledger.messages_begun.fetch_add(1, Ordering::Relaxed);
        match socket.send(message) {
            Ok(_) => {
                self.ledger.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
            }
            Err(refused) if refused.error.kind() == ErrorKind::Full => {
                talk.refused = Some(refused.value);
            }
            // A packet reports the end of the connection.
            Err(_) => {}
        }
    }

    /// Sends the message that the full queue refused.
    pub(super) fn send_on(&mut self, number: u32) -> Result<(), String> {
        let Connection::Open(socket, Some(talk)) = &mut self.connections[number as usize] else {
            return Ok(());
        };
        let Some(message) = talk.refused.take() else {
            return Ok(());
        };
        let bytes = message.len() as u64;
        match socket.send(message) {
            Ok(_) => {
                self.ledger.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
            }
            Err(refused) => talk.refused = Some(refused.value),
        }
        for begun in std::mem::take(&mut talk.waiting) {
            self.send(number, begun);
        }
        if self.stopping {
            self.finish_if_answered(number);
        }
        self.give_turn(number)
    }

    pub(super) fn received(&mut self, number: u32, bytes: &[u8]) -> Result<(), String> {
        let Connection::Open(_, Some(talk)) = &mut self.connections[number as usize] else {
            return Ok(());
        };
        let count = bytes.len() as u64;
        self.ledger
            .bytes_received
            .fetch_add(count, Ordering::Relaxed);
        let mut complete = 0;
        let right = {
            let mut latencies = self.latencies.lock().expect("no thread panics with it");
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
            self.gone(number, &format!("wrong byte at {}", corrupt.place));
            return Ok(());
        }
        if self.stopping {
            if self.orders.mode.talks() {
                self.finish_if_answered(number);
            }
            return Ok(());
        }
        if self.orders.requests.is_some() {
            return self.give_turn(number);
        }
        for _ in 0..complete {
            self.send(number, Instant::now());
        }
        Ok(())
    }

    pub(super) fn peer_finished(&mut self, number: u32) {
        let Connection::Open(socket, Some(talk)) = &self.connections[number as usize] else {
            return self.gone(number, FINISHED);
        };
        if talk.finished && talk.traffic.under_way() == 0 {
            // All replies came, and the peer's FIN: the connection is closed cleanly.
            if socket.close(Close::Flush).is_err() {
                self.closed(number);
            }
        } else if talk.is_cut_short() {
            // The peer's FIN is a reaction to ours. A missing reply is then the load's own end, as
            // elsewhere.
            self.gone(number, NOT_IN_TIME);
        } else {
            self.gone(number, FINISHED);
        }
    }

    /// Sends the FIN once no message is in flight. The last reply calls this again.
    ///
    /// A FIN just after the last message was rejected: many proxies (nginx's `stream` by default)
    /// take it as the end of both directions, and drop replies on their way back.
    pub(super) fn finish_if_answered(&mut self, number: u32) {
        let Connection::Open(_, Some(talk)) = &mut self.connections[number as usize] else {
            return;
        };
        talk.waiting.clear();
        if !talk.waits() {
            self.finish(number);
        }
    }

    /// Sends the FIN, after every message.
    pub(super) fn finish(&mut self, number: u32) {
        let Connection::Open(socket, Some(talk)) = &mut self.connections[number as usize] else {
            return;
        };
        if talk.refused.is_none() && !std::mem::replace(&mut talk.finished, true) {
            // If it is refused, the connection has ended, and a packet reports that.
            let _ = socket.shutdown();
        }
    }
}
