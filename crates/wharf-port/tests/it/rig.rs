//! A port under test with its waiter, a far end to talk to, and the log of every packet.
//!
//! One thread does both sides: each helper pumps the port while it waits. Time only ends a test
//! that hangs, it never decides one. When a rig drops, the ledger must balance: no socket, lease or
//! operation is left, and no packet without an owner came.

pub(crate) mod case;
pub(crate) mod crew;
mod ended;
#[cfg(windows)]
pub(crate) mod open_handles;
pub(crate) mod peer;
pub(crate) mod runner;
pub(crate) mod sim_peer;
pub(crate) mod system;
pub(crate) mod table;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wharf_port::{
    Accepted, Address, Builder, Event, Key, Lease, ListenOptions, Listener, Op, OwnedDescriptor,
    Packet, Port, SocketRef, Stats, Stream, Wait, Waiter,
};

use case::Where;
use peer::{Heard, Network, Peer, System};
use sim_peer::Simulated;
use system::patience;

/// The key of the rig's own listener, as in the series.
pub(crate) const LISTENER: Key = Key(90);
/// The key of the first connection; the next connection has the next key.
pub(crate) const FIRST: Key = Key(100);

/// A helper that waits longer fails its case.
const PATIENCE_SECONDS: u64 = 20;
/// How long a helper waits before it reports that nothing came.
const SILENCE: Duration = Duration::from_millis(20);
/// A step of waiting for a far end, which wakes no port.
const STEP: Duration = Duration::from_millis(1);
/// A failed case shows this many of its packets, the latest.
const REPORTED_MAX: usize = 200;

/// What the watchdog sees of a case that hangs.
#[derive(Default)]
pub(crate) struct Observed {
    pub(crate) port: Mutex<Option<Port>>,
    pub(crate) log: Mutex<Vec<String>>,
}

thread_local! {
    /// Set by the runner on the thread of each case.
    pub(crate) static OBSERVED: RefCell<Arc<Observed>> = RefCell::default();
}

/// What the ledger may show at the end of a case, in addition to zeros.
#[derive(Clone, Copy, Default)]
pub(crate) struct Allowed {
    pub(crate) leases: usize,
    pub(crate) accepted_untaken: u64,
    pub(crate) waiters_leaked: u64,
    /// Packets that no case has expected: by default every packet must have been expected.
    pub(crate) packets: bool,
}

pub(crate) struct Rig {
    pub(crate) port: Port,
    pub(crate) allowed: Allowed,
    pub(crate) network: Box<dyn Network>,
    /// Packets with keys from here on are traffic that is not kept: otherwise each search for a
    /// packet would scan a flood of it.
    pub(crate) traffic_from: Option<Key>,
    waiter: Option<Waiter>,
    /// Packets that were taken and that no helper has requested yet.
    packets: VecDeque<Packet>,
    listener: Option<(Listener, Address)>,
    observed: Arc<Observed>,
    next_key: u64,
}

impl Rig {
    pub(crate) fn new(at: &Where) -> Self {
        Rig::with(at, |builder| builder)
    }

    /// A rig whose port the case builds.
    pub(crate) fn with(at: &Where, build: impl FnOnce(Builder) -> Builder) -> Self {
        let port = build(at.builder())
            .build()
            .expect("the driver was present before");
        let waiter = port.waiter().expect("a fresh port has room for a waiter");
        let observed = OBSERVED.with_borrow(Arc::clone);
        *lock(&observed.port) = Some(port.clone());
        let network: Box<dyn Network> = match Simulated::of(&port) {
            Some(network) => Box::new(network),
            None => Box::new(System),
        };
        Rig {
            port,
            allowed: Allowed::default(),
            network,
            traffic_from: None,
            waiter: Some(waiter),
            packets: VecDeque::new(),
            listener: None,
            observed,
            next_key: FIRST.0,
        }
    }

    /// The rig's waiter, for cases about waiting itself.
    pub(crate) fn waiter(&mut self) -> &mut Waiter {
        self.waiter.as_mut().expect("the case dropped its waiter")
    }

