//! The threads of one process: their ports, their shared counters, and the orders of each.

use std::cell::Cell;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use wharf_port::{Address, Port};

use super::parting::Parting;
use super::watch::{News, Watched};
use super::worker::{Aim, Orders, Worker};
use crate::load::TALK_FOR;
use crate::load::model::ledger::{Latencies, Ledger};
use crate::load::model::schedule::{Pace, Schedule};
use crate::load::model::standing::Standing;
use crate::load::model::traffic::Noise;
use crate::load::options::LoadOptions;
use crate::load::split::open_at_once_max;
use crate::processes::descriptors::share;
use crate::processes::{Threads, raise_descriptors};
use crate::{signals, threads};

/// One process's share of a load.
#[derive(Debug)]
pub(crate) struct Crew {
    pub(crate) ports: Vec<Port>,
    threads: Threads,
    start: Instant,
    ledger: Ledger,
    latencies: Vec<Mutex<Latencies>>,
    parting: Parting,
}

/// The crew while it works.
#[derive(Debug)]
pub(crate) struct AtWork<'a> {
    crew: &'a Crew,
    words: Receiver<Word>,
    /// Threads that hold their connections until they may leave.
    holding: Cell<u32>,
}

/// The reports of a thread to the main thread.
#[derive(Debug)]
enum Word {
    Holds,
    Ended(Result<(), String>),
}

/// A port for each thread.
pub(crate) fn build_ports(options: &LoadOptions, threads: Threads) -> Result<Vec<Port>, String> {
    let limit = raise_descriptors();
    let build = |thread| {
        let share = share(threads, thread, options.connections);
        let builder = Port::builder().driver(options.driver).single_waiter();
        let builder = options
            .division
            .descriptors
            .of_port(builder, Some(share), limit);
        builder.build().map_err(|error| error.to_string())
    };
    (0..threads.count).map(build).collect()
}

impl Crew {
    /// Starts the clock of the load.
    pub(crate) fn begin(ports: Vec<Port>, threads: Threads) -> Self {
        let start = Instant::now();
        Crew {
            threads,
            start,
            ledger: Ledger::new(start),
            latencies: ports.iter().map(|_| Mutex::new(Latencies::new())).collect(),
            ports,
            parting: Parting::default(),
        }
    }

    /// Lets all threads close what they hold.
    pub(crate) fn leave(&self) {
        self.parting.open();
    }

    /// Runs the threads while `watch` runs.
    pub(crate) fn work(
        &self,
        options: &LoadOptions,
        targets: &[Address],
        watch: impl FnOnce(&AtWork<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let noise = Noise::new(options.seed);
        let aim = |target: &Address| Aim {
            address: target.clone(),
            to: options.connect_to(target),
            sources: options.sources(target),
        };
        let aims: Vec<Aim> = targets.iter().map(aim).collect();
        let (says, words) = mpsc::channel();
        thread::scope(|scope| {
            for (thread, port) in self.ports.iter().enumerate() {
                let number = self.threads.first + thread as u32;
                let orders = self.orders(options, number, &aims);
                let latencies = &self.latencies[thread];
                let worker = Worker::new(port, orders, &noise, &self.ledger, latencies);
                let says = says.clone();
                let parts = options.asks_before_it_leaves();
                let work = move || {
                    // The receiver lives until all threads have reported.
                    let holds = || {
                        if parts {
                            let _ = says.send(Word::Holds);
                            self.parting.wait();
                        }
                    };
                    let ended = worker.run(holds);
                    let _ = says.send(Word::Ended(ended));
                };
                if let Err(refused) = threads::start_in(scope, "load", work) {
                    // Without this thread the load is not the requested one.
                    signals::stop(&self.ports);
                    self.leave();
                    return Err(refused);
                }
            }
            drop(says);
            let watched = watch(&AtWork {
                crew: self,
                words,
                holding: Cell::new(0),
            });
            // Whatever failed in `watch`: no thread waits for it.
            self.leave();
            watched
        })
    }

    fn orders<'a>(&self, options: &LoadOptions, thread: u32, aims: &'a [Aim]) -> Orders<'a> {
        let threads = self.threads.total;
        let talks = options.mode.talks();
        let duration = options.duration.or(talks.then_some(TALK_FOR));
        let time_up_at = duration.and_then(|duration| self.start.checked_add(duration));
        let schedule =
            |pace: Pace| Schedule::new(self.start, pace, thread, threads).until(time_up_at);
        let requests = options.requests_per_second.filter(|_| talks);
        let requests = requests.map(|per_second| Pace {
            per_second,
            ramp: Duration::ZERO,
        });
        let descriptors_max = raise_descriptors();
        Orders {
            mode: options.mode,
            aims,
            connections: self.threads.share(thread, options.connections),
            open_at_once_max: open_at_once_max(options, self.threads.count, descriptors_max),
            connecting_max: options.connecting_max(self.threads, thread),
            size: options.size(),
            pipeline: options.pipeline(),
            arrivals: options.pace().map(schedule),
            requests: requests.map(schedule),
            touch: options.touch,
            seed: options.seed,
            reset: options.reset,
            leave_memory_bytes: options.leave_memory.map(|size| size.as_u64()),
            time_up_at,
            thread,
            threads,
        }
    }

    pub(crate) fn standing(&self) -> Standing {
        let mut all = Latencies::new();
        for latencies in &self.latencies {
            all.add(&latencies.lock().unwrap_or_else(PoisonError::into_inner));
        }
        Standing {
            counts: self.ledger.counts(),
            latencies: all,
            interrupted: self.ledger.is_interrupted(),
        }
    }
}

impl Watched for AtWork<'_> {
    fn next(&self, at_most: Duration) -> News {
        match self.words.recv_timeout(at_most) {
            Ok(Word::Ended(Err(text))) => {
                // The other threads do not wait for this one.
                self.crew.leave();
                News::Failed(text)
            }
            Ok(Word::Holds) => {
                self.holding.set(self.holding.get() + 1);
                match self.holding.get() == self.crew.threads.count {
                    true => News::AllHold,
                    false => News::Nothing,
                }
            }
            Ok(Word::Ended(Ok(()))) | Err(RecvTimeoutError::Timeout) => News::Nothing,
            Err(RecvTimeoutError::Disconnected) => News::AllOver,
        }
    }

    fn standing(&self) -> Standing {
        self.crew.standing()
    }

    fn stop(&self) {
        signals::stop(&self.crew.ports);
    }

    fn leave(&self) {
        self.crew.leave();
    }
}
