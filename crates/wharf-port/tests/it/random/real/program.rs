//! The program under test: it accepts, connects, reads, sends, keeps, cancels and closes as its
//! dice decide, and checks every packet that it gets.
//!
//! One lock protects all of it, so that additional threads can pass their packets to it: their
//! races inside the port are real, but the program sees packets in order.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use wharf_port::{
    Accepted, Address, ConnectOptions, End, Error, ErrorKind, Event, Key, Leave, Listener, Op,
    Operation, OwnedDescriptor, Packet, Port, Refused, SocketRef, Stream,
};

use crate::random::sim::asking::Reading;
use crate::random::sim::ledger::{Asked, Ledger};
use crate::random::sim::plan::Dice;
use crate::random::sim::waiting::in_turn;
use crate::rig::peer::{Host, Network, Peer, System};
use crate::rig::{LISTENER, describe};

use super::connection::Connection;
use super::dropper::Dropper;
use super::far::Far;
use super::plan::Plan;

const POSTS: Key = Key(2 << 32);
const CONNECTS: Key = Key(3 << 32);
const TIMERS: Key = Key(4 << 32);
const FIRST: u64 = 100;
/// The buffer size of a narrow connection.
const NARROW_BYTES: usize = 8 << 10;
/// The number of packets that a failure shows.
const REPORTED_MAX: usize = 60;

/// What a connection needs in addition to itself.
pub(crate) struct World {
    pub(crate) port: Port,
    pub(crate) plan: Plan,
    pub(crate) ledger: Ledger,
    pub(crate) dice: Dice,
    pub(crate) dropper: Dropper,
    /// No more cancels and other unkind actions: open connections end by themselves.
    pub(crate) kindly: bool,
}

pub(crate) struct Program {
    pub(crate) world: World,
    pub(crate) connections: Vec<Connection>,
    pub(crate) fars: Vec<Far>,
    listener: Option<Listener>,
    accept: Option<Op>,
    address: Address,
    paused: bool,
    /// Its `Closed` has not come.
    listener_closes: bool,
    host: Option<Box<dyn Host>>,
    connect: Option<Op>,
    /// One that has connected, until the far side has taken it.
    arrived: Option<Stream>,
    posted: VecDeque<u64>,
    next_post: u64,
    timers: HashMap<Op, Instant>,
    /// Which waiter has packets of these sockets in its batch.
    holders: HashMap<SocketRef, usize>,
    log: VecDeque<String>,
}

impl Program {
    pub(crate) fn new(port: Port, plan: Plan, dice: Dice) -> Self {
        let listener = port.listen(([127, 0, 0, 1], 0), LISTENER);
        let listener = listener.expect("loopback listens");
        let address = listener.local_addr().expect("a listener has an address");
        let host = plan.connects_out.then(|| System.listen());
        Program {
            world: World {
                port,
                plan,
                ledger: Ledger::default(),
                dice,
                dropper: Dropper::new(),
                kindly: false,
            },
            connections: Vec::new(),
            fars: Vec::new(),
            listener: Some(listener),
            accept: None,
            address,
            paused: false,
            listener_closes: false,
            host,
            connect: None,
            arrived: None,
            posted: VecDeque::new(),
            next_post: 0,
            timers: HashMap::new(),
            holders: HashMap::new(),
            log: VecDeque::new(),
        }
    }

    /// A waiter, which has this number, took a packet.
    pub(crate) fn handle(&mut self, waiter: usize, packet: Packet) {
        if self.log.len() == REPORTED_MAX {
            self.log.pop_front();
        }
        let words = describe(&packet);
        self.log.push_back(format!("waiter {waiter}: {words}"));
        // Cancelled timers end like operations, but have no turns either.
        if packet.key != TIMERS && in_turn(&packet).is_some() {
            let holder = *self.holders.entry(packet.socket).or_insert(waiter);
            assert_eq!(
                holder, waiter,
                "C18: while another waiter has its socket's turn: {words}"
            );
        }
        if !self.is_out_of_order(&packet) {
            self.world.ledger.packet(&packet);
        }
        self.react(packet);
    }

    /// Whether this packet and others may come here in reverse order: a listener has no turns, and
    /// two threads may have taken one each. Then no ledger can be kept of it.
    fn is_out_of_order(&self, packet: &Packet) -> bool {
        self.world.plan.threads > 0 && packet.key == LISTENER
    }

