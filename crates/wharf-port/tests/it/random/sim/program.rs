//! The program under test: an echo server on a port, which also connects out, sets timers, posts,
//! cancels and closes as its dice decide, and checks every packet that it gets.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use wharf_port::sim::{Network, PeerListener};
use wharf_port::{
    Accepted, ConnectOptions, End, ErrorKind, Event, Key, Leave, Listener, Op, Packet, Port, Stream,
};

use crate::rig::LISTENER;

use super::asking::Reading;
use super::connection::{Connection, Hands, TIMERS};
use super::crowd::Crowd;
use super::ledger::{Asked, Ledger};
use super::plan::{Dice, Plan};
use super::waiting::Waiters;

const POSTS: Key = Key(2 << 32);
const CONNECTS: Key = Key(3 << 32);
const FIRST: u64 = 100;

pub(crate) struct Program {
    pub(crate) port: Port,
    pub(crate) waiters: Option<Waiters>,
    pub(crate) network: Network,
    pub(crate) ledger: Ledger,
    pub(crate) connections: Vec<Connection>,
    listener: Option<Listener>,
    accept: Option<Op>,
    paused: bool,
    host: Option<PeerListener>,
    connects: Vec<Op>,
    posted: VecDeque<u64>,
    next_post: u64,
    /// A hash of the packets so far.
    pub(crate) digest: u64,
    pub(crate) log: Option<Vec<String>>,
    /// No more cancels and other unkind actions: open connections end by themselves.
    kindly: bool,
    began: Instant,
}

impl Program {
    pub(crate) fn new(plan: &Plan, dice: &mut Dice, logs: bool) -> Self {
        let port = plan.builder().build().expect("a simulated port");
        let network = port.sim().expect("a simulated port has a far end");
        let began = network.now();
        let waiters = Waiters::new(&port, plan);
        let backlog = dice.pick(&[1, 3, 100]);
        let at = wharf_port::ListenOptions::new(([127, 0, 0, 1], 10_101)).backlog(backlog);
        let listener = port.listen(at, LISTENER).expect("a fresh network");
        let host = plan.connects_out.then(|| {
            let backlog = dice.pick(&[1, 2, 100]);
            let at = ([127, 0, 0, 1], 80).into();
            network.listen(&at, backlog).expect("a fresh network")
        });
        Program {
            port,
            waiters: Some(waiters),
            network,
            ledger: Ledger::default(),
            connections: Vec::new(),
            listener: Some(listener),
            accept: None,
            paused: false,
            host,
            connects: Vec::new(),
            posted: VecDeque::new(),
            next_post: 0,
            digest: 0,
            log: logs.then(Vec::new),
            kindly: false,
            began,
        }
    }

    pub(crate) fn address(&self) -> wharf_port::Address {
        ([127, 0, 0, 1], 10_101).into()
    }

    /// Waits once, at most this long, and handles the packets; returns their number.
    pub(crate) fn wait(
        &mut self,
        at_most: Duration,
        plan: &Plan,
        crowd: &mut Crowd,
        dice: &mut Dice,
    ) -> usize {
        self.ledger.waits();
        let waiters = self.waiters.as_mut().expect("it waits until the end");
        let packets = waiters.take(at_most, &self.network, plan, dice);
        let count = packets.len();
        for packet in packets {
            self.note(&packet);
            self.ledger.packet(&packet);
            self.handle(packet, plan, crowd, dice);
        }
        count
    }

    fn note(&mut self, packet: &Packet) {
        let what = match &packet.event {
            Event::Accepted(accepted) => format!("Accepted {:?}", accepted.peer_addr()),
            Event::ReceivedInto { count, buffer, .. } => {
                format!("ReceivedInto {count} of {}", buffer.len())
            }
            other => format!("{other:?}"),
        };
        let line = format!("{:?} {:?} {what}", packet.key, packet.op);
        for byte in line.bytes() {
            // Ports have other numbers in each run, and only digits show them.
            if !byte.is_ascii_digit() {
                self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
            }
        }
        if let Some(log) = &mut self.log {
            let now = self.network.now() - self.began;
            log.push(format!("{now:?} {line}"));
        }
    }

