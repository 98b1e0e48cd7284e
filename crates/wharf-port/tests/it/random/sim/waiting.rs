//! Several waiters on one thread, which a shared port allows: everything that threads could do to
//! each other between two waits, chosen by the seed and the same each time.
//!
//! Turns are checked here (C18): while one waiter holds packets of a socket, no other gets any.

use std::collections::HashSet;
use std::time::Duration;

use wharf_port::sim::Network;
use wharf_port::{Event, Packet, Port, SocketRef, Wait, Waiter};

use crate::random::two_of;
use crate::rig::LISTENER;

use super::plan::{Dice, Plan};

pub(crate) struct Waiters {
    waiters: Vec<Waiter>,
    /// Some packets stay in the waiter for its next wait, or for the next waiter.
    leaves_some: bool,
}

impl Waiters {
    pub(crate) fn new(port: &Port, plan: &Plan) -> Self {
        let waiter = |_| port.waiter().expect("room for a waiter");
        Waiters {
            waiters: (0..plan.waiters).map(waiter).collect(),
            leaves_some: plan.leaves_some,
        }
    }

    /// Waits once, at most this long; sometimes on two waiters, of which the first still has its
    /// turns when the second looks.
    pub(crate) fn take(
        &mut self,
        at_most: Duration,
        network: &Network,
        plan: &Plan,
        dice: &mut Dice,
    ) -> Vec<Packet> {
        let count = self.waiters.len();
        let first = dice.below(count);
        if count == 1 || !dice.chance(200) {
            let some = self.leaves_some;
            return wait(&mut self.waiters[first], at_most, network, plan, |batch| {
                let most = if some { dice.between(0, 3) } else { usize::MAX };
                batch.take(most).collect()
            });
        }
        let second = (first + 1 + dice.below(count - 1)) % count;
        let (one, other) = two_of(&mut self.waiters, first, second);
        wait(one, at_most, network, plan, |batch| {
            let mut packets: Vec<Packet> = batch.collect();
            let held: HashSet<SocketRef> = packets.iter().filter_map(in_turn).collect();
            let others = wait(other, Duration::ZERO, network, plan, |batch| {
                batch.collect::<Vec<_>>()
            });
            for packet in &others {
                assert!(
                    in_turn(packet).is_none_or(|socket| !held.contains(&socket)),
                    "C18: {packet:?} while another waiter has its socket's turn"
                );
            }
            packets.extend(others);
            packets
        })
    }

    /// One waiter leaves, and another one comes.
    pub(crate) fn replace_one(&mut self, port: &Port, dice: &mut Dice) {
        let place = dice.below(self.waiters.len());
        drop(self.waiters.swap_remove(place));
        self.waiters.push(port.waiter().expect("one has just gone"));
    }

    /// All but one leave, and give back what they had at hand.
    pub(crate) fn only_one(&mut self) -> &mut Waiter {
        self.waiters.truncate(1);
        &mut self.waiters[0]
    }

    pub(crate) fn take_everything_from_now_on(&mut self) {
        self.leaves_some = false;
    }
}

/// Waits once on one waiter, and lets `take` examine the batch as long as it lasts.
fn wait(
    waiter: &mut Waiter,
    at_most: Duration,
    network: &Network,
    plan: &Plan,
    take: impl FnOnce(&mut dyn Iterator<Item = Packet>) -> Vec<Packet>,
) -> Vec<Packet> {
    let deadline = network.now() + at_most;
    match waiter.wait(Some(at_most)).expect("C5: no error") {
        Wait::Packets(mut batch) => {
            assert!(!batch.is_empty(), "C5: packets, and there are none");
            assert!(batch.len() <= plan.bounds.batch_max, "C4: {}", batch.len());
            take(&mut batch)
        }
        Wait::TimedOut => {
            assert!(network.now() >= deadline, "C5: a wait ended early");
            take(&mut std::iter::empty())
        }
        Wait::Closed => panic!("C5: nobody closed the port"),
    }
}

/// The socket whose turn this packet takes; timers, posts and listeners have no turns.
pub(crate) fn in_turn(packet: &Packet) -> Option<SocketRef> {
    let loose = matches!(
        packet.event,
        Event::Timer | Event::TimerCancelled | Event::Posted(_)
    ) || packet.key == LISTENER;
    (!loose).then_some(packet.socket)
}
