//! The knowledge of all threads: what is owed, which thread has which turn, and what was received.
//!
//! It is in one mutex that no thread holds at a step, so no thread ever waits for it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Instant;

use wharf_port::{Lease, Op, SocketRef, Stream};

use super::Tally;
use crate::random::sim::crowd::byte_at;
use crate::random::sim::plan::Dice;

/// A connection on the port's side.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Its owner, unless the port owns it.
    pub(crate) stream: Option<Stream>,
    /// Its client, which the first byte shows.
    client: Option<usize>,
    received: usize,
    /// Its receive.
    pub(crate) receives: Option<Op>,
}

impl Connection {
    pub(crate) fn new(stream: Option<Stream>) -> Self {
        Connection {
            stream,
            client: None,
            received: 0,
            receives: None,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) tally: Tally,
    /// Values posted and not taken.
    pub(crate) posts: BTreeSet<u64>,
    pub(crate) timers: HashMap<Op, Instant>,
    pub(crate) cancelled: HashSet<Op>,
    pub(crate) connections: HashMap<SocketRef, Connection>,
    /// Sockets that their owner has dropped, and their clients.
    dropped: HashSet<SocketRef>,
    pub(crate) forsaken: HashSet<usize>,
    /// The actor that has the turn of a socket.
    turns: HashMap<SocketRef, usize>,
    /// Leases that another thread returns.
    pub(crate) leases: Vec<Lease>,
    /// Actors that still have something to send: the port stays open for them.
    pub(crate) busy: usize,
    /// The port is being closed.
    pub(crate) closed: bool,
    /// When it must be over, if it shuts down gracefully.
    pub(crate) ends_by: Option<Instant>,
    /// Waiters that wait, or will; and whether there was a moment without one.
    pub(crate) waiters: usize,
    pub(crate) was_left: bool,
    /// When the first of them saw the end.
    pub(crate) heard: Option<Instant>,
}

impl Books {
    /// Whether nothing is owed any more.
    pub(crate) fn is_settled(&self) -> bool {
        self.busy == 0
            && self.posts.is_empty()
            && self.timers.is_empty()
            && self.cancelled.is_empty()
            && self.connections.is_empty()
    }

    /// A waiter leaves. The last one closes a port that shuts down gracefully.
    pub(crate) fn waiter_goes(&mut self) {
        self.waiters -= 1;
        self.was_left |= self.waiters == 0 && self.heard.is_none();
    }

    /// All have ended: a graceful shutdown, in its time, has delivered the packets of posts and
    /// timers.
    pub(crate) fn check_the_end(&mut self) {
        let (Some(by), Some(heard), false) = (self.ends_by, self.heard, self.was_left) else {
            return;
        };
        if heard < by {
            assert!(self.posts.is_empty(), "C16: lost are {:?}", self.posts);
            assert!(
                self.cancelled.is_empty(),
                "C2: {} lost",
                self.cancelled.len()
            );
            self.tally.in_order += 1;
        }
    }

    pub(crate) fn owed(&self) -> String {
        format!(
            "{} actors busy, {} posts, {} timers, {} cancelled, connections {:?}",
            self.busy,
            self.posts.len(),
            self.timers.len(),
            self.cancelled.len(),
            self.connections
        )
    }

    /// An actor got a packet of this socket.
    pub(crate) fn take_turn(&mut self, socket: SocketRef, actor: usize) {
        let holder = *self.turns.entry(socket).or_insert(actor);
        assert_eq!(
            holder, actor,
            "C18: a packet while another waiter has its socket's turn"
        );
    }

    /// No packet is delivered of a socket whose owner has dropped it.
    pub(crate) fn check_known(&self, socket: SocketRef) {
        assert!(
            !self.dropped.contains(&socket),
            "C11: a packet about a socket that was dropped"
        );
    }

    /// A random connection with an owner and a known client; preferably one whose packets a thread
    /// is handling.
    pub(crate) fn some_owned(&self, dice: &mut Dice) -> Option<(SocketRef, usize)> {
        let owned = self.connections.iter().filter_map(|(socket, it)| {
            let client = it.client.filter(|_| it.stream.is_some())?;
            Some((*socket, client))
        });
        let mut owned: Vec<(SocketRef, usize)> = owned.collect();
        if owned
            .iter()
            .any(|(socket, _)| self.turns.contains_key(socket))
        {
            owned.retain(|(socket, _)| self.turns.contains_key(socket));
        }
        owned.sort_by_key(|(_, client)| *client);
        (!owned.is_empty()).then(|| owned[dice.below(owned.len())])
    }

    /// Removes a connection. The caller drops its owner before another thread goes on.
    pub(crate) fn drop_one(&mut self, dice: &mut Dice) -> Option<Stream> {
        let (socket, client) = self.some_owned(dice)?;
        self.dropped.insert(socket);
        self.forsaken.insert(client);
        self.connections.remove(&socket)?.stream
    }

    /// The turns of this actor end.
    pub(crate) fn end_turns(&mut self, actor: usize) {
        self.turns.retain(|_, holder| *holder != actor);
    }

    /// Bytes came. They must be the next that the client has sent.
    pub(crate) fn received(&mut self, socket: SocketRef, bytes: &[u8]) {
        let connection = self.connections.get_mut(&socket);
        let connection = connection.expect("C11: bytes of a connection that is over");
        for byte in bytes {
            let client = *connection.client.get_or_insert(usize::from(*byte));
            let expected = said_at(client, connection.received);
            assert_eq!(*byte, expected, "C6: another byte than the client said");
            connection.received += 1;
        }
    }

    pub(crate) fn note(&mut self, kind: u64, what: u64) {
        let mixed = self.tally.digest ^ (kind << 56) ^ what;
        self.tally.digest = mixed.wrapping_mul(0x0000_0100_0000_01B3).rotate_left(17);
    }
}

/// The bytes of a client: its number, and then a pattern.
pub(crate) fn said_at(client: usize, place: usize) -> u8 {
    match place {
        0 => client as u8,
        place => byte_at(client, place),
    }
}