    /// A waiter is about to drop its batch.
    pub(crate) fn turns_end(&mut self, waiter: usize) {
        self.holders.retain(|_, holder| *holder != waiter);
    }

    fn react(&mut self, packet: Packet) {
        match packet.event {
            Event::Accepted(accepted) => self.accepted(accepted),
            Event::Paused { .. } | Event::Resumed => {
                let pauses = matches!(packet.event, Event::Paused { .. });
                assert!(
                    self.paused != pauses || self.world.plan.threads > 0,
                    "C12: paused twice, or resumed and was not paused"
                );
                self.paused = pauses;
            }
            Event::Connected(stream) => {
                assert_eq!(self.connect.take(), Some(packet.op), "C2: another connect");
                self.arrived = Some(stream);
            }
            Event::Posted(value) => self.posted(value),
            Event::Closed if packet.key == LISTENER => self.listener_closes = false,
            Event::Ended { how, .. } if packet.key == LISTENER => {
                let aborted = how == End::Aborted && self.listener.is_none();
                assert!(
                    aborted || how == End::Cancelled,
                    "C12: no error ends a listener: {how:?}"
                );
                (self.accept, self.paused) = (None, false);
            }
            Event::ConnectFailed { how, .. } => {
                panic!("C9: a connect to a host that listens ended: {how:?}");
            }
            Event::Timer => {
                let at = self.timers.remove(&packet.op).expect("C17: a timer");
                assert!(Instant::now() >= at, "C17: a timer came early");
            }
            Event::TimerCancelled => {
                self.timers.remove(&packet.op).expect("C17: a timer");
            }
            _ => self.about_connection(packet),
        }
    }

    fn posted(&mut self, value: u64) {
        let place = self.posted.iter().position(|posted| *posted == value);
        let place = place.expect("C16: a post comes once");
        // Two threads may have taken one each, and come here in reverse order.
        assert!(
            place == 0 || self.world.plan.threads > 0,
            "C16: posts come in order"
        );
        self.posted.remove(place);
    }

    fn accepted(&mut self, accepted: Accepted) {
        let address = accepted.peer_addr().expect("no far end leaves before");
        let far = self.fars.iter().rposition(|it| it.address == address);
        let far = far.expect("C1: nobody has this address");
        assert!(!self.fars[far].taken, "C2: a connection is accepted once");
        if !self.world.kindly && self.world.dice.chance(30) {
            let far = &mut self.fars[far];
            (far.taken, far.clean, far.port_finished) = (true, false, true);
            return; // Dropping it closes it.
        }
        let key = Key(FIRST + self.connections.len() as u64);
        let stream = self.world.port.associate(accepted, key);
        self.adopt(
            stream.expect("C2: an accepted socket has its place"),
            key,
            far,
        );
    }

    fn adopt(&mut self, stream: Stream, key: Key, far: usize) {
        let far = &mut self.fars[far];
        let mut connection = Connection::new(stream, key, far, &mut self.world);
        // The system knows a connection that does not read yet only by its sends.
        if self.world.dice.chance(600) {
            connection.read(&mut self.world);
        }
        connection.talk(far, &mut self.world);
        self.connections.push(connection);
    }

    /// The far side accepts a connection of the port.
    fn take_visitor(&mut self) {
        if self.arrived.is_none() {
            return;
        }
        let Some(peer) = self.host.as_mut().and_then(|host| host.try_accept()) else {
            return;
        };
        let stream = self.arrived.take().expect("asked above");
        let far = self.join(peer);
        self.adopt(stream, CONNECTS, far);
    }

    fn join(&mut self, peer: Box<dyn Peer>) -> usize {
        let number = self.fars.len();
        let World { plan, dice, .. } = &mut self.world;
        self.fars.push(Far::new(peer, number, plan, dice));
        number
    }

    /// A connection that was made elsewhere, with little buffer space, so that sends are soon
    /// partial.
    fn associate_narrow(&mut self) {
        let (near, peer) = System.narrow_pair(NARROW_BYTES);
        let key = Key(FIRST + self.connections.len() as u64);
        match self.world.port.associate(OwnedDescriptor::from(near), key) {
            Ok(stream) => {
                let far = self.join(peer);
                self.adopt(stream, key, far);
            }
            Err(Refused { error, .. }) => assert_eq!(error.kind(), ErrorKind::Full, "C13"),
        }
    }

