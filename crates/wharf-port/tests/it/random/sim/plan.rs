//! What a seed decides before it starts: the bounds of the port, the faults, the peers.
//!
//! Half of all faults are off in half of all seeds, so that each also shows without the others.
//! Bounds are small, because then things wait for each other.

use std::time::Duration;

use wharf_port::sim::SimOptions;
use wharf_port::{Builder, PoolOptions, Port};

/// The test's own dice, separate from those of the network.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Dice(seed.wrapping_mul(0x2545_F491_4F6C_DD1D) ^ 0x9E37_79B9_7F4A_7C15)
    }

    pub(crate) fn roll(&mut self) -> u64 {
        // Xorshift, which is good enough for a test and stands still only at 0.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound as u64) as usize
    }

    /// A number of this range, both ends included.
    pub(crate) fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most - least + 1)
    }

    pub(crate) fn chance(&mut self, per_mille: usize) -> bool {
        self.below(1000) < per_mille
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// The bounds of a port. They are small, because then things wait for each other.
#[derive(Debug)]
pub(crate) struct Bounds {
    sockets_max: u32,
    pub(crate) batch_max: usize,
    turn_packets_max: u32,
    pub(crate) leases_per_socket: u32,
    send_queue_bytes_max: usize,
    operations_per_socket_max: u32,
    pub(crate) flush_ms_max: u32,
    pub(crate) buffer_bytes: u32,
    pub(crate) buffers: usize,
}

impl Bounds {
    /// The rest of them is for every network the same.
    pub(crate) fn new(
        dice: &mut Dice,
        sockets_least: usize,
        flushes_ms_max: &[u32],
        buffers_bytes: &[u32],
    ) -> Self {
        Bounds {
            sockets_max: dice.between(sockets_least, 20) as u32,
            batch_max: dice.pick(&[1, 2, 3, 8, 64]),
            turn_packets_max: dice.pick(&[1, 2, 8]),
            leases_per_socket: dice.pick(&[1, 2, 4]),
            send_queue_bytes_max: dice.pick(&[1, 600, 4_000, 64_000]),
            operations_per_socket_max: dice.pick(&[1, 3, 64]),
            flush_ms_max: dice.pick(flushes_ms_max),
            buffer_bytes: dice.pick(buffers_bytes),
            buffers: dice.between(1, 8),
        }
    }

    pub(crate) fn apply(&self, builder: Builder) -> Builder {
        builder
            .sockets_max(self.sockets_max)
            .batch_max(self.batch_max as u32)
            .turn_packets_max(self.turn_packets_max)
            .leases_per_socket(self.leases_per_socket)
            .send_queue_bytes_max(self.send_queue_bytes_max)
            .operations_per_socket_max(self.operations_per_socket_max)
            .flush_max(Duration::from_millis(self.flush_ms_max.into()))
            .pool(
                PoolOptions::new()
                    .buffer_bytes(self.buffer_bytes)
                    .pool_bytes_max(self.buffers * self.buffer_bytes as usize),
            )
    }
}

/// Everything that a seed decides in advance.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) network: SimOptions,
    pub(crate) single_waiter: bool,
    /// Waiters, all on the thread of the test.
    pub(crate) waiters: usize,
    /// Packets are left in batches.
    pub(crate) leaves_some: bool,
    pub(crate) bounds: Bounds,
    pub(crate) clients: usize,
    pub(crate) bytes_max: usize,
    pub(crate) ticks: usize,
    /// How often in a thousand turns the program does something unkind: cancels, closes, drops.
    pub(crate) unkind: usize,
    /// How often in a thousand turns a client leaves before it has sent everything.
    pub(crate) rude: usize,
    pub(crate) connects_out: bool,
}

impl Plan {
    pub(crate) fn new(seed: u64, dice: &mut Dice) -> Self {
        let lossless = dice.chance(400);
        let single_waiter = dice.chance(300);
        let waiters = if single_waiter { 1 } else { dice.between(1, 3) };
        let storm = storm(seed, dice);
        Plan {
            network: if lossless { storm.lossless() } else { storm },
            single_waiter,
            waiters,
            // With several waiters, packets that one leaves may be overtaken if no turn holds them.
            leaves_some: waiters == 1 && dice.chance(400),
            bounds: Bounds::new(dice, 10, &[1, 50, 5_000], &[512, 700, 4096]),
            clients: dice.between(1, 12),
            // A byte at a time takes long enough without many of them.
            bytes_max: match storm.buffer_bytes {
                1 => dice.pick(&[10, 200]),
                _ => dice.pick(&[10, 2_000, 12_000]),
            },
            ticks: dice.between(30, 250),
            unkind: if dice.chance(300) { 0 } else { 60 },
            rude: if lossless && dice.chance(700) { 0 } else { 8 },
            connects_out: dice.chance(400),
        }
    }

    pub(crate) fn builder(&self) -> Builder {
        let builder = Port::builder().sim(self.network);
        let builder = if self.single_waiter {
            builder.single_waiter()
        } else {
            builder.shared()
        };
        self.bounds.apply(builder)
    }

    /// Whether a connection may break although neither side wants it.
    pub(crate) fn breaks(&self) -> bool {
        self.network.receive_errors > 0 || self.network.send_errors > 0
    }

    /// The same network without any fault.
    pub(crate) fn calm(&self) -> SimOptions {
        SimOptions {
            delay_us_max: self.network.delay_us_max,
            buffer_bytes: self.network.buffer_bytes,
            ..SimOptions::new(self.network.seed)
        }
    }
}

fn storm(seed: u64, dice: &mut Dice) -> SimOptions {
    let mut sometimes = |most: usize| {
        if dice.chance(500) {
            dice.between(1, most) as u16
        } else {
            0
        }
    };
    SimOptions {
        short_receives: sometimes(600),
        short_sends: sometimes(600),
        receive_errors: sometimes(20),
        send_errors: sometimes(20),
        connect_errors: sometimes(300),
        accept_errors: sometimes(300),
        descriptor_shortages: sometimes(300),
        accept_bursts: sometimes(800),
        late_cancels: sometimes(800),
        unasked_cancels: sometimes(300),
        late_ends: sometimes(800),
        delay_us_max: dice.pick(&[0, 10, 1_000, 20_000]),
        buffer_bytes: dice.pick(&[1, 100, 3_000, 64 * 1024]),
        ..SimOptions::new(seed)
    }
}