    /// Drops the rig's waiter, because threads of the case wait.
    pub(crate) fn drop_waiter(&mut self) {
        self.packets.clear();
        self.waiter = None;
    }

    /// Replaces the rig's waiter, which leaves with packets it had not delivered.
    pub(crate) fn renew_waiter(&mut self) {
        self.waiter = None;
        let waiter = self.port.waiter().expect("there is room again");
        self.waiter = Some(waiter);
    }

    /// Waits once, at most this long, and keeps what came.
    pub(crate) fn pump(&mut self, at_most: Duration) {
        let waiter = self.waiter.as_mut().expect("the case dropped its waiter");
        match waiter.wait(Some(at_most)).expect("the port is not broken") {
            Wait::Packets(batch) => {
                let traffic_from = self.traffic_from;
                for packet in
                    batch.filter(|packet| traffic_from.is_none_or(|from| packet.key < from))
                {
                    lock(&self.observed.log).push(describe(&packet));
                    self.packets.push_back(packet);
                }
            }
            Wait::TimedOut => {}
            Wait::Closed => panic!("the port closed while the case waited for packets"),
        }
    }

    /// Pumps until `done` returns something.
    pub(crate) fn until<T>(
        &mut self,
        what: &str,
        mut done: impl FnMut(&mut Rig) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + patience(PATIENCE_SECONDS);
        loop {
            if let Some(found) = done(self) {
                return found;
            }
            if Instant::now() > deadline {
                self.fail(&format!("{what}: it never came"));
            }
            self.pump(STEP);
        }
    }

    /// The next packet, whatever it is.
    pub(crate) fn next(&mut self, what: &str) -> Packet {
        let deadline = Instant::now() + patience(PATIENCE_SECONDS);
        loop {
            if let Some(packet) = self.packets.pop_front() {
                return packet;
            }
            if Instant::now() > deadline {
                self.fail(&format!("{what}: no packet came"));
            }
            self.pump(Duration::from_millis(100));
        }
    }

    /// The first packet that matches, if it is there already.
    pub(crate) fn find(&mut self, matches: impl Fn(&Packet) -> bool) -> Option<Packet> {
        let place = self.packets.iter().position(matches)?;
        self.packets.remove(place)
    }

    /// Whether a packet of this operation is there already.
    pub(crate) fn has(&self, op: Op) -> bool {
        self.packets.iter().any(|packet| packet.op == op)
    }

    /// A packet that is there already, or comes within a moment.
    pub(crate) fn find_or_pump(&mut self) -> Option<Packet> {
        if self.packets.is_empty() {
            self.pump(STEP);
        }
        self.packets.pop_front()
    }

    /// The first packet that matches; others stay for later calls.
    pub(crate) fn expect(&mut self, what: &str, matches: impl Fn(&Packet) -> bool) -> Packet {
        self.until(what, |rig| rig.find(&matches))
    }

    /// Checks that nothing comes.
    pub(crate) fn expect_nothing(&mut self) {
        self.pump(SILENCE);
        self.pump(SILENCE);
        if !self.packets.is_empty() {
            let first = describe(&self.packets[0]);
            self.fail(&format!("nothing was to come, and this did: {first}"));
        }
    }

    /// Checks that no packet of an ended operation is left, as far as they have come.
    pub(crate) fn expect_silence_of(&mut self, op: Op) {
        if let Some(late) = self.find(|packet| packet.op == op) {
            self.fail(&format!("after its end: {}", describe(&late)));
        }
    }

    /// Drops packets that have come and that the case does not examine.
    pub(crate) fn forget(&mut self, which: impl Fn(&Packet) -> bool) {
        self.packets.retain(|packet| !which(packet));
    }

    /// Fails the case with the log of all packets and the state of the port.
    pub(crate) fn fail(&self, why: &str) -> ! {
        panic!("{why}\n{}", self.report());
    }

