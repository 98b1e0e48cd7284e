//! One thread of load: a port, a share of the connections, and what to do about each packet.
//!
//! A connection is a few words in a table until it has messages under way. Everything that waits
//! for a time is a timer of the port, everything that ends the thread a packet, so that it sleeps
//! in one place only.

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use wharf_port::{
    Close, ConnectOptions, End, Error, ErrorKind, Event, Key, Leave, Operation, Packet, Port,
    SocketRef, Stream, Wait,
};

use super::ledger::{Latencies, Ledger, record};
use super::options::Mode;
use super::schedule::Schedule;
use super::touch::Touch;
use super::traffic::Noise;
use crate::server::CONTROL;
use talking::Talk;

mod ending;
mod talking;

/// The keys of a thread's own timers; connections have theirs from `CONNECTION_FIRST`.
const CONNECT_DUE: Key = Key(2);
const MESSAGE_DUE: Key = Key(3);
const TIME_UP: Key = Key(4);
const DRAIN_STEP: Key = Key(5);
const CONNECTION_FIRST: u64 = 100;
/// Why a connection went that its peer has ended in order.
const FINISHED: &str = "finished by the peer";

/// Connects that a thread has under way at once, where no rate says when they begin.
const CONNECTING_MAX: u32 = 512;
/// After this long a connect that found no place is tried again: nothing tells when there is one.
const PLACE_IS_FREE_WITHIN: Duration = Duration::from_millis(1);

/// What a thread is to do; the same for all, but for its share.
#[derive(Debug)]
pub(crate) struct Orders<'a> {
    pub(crate) mode: Mode,
    pub(crate) connect: ConnectOptions,
    pub(crate) sources: &'a [std::net::SocketAddr],
    pub(crate) connections: u32,
    /// Of these, at the same time.
    pub(crate) open_at_once_max: u32,
    pub(crate) size: u32,
    pub(crate) pipeline: u32,
    pub(crate) arrivals: Option<Schedule>,
    pub(crate) requests: Option<Schedule>,
    /// Which held connections send a message at the end, by this seed.
    pub(crate) touch: Option<Touch>,
    pub(crate) seed: u64,
    /// Whether connections end with RST.
    pub(crate) reset: bool,
    pub(crate) leave_memory_bytes: Option<u64>,
    pub(crate) time_up_at: Option<Instant>,
    /// The number of this thread, and how many there are.
    pub(crate) thread: u32,
    pub(crate) threads: u32,
}

#[derive(Debug)]
enum Connection {
    Waiting,
    Connecting(Instant),
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
    /// The next to begin, and how many are under way and open.
    next: u32,
    connecting: u32,
    open: u32,
    /// A timer is set for the next connect. Whoever connects meanwhile needs no other one, and many
    /// for the same time would all set the next.
    connect_is_timed: bool,
    /// A connect that was begun at this time, and waits for a place.
    put_off: Option<Instant>,
    /// Where the next message of an open loop goes.
    next_talker: usize,
    /// A message of the open loop is due, and no connection is there to send it.
    nobody_talks: bool,
    stopping: bool,
    /// Connects are begun no more, to leave memory.
    held_back: bool,
    /// Messages at the end of hold that have not come back.
    touching: u32,
    stopped_at: Option<Instant>,
    /// Packets of connections so far, and how many there were at the last step of draining; the steps
    /// there were, and those in a row that brought none.
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
            next_talker: 0,
            nobody_talks: false,
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

    /// Works until all is done, the time is up, or a signal came.
    pub(crate) fn run(mut self) -> Result<(), String> {
        let text = |error: Error| error.to_string();
        let mut waiter = self.port.waiter().map_err(text)?;
        if let Some(at) = self.orders.time_up_at {
            self.port.timer(at, TIME_UP).map_err(text)?;
        }
        self.connect_more()?;
        self.send_due()?;
        while !self.is_done() {
            let Wait::Packets(packets) = waiter.wait(None).map_err(text)? else {
                break;
            };
            for packet in packets {
                self.handle(packet)?;
            }
        }
        self.count_unsent();
        self.end_all(&mut waiter)
    }

