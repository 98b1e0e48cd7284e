//! The world of a simulated network: its clock, its events, its sockets and its random numbers.
//!
//! One lock protects all of it, because a seed must decide one order of all events. Under this lock
//! the locks of the pool and of the table's free list are taken. Under those two this lock is never
//! taken.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::options::{Faults, SimOptions};
use super::queue::Sleepers;
use super::random::Random;
use super::request::{Asked, Memory, Outcome, Request};
use super::socket::{Owner, Role, Socket, SocketId, Sockets};
use super::stage::Acting;
use crate::address::Address;
use crate::core::slot::Receiving;
use crate::core::slot::SlotId;
use crate::driver::Direction;
use crate::sys;

/// If this many events happen at one instant, the port counts as spinning.
const EVENTS_AT_ONE_INSTANT_MAX: u64 = 1_000_000;
/// The first port number that the network itself chooses.
const FIRST_NUMBER: u16 = 49_152;

/// Something that happens at a certain time.
#[derive(Debug)]
pub(super) enum Event {
    /// A request checks whether it can continue.
    Step(SocketId, Direction, u64),
    /// A request is to end.
    Cancel(SocketId, Direction, u64),
    /// The port gets the result of a request, or the report that it is over.
    Report(SocketId, Direction, Outcome),
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) options: SimOptions,
    pub(super) random: Random,
    pub(super) faults: Faults,
    pub(super) sockets: Sockets,
    /// Sockets of the port, by the numbers of their placeholder descriptors.
    pub(super) by_raw: HashMap<u64, SocketId>,
    pub(super) start: Instant,
    pub(super) now_ns: u64,
    /// Until when there are no descriptors.
    pub(super) shortage_until_ns: u64,
    /// Requests whose end was not reported yet.
    pub(super) requests: u64,
    /// By time, then at random, then in order.
    events: BTreeMap<(u64, u64, u64), Event>,
    pub(super) scheduled: u64,
    /// The current instant, and the number of events at it.
    at_this_instant: (u64, u64),
    next_number: u16,
    pub(super) sleepers: Sleepers,
    /// The actors, if threads are scheduled one at a time.
    pub(super) acting: Option<Acting>,
    token: sys::Handle,
}

