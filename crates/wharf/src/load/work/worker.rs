//! One thread of a load: a port, a share of the connections, and the reaction to each packet.
//!
//! A connection is a few words in a table until it has messages in flight. Each wait for a time is
//! a timer of the port, and each request to end is a packet. So the thread sleeps in one place
//! only.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use wharf_port::{
    Close, End, Error, ErrorKind, Event, Key, Leave, Operation, Packet, Port, SocketRef, Wait,
};

use crate::load::model::ledger::{Latencies, Ledger, record};
use crate::load::model::schedule::Schedule;
use crate::load::model::touch::Touch;
use crate::load::model::traffic::Noise;
use crate::load::options::Mode;
use crate::signals::CONTROL;
use talking::Talk;

pub(crate) use connecting::Aim;
use connecting::Attempt;

mod connecting;
mod ending;
mod talking;

/// The keys of a thread's own timers; connections have theirs from `CONNECTION_FIRST`.
const CONNECT_DUE: Key = Key(2);
const MESSAGE_DUE: Key = Key(3);
const TIME_UP: Key = Key(4);
const DRAIN_STEP: Key = Key(5);
const LOOK: Key = Key(6);
const CONNECTION_FIRST: u64 = 100;
/// The reason for a connection that its peer finished cleanly.
const FINISHED: &str = "finished by the peer";
/// The reason for a connection that had messages in flight when the load ended, in every mode.
const NOT_IN_TIME: &str = "did not come back in time";

/// Connects that a thread has in flight at once, without a rate.
pub(crate) const CONNECTING_MAX: u32 = 512;
/// The most turns after the time is up, for requests that were due by then.
const LAST_TURNS_MAX: u32 = 64;
/// A connect that found no free entry is tried again after this time, because no event reports a
/// free entry.
const PLACE_IS_FREE_WITHIN: Duration = Duration::from_millis(1);

/// The orders of a thread. They are the same for all threads, except for its share.
#[derive(Debug)]
pub(crate) struct Orders<'a> {
    pub(crate) mode: Mode,
    /// The addresses of a name, or the only address.
    pub(crate) aims: &'a [Aim],
    pub(crate) connections: u32,
    /// The most open connections at once, and of these the most that are still connecting.
    pub(crate) open_at_once_max: u32,
    pub(crate) connecting_max: u32,
    pub(crate) size: u32,
    pub(crate) pipeline: u32,
    pub(crate) arrivals: Option<Schedule>,
    pub(crate) requests: Option<Schedule>,
    /// Which held connections send a message at the end, chosen by this seed.
    pub(crate) touch: Option<Touch>,
    pub(crate) seed: u64,
    /// Whether connections close with RST.
    pub(crate) reset: bool,
    pub(crate) leave_memory_bytes: Option<u64>,
    pub(crate) time_up_at: Option<Instant>,
    /// The number of this thread, and the number of threads.
    pub(crate) thread: u32,
    pub(crate) threads: u32,
}

#[derive(Debug)]
enum Connection {
    Waiting,
    Connecting(Instant, Attempt),
    Open(SocketRef, Option<Box<Talk>>),
    Gone,
}

#[derive(Debug)]
pub(crate) struct Worker<'a> {
    port: &'a Port,
    orders: Orders<'a>,
    noise: &'a Noise,
    ledger: &'a Ledger,
    latencies: &'a Mutex<Latencies>,
    connections: Vec<Connection>,
    /// The next connection to start, and how many are in flight and open.
    next: u32,
    connecting: u32,
    open: u32,
    /// A timer is set for the next connect. Without this flag many timers would be set for the same
    /// time.
    connect_is_timed: bool,
    /// A connect that was due at this time, and waits for a free entry.
    put_off: Option<Instant>,
    /// The address that a connect tries first, and whether it has accepted a connection.
    aim: u8,
    has_connected: bool,
    /// The connections that can send a message of the open loop, in order.
    talkers: VecDeque<u32>,
    /// A timer is set for the next message.
    message_is_timed: bool,
    /// The start time of the oldest message that will never have a reply.
    oldest_lost: Option<Instant>,
    /// Turns since the time was up.
    last_turns: u32,
    stopping: bool,
    /// No more connects start, to leave memory.
    held_back: bool,
    /// Touch messages without a reply.
    touching: u32,
    stopped_at: Option<Instant>,
    /// Packets of connections so far, and their number at the last step of draining; the number of
    /// steps, and of consecutive steps without a packet.
    heard: u64,
    heard_before: u64,
    drain_steps: u32,
    silent_steps: u32,
}

