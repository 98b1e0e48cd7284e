//! The far side: clients that send a pattern of bytes, and check that it comes back.
//!
//! Every byte depends on its client and its offset, so a byte that is lost, doubled or in the wrong
//! connection shows at once.

use wharf_port::Address;
use wharf_port::sim::{Heard, Network, Peer};

use super::plan::{Dice, Plan};

/// The byte of this client at this offset.
pub(crate) fn byte_at(client: usize, place: usize) -> u8 {
    let mixed = (place as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (client as u64) << 40;
    (mixed.wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 56) as u8
}

/// What both sides know of a connection.
#[derive(Debug)]
pub(crate) struct Client {
    peer: Option<Peer>,
    /// The address by which the port's side knows this client.
    pub(crate) address: Address,
    bytes: usize,
    pub(crate) said: usize,
    heard: usize,
    /// It has sent FIN.
    pub(crate) finished: bool,
    /// It has left before it had sent everything.
    pub(crate) left: bool,
    /// How it saw the connection end.
    ended: Option<Heard>,
    /// Whether it reads at all, and how many bytes at a time.
    reads: usize,
    /// The port's side has accepted it.
    pub(crate) accepted: bool,
    /// So far nothing has happened that excuses a loss.
    pub(crate) clean: bool,
    /// A send to it was cancelled, and may be missing between others.
    pub(crate) holed: bool,
    /// The port's side has sent FIN, or will.
    pub(crate) port_finished: bool,
}

pub(crate) struct Crowd {
    pub(crate) clients: Vec<Client>,
    wanted: usize,
    bytes_max: usize,
    rude: usize,
    breaks: bool,
}

impl Crowd {
    pub(crate) fn new(plan: &Plan) -> Self {
        Crowd {
            clients: Vec::new(),
            wanted: plan.clients,
            bytes_max: plan.bytes_max,
            rude: plan.rude,
            breaks: plan.breaks(),
        }
    }

    /// No further clients come.
    pub(crate) fn close_the_door(&mut self) {
        self.wanted = self.clients.len();
    }

    pub(crate) fn join(&mut self, peer: Peer, address: Address, dice: &mut Dice) {
        self.clients.push(Client {
            peer: Some(peer),
            address,
            bytes: dice.below(self.bytes_max + 1),
            said: 0,
            heard: 0,
            finished: false,
            left: false,
            ended: None,
            reads: dice.pick(&[0, 1, 50, 2_000, 1 << 20]),
            accepted: false,
            clean: true,
            holed: false,
            port_finished: false,
        });
    }

    /// Some of the clients do something.
    pub(crate) fn act(&mut self, network: &Network, to: &Address, dice: &mut Dice) {
        while self.clients.len() < self.wanted && dice.chance(400) {
            match network.connect(to) {
                Ok(peer) => {
                    let address = peer.address();
                    self.join(peer, address, dice);
                }
                Err(_) => break,
            }
        }
        for place in 0..self.clients.len() {
            if dice.chance(300) {
                let rude = dice.chance(self.rude);
                self.clients[place].act(place, rude, dice);
            }
        }
    }

    /// All clients send and receive what they can; returns whether all are done.
    pub(crate) fn settle(&mut self) -> bool {
        let mut done = true;
        for (place, client) in self.clients.iter_mut().enumerate() {
            client.say(place, usize::MAX);
            client.hear(place, usize::MAX);
            done &= client.ended.is_some() || client.peer.is_none();
        }
        done
    }

    /// Checks that a client without faults has received everything that it sent.
    pub(crate) fn check(&self) {
        for (place, client) in self.clients.iter().enumerate() {
            if client.accepted && client.clean && client.finished && !client.left {
                assert_eq!(
                    client.heard, client.said,
                    "client {place} was to hear all that it said"
                );
                // A connection may break when nothing is left to send on it.
                assert!(
                    client.ended == Some(Heard::Finished) || self.breaks,
                    "client {place} was to hear FIN: {:?}",
                    client.ended
                );
            }
        }
    }
}

impl Client {
    fn act(&mut self, place: usize, rude: bool, dice: &mut Dice) {
        if rude {
            self.left = true;
            match self.peer.take() {
                Some(peer) if dice.chance(500) => peer.reset(),
                peer => drop(peer),
            }
            return;
        }
        if dice.chance(600) {
            let most = dice.pick(&[1, 100, 4_000]);
            self.say(place, most);
        }
        let reads = self.reads;
        if reads > 0 {
            self.hear(place, dice.between(1, reads));
        }
    }

    fn say(&mut self, place: usize, most: usize) {
        let Some(peer) = &mut self.peer else { return };
        let count = (self.bytes - self.said).min(most);
        let bytes: Vec<u8> = (0..count)
            .map(|offset| byte_at(place, self.said + offset))
            .collect();
        match peer.send(&bytes) {
            Ok(count) => self.said += count,
            // The connection is over; the next receive shows how.
            Err(_) => self.bytes = self.said,
        }
        if self.said == self.bytes && !self.finished {
            peer.finish();
            self.finished = true;
        }
    }

    fn hear(&mut self, place: usize, most: usize) {
        let Some(peer) = &mut self.peer else { return };
        match peer.try_receive(most.min(1 << 20)) {
            Heard::Bytes(bytes) => {
                assert!(self.ended.is_none(), "client {place} hears after the end");
                for byte in bytes {
                    let expected = byte_at(place, self.heard);
                    assert!(
                        byte == expected || self.holed,
                        "C6: client {place} hears another byte than it said at {}",
                        self.heard
                    );
                    self.heard += 1;
                }
                assert!(self.heard <= self.said, "client {place} hears too much");
            }
            Heard::Nothing => {}
            Heard::Finished => {
                assert!(
                    self.port_finished,
                    "client {place} hears FIN that nobody sent"
                );
                self.ended = Some(Heard::Finished);
            }
            // The port's side may learn the reason later.
            Heard::Reset => self.ended = Some(Heard::Reset),
        }
    }
}