    fn is_done(&self) -> bool {
        let all = self.next == self.orders.connections || self.held_back;
        let begun = self.stopping || all;
        let stays = !self.stopping && self.orders.mode != Mode::Connect;
        // Where nothing could be opened, there is nothing to wait for.
        let some = self.open > 0 || self.connecting > 0;
        begun
            && if stays {
                !some
            } else {
                self.connecting == 0 && self.drained()
            }
    }

    /// Whether nothing is under way that has to come back first.
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
            (TIME_UP, _) => {
                // What is due by now is begun and sent, whichever of two timers came first.
                if self.orders.arrivals.is_some() {
                    self.connect_more()?;
                }
                self.send_due()?;
                self.stop()
            }
            (CONNECT_DUE, _) => {
                self.connect_is_timed = false;
                self.connect_more()
            }
            (MESSAGE_DUE, _) => self.send_due(),
            (DRAIN_STEP, _) => self.drain(),
            (key, event) => {
                self.heard += 1;
                let number = (key.0 - CONNECTION_FIRST) as u32;
                self.handle_connection(number, packet.op.operation(), event)
            }
        }
    }

    fn connect_more(&mut self) -> Result<(), String> {
        // Whoever makes room, by failing or by being closed, comes here again.
        let has_room = |it: &Self| it.connecting + it.open < it.orders.open_at_once_max;
        let all = self.orders.connections;
        while !self.stopping && self.next < all && has_room(self) && self.has_memory() {
            let Some(begun) = self.next_begin()? else {
                return Ok(());
            };
            if !self.connect(begun) {
                self.put_off = Some(begun);
                return self.connect_at(Instant::now() + PLACE_IS_FREE_WITHIN);
            }
        }
        Ok(())
    }

    /// When the next connect counts as begun, if that is now.
    fn next_begin(&mut self) -> Result<Option<Instant>, String> {
        if self.put_off.is_some() && self.connect_is_timed {
            return Ok(None);
        }
        if let Some(begun) = self.put_off.take() {
            return Ok(Some(begun));
        }
        let Some(arrivals) = &mut self.orders.arrivals else {
            let few = self.connecting < CONNECTING_MAX;
            return Ok(few.then(Instant::now));
        };
        let Some(due) = arrivals.take(Instant::now()) else {
            let at = arrivals.next_at();
            return self.connect_at(at).map(|()| None);
        };
        self.ledger
            .late
            .fetch_add(u64::from(due.late), Ordering::Relaxed);
        // An open loop: whatever it waited for here is part of its latency.
        Ok(Some(due.at))
    }

    /// Has a timer set for the next connect.
    fn connect_at(&mut self, at: Instant) -> Result<(), String> {
        if std::mem::replace(&mut self.connect_is_timed, true) {
            return Ok(());
        }
        self.at(at, CONNECT_DUE)
    }

    /// Begins a connect; answers false where there is no place for it yet.
    fn connect(&mut self, begun: Instant) -> bool {
        let number = self.next;
        let mut to = self.orders.connect.clone();
        if !self.orders.sources.is_empty() {
            let turn = self.identity(number);
            to = to.source(self.orders.sources[turn as usize % self.orders.sources.len()]);
        }
        let key = Key(CONNECTION_FIRST + u64::from(number));
        let result = self.port.connect(to, key);
        let place = &mut self.connections[number as usize];
        match result {
            Ok(_) => {
                *place = Connection::Connecting(begun);
                self.connecting += 1;
            }
            // A place in a table of direct descriptors is free a moment after its connection is.
            Err(error) if error.kind() == ErrorKind::Full && self.orders.mode == Mode::Connect => {
                return false;
            }
            Err(error) => {
                *place = Connection::Gone;
                self.ledger.failed(error.kind());
            }
        }
        self.next += 1;
        self.ledger.asked.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn connected(&mut self, number: u32, stream: Stream) -> Result<(), String> {
        self.connecting -= 1;
        let place = &mut self.connections[number as usize];
        if let Connection::Connecting(begun) = place {
            let mut latencies = self.latencies.lock().expect("nobody panics with it");
            record(&mut latencies.connect, begun.elapsed());
        }
        self.ledger.connected();
        self.ledger.held.fetch_add(1, Ordering::Relaxed);
        self.open += 1;
        *place = Connection::Open(stream.socket(), None);
        let begun = match self.orders.mode {
            Mode::Connect => {
                // The close is its last operation; `Closed` follows.
                let how = match self.orders.reset {
                    true => Close::Reset,
                    false => Close::Flush,
                };
                return stream
                    .close(how)
                    .map(drop)
                    .map_err(|error| error.to_string());
            }
            // What is to send at the end has to receive, and tells who leaves as well.
            Mode::Hold if !self.is_chosen(number) => stream.watch().map(drop),
            Mode::Hold => stream.receive().map(drop),
            Mode::Echo | Mode::Stream => stream.receive().map(drop),
        };
        stream.set_aside();
        if let Err(error) = begun {
            self.gone(number, &error.kind().to_string());
        } else if self.orders.mode.talks() {
            self.start_talking(number)?;
        } else if self.stopping {
            self.touch(number);
        }
        self.connect_more()
    }

    fn handle_connection(
        &mut self,
        number: u32,
        operation: Operation,
        event: Event,
    ) -> Result<(), String> {
        match (operation, event) {
            (_, Event::Connected(stream)) => return self.connected(number, stream),
            (_, Event::ConnectFailed { how }) => {
                self.connecting -= 1;
                self.connections[number as usize] = Connection::Gone;
                match how {
                    End::Cancelled | End::Aborted => {}
                    _ => self
                        .ledger
                        .failed(how.error_kind().unwrap_or(ErrorKind::Other)),
                }
                return self.connect_more();
            }
            (_, Event::Closed) => {
                self.closed(number);
                return self.connect_more();
            }
            (_, Event::PeerLeft(leave)) => self.gone(number, leave_name(leave)),
            (_, Event::Received(lease)) => self.received(number, &lease),
            (_, Event::SendReady) => self.send_on(number),
            (
                Operation::Receive,
                Event::Ended {
                    how: End::Finished, ..
                },
            ) => {
                self.peer_finished(number);
            }
            (_, Event::ShutDown { how: End::Finished }) => {}
            (
                _,
                Event::Ended { how, .. } | Event::SendFailed { how, .. } | Event::ShutDown { how },
            ) => {
                let kind = how.error_kind().unwrap_or(ErrorKind::Other);
                self.gone(number, &kind.to_string());
            }
            _ => {}
        }
        Ok(())
    }

    /// Our own close is over. One that talked was held to the end all the same.
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

    /// An open connection went, for this reason.
    fn gone(&mut self, number: u32, reason: &str) {
        let place = &mut self.connections[number as usize];
        if let Connection::Open(socket, talk) = place {
            if self.orders.mode == Mode::Hold && talk.as_ref().is_some_and(|it| it.waits()) {
                self.touching -= 1;
            }
            // Closed already means counted already.
            let _ = socket.close(Close::Reset);
            self.ledger
                .unsent(talk.as_ref().map_or(0, |talk| talk.unsent()));
            *place = Connection::Gone;
            self.open -= 1;
            self.ledger.lost(reason);
        }
    }

    /// No new connects and no new messages; what is under way may come back.
    fn stop(&mut self) -> Result<(), String> {
        if std::mem::replace(&mut self.stopping, true) {
            return Ok(());
        }
        self.stopped_at = Some(Instant::now());
        if self.orders.mode.talks() {
            for number in 0..self.connections.len() {
                self.finish(number as u32);
            }
        }
        self.touch_all();
        self.listen_on()
    }

    /// Its number among those of all threads.
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