    fn handle(&mut self, packet: Packet, plan: &Plan, crowd: &mut Crowd, dice: &mut Dice) {
        match packet.event {
            Event::Accepted(accepted) => self.accepted(accepted, crowd, dice, plan),
            Event::Paused { .. } => {
                assert!(!self.paused, "C12: paused twice");
                self.paused = true;
            }
            Event::Resumed => {
                assert!(self.paused, "C12: resumed, and was not paused");
                self.paused = false;
            }
            Event::Connected(stream) => {
                self.connects.retain(|op| *op != packet.op);
                self.connected(stream, crowd, dice, plan);
            }
            Event::Posted(value) => {
                let oldest = self.posted.pop_front();
                assert_eq!(oldest, Some(value), "C16: posts come in order");
            }
            Event::Closed if packet.key == LISTENER => {}
            Event::Ended { how, .. } if packet.key == LISTENER => {
                let expected = match self.listener {
                    Some(_) => End::Cancelled,
                    None => End::Aborted,
                };
                assert_eq!(how, expected, "C12: no error ends a listener");
                (self.accept, self.paused) = (None, false);
            }
            Event::ConnectFailed { how, .. } => {
                assert!(self.connects.contains(&packet.op), "C2: {packet:?}");
                self.connects.retain(|op| *op != packet.op);
                check_connect(how, plan);
            }
            Event::Timer => self.timer(&packet, plan, crowd, dice),
            _ => self.about_connection(packet, plan, crowd, dice),
        }
    }

    fn accepted(&mut self, accepted: Accepted, crowd: &mut Crowd, dice: &mut Dice, plan: &Plan) {
        let address = accepted
            .peer_addr()
            .expect("simulated accepts tell who it is");
        let client = crowd.clients.iter().rposition(|it| it.address == address);
        let client = client.expect("C1: nobody has this address");
        let link = &mut crowd.clients[client];
        assert!(!link.accepted, "C2: a connection is accepted once");
        link.accepted = true;
        if !self.kindly && dice.chance(30) {
            (link.clean, link.port_finished) = (false, true);
            return; // Dropping it closes it.
        }
        let key = Key(FIRST + self.connections.len() as u64);
        let stream = self.port.associate(accepted, key);
        let stream = stream.expect("C2: an accepted socket has its place");
        self.adopt(stream, key, client, crowd, dice, plan);
    }

    fn adopt(
        &mut self,
        stream: Stream,
        key: Key,
        client: usize,
        crowd: &mut Crowd,
        dice: &mut Dice,
        plan: &Plan,
    ) {
        let _ = crowd;
        self.connections
            .push(Connection::new(stream, key, client, dice));
        let kindly = self.kindly;
        let place = self.connections.len() - 1;
        let (connection, mut hands) = self.at(place, plan, dice);
        connection.read(&mut hands, kindly);
    }

    /// A connect succeeded, and the far side takes it.
    fn connected(&mut self, stream: Stream, crowd: &mut Crowd, dice: &mut Dice, plan: &Plan) {
        self.take_visitors(crowd, dice);
        let address = stream.local_addr().expect("an open socket");
        let client = crowd.clients.iter().rposition(|it| it.address == address);
        let client = client.expect("the far side has it in its backlog");
        crowd.clients[client].accepted = true;
        let key = Key(FIRST + self.connections.len() as u64);
        // It has the key of the connect; the connection is identified by its socket.
        self.adopt(stream, key, client, crowd, dice, plan);
    }