impl<'a> Worker<'a> {
    pub(crate) fn new(
        port: &'a Port,
        orders: Orders<'a>,
        noise: &'a Noise,
        ledger: &'a Ledger,
        latencies: &'a Mutex<Latencies>,
    ) -> Self {
        let count = orders.connections as usize;
        Worker {
            port,
            orders,
            noise,
            ledger,
            latencies,
            connections: std::iter::repeat_with(|| Connection::Waiting)
                .take(count)
                .collect(),
            next: 0,
            connecting: 0,
            open: 0,
            connect_is_timed: false,
            put_off: None,
            aim: 0,
            has_connected: false,
            talkers: VecDeque::new(),
            message_is_timed: false,
            oldest_lost: None,
            last_turns: 0,
            stopping: false,
            held_back: false,
            touching: 0,
            stopped_at: None,
            heard: 0,
            heard_before: 0,
            drain_steps: 0,
            silent_steps: 0,
        }
    }

    /// Works until all is done, the time is up, or a signal came. Then it calls `holds`, and closes
    /// what it holds when `holds` returns.
    pub(crate) fn run(mut self, holds: impl FnOnce()) -> Result<(), String> {
        let text = |error: Error| error.to_string();
        let mut waiter = self.port.waiter().map_err(text)?;
        if let Some(at) = self.orders.time_up_at {
            self.port.timer(at, TIME_UP).map_err(text)?;
        }
        self.connect_more()?;
        if self.orders.mode.talks() {
            self.look()?;
        }
        while !self.is_done() {
            let Wait::Packets(packets) = waiter.wait(None).map_err(text)? else {
                break;
            };
            for packet in packets {
                self.handle(packet)?;
            }
        }
        self.count_what_was_not_begun();
        self.tell_owed();
        holds();
        self.end_all(&mut waiter)
    }

    fn is_done(&self) -> bool {
        let all = self.next == self.orders.connections || self.held_back;
        let begun = self.stopping || all;
        let stays = !self.stopping && self.orders.mode != Mode::Connect;
        // If no connection could be opened, there is nothing to wait for.
        let some = self.open > 0 || self.connecting > 0;
        begun
            && if stays {
                !some
            } else {
                self.connecting == 0 && self.drained()
            }
    }

    /// Whether no message is in flight.
    fn drained(&self) -> bool {
        match self.orders.mode {
            Mode::Hold => self.touching == 0,
            Mode::Connect | Mode::Echo | Mode::Stream => self.open == 0,
        }
    }

    fn handle(&mut self, packet: Packet) -> Result<(), String> {
        match (packet.key, packet.event) {
            (CONTROL, _) => {
                self.ledger.interrupted.store(true, Ordering::Relaxed);
                self.stop()
            }
            (TIME_UP, _) => self.time_up(),
            (CONNECT_DUE, _) => {
                self.connect_is_timed = false;
                self.connect_more()
            }
            (MESSAGE_DUE, _) => {
                self.message_is_timed = false;
                self.send_due()
            }
            (DRAIN_STEP, _) => self.drain(),
            (LOOK, _) => self.look(),
            (key, event) => {
                self.heard += 1;
                let number = (key.0 - CONNECTION_FIRST) as u32;
                self.handle_connection(number, packet.op.operation(), event)
            }
        }
    }

