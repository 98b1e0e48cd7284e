//! Timers: a million armed, cancelled, and expired.
//!
//! An iteration is a million of them, because the cost of the millionth matters. Deadlines are
//! random within half a minute, like timeouts of a million connections. The table grows before the
//! clock runs, in a round that is not counted.

use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput};
use wharf_port::{Event, Key, Op, Port, Waiter};

use crate::kind::{Kind, take};

const TIMERS: usize = 1_000_000;
/// Timers that are cancelled in a row; their packets are taken while the clock stands.
const RUN: usize = 256;
/// Timers that do not expire in a measurement have deadlines from here on.
const FAR: Duration = Duration::from_secs(600);
const SPREAD: Duration = Duration::from_secs(30);
/// Those that expire are all set before the first is due.
const NEAR: Duration = Duration::from_millis(600);
const SPREAD_NEAR: Duration = Duration::from_millis(200);

pub(crate) fn all(criterion: &mut Criterion) {
    for (name, measure) in [
        ("timer armed", armed as fn(&mut Bench) -> Duration),
        ("timer cancelled", cancelled),
        ("timer cancelled in any order", cancelled_in_any_order),
        ("timer expired", expired),
    ] {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(TIMERS as u64));
        group.sampling_mode(SamplingMode::Flat).sample_size(10);
        for kind in Kind::everywhere() {
            let mut bench = Bench::new(kind);
            group.bench_function(kind.to_string(), |bencher| {
                bencher.iter_custom(|times| (0..times).map(|_| measure(&mut bench)).sum());
            });
        }
        group.finish();
    }
}

/// A port whose table has had a million timers.
struct Bench {
    port: Port,
    waiter: Waiter,
    ops: Vec<Op>,
    deadlines: Vec<Instant>,
    random: Random,
}

impl Bench {
    fn new(kind: Kind) -> Self {
        let (port, waiter) = kind.build();
        let mut bench = Bench {
            port,
            waiter,
            ops: Vec::with_capacity(TIMERS),
            deadlines: Vec::with_capacity(TIMERS),
            random: Random(0x5eed),
        };
        cancelled(&mut bench);
        bench
    }

    fn now(&self) -> Instant {
        self.port
            .sim()
            .map_or_else(Instant::now, |network| network.now())
    }

    /// Draws random deadlines, `from` after now and over `spread`.
    fn draw(&mut self, from: Duration, spread: Duration) {
        let start = self.now() + from;
        let most = spread.as_nanos() as usize;
        self.deadlines.clear();
        for _ in 0..TIMERS {
            let after = Duration::from_nanos(self.random.below(most) as u64);
            self.deadlines.push(start + after);
        }
    }

    /// Arms a timer for each deadline; returns how long that took.
    fn arm(&mut self) -> Duration {
        self.ops.clear();
        let start = Instant::now();
        for (key, deadline) in (0..).zip(&self.deadlines) {
            let op = self.port.timer(*deadline, Key(key)).expect("there is room");
            self.ops.push(op);
        }
        start.elapsed()
    }

    /// Cancels every timer; returns how long that took, without taking the packets.
    fn cancel(&mut self) -> Duration {
        let mut spent = Duration::ZERO;
        for run in self.ops.chunks(RUN) {
            let start = Instant::now();
            for op in run {
                self.port.cancel(*op);
            }
            spent += start.elapsed();
            take(&mut self.waiter, run.len(), |packet| {
                matches!(packet.event, Event::TimerCancelled)
            });
        }
        spent
    }
}

fn armed(bench: &mut Bench) -> Duration {
    bench.draw(FAR, SPREAD);
    let spent = bench.arm();
    bench.cancel();
    spent
}

fn cancelled(bench: &mut Bench) -> Duration {
    bench.draw(FAR, SPREAD);
    bench.arm();
    bench.cancel()
}

fn cancelled_in_any_order(bench: &mut Bench) -> Duration {
    bench.draw(FAR, SPREAD);
    bench.arm();
    for last in (1..bench.ops.len()).rev() {
        bench.ops.swap(last, bench.random.below(last + 1));
    }
    bench.cancel()
}

fn expired(bench: &mut Bench) -> Duration {
    bench.draw(NEAR, SPREAD_NEAR);
    bench.arm();
    let last = bench.deadlines.iter().max().expect("there are timers");
    let left = last.saturating_duration_since(bench.now());
    match bench.port.sim() {
        Some(network) => network.advance(left),
        None => std::thread::sleep(left),
    }
    let start = Instant::now();
    take(&mut bench.waiter, TIMERS, |packet| {
        matches!(packet.event, Event::Timer)
    });
    start.elapsed()
}

/// Good enough to spread, and the same in every run (64-bit xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * bound as u128) >> 64) as usize
    }
}