    fn about_connection(&mut self, packet: Packet) {
        let socket = packet.socket;
        let place = self.connections.iter().rposition(|it| it.socket == socket);
        let connection = &mut self.connections[place.expect("C1: nobody has this socket")];
        let (far, world) = (&mut self.fars[connection.far], &mut self.world);
        assert_eq!(packet.key, connection.key(), "C1: a packet brings its key");
        if connection.gone {
            return; // It was dropped while this packet was in the batch.
        }
        match packet.event {
            Event::Received(lease) => {
                assert!(!lease.is_empty(), "C8: received nothing");
                connection.lent(lease, far, world);
            }
            Event::ReceivedInto { buffer, count, .. } => {
                connection.filled(packet.op, &buffer, count, far, world);
            }
            Event::Sent { .. } => {}
            Event::SendReady => connection.send_ready(far, world),
            Event::PeerLeft(leave) => {
                match leave {
                    Leave::Finished => {
                        assert!(far.finished || far.left, "C9: nobody left");
                    }
                    Leave::Reset => Connection::check_broken(
                        Error::new(Operation::Watch, ErrorKind::Reset),
                        far,
                    ),
                    Leave::Broken(error) => Connection::check_broken(error, far),
                }
                connection.reading = Reading::Nothing;
                connection.read(world);
            }
            Event::Closed => connection.closed(far, world),
            Event::Ended { how, .. } => {
                let reading = connection.read_ended(packet.op, how, far, world);
                assert!(reading, "C2: {how:?} of nothing that reads");
            }
            Event::SendFailed { how, .. } | Event::ShutDown { how, .. } => {
                connection.write_ended(packet.op, how, far, world);
            }
            other => panic!("a connection knows nothing of {other:?}"),
        }
        connection.finish(far, world);
    }

    /// Actions of the program and the far side between two waits.
    pub(crate) fn act(&mut self) {
        self.keep_accepting();
        self.take_visitor();
        self.world.ledger.waits();
        if self.fars.len() < self.world.plan.fars && self.world.dice.chance(400) {
            match self.world.dice.chance(self.world.plan.narrow) {
                true => self.associate_narrow(),
                false => _ = self.join(System.connect(&self.address)),
            }
        }
        for far in &mut self.fars {
            if self.world.dice.chance(400) {
                far.act(&self.world.plan, &mut self.world.dice);
            }
        }
        if self.world.dice.chance(100) {
            self.post();
        }
        if self.world.dice.chance(100) {
            self.set_timer();
        }
        if self.world.plan.connects_out && self.world.dice.chance(50) {
            self.connect_out();
        }
        for connection in &mut self.connections {
            let (far, world) = (&mut self.fars[connection.far], &mut self.world);
            // In any order: what is queued first arrives first.
            let things = if world.dice.chance(400) { 4 } else { 0 };
            for _ in 0..things {
                match world.dice.below(8) {
                    0 | 1 => connection.let_go(world),
                    2 | 3 => connection.talk(far, world),
                    4 if world.dice.chance(300) => connection.read(world),
                    _ if !connection.gone && world.dice.chance(world.plan.unkind) => {
                        connection.be_unkind(far, world);
                    }
                    _ => {}
                }
            }
            connection.finish(far, world);
        }
        let unkind = self.world.plan.unkind / 5;
        if self.world.dice.chance(unkind) {
            self.be_unkind();
        }
    }

    fn be_unkind(&mut self) {
        let op = match self.world.dice.below(2) {
            // Two threads may have taken the end and a packet before it.
            0 if self.world.plan.threads == 0 => self.accept,
            _ => self.timers.keys().next().copied(),
        };
        if let Some(op) = op {
            let _ = self.world.port.cancel(op);
        }
    }

    fn keep_accepting(&mut self) {
        if let (Some(listener), None) = (&self.listener, self.accept) {
            let op = listener.socket().accept().expect("nothing accepts");
            if self.world.plan.threads == 0 {
                let socket = listener.socket();
                self.world.ledger.accepted(Asked::Accept, op, Some(socket));
            }
            self.accept = Some(op);
        }
    }

