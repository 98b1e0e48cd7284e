//! The far side: plain sockets that send a pattern of bytes, and check what they receive.
//!
//! Every byte depends on its connection, its direction and its offset, so a byte that is lost,
//! doubled or in the wrong connection shows at once. The pattern repeats after a prime number of
//! bytes, so the loss of a whole buffer, batch or run cannot fit it. It is a table, because
//! computing a byte costs more than copying one.

use std::sync::OnceLock;

use wharf_port::Address;

use crate::random::sim::plan::Dice;
use crate::rig::noise;
use crate::rig::peer::{Heard, Peer};

use super::plan::Plan;

const PERIOD: usize = 262_139;

/// The bytes of this voice from an offset on; at most a period of it.
pub(crate) fn pattern(voice: usize, place: usize, count: usize) -> &'static [u8] {
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let once = noise(PERIOD);
        [&once[..], &once[..]].concat()
    });
    let from = (voice * 7_919 + place) % PERIOD;
    &table[from..from + count.min(PERIOD)]
}

/// Checks that these are the bytes of this voice at this offset.
pub(crate) fn check(voice: usize, place: usize, bytes: &[u8], what: &str) {
    for (part, chunk) in bytes.chunks(PERIOD).enumerate() {
        let from = place + part * PERIOD;
        let expected = pattern(voice, from, chunk.len());
        if let Some(wrong) = chunk.iter().zip(expected).position(|(a, b)| a != b) {
            panic!("C6: {what}: another byte than was said at {}", from + wrong);
        }
    }
}

/// What both sides know of a connection.
#[derive(Debug)]
pub(crate) struct Far {
    peer: Option<Named>,
    /// The address by which the port's side knows it.
    pub(crate) address: Address,
    pub(crate) number: usize,
    bytes: usize,
    pub(crate) said: usize,
    pub(crate) heard: usize,
    /// It has sent FIN.
    pub(crate) finished: bool,
    /// It has left before it had sent everything.
    pub(crate) left: bool,
    /// How it saw the connection end.
    pub(crate) ended: Option<Heard>,
    /// How many bytes it reads at a time, 0 if it does not read at all.
    reads: usize,
    /// The port's side has accepted it.
    pub(crate) taken: bool,
    /// The port's side echoes, and sends nothing of its own.
    pub(crate) echoed: bool,
    /// How many bytes the port's side has sent and not taken back.
    pub(crate) owed: usize,
    /// So far nothing has happened that excuses a loss.
    pub(crate) clean: bool,
    /// A send to it was cancelled, and may be missing between others.
    pub(crate) holed: bool,
    /// The port's side has sent FIN, or will.
    pub(crate) port_finished: bool,
}

/// A peer, whose `Debug` shows nothing.
struct Named(Box<dyn Peer>);

impl std::fmt::Debug for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("open")
    }
}

impl Far {
    pub(crate) fn new(peer: Box<dyn Peer>, number: usize, plan: &Plan, dice: &mut Dice) -> Self {
        Far {
            address: peer.address(),
            peer: Some(Named(peer)),
            number,
            bytes: dice.below(plan.bytes_max + 1),
            said: 0,
            heard: 0,
            finished: false,
            left: false,
            ended: None,
            reads: dice.pick(&[0, 50, 2_000, 1 << 17]),
            taken: false,
            echoed: false,
            owed: 0,
            clean: true,
            holed: false,
            port_finished: false,
        }
    }

    /// The pattern that it sends, and that the port's side sends to it.
    pub(crate) fn voice(&self) -> usize {
        2 * self.number
    }

    pub(crate) fn port_voice(&self) -> usize {
        2 * self.number + usize::from(!self.echoed)
    }

    /// How many bytes it has sent and received.
    pub(crate) fn moved(&self) -> usize {
        self.said + self.heard
    }

    pub(crate) fn act(&mut self, plan: &Plan, dice: &mut Dice) {
        if self.taken && dice.chance(plan.rude) {
            self.left = true;
            match self.peer.take() {
                Some(peer) if dice.chance(500) => peer.0.reset(),
                peer => drop(peer),
            }
            return;
        }
        if dice.chance(600) {
            let most = dice.pick(&[1, 100, 1_000, plan.act_bytes_max]);
            self.say(most);
        }
        if self.reads > 0 {
            self.hear(dice.between(1, self.reads));
        }
    }

    /// Sends and receives what it can, in small and large parts, so that the port's end is
    /// sometimes empty and sometimes never; returns whether it has received the end.
    pub(crate) fn settle(&mut self, plan: &Plan, dice: &mut Dice) -> bool {
        let piece = plan.act_bytes_max / 8;
        self.say(dice.pick(&[0, piece / 8, piece, 1 << 20]));
        self.hear(dice.pick(&[1 + piece / 8, piece, 1 << 17]));
        self.ended.is_some() || self.peer.is_none()
    }

    fn say(&mut self, most: usize) {
        let voice = self.voice();
        let Some(Named(peer)) = &mut self.peer else {
            return;
        };
        let until = self.bytes.min(self.said + most);
        while self.said < until {
            match peer.try_send(pattern(voice, self.said, until - self.said)) {
                Some(0) => return,
                Some(count) => self.said += count,
                // The connection is over; the next receive shows how.
                None => {
                    self.bytes = self.said;
                    break;
                }
            }
        }
        if self.said == self.bytes && !self.finished {
            peer.finish();
            self.finished = true;
        }
    }

    fn hear(&mut self, most: usize) {
        let voice = self.port_voice();
        let Some(Named(peer)) = &mut self.peer else {
            return;
        };
        if self.ended.is_some() {
            return;
        }
        let what = format!("far end {}", self.number);
        match peer.try_receive(most) {
            Heard::Bytes(bytes) => {
                assert!(self.taken, "C6: {what} hears before anybody took it");
                if !self.holed {
                    check(voice, self.heard, &bytes, &what);
                }
                self.heard += bytes.len();
                assert!(self.heard <= self.owed, "C6: {what} hears too much");
            }
            Heard::Nothing => {}
            Heard::Finished => {
                assert!(self.port_finished, "C11: {what} hears FIN that nobody sent");
                self.ended = Some(Heard::Finished);
            }
            // The port's side may learn the reason later.
            Heard::Reset => self.ended = Some(Heard::Reset),
        }
    }

    /// Checks that a peer without faults has received everything that was sent to it, and FIN.
    pub(crate) fn check_end(&self) {
        if !self.taken || !self.clean || !self.finished || self.left {
            return;
        }
        let number = self.number;
        assert_eq!(
            self.heard, self.owed,
            "C6: far end {number} was to hear all"
        );
        let ended = &self.ended;
        assert_eq!(
            *ended,
            Some(Heard::Finished),
            "C11: far end {number} was to hear FIN"
        );
    }
}