    /// Starts and sends what is due by now, whichever of the two timers expired first, in a bounded
    /// number of turns.
    fn time_up(&mut self) -> Result<(), String> {
        (self.connect_is_timed, self.message_is_timed) = (false, false);
        if self.orders.arrivals.is_some() {
            self.connect_more()?;
        }
        self.send_due()?;
        let goes_on = self.can_connect_due() || self.can_send_due();
        if goes_on && !self.stopping && self.last_turns < LAST_TURNS_MAX {
            self.last_turns += 1;
            return self.at(Instant::now(), TIME_UP);
        }
        self.stop()
    }

    fn handle_connection(
        &mut self,
        number: u32,
        operation: Operation,
        event: Event,
    ) -> Result<(), String> {
        match (operation, event) {
            (_, Event::Connected(stream)) => return self.connected(number, stream),
            (_, Event::ConnectFailed { how, .. }) => {
                self.connect_failed(number, how);
                return self.connect_more();
            }
            (_, Event::Closed) => {
                self.closed(number);
                return self.connect_more();
            }
            (_, Event::PeerLeft(leave)) => self.gone(number, leave_name(leave)),
            (_, Event::Received(lease)) => return self.received(number, &lease),
            (_, Event::SendReady) => return self.send_on(number),
            (
                Operation::Receive,
                Event::Ended {
                    how: End::Finished, ..
                },
            ) => {
                self.peer_finished(number);
            }
            (
                _,
                Event::ShutDown {
                    how: End::Finished, ..
                },
            ) => {}
            (
                _,
                Event::Ended { how, .. }
                | Event::SendFailed { how, .. }
                | Event::ShutDown { how, .. },
            ) => {
                let kind = how.error_kind().unwrap_or(ErrorKind::Other);
                self.gone(number, &kind.to_string());
            }
            _ => {}
        }
        Ok(())
    }

    /// Our own close is complete. A connection that talked counts as held to the end.
    fn closed(&mut self, number: u32) {
        let place = &mut self.connections[number as usize];
        if matches!(place, Connection::Open(..)) {
            *place = Connection::Gone;
            self.open -= 1;
            if self.orders.mode == Mode::Connect {
                self.ledger.held.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// An open connection ended for this reason.
    fn gone(&mut self, number: u32, reason: &str) {
        let place = &mut self.connections[number as usize];
        if !matches!(place, Connection::Open(..)) {
            return;
        }
        let Connection::Open(socket, talk) = std::mem::replace(place, Connection::Gone) else {
            return;
        };
        if self.orders.mode == Mode::Hold && talk.as_ref().is_some_and(|it| it.waits()) {
            self.touching -= 1;
        }
        // If it is closed already, it is counted already.
        let _ = socket.close(Close::Reset);
        self.open -= 1;
        self.ledger.lost(reason);
        let Some(talk) = talk else {
            return;
        };
        let now = Instant::now();
        let mut latencies = self.latencies.lock().expect("no thread panics with it");
        for since in talk.waiting_since() {
            let age = now.saturating_duration_since(since);
            record(&mut latencies.unanswered, age);
        }
        drop(latencies);
        if let Some(oldest) = talk.waiting_since().next() {
            self.never_answered(oldest);
        }
    }

    /// No new connects and no new messages. Replies in flight may still arrive.
    fn stop(&mut self) -> Result<(), String> {
        if std::mem::replace(&mut self.stopping, true) {
            return Ok(());
        }
        self.count_what_was_not_begun();
        if self.orders.mode.talks() {
            for number in 0..self.connections.len() {
                self.finish_if_answered(number as u32);
            }
        }
        self.touch_all();
        self.listen_on()
    }

    /// The number of a connection among those of all threads.
    fn identity(&self, number: u32) -> u32 {
        number * self.orders.threads + self.orders.thread
    }

    fn at(&self, at: Instant, key: Key) -> Result<(), String> {
        let timer = self.port.timer(at, key);
        timer.map(drop).map_err(|error| error.to_string())
    }
}

fn leave_name(leave: Leave) -> &'static str {
    match leave {
        Leave::Finished => FINISHED,
        Leave::Reset => "reset by the peer",
        Leave::Broken(_) => "broken",
    }
}

#[cfg(test)]
mod tests;
