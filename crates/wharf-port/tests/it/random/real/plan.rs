//! What a seed decides before it starts: the bounds of the port, its waiters, and how much each
//! side sends.
//!
//! Bounds are small, because then things wait for each other. Half of the seeds move bulk, in
//! buffers so large that it exceeds a batch and a turn of bulk.

use std::time::Duration;

use wharf_port::Builder;

use crate::random::sim::plan::{Bounds, Dice};
use crate::rig::case::{Mode, Where};

/// The number of unkind actions.
pub(crate) const WAYS: usize = 6;
/// How many seeds in a thousand move bulk. In these most streams pause and go on. A stream that
/// lost its wake-up under Wine showed the need: echoed bulk found it, and little else did.
const BULK: usize = 500;

#[derive(Debug)]
pub(crate) struct Plan {
    /// Waiters on the thread of the test.
    pub(crate) waiters: usize,
    /// Additional threads that wait.
    pub(crate) threads: usize,
    /// Packets are left in batches.
    pub(crate) leaves_some: bool,
    pub(crate) bounds: Bounds,
    accepts_posted: u32,
    spin_us_max: u32,
    pub(crate) fars: usize,
    pub(crate) bytes_max: usize,
    pub(crate) ticks: usize,
    /// The most bytes that one action of a far end moves.
    pub(crate) act_bytes_max: usize,
    /// How often in a thousand a lease is kept for a while.
    pub(crate) keeps: usize,
    /// How often in a thousand a lease goes to another thread to be dropped.
    pub(crate) drops_elsewhere: usize,
    /// How often in a thousand turns the program does something unkind: cancels, closes, drops.
    pub(crate) unkind: usize,
    /// Which unkind actions it does: half of them, so that each also shows without the others.
    pub(crate) ways: [bool; WAYS],
    /// How often in a thousand a connection sends nothing of its own: other packets would wake a
    /// stream that stands still.
    pub(crate) silent: usize,
    /// How often in a thousand turns a far end leaves before it has sent everything.
    pub(crate) rude: usize,
    pub(crate) connects_out: bool,
    /// How often in a thousand a far end's connection has little buffer space.
    pub(crate) narrow: usize,
}

impl Plan {
    pub(crate) fn new(at: &Where, dice: &mut Dice) -> Self {
        let bulk = dice.chance(BULK);
        let (waiters, threads) = match at.mode {
            Mode::Shared | Mode::Leader if dice.chance(400) => (1, dice.between(1, 2)),
            Mode::Shared | Mode::Leader => (dice.between(1, 3), 0),
            Mode::Single | Mode::Direct => (1, 0),
        };
        let buffers_bytes: &[u32] = match bulk {
            true => &[16 << 10, 64 << 10],
            false => &[512, 700, 4096],
        };
        let bounds = Bounds::new(dice, 4, &[20, 5_000, 5_000], buffers_bytes);
        let bytes_max = match bulk {
            true => dice.pick(&[1 << 20, 6 << 20]),
            // A buffer at a time takes long enough without many of them.
            false => bounds.buffer_bytes as usize * dice.pick(&[1, 5, 40, 100]),
        };
        Plan {
            waiters,
            threads,
            // With several waiters, packets that one leaves may be overtaken if no turn holds them.
            leaves_some: waiters == 1 && threads == 0 && dice.chance(300),
            bounds,
            accepts_posted: dice.pick(&[1, 4, 16]),
            spin_us_max: if dice.chance(100) { 50 } else { 0 },
            fars: dice.between(1, if bulk { 3 } else { 10 }),
            bytes_max,
            ticks: dice.between(10, 80),
            act_bytes_max: if bulk { 1 << 20 } else { 8 << 10 },
            keeps: dice.pick(&[0, 100, 600]),
            drops_elsewhere: dice.pick(&[0, 0, 300]),
            unkind: dice.pick(&[0, 100, 500]),
            ways: std::array::from_fn(|_| dice.chance(500)),
            silent: dice.pick(&[0, 300, 900]),
            rude: if dice.chance(500) { 0 } else { 8 },
            connects_out: dice.chance(300),
            narrow: dice.pick(&[0, 500, 1_000]),
        }
    }

    pub(crate) fn builder(&self, at: &Where) -> Builder {
        let builder = at
            .builder()
            .spin_max(Duration::from_micros(self.spin_us_max.into()));
        self.bounds
            .apply(builder)
            .accepts_posted(self.accepts_posted)
    }
}