    fn report(&self) -> String {
        let log = lock(&self.observed.log);
        let older = log.len().saturating_sub(REPORTED_MAX);
        let latest = log[older..].join("\n    ");
        let stats = self.port.stats();
        format!("  packets so far ({older} older ones left out):\n    {latest}\n  {stats:?}")
    }

    /// The address of the rig's listener, which starts accepting at the first call.
    pub(crate) fn address(&mut self) -> Address {
        if self.listener.is_none() {
            let listener = self.listen(([127, 0, 0, 1], 0));
            let address = listener.local_addr().expect("a listener has an address");
            self.listener = Some((listener, address));
        }
        self.listener.as_ref().expect("set above").1.clone()
    }

    /// Another listener with the listener's key, accepting.
    pub(crate) fn listen(&self, at: impl Into<ListenOptions>) -> Listener {
        let listener = self.port.listen(at, LISTENER).expect("loopback listens");
        listener
            .socket()
            .accept()
            .expect("a fresh listener accepts");
        listener
    }

    /// A socket that the case has made, with the key 1.
    pub(crate) fn associate(&self, socket: impl Into<OwnedDescriptor>) -> Stream {
        let socket = socket.into();
        self.port.associate(socket, Key(1)).expect("room")
    }

    /// A peer that has connected; its `Accepted` packet is on the way.
    pub(crate) fn dial(&mut self) -> Box<dyn Peer> {
        let address = self.address();
        self.network.connect(&address)
    }

    /// The next accepted connection.
    pub(crate) fn accepted(&mut self) -> Accepted {
        self.until("an accepted connection", Rig::find_accepted)
    }

    /// The next accepted connection, if it is there already.
    pub(crate) fn find_accepted(&mut self) -> Option<Accepted> {
        let packet = self.find(|packet| matches!(packet.event, Event::Accepted(_)))?;
        assert_eq!(packet.key, LISTENER, "an accept carries its listener's key");
        match packet.event {
            Event::Accepted(accepted) => Some(accepted),
            _ => unreachable!("asked for an accepted connection"),
        }
    }

    /// A connection: the port's end, associated with the next key, and the far end.
    pub(crate) fn connection(&mut self) -> (Stream, Box<dyn Peer>) {
        let peer = self.dial();
        let accepted = self.accepted();
        let key = Key(self.next_key);
        self.next_key += 1;
        let stream = self.port.associate(accepted, key).expect("there is room");
        (stream, peer)
    }

    /// The peer sends all of `bytes`.
    pub(crate) fn say(&mut self, peer: &mut Box<dyn Peer>, bytes: &[u8]) {
        let mut sent = 0;
        self.until("the peer's send", |rig| {
            match peer.try_send(&bytes[sent..]) {
                Some(count) => sent += count,
                None => rig.fail("the peer's connection is gone"),
            }
            (sent == bytes.len()).then_some(())
        });
    }

    /// What the peer receives, until it is this much.
    pub(crate) fn hear(&mut self, peer: &mut Box<dyn Peer>, count: usize) -> Vec<u8> {
        let mut heard = Vec::with_capacity(count);
        self.until("bytes for the peer", |rig| {
            match peer.try_receive((count - heard.len()).clamp(1, 1 << 20)) {
                Heard::Bytes(bytes) => heard.extend(bytes),
                Heard::Nothing => {}
                end => rig.fail(&format!("{end:?} after {} bytes", heard.len())),
            }
            (heard.len() >= count).then_some(())
        });
        heard
    }

    /// What the peer receives until the connection ends, and how it ends.
    pub(crate) fn hear_end(&mut self, peer: &mut Box<dyn Peer>) -> (Vec<u8>, Heard) {
        let mut heard = Vec::new();
        let end = self.until("an end for the peer", |_| match peer.try_receive(1 << 20) {
            Heard::Bytes(bytes) => {
                heard.extend(bytes);
                None
            }
            Heard::Nothing => None,
            end => Some(end),
        });
        (heard, end)
    }

