//! Sockets in memory: two ends of a connection, listeners, and what happens between them.
//!
//! Breaks and closes follow Linux, because resets are easiest to get wrong there. Bytes that have
//! arrived stay readable. The error is reported once, to the side that asks first. A read after
//! that looks like a graceful end.

use std::collections::VecDeque;

use super::code;
use super::request::Request;
use super::world::World;
use crate::address::Address;
use crate::core::slot::SlotId;
use crate::driver::Direction;

/// An entry of the table, and a generation that tells its successive sockets apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SocketId {
    index: usize,
    generation: u32,
}

impl SocketId {
    /// Returns it as one number, for code that knows nothing of this network.
    pub(super) fn encode(self) -> u64 {
        (u64::from(self.generation) << 32) | self.index as u64
    }

    pub(super) fn decode(number: u64) -> Self {
        SocketId {
            index: number as u32 as usize,
            generation: (number >> 32) as u32,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Sockets {
    entries: Vec<(u32, Option<Socket>)>,
    free: Vec<usize>,
}

impl Sockets {
    pub(super) fn insert(&mut self, socket: Socket) -> SocketId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push((0, None));
            self.entries.len() - 1
        });
        let (generation, place) = &mut self.entries[index];
        *place = Some(socket);
        SocketId {
            index,
            generation: *generation,
        }
    }

    pub(super) fn at(&self, id: SocketId) -> Option<&Socket> {
        let (generation, socket) = self.entries.get(id.index)?;
        socket.as_ref().filter(|_| *generation == id.generation)
    }

    pub(super) fn at_mut(&mut self, id: SocketId) -> Option<&mut Socket> {
        let (generation, socket) = self.entries.get_mut(id.index)?;
        socket.as_mut().filter(|_| *generation == id.generation)
    }

    pub(super) fn stream(&mut self, id: SocketId) -> Option<&mut Stream> {
        match &mut self.at_mut(id)?.role {
            Role::Stream(stream) => Some(stream),
            Role::Connector | Role::Listener(_) => None,
        }
    }

    pub(super) fn listener(&mut self, id: SocketId) -> Option<&mut Listener> {
        match &mut self.at_mut(id)?.role {
            Role::Listener(listener) => Some(listener),
            Role::Connector | Role::Stream(_) => None,
        }
    }

    /// Returns the listener at this address, or at all addresses with its port number.
    pub(super) fn listening_at(&self, address: &Address) -> Option<SocketId> {
        let found = |fits: &dyn Fn(&Address) -> bool| {
            let index = self.entries.iter().position(|(_, socket)| {
                let socket = socket.as_ref();
                socket.is_some_and(|it| matches!(it.role, Role::Listener(_)) && fits(&it.local))
            })?;
            let generation = self.entries[index].0;
            Some(SocketId { index, generation })
        };
        let is_wildcard = |local: &Address| match (local.as_socket_addr(), address.as_socket_addr())
        {
            (Some(local), Some(address)) => {
                local.ip().is_unspecified() && local.port() == address.port()
            }
            _ => false,
        };
        found(&|local| local == address).or_else(|| found(&is_wildcard))
    }

    fn remove(&mut self, id: SocketId) -> Option<Socket> {
        self.at(id)?;
        let (generation, place) = &mut self.entries[id.index];
        *generation += 1;
        self.free.push(id.index);
        place.take()
    }
}

/// The owner of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    /// The port. It has no slot while the socket is accepted and not associated.
    Port {
        raw: u64,
        slot: Option<SlotId>,
    },
    Peer,
}

#[derive(Debug)]
pub(super) struct Socket {
    pub(super) owner: Owner,
    pub(super) local: Address,
    pub(super) peer: Option<Address>,
    pub(super) role: Role,
    reading: Option<Request>,
    writing: Option<Request>,
}

#[derive(Debug)]
pub(super) enum Role {
    /// Not connected yet.
    Connector,
    Stream(Stream),
    Listener(Listener),
}

/// One end of a connection.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// The other end, until it is closed.
    pub(super) other: Option<SocketId>,
    /// Bytes that have arrived and were not read.
    pub(super) incoming: VecDeque<u8>,
    /// After those bytes the other end has sent FIN.
    pub(super) finished: bool,
    /// This end has sent FIN.
    pub(super) write_ended: bool,
    /// Whether the connection is broken, and the code that was not reported yet.
    pub(super) broken: bool,
    pub(super) error: Option<i32>,
}

#[derive(Debug, Default)]
pub(super) struct Listener {
    /// Connections that were not accepted yet, as their near ends.
    pub(super) backlog: VecDeque<SocketId>,
    pub(super) backlog_max: usize,
    /// Connectors that found the backlog full.
    pub(super) knocking: Vec<SocketId>,
}

/// The result of a connect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Knock {
    Connected,
    /// The backlog is full.
    Unanswered,
    Refused,
}