impl World {
    pub(super) fn new(options: SimOptions, token: sys::Handle) -> Self {
        World {
            options,
            random: Random::new(options.seed),
            faults: Faults::default(),
            sockets: Sockets::default(),
            by_raw: HashMap::new(),
            start: Instant::now(),
            now_ns: 0,
            shortage_until_ns: 0,
            requests: 0,
            events: BTreeMap::new(),
            scheduled: 0,
            at_this_instant: (0, 0),
            next_number: FIRST_NUMBER,
            sleepers: Sleepers::default(),
            acting: None,
            token,
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.start + Duration::from_nanos(self.now_ns)
    }

    pub(super) fn after(&self, span: Duration) -> u64 {
        let span = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        self.now_ns.saturating_add(span)
    }

    /// Returns a descriptor that is only a placeholder for a socket of this network.
    pub(super) fn token(&self) -> std::io::Result<sys::Handle> {
        self.token.try_clone()
    }

    /// Returns a random delay of up to `factor` times the options' delay.
    pub(super) fn delay_ns(&mut self, factor: u64) -> u64 {
        let most = u64::from(self.options.delay_us_max) * 1000 * factor;
        self.random.below(most + 1)
    }

    pub(super) fn schedule(&mut self, at_ns: u64, event: Event) {
        self.scheduled += 1;
        let random = self.random.next();
        let at_ns = at_ns.max(self.now_ns);
        self.events.insert((at_ns, random, self.scheduled), event);
    }

    pub(super) fn next_event_ns(&self) -> Option<u64> {
        self.events.first_key_value().map(|((at, ..), _)| *at)
    }

    /// Returns how many events are due, up to 64.
    pub(super) fn due(&self) -> usize {
        let due = self.events.range(..=(self.now_ns, u64::MAX, u64::MAX));
        due.take(64).count()
    }

    pub(super) fn take_due(&mut self) -> Option<Event> {
        if self.next_event_ns()? > self.now_ns {
            return None;
        }
        let (instant, count) = &mut self.at_this_instant;
        if *instant != self.now_ns {
            (*instant, *count) = (self.now_ns, 0);
        }
        *count += 1;
        assert!(
            *count < EVENTS_AT_ONE_INSTANT_MAX,
            "the port spins: a million events and the clock stands still"
        );
        self.events.pop_first().map(|(_, event)| event)
    }

    /// Takes the next event, even if it is not due yet, and moves the clock to its time.
    pub(super) fn take_next(&mut self) -> Option<Event> {
        let ((at, ..), event) = self.events.pop_first()?;
        self.now_ns = self.now_ns.max(at);
        Some(event)
    }

    /// Whether the system has no memory for a wait.
    pub(super) fn wait_fails(&mut self) -> bool {
        let fails = self.random.chance(self.options.wait_errors);
        self.faults.wait_errors += u64::from(fails);
        fails
    }

    /// Returns a port number for a listener or for the near end of a connection.
    pub(super) fn fresh_number(&mut self) -> u16 {
        let number = self.next_number;
        self.next_number = number.checked_add(1).unwrap_or(FIRST_NUMBER);
        number
    }

    pub(super) fn find(&self, handle: &sys::Handle) -> Option<SocketId> {
        self.by_raw.get(&sys::raw_number(handle)).copied()
    }

    /// Returns the socket of this placeholder handle.
    pub(super) fn socket_of(&self, handle: &sys::Handle) -> Option<&Socket> {
        self.sockets.at(self.find(handle)?)
    }

    /// Makes a socket of the port, and its placeholder handle.
    pub(super) fn open(&mut self, local: Address, role: Role) -> std::io::Result<sys::Handle> {
        let handle = self.token()?;
        let raw = sys::raw_number(&handle);
        let owner = Owner::Port { raw, slot: None };
        let id = self.sockets.insert(Socket::new(owner, local, None, role));
        self.by_raw.insert(raw, id);
        Ok(handle)
    }

    /// Makes a request on a socket of the port.
    pub(super) fn ask(&mut self, handle: &sys::Handle, asked: Asked, memory: Memory) {
        let id = self.find(handle).expect("an associated socket is known");
        let direction = asked.direction();
        self.requests += 1;
        self.scheduled += 1;
        let doomed = asked != Asked::Read(Receiving::Connect)
            && self.random.chance(self.options.unasked_cancels);
        let request = Request {
            number: self.scheduled,
            asked,
            memory,
            progress: 0,
            stepping: false,
            over: false,
            doomed,
            reports_until_ns: 0,
        };
        let place = self
            .sockets
            .at_mut(id)
            .expect("a socket known by its handle is in the table")
            .request_mut(direction);
        assert!(
            place.is_none(),
            "driver's contract 1: {request:?} while {place:?} is with the network"
        );
        *place = Some(request);
        self.look_again(id, direction);
    }

    /// Something has changed for a request, if there is one: it checks whether it can continue.
    pub(super) fn look_again(&mut self, id: SocketId, direction: Direction) {
        let delay = self.delay_ns(1);
        let request = self
            .sockets
            .at_mut(id)
            .and_then(|it| it.request_of(direction));
        let Some(request) = request else { return };
        if request.over || request.stepping {
            return;
        }
        request.stepping = true;
        let number = request.number;
        self.schedule(self.now_ns + delay, Event::Step(id, direction, number));
    }

    /// Asks for the end of a request, with `factor` times the usual delay. Returns whether there is
    /// a request.
    pub(super) fn ask_end(
        &mut self,
        handle: &sys::Handle,
        direction: Direction,
        factor: u64,
    ) -> bool {
        let id = self.find(handle).expect("an associated socket is known");
        let delay = self.delay_ns(factor);
        let request = self
            .sockets
            .at_mut(id)
            .and_then(|it| it.request_of(direction));
        let Some(number) = request.map(|request| request.number) else {
            return false;
        };
        self.schedule(self.now_ns + delay, Event::Cancel(id, direction, number));
        true
    }

    /// Reports an outcome after this delay, and after what was reported before.
    pub(super) fn report(
        &mut self,
        id: SocketId,
        direction: Direction,
        outcome: Outcome,
        delay_ns: u64,
    ) {
        let mut at_ns = self.now_ns + delay_ns;
        let socket = self.sockets.at_mut(id).expect("it has a request");
        if matches!(outcome, Outcome::Stopped(None)) {
            if let Some(sending) = socket.request_of(Direction::Writing) {
                // A break is reported once. Only after that may the stream seem to end gracefully.
                at_ns = at_ns.max(sending.reports_until_ns + 1);
            }
        }
        let request = socket.request_of(direction).expect("it has a request");
        if outcome.is_last() {
            request.over = true;
            at_ns = at_ns.max(request.reports_until_ns + 1);
        }
        request.reports_until_ns = request.reports_until_ns.max(at_ns);
        self.schedule(at_ns, Event::Report(id, direction, outcome));
    }

    pub(super) fn slot_of(&self, id: SocketId) -> Option<SlotId> {
        match self.sockets.at(id)?.owner {
            Owner::Port { slot, .. } => slot,
            Owner::Peer => None,
        }
    }
}
