//! One seed from start to end: a storm, then calm, then nothing may be left.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use wharf_port::{Port, Wait, Waiter};

use crate::random::sim::plan::Dice;
use crate::random::two_of;
use crate::rig::case::Where;
use crate::rig::lock;
use crate::rig::runner::caught;
use crate::rig::system::{is_wine, patience};

use super::plan::Plan;
use super::program::{Program, some_time};

/// Without faults something must move within this time, until everything has ended. The longest
/// that the port itself may take is a flush of 5 s. A limit for all of it was rejected: narrow
/// connections need thousands of steps, and each takes long where the processors are busy.
const CALM_SECONDS_MAX: u64 = 10;
/// A step of waiting for a far end, which wakes no port.
const STEP: Duration = Duration::from_millis(1);
/// The longest wait of an additional thread.
const BESIDES: Duration = Duration::from_millis(5);
/// After this many waits it ends, and another takes its place.
const WAITS_OF_THREAD: usize = 30;

/// What all threads of a seed share.
struct Common {
    port: Port,
    program: Mutex<Program>,
    batch_max: usize,
    leaves_some: bool,
    stop: AtomicBool,
    /// The failure of an additional thread.
    failed: Mutex<Option<String>>,
}

pub(crate) struct Run {
    common: Arc<Common>,
    /// The waiters on this thread.
    waiters: Vec<Waiter>,
    threads: Vec<JoinHandle<()>>,
    /// Dice for choices outside of the program: which waiter waits, and how long.
    dice: Dice,
    ticks: usize,
}

impl Run {
    pub(crate) fn new(seed: u64, at: &Where) -> Self {
        let mut dice = Dice::new(seed);
        let plan = Plan::new(at, &mut dice);
        let port = plan.builder(at).build();
        let port = port.expect("the driver was present before");
        let waiter = |_| port.waiter().expect("room for a waiter");
        let waiters: Vec<_> = (0..plan.waiters).map(waiter).collect();
        let (threads, ticks) = (plan.threads, plan.ticks);
        let (batch_max, leaves_some) = (plan.bounds.batch_max, plan.leaves_some);
        let common = Arc::new(Common {
            port: port.clone(),
            program: Mutex::new(Program::new(port, plan, Dice::new(!seed))),
            batch_max,
            leaves_some,
            stop: AtomicBool::new(false),
            failed: Mutex::default(),
        });
        let besides = |number| {
            let common = Arc::clone(&common);
            std::thread::spawn(move || wait_additionally(&common, 100 + number))
        };
        let threads = (0..threads).map(besides).collect();
        Run {
            common,
            waiters,
            threads,
            dice,
            ticks,
        }
    }

    pub(crate) fn port(&self) -> Port {
        self.common.port.clone()
    }

    pub(crate) fn describe(&self) -> String {
        let failed = lock(&self.common.failed).take();
        // Its failure may be the cause of everything found here.
        let first = failed.map_or(String::new(), |why| {
            format!("before that, besides: {why}\n  ")
        });
        first + &lock(&self.common.program).describe()
    }

    pub(crate) fn go(&mut self) {
        for _ in 0..self.ticks {
            lock(&self.common.program).act();
            if self.waiters.len() > 1 && self.dice.chance(30) {
                let place = self.dice.below(self.waiters.len());
                drop(self.waiters.swap_remove(place));
                let waiter = self.common.port.waiter();
                self.waiters.push(waiter.expect("one has just gone"));
            }
            let at_most = some_time(&mut self.dice);
            self.wait(at_most);
        }
        lock(&self.common.program).calm_down();
        self.until("the connections' ends", Program::go_on);
        lock(&self.common.program).check_fars();
        self.end();
    }