    fn post(&mut self) {
        let post = self.world.port.post(POSTS, self.next_post);
        post.expect("room for posts");
        self.posted.push_back(self.next_post);
        self.next_post += 1;
    }

    fn set_timer(&mut self) {
        let at = Instant::now() + some_time(&mut self.world.dice);
        let op = self.world.port.timer(at, TIMERS).expect("room for timers");
        self.world.ledger.accepted(Asked::Timer, op, None);
        self.timers.insert(op, at);
    }

    fn connect_out(&mut self) {
        let Some(host) = &self.host else { return };
        if self.connect.is_some() || self.arrived.is_some() {
            return;
        }
        match self
            .world
            .port
            .connect(ConnectOptions::new(host.address()), CONNECTS)
        {
            Ok(op) => {
                self.world.ledger.accepted(Asked::Connect, op, None);
                self.connect = Some(op);
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Full, "C13: {error}"),
        }
    }

    /// From now on nothing is cancelled, and everyone sends, reads and returns leases.
    pub(crate) fn calm_down(&mut self) {
        self.world.kindly = true;
    }

    /// Lets everything go on that could stand still; returns whether all is over.
    pub(crate) fn go_on(&mut self) -> bool {
        self.keep_accepting();
        self.take_visitor();
        self.world.ledger.waits();
        let mut done = true;
        for far in &mut self.fars {
            done &= far.settle(&self.world.plan, &mut self.world.dice);
        }
        for connection in &mut self.connections {
            let (far, world) = (&mut self.fars[connection.far], &mut self.world);
            if let Reading::Watch(_) = connection.reading {
                // A watch reads nothing, and a far end may not have sent everything.
                connection.cancel_reading(world);
            }
            connection.read(world);
            connection.let_go(world);
            connection.talk(far, world);
            connection.finish(far, world);
            done &= connection.gone;
        }
        let waits = self.connect.is_some() || self.arrived.is_some();
        done && !waits && self.posted.is_empty() && self.timers.is_empty()
    }

    /// The listener closes, and then no further packet comes about it.
    pub(crate) fn close_listener(&mut self) {
        if let Some(listener) = self.listener.take() {
            let socket = listener.socket();
            let op = listener.close().expect("the port is open");
            if self.world.plan.threads == 0 {
                let asked = Asked::Close;
                self.world.ledger.accepted(asked, op, Some(socket));
            }
            self.listener_closes = true;
        }
    }

    /// How far all of it has come, in bytes and ended connections.
    pub(crate) fn moved(&self) -> usize {
        let gone = self.connections.iter().filter(|it| it.gone).count();
        gone + self.fars.iter().map(Far::moved).sum::<usize>()
    }

    /// The number of operations without their last packet.
    pub(crate) fn owed(&mut self) -> usize {
        self.world.ledger.waits();
        let of_listener = usize::from(self.accept.is_some()) + usize::from(self.listener_closes);
        self.world.ledger.owed() + of_listener
    }

    pub(crate) fn check_fars(&self) {
        self.fars.iter().for_each(Far::check_end);
    }

    /// The state that a reader would examine first, for a report.
    pub(crate) fn describe(&self) -> String {
        let mut text = format!("{:#?}\n  not over:\n", self.world.plan);
        for connection in self.connections.iter().filter(|it| !it.gone) {
            let far = &self.fars[connection.far];
            text += &format!("    {connection:?}\n      with {far:?}\n");
        }
        let alone = |far: &&Far| {
            self.connections
                .iter()
                .all(|it| it.far != far.number || it.gone)
        };
        for far in self
            .fars
            .iter()
            .filter(alone)
            .filter(|it| it.ended.is_none())
        {
            text += &format!("    {far:?}\n");
        }
        let packets: Vec<_> = self.log.iter().map(String::as_str).collect();
        format!(
            "{text}  open:\n    {}\n  {:?}\n  the last packets:\n    {}",
            self.world.ledger.describe(),
            self.world.port.stats(),
            packets.join("\n    ")
        )
    }
}

/// A time for timers and waits: mostly zero.
pub(crate) fn some_time(dice: &mut Dice) -> Duration {
    let most = dice.pick(&[0, 0, 0, 100, 2_000]);
    Duration::from_micros(dice.below(most + 1) as u64)
}
