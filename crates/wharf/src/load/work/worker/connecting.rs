//! How a thread connects: when each connect starts, how many may be in flight, and what follows
//! once one has connected.
//!
//! A turn starts a bounded number of connects. Otherwise a rate that no machine can reach would be
//! all that a thread works on.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Instant;

use wharf_port::{Address, Close, ConnectOptions, End, ErrorKind, Key, Stream};

use super::{CONNECT_DUE, CONNECTION_FIRST, Connection, PLACE_IS_FREE_WITHIN, Worker};
use crate::load::model::ledger::record;
use crate::load::options::Mode;

/// The most connects that one turn starts.
const CONNECTS_A_TURN: u32 = 256;

/// One address to connect to.
#[derive(Debug)]
pub(crate) struct Aim {
    pub(crate) address: Address,
    pub(crate) to: ConnectOptions,
    /// The source addresses; empty if the system chooses.
    pub(crate) sources: Vec<SocketAddr>,
}

/// The address that a connect tries, and the number that it has tried.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attempt {
    aim: u8,
    tried: u8,
}

impl Worker<'_> {
    /// Whether another connect may start. A connection that fails or closes makes space, and starts
    /// more.
    pub(super) fn has_room(&self) -> bool {
        self.connecting + self.open < self.orders.open_at_once_max
            && self.connecting < self.orders.connecting_max
    }

    pub(super) fn can_connect_due(&self) -> bool {
        let arrivals = self.orders.arrivals.as_ref();
        let is_due = arrivals.is_some_and(|it| it.overdue(Instant::now()) > 0);
        is_due && self.next < self.orders.connections && self.has_room() && !self.held_back
    }

    /// Counts connects that were due and never started.
    pub(super) fn count_what_was_not_begun(&mut self) {
        let end = *self.stopped_at.get_or_insert_with(Instant::now);
        if let Some(arrivals) = &mut self.orders.arrivals
            && !self.held_back
        {
            let left = u64::from(self.orders.connections - self.next);
            let unbegun = arrivals.give_up(end).min(left);
            self.ledger.unbegun.fetch_add(unbegun, Ordering::Relaxed);
        }
        self.count_unsent();
    }

    pub(super) fn connect_more(&mut self) -> Result<(), String> {
        let (all, mut turn) = (self.orders.connections, 0);
        while !self.stopping && self.next < all && self.has_room() && self.has_memory() {
            if turn == CONNECTS_A_TURN {
                return self.connect_at(Instant::now());
            }
            turn += 1;
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

    /// The start time of the next connect, if it is due now.
    pub(super) fn next_begin(&mut self) -> Result<Option<Instant>, String> {
        let keeps_times = self.put_off.is_some() || self.orders.arrivals.is_some();
        if keeps_times && self.connect_is_timed {
            return Ok(None);
        }
        if let Some(begun) = self.put_off.take() {
            return Ok(Some(begun));
        }
        let Some(arrivals) = &mut self.orders.arrivals else {
            return Ok(Some(Instant::now()));
        };
        let Some(due) = arrivals.take(Instant::now()) else {
            let at = arrivals.next_at();
            return self.connect_at(at).map(|()| None);
        };
        self.ledger
            .late
            .fetch_add(u64::from(due.late), Ordering::Relaxed);
        // An open loop: the time that it waited here is part of its latency.
        Ok(Some(due.at))
    }

    /// Sets a timer for the next connect.
    pub(super) fn connect_at(&mut self, at: Instant) -> Result<(), String> {
        if std::mem::replace(&mut self.connect_is_timed, true) {
            return Ok(());
        }
        self.at(at, CONNECT_DUE)
    }

    /// Starts a connect; returns false if there is no free entry yet.
    pub(super) fn connect(&mut self, begun: Instant) -> bool {
        let first = Attempt {
            aim: self.aim,
            tried: 0,
        };
        let is_begun = self.attempt(self.next, begun, first);
        if is_begun {
            self.next += 1;
            self.ledger.asked.fetch_add(1, Ordering::Relaxed);
        }
        is_begun
    }

    /// Tries one address, or the next if the system refuses it at once; returns false if there is
    /// no free entry yet.
    fn attempt(&mut self, number: u32, begun: Instant, mut attempt: Attempt) -> bool {
        let key = Key(CONNECTION_FIRST + u64::from(number));
        loop {
            let aim = &self.orders.aims[usize::from(attempt.aim)];
            let mut to = aim.to.clone();
            if !aim.sources.is_empty() {
                let turn = self.identity(number);
                to = to.source(aim.sources[turn as usize % aim.sources.len()]);
            }
            let error = match self.port.connect(to, key) {
                Ok(_) => {
                    self.connections[number as usize] = Connection::Connecting(begun, attempt);
                    self.connecting += 1;
                    return true;
                }
                Err(error) => error.kind(),
            };
            // An entry in a table of direct descriptors becomes free a moment after its connection
            // is closed.
            if error == ErrorKind::Full && self.orders.mode == Mode::Connect {
                return false;
            }
            match self.next_attempt(attempt) {
                Some(next) => attempt = next,
                None => {
                    self.connections[number as usize] = Connection::Gone;
                    self.ledger.failed(error);
                    return true;
                }
            }
        }
    }

    /// The next address of a connect; `None` once it has tried all.
    fn next_attempt(&self, attempt: Attempt) -> Option<Attempt> {
        let count = self.orders.aims.len();
        let tried = attempt.tried + 1;
        let is_left = usize::from(tried) < count && !self.stopping;
        is_left.then(|| Attempt {
            aim: ((usize::from(attempt.aim) + 1) % count) as u8,
            tried,
        })
    }

    /// A connect failed: it tries the next address of a name, and fails with the last.
    pub(super) fn connect_failed(&mut self, number: u32, how: End) {
        self.connecting -= 1;
        let place = &mut self.connections[number as usize];
        let before = std::mem::replace(place, Connection::Gone);
        if matches!(how, End::Cancelled | End::Aborted) {
            return;
        }
        if let Connection::Connecting(begun, attempt) = before
            && let Some(next) = self.next_attempt(attempt)
        {
            // Later connects start with the next address, unless this one has accepted a connection
            // before.
            if self.aim == attempt.aim && !self.has_connected {
                self.aim = next.aim;
            }
            if self.attempt(number, begun, next) {
                return;
            }
        }
        let kind = how.error_kind().unwrap_or(ErrorKind::Other);
        self.ledger.failed(kind);
    }

    /// Later connects try this address first.
    fn has_answered(&mut self, aim: u8) {
        if self.aim != aim || !self.has_connected {
            (self.aim, self.has_connected) = (aim, true);
            let aim = &self.orders.aims[usize::from(aim)];
            self.ledger.connected_to(&aim.address);
        }
    }

    pub(super) fn connected(&mut self, number: u32, stream: Stream) -> Result<(), String> {
        self.connecting -= 1;
        if let Connection::Connecting(begun, attempt) = self.connections[number as usize] {
            let mut latencies = self.latencies.lock().expect("no thread panics with it");
            record(&mut latencies.connect, begun.elapsed());
            drop(latencies);
            self.has_answered(attempt.aim);
        }
        self.ledger.connected();
        self.ledger.held.fetch_add(1, Ordering::Relaxed);
        self.open += 1;
        self.connections[number as usize] = Connection::Open(stream.socket(), None);
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
            // A connection that sends at the end must receive, which also reports when the peer
            // leaves.
            Mode::Hold if !self.is_chosen(number) => stream.socket().watch().map(drop),
            Mode::Hold => stream.socket().receive().map(drop),
            Mode::Echo | Mode::Stream => stream.socket().receive().map(drop),
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
}