    /// The listener closes. Then nothing is owed, and the port holds nothing.
    fn end(&mut self) {
        lock(&self.common.program).close_listener();
        lock(&self.common.program).world.dropper.end();
        self.until("the end of all operations", |program| program.owed() == 0);
        self.until("the end of all sockets", |program| {
            let stats = program.world.port.stats();
            // Not the timers: on a shared port the timer of the last flush stays until it expires.
            stats.sockets == 0 && stats.accepts_posted == 0
        });
        self.common.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("it keeps what it fails with");
        }
        self.check_threads();
        self.common.port.close();
        self.waiters.clear();
        let stats = self.common.port.stats();
        assert_eq!(stats.leases, 0, "C8: leases are missing: {stats:?}");
        assert_eq!(stats.posts, 0, "C16: posts are left: {stats:?}");
        assert_eq!(stats.listeners_paused, 0, "C12: a listener is left");
        assert_eq!(stats.foreign_packets, 0, "foreign packets came");
        assert_eq!(stats.operations_leaked, 0, "C14: operations leaked");
    }

    /// Waits once, at most this long; sometimes on two waiters, of which the first still has its
    /// turns when the second looks.
    fn wait(&mut self, at_most: Duration) {
        let common = &self.common;
        let count = self.waiters.len();
        let first = self.dice.below(count);
        let most = match common.leaves_some && !lock(&common.program).world.kindly {
            true => self.dice.between(0, 3),
            false => usize::MAX,
        };
        if count == 1 || !self.dice.chance(200) {
            wait(
                common,
                &mut self.waiters[first],
                first,
                at_most,
                most,
                || {},
            );
            return;
        }
        let second = (first + 1 + self.dice.below(count - 1)) % count;
        let (one, other) = two_of(&mut self.waiters, first, second);
        wait(common, one, first, at_most, most, || {
            lock(&common.program).world.ledger.waits();
            wait(common, other, second, Duration::ZERO, usize::MAX, || {});
        });
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Program) -> bool) {
        let (mut moved, mut since) = (0, Instant::now());
        loop {
            let mut program = lock(&self.common.program);
            if done(&mut program) {
                return;
            }
            // It never shrinks and has a bound, so this loop ends.
            if program.moved() > moved {
                (moved, since) = (program.moved(), Instant::now());
            }
            drop(program);
            assert!(
                since.elapsed() < patience(CALM_SECONDS_MAX),
                "liveness: {what} did not come"
            );
            self.check_threads();
            self.wait(STEP);
        }
    }

    fn check_threads(&self) {
        if let Some(failed) = lock(&self.common.failed).take() {
            panic!("on a thread that waits besides: {failed}");
        }
    }
}

/// Waits once and lets the program handle the packets, then does `meanwhile` with the turns held.
fn wait(
    common: &Common,
    waiter: &mut Waiter,
    number: usize,
    at_most: Duration,
    packets_max: usize,
    meanwhile: impl FnOnce(),
) {
    let began = Instant::now();
    match waiter.wait(Some(at_most)).expect("C5: no error") {
        Wait::Packets(mut batch) => {
            assert!(!batch.is_empty(), "C5: packets, and there are none");
            assert!(batch.len() <= common.batch_max, "C4: {}", batch.len());
            for _ in 0..packets_max {
                let Some(packet) = batch.next() else { break };
                lock(&common.program).handle(number, packet);
            }
            meanwhile();
            lock(&common.program).turns_end(number);
        }
        Wait::TimedOut => assert!(began.elapsed() >= at_most, "C5: a wait ended early"),
        Wait::Closed => panic!("C5: nobody closed the port"),
    }
}

/// The work of an additional thread. Several threads do it for a while each, because a thread's
/// requests may end with it.
fn wait_additionally(common: &Common, number: usize) {
    while !common.stop.load(Ordering::Relaxed) && lock(&common.failed).is_none() {
        let waits = || {
            let mut waiter = common.port.waiter().expect("room for a waiter");
            // Under Wine 8 and 10, a partial send whose thread ends is reported as failed with 997,
            // "pending". So there the threads stay, and other systems test what a thread leaves
            // behind.
            let waits = if is_wine() {
                usize::MAX
            } else {
                WAITS_OF_THREAD
            };
            for _ in 0..waits {
                if common.stop.load(Ordering::Relaxed) {
                    break;
                }
                wait(common, &mut waiter, number, BESIDES, usize::MAX, || {});
            }
        };
        let done = std::thread::scope(|scope| {
            let thread = scope.spawn(|| caught(waits));
            thread.join().expect("it was caught")
        });
        if let Err(failed) = done {
            *lock(&common.failed) = Some(failed);
        }
    }
}