    /// The far side accepts what the port has connected.
    fn take_visitors(&mut self, crowd: &mut Crowd, dice: &mut Dice) {
        while let Some(peer) = self.host.as_mut().and_then(PeerListener::try_accept) {
            let address = peer.peer_addr();
            crowd.join(peer, address, dice);
        }
    }

    fn timer(&mut self, packet: &Packet, plan: &Plan, crowd: &mut Crowd, dice: &mut Dice) {
        let place = (packet.key.0 - TIMERS - FIRST) as usize;
        let (connection, mut hands) = self.at(place, plan, dice);
        connection.released(packet.op, &mut hands);
        let client = connection.client;
        connection.finish(&mut crowd.clients[client], &mut hands);
    }

    fn about_connection(
        &mut self,
        packet: Packet,
        plan: &Plan,
        crowd: &mut Crowd,
        dice: &mut Dice,
    ) {
        let kindly = self.kindly;
        let socket = packet.socket;
        let place = self.connections.iter().rposition(|it| it.socket == socket);
        let place = place.expect("C1: nobody has this socket");
        let (connection, mut hands) = self.at(place, plan, dice);
        let client = &mut crowd.clients[connection.client];
        if connection.gone {
            return; // It was dropped while this packet was in the batch.
        }
        match packet.event {
            Event::Received(lease) => {
                assert!(!lease.is_empty(), "C8: received nothing");
                let bytes = lease.to_vec();
                connection.received(&bytes, lease.into(), client, &mut hands);
            }
            Event::ReceivedInto {
                mut buffer, count, ..
            } => {
                assert!(count > 0 || buffer.is_empty(), "received nothing");
                buffer.truncate(count);
                if count > 0 {
                    let bytes = buffer.clone();
                    connection.received(&bytes, buffer.into(), client, &mut hands);
                }
                connection.done_into(packet.op, &mut hands, kindly);
            }
            Event::Sent { .. } => {}
            Event::SendReady => {
                connection.send_ready(&mut hands);
                connection.finish(client, &mut hands);
            }
            Event::PeerLeft(leave) => {
                match leave {
                    Leave::Finished => {
                        assert!(client.finished || client.left, "C9: nobody left");
                    }
                    Leave::Reset => connection.check_broken(ErrorKind::Reset, client, plan),
                    Leave::Broken(error) => connection.check_broken(error.kind(), client, plan),
                }
                connection.reading = Reading::Nothing;
                connection.read(&mut hands, true);
            }
            Event::Closed => connection.closed(client, &hands),
            Event::Ended { how, .. } => {
                connection.read_ended(packet.op, how, client, &mut hands, kindly);
            }
            Event::SendFailed { how, .. } | Event::ShutDown { how, .. } => {
                connection.write_ended(packet.op, how, client, plan);
            }
            other => panic!("a connection knows nothing of {other:?}"),
        }
    }

