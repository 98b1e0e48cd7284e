//! What a seed decides before it starts: the port, the network, and the threads.

use wharf_port::sim::SimOptions;
use wharf_port::{Builder, PoolOptions, Port};

use crate::random::sim::plan::Dice;

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) network: SimOptions,
    pub(crate) batch_max: usize,
    turn_packets_max: u32,
    leases_per_socket: u32,
    buffers: usize,
    /// How often in a thousand steps a thread goes on, although others could.
    pub(crate) keeps: u16,
    /// How long threads sleep, more often than not.
    pub(crate) beat_us: u64,
    pub(crate) waiters: usize,
    /// The number of waits until a waiter leaves, and another one comes.
    pub(crate) waits_max: usize,
    /// Packets are left in batches.
    pub(crate) leaves_some: bool,
    /// How often in a thousand packets a handler panics.
    pub(crate) panics: usize,
    pub(crate) clients: usize,
    pub(crate) bytes_max: usize,
    pub(crate) posters: usize,
    pub(crate) posts: usize,
    pub(crate) timers: usize,
    /// How often in a thousand times a thread drops a connection, or cancels its receive.
    pub(crate) meddles: usize,
    /// The port closes before all is done.
    pub(crate) closes_early: bool,
}

impl Plan {
    pub(crate) fn new(seed: u64, dice: &mut Dice) -> Self {
        let mut sometimes = |most: usize| {
            if dice.chance(500) {
                dice.between(1, most) as u16
            } else {
                0
            }
        };
        let network = SimOptions {
            short_receives: sometimes(300),
            short_sends: sometimes(300),
            descriptor_shortages: sometimes(200),
            accept_bursts: sometimes(800),
            late_cancels: sometimes(800),
            unasked_cancels: sometimes(200),
            wait_errors: sometimes(150),
            ..SimOptions::new(seed)
        };
        Plan {
            network: SimOptions {
                one_leads: dice.chance(700),
                delay_us_max: dice.pick(&[0, 0, 10, 1_000]),
                buffer_bytes: dice.pick(&[100, 3_000, 64 * 1024]),
                ..network
            },
            batch_max: dice.pick(&[1, 2, 8, 8]),
            turn_packets_max: dice.pick(&[1, 2, 8, 8]),
            leases_per_socket: dice.pick(&[1, 2, 4, 4]),
            buffers: dice.between(1, 8),
            keeps: dice.pick(&[0, 300, 700, 900]),
            beat_us: dice.pick(&[50, 200, 1_000]),
            waiters: dice.between(2, 5),
            waits_max: dice.pick(&[2, 5, 30]),
            leaves_some: dice.chance(500),
            panics: dice.pick(&[0, 0, 30]),
            clients: dice.between(0, 4),
            bytes_max: dice.pick(&[1, 60, 1_500, 6_000]),
            posters: dice.between(0, 2),
            posts: dice.between(1, 25),
            timers: dice.between(0, 20),
            meddles: dice.pick(&[0, 100, 500]),
            closes_early: dice.chance(350),
        }
    }

    pub(crate) fn builder(&self) -> Builder {
        let buffer_bytes = 512;
        Port::builder()
            .sim(self.network)
            .batch_max(self.batch_max as u32)
            .turn_packets_max(self.turn_packets_max)
            .leases_per_socket(self.leases_per_socket)
            .pool(
                PoolOptions::new()
                    .buffer_bytes(buffer_bytes)
                    .pool_bytes_max(self.buffers * buffer_bytes as usize),
            )
    }
}