impl Socket {
    pub(super) fn new(owner: Owner, local: Address, peer: Option<Address>, role: Role) -> Self {
        Socket {
            owner,
            local,
            peer,
            role,
            reading: None,
            writing: None,
        }
    }

    pub(super) fn request_mut(&mut self, direction: Direction) -> &mut Option<Request> {
        match direction {
            Direction::Reading => &mut self.reading,
            Direction::Writing => &mut self.writing,
        }
    }

    pub(super) fn request_of(&mut self, direction: Direction) -> Option<&mut Request> {
        self.request_mut(direction).as_mut()
    }
}

impl World {
    /// Connects a socket that is not connected yet to the listener at this address.
    pub(super) fn knock(&mut self, client: SocketId, address: &Address) -> Knock {
        let Some(host) = self.sockets.listening_at(address) else {
            return Knock::Refused;
        };
        let owner = match self.sockets.at(host).expect("found above").owner {
            // It gets its descriptor when it is accepted.
            Owner::Port { .. } => Owner::Port { raw: 0, slot: None },
            Owner::Peer => Owner::Peer,
        };
        let listener = self.sockets.listener(host).expect("found above");
        if listener.backlog.len() >= listener.backlog_max {
            listener.knocking.push(client);
            return Knock::Unanswered;
        }
        let near = self.sockets.at_mut(client).expect("the caller's socket");
        near.peer = Some(address.clone());
        let peer = near.local.clone();
        let role = Role::Stream(Stream {
            other: Some(client),
            ..Stream::default()
        });
        let server = Socket::new(owner, address.clone(), Some(peer), role);
        let server = self.sockets.insert(server);
        let near = self.sockets.at_mut(client).expect("the caller's socket");
        near.role = Role::Stream(Stream {
            other: Some(server),
            ..Stream::default()
        });
        let listener = self.sockets.listener(host).expect("found above");
        listener.backlog.push_back(server);
        self.look_again(host, Direction::Reading);
        Knock::Connected
    }

    /// Takes a connection out of a listener's backlog, and lets connectors try again that found it
    /// full.
    pub(super) fn take_from_backlog(&mut self, host: SocketId, place: usize) -> Option<SocketId> {
        let listener = self.sockets.listener(host)?;
        let taken = listener.backlog.remove(place)?;
        for knocking in std::mem::take(&mut listener.knocking) {
            self.look_again(knocking, Direction::Reading);
        }
        Some(taken)
    }

    /// Breaks a connection at this end, with a code for the side that asks first.
    pub(super) fn break_end(&mut self, id: SocketId, code: i32) {
        let Some(stream) = self.sockets.stream(id) else {
            return;
        };
        if stream.broken {
            return;
        }
        stream.broken = true;
        // After a FIN only senders learn of a reset: the stream was complete.
        stream.error = Some(if stream.finished {
            code::BROKEN_PIPE
        } else {
            code
        });
        self.look_again(id, Direction::Reading);
        self.look_again(id, Direction::Writing);
    }

    /// Breaks a connection at both ends: here with `code`, at the other end with a reset.
    pub(super) fn break_connection(&mut self, id: SocketId, code: i32) {
        let other = self.sockets.stream(id).and_then(|stream| stream.other);
        self.break_end(id, code);
        if let Some(other) = other {
            self.break_end(other, code::RESET);
        }
    }

    /// Sends FIN. Returns whether the connection could still carry it.
    pub(super) fn finish(&mut self, id: SocketId) -> bool {
        let Some(stream) = self.sockets.stream(id) else {
            return false;
        };
        if stream.broken {
            return false;
        }
        stream.write_ended = true;
        if let Some(other) = stream.other {
            if let Some(far) = self.sockets.stream(other) {
                far.finished = true;
                self.look_again(other, Direction::Reading);
            }
        }
        true
    }

    /// Closes a socket, with a reset or with a FIN.
    pub(super) fn close(&mut self, id: SocketId, reset: bool) {
        if reset {
            self.break_connection(id, code::RESET);
        } else {
            self.finish(id);
        }
        let Some(socket) = self.sockets.remove(id) else {
            return;
        };
        if let Owner::Port { raw, .. } = socket.owner {
            if self.by_raw.get(&raw) == Some(&id) {
                self.by_raw.remove(&raw);
            }
        }
        match socket.role {
            Role::Connector => {}
            Role::Stream(stream) => {
                if let Some(other) = stream.other {
                    if let Some(far) = self.sockets.stream(other) {
                        far.other = None;
                        self.look_again(other, Direction::Writing);
                    }
                }
            }
            Role::Listener(listener) => {
                for waiting in listener.backlog {
                    self.close(waiting, true);
                }
                for knocking in listener.knocking {
                    self.look_again(knocking, Direction::Reading);
                }
            }
        }
    }

    /// Closes as `close(2)` does: unread bytes make it a reset.
    pub(super) fn leave(&mut self, id: SocketId) {
        let stream = self.sockets.stream(id);
        let unread = stream.is_some_and(|stream| !stream.incoming.is_empty());
        self.close(id, unread);
    }
}