    fn at<'a>(
        &'a mut self,
        place: usize,
        plan: &'a Plan,
        dice: &'a mut Dice,
    ) -> (&'a mut Connection, Hands<'a>) {
        let hands = Hands {
            port: &self.port,
            network: &self.network,
            plan,
            ledger: &mut self.ledger,
            dice,
        };
        (&mut self.connections[place], hands)
    }

    /// Actions of the program between two waits.
    pub(crate) fn act(&mut self, plan: &Plan, crowd: &mut Crowd, dice: &mut Dice) {
        self.keep_accepting(dice);
        if dice.chance(30) {
            if let Some(waiters) = &mut self.waiters {
                waiters.replace_one(&self.port, dice);
            }
        }
        if dice.chance(100) {
            let post = self.port.post(POSTS, self.next_post);
            post.expect("room for posts");
            self.posted.push_back(self.next_post);
            self.next_post += 1;
        }
        if plan.connects_out && dice.chance(50) {
            self.connect_out(dice);
        }
        self.take_visitors(crowd, dice);
        if self.connections.is_empty() || !dice.chance(plan.unkind) {
            return;
        }
        let accept = dice.chance(200).then_some(self.accept);
        if let Some(op) = accept.flatten() {
            let _ = self.port.cancel(op);
        } else if dice.chance(100) && !self.connects.is_empty() {
            let op = self.connects[dice.below(self.connects.len())];
            let _ = self.port.cancel(op);
        } else {
            let place = dice.below(self.connections.len());
            let (connection, mut hands) = self.at(place, plan, dice);
            let client = &mut crowd.clients[connection.client];
            if connection.gone {
                connection.is_answered_closed();
            } else {
                connection.be_unkind(client, &mut hands);
            }
        }
    }

    fn keep_accepting(&mut self, dice: &mut Dice) {
        let due = self.accept.is_none() && (self.kindly || dice.chance(300));
        if let (true, Some(listener)) = (due, &self.listener) {
            let op = listener.socket().accept().expect("it does not accept");
            self.ledger
                .accepted(Asked::Accept, op, Some(listener.socket()));
            self.accept = Some(op);
        }
    }

    fn connect_out(&mut self, dice: &mut Dice) {
        let number = dice.pick(&[80, 80, 80, 81]);
        let to = ConnectOptions::new(([127, 0, 0, 1], number));
        let to = if dice.chance(300) {
            to.timeout(super::some_time(dice))
        } else {
            to
        };
        match self.port.connect(to, CONNECTS) {
            Ok(op) => {
                self.ledger.accepted(Asked::Connect, op, None);
                self.connects.push(op);
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Full, "C13: {error}"),
        }
    }

    /// From now on nothing is cancelled, and connections that do not read start to.
    pub(crate) fn calm_down(&mut self, plan: &Plan, crowd: &mut Crowd, dice: &mut Dice) {
        self.kindly = true;
        let waiters = self.waiters.as_mut().expect("it waits until the end");
        waiters.take_everything_from_now_on();
        self.go_on(plan, crowd, dice);
    }

    /// Reads where no operation reads, and accepts connections.
    pub(crate) fn go_on(&mut self, plan: &Plan, crowd: &mut Crowd, dice: &mut Dice) {
        self.keep_accepting(dice);
        self.take_visitors(crowd, dice);
        for place in 0..self.connections.len() {
            let (connection, mut hands) = self.at(place, plan, dice);
            if let Reading::Watch(op) = connection.reading {
                // A watch reads nothing, and a client may not have sent everything.
                let _ = hands.port.cancel(op);
            }
            connection.read(&mut hands, true);
        }
    }

    /// The listener closes, and then no further packet comes about it.
    pub(crate) fn close_listener(&mut self) {
        if let Some(listener) = self.listener.take() {
            let socket = listener.socket();
            let op = listener.close().expect("the port is open");
            self.ledger.accepted(Asked::Close, op, Some(socket));
        }
        self.host = None;
    }

    /// The connections that are not over, for a report.
    pub(crate) fn describe(&self) -> String {
        let open = self.connections.iter().filter(|it| !it.is_over());
        open.map(|it| format!("{it:?}\n  ")).collect()
    }

    pub(crate) fn is_idle(&self) -> bool {
        let over = self.connections.iter().all(Connection::is_over);
        over && self.connects.is_empty() && self.posted.is_empty()
    }

    pub(crate) fn is_accepting(&self) -> bool {
        self.accept.is_some()
    }
}

fn check_connect(how: End, plan: &Plan) {
    match how {
        End::Finished => panic!("C2: a connect that succeeds brings its stream"),
        End::Cancelled => {}
        End::Aborted => panic!("C9: nobody closed this connect"),
        End::Failed(error) => match error.kind() {
            ErrorKind::Refused | ErrorKind::TimedOut => {}
            ErrorKind::Unreachable => assert!(plan.network.connect_errors > 0, "{error}"),
            other => panic!("C9: a connect failed as {other:?}"),
        },
    }
}