    /// Checks that the peer receives FIN and nothing before it.
    pub(crate) fn hear_finish(&mut self, peer: &mut Box<dyn Peer>) {
        let heard = self.hear_end(peer);
        assert_eq!(heard, (Vec::new(), Heard::Finished), "the peer hears FIN");
    }

    /// Checks that the peer receives RST.
    pub(crate) fn hear_reset(&mut self, peer: &mut Box<dyn Peer>) {
        assert_eq!(self.hear_end(peer).1, Heard::Reset, "the peer hears RST");
    }

    /// The next lease of this socket.
    pub(crate) fn lease(&mut self, socket: SocketRef) -> Lease {
        let packet = self.expect("received bytes", |packet| {
            packet.socket == socket && matches!(packet.event, Event::Received(_))
        });
        match packet.event {
            Event::Received(lease) => lease,
            _ => unreachable!("asked for received bytes"),
        }
    }

    /// The bytes that this socket receives, until there are this many; returns their leases.
    pub(crate) fn receive(&mut self, socket: SocketRef, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count);
        while bytes.len() < count {
            let lease = self.lease(socket);
            assert!(!lease.is_empty(), "received bytes are never none");
            bytes.extend_from_slice(&lease);
        }
        bytes
    }

    /// Waits for the `Closed` of this socket and checks that no packet of it is left.
    pub(crate) fn closed(&mut self, socket: SocketRef) {
        let packet = self.expect("the socket's Closed", |packet| {
            packet.socket == socket && matches!(packet.event, Event::Closed)
        });
        drop(packet);
        if let Some(late) = self.find(|packet| packet.socket == socket) {
            self.fail(&format!(
                "not the last about its socket: {}",
                describe(&late)
            ));
        }
    }

    /// Waits for the next `Closed`, of any socket.
    pub(crate) fn closed_quietly(&mut self) {
        self.expect("a Closed", |packet| matches!(packet.event, Event::Closed));
    }

    /// Pumps until the ledger satisfies `done`.
    pub(crate) fn until_stats(&mut self, what: &str, done: impl Fn(&Stats) -> bool) {
        self.until(what, |rig| done(&rig.port.stats()).then_some(()));
    }

    fn check_ledger(&mut self) {
        let unexpected = self.packets.front().filter(|_| !self.allowed.packets);
        if let Some(packet) = unexpected {
            self.fail(&format!("nobody expected this: {}", describe(packet)));
        }
        self.packets.clear();
        self.listener = None;
        self.port.close();
        self.waiter = None;
        let stats = self.port.stats();
        let report = self.report();
        assert_eq!(stats.sockets, 0, "sockets are left\n{report}");
        assert_eq!(
            stats.leases, self.allowed.leases,
            "leases are left\n{report}"
        );
        assert_eq!(stats.posts, 0, "posts are left\n{report}");
        assert_eq!(stats.operations_leaked, 0, "operations leaked\n{report}");
        assert_eq!(stats.foreign_packets, 0, "foreign packets came\n{report}");
        let untaken = self.allowed.accepted_untaken;
        assert_eq!(stats.accepted_untaken, untaken, "untaken accepts\n{report}");
        let leaked = self.allowed.waiters_leaked;
        assert_eq!(stats.waiters_leaked, leaked, "leaked waiters\n{report}");
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        *lock(&self.observed.port) = None;
        if !std::thread::panicking() {
            self.check_ledger();
        } else if self.port.sim().is_some() {
            // The simulated network checks the port until its end, and a second failure here would
            // abort all other cases.
            std::mem::forget(self.waiter.take());
            std::mem::forget(self.port.clone());
        }
    }
}

/// Bytes that do not repeat, always the same.
pub(crate) fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..count.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(count);
    bytes
}

/// A packet as a line of the log.
pub(crate) fn describe(packet: &Packet) -> String {
    let event = match &packet.event {
        Event::Received(lease) => format!("Received {} bytes", lease.len()),
        Event::ReceivedInto { count, .. } => format!("ReceivedInto {count} bytes"),
        other => format!("{other:?}"),
    };
    format!("key {} {:?}: {event}", packet.key.0, packet.socket)
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
