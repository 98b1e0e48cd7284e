//! `wharf load`: opens connections to any server, drives them, and accounts for each one.
//!
//! Each thread has a single-waiter port and its share of the connections. What is sent follows
//! from a seed and is compared byte for byte when it comes back. Latencies of an open loop count
//! from the time that something was to begin, so that a server that stalls cannot hide it.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use wharf_port::{Address, Port};

use crate::command::Format;
use crate::compare::ledgers::Joint;
use crate::congestion;
use crate::output;
use crate::signals::{self, Signals};
use admin::Asked;
use hdr::HdrFile;
use ledger::{Latencies, Ledger};
use options::{LoadOptions, Mode};
use report::Moment;
use schedule::{Pace, Schedule};
use traffic::Noise;
use worker::{Orders, Worker};

pub(crate) mod admin;
mod gates;
mod hdr;
mod ledger;
pub(crate) mod options;
pub(crate) mod report;
mod schedule;
mod traffic;
mod worker;

/// Nothing could be connected, or bytes were wrong.
const NOTHING_OR_WRONG: u8 = 1;
const CANNOT_BEGIN: u8 = 2;
const GATE_MISSED: u8 = 3;
const INTERRUPTED: u8 = 130;

/// What sends messages runs so long unless told otherwise.
const TALK_FOR: Duration = Duration::from_secs(10);
/// Descriptors that a process needs besides its connections.
const DESCRIPTORS_BESIDES: u64 = 64;
/// How often the live line changes.
const LIVE_EVERY: Duration = Duration::from_millis(200);

/// Runs the load; answers the exit code.
pub(crate) fn run(options: &LoadOptions) -> ExitCode {
    match drive(options) {
        Ok(code) => ExitCode::from(code),
        Err(text) => {
            output::complaint(&text);
            ExitCode::from(CANNOT_BEGIN)
        }
    }
}

fn drive(options: &LoadOptions) -> Result<u8, String> {
    let target = options.target()?;
    let congestion_control = options.congestion_control.as_deref();
    congestion_control.map_or(Ok(()), congestion::check)?;
    // A file that cannot be had is told before the load, and not after it.
    let hdr = options.hdr.as_deref().map(HdrFile::create).transpose()?;
    raise_limit(options.open_at_once())?;
    let admin = options.admin.as_ref().and_then(Address::internet);
    let server = admin.map(Asked::before).transpose()?;
    let threads = u32::from(options.threads).min(options.connections);
    let build = |_| {
        let builder = Port::builder().driver(options.driver).single_waiter();
        builder.build().map_err(|error| error.to_string())
    };
    let ports: Vec<Port> = (0..threads).map(build).collect::<Result<_, _>>()?;
    let signals = Signals::listen()?;
    if options.until_eof {
        signals.come_at_end_of_input()?;
    }
    signals.end_work_on(&ports);
    let run = Run {
        options,
        target,
        start: Instant::now(),
        ledger: Ledger::new(Instant::now()),
        latencies: ports.iter().map(|_| Mutex::new(Latencies::new())).collect(),
        ports,
    };
    run.work()?;
    let joint = match server {
        Some(server) => Some(server.after(&run.ledger.counts())?),
        None => None,
    };
    let code = run.conclude(joint.as_ref());
    if let Some(hdr) = hdr {
        hdr.write(&run.merged(), run.start.elapsed())?;
    }
    Ok(code)
}

/// Takes all the descriptors that the system allows, and refuses what would not fit.
fn raise_limit(connections: u32) -> Result<(), String> {
    let needed = u64::from(connections) + DESCRIPTORS_BESIDES;
    let limit = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(u64::MAX);
    if needed > limit {
        return Err(format!(
            "{connections} connections need {needed} open files and the limit is {limit}: as root \
             run \"ulimit -n {needed}\", or split them over several processes"
        ));
    }
    Ok(())
}

/// One run of load.
#[derive(Debug)]
struct Run<'a> {
    options: &'a LoadOptions,
    target: Address,
    start: Instant,
    ledger: Ledger,
    latencies: Vec<Mutex<Latencies>>,
    ports: Vec<Port>,
}

impl Run<'_> {
    /// Runs the threads, and tells how it stands while they work.
    fn work(&self) -> Result<(), String> {
        let noise = Noise::new(self.options.seed);
        let sources = self.options.sources(&self.target);
        let (over, news) = mpsc::channel();
        thread::scope(|scope| {
            for (thread, port) in self.ports.iter().enumerate() {
                let orders = self.orders(thread as u32, &sources);
                let latencies = &self.latencies[thread];
                let worker = Worker::new(port, orders, &noise, &self.ledger, latencies);
                let over = over.clone();
                scope.spawn(move || {
                    // The other side stays until all have told.
                    let _ = over.send(worker.run());
                });
            }
            drop(over);
            self.watch(&news)
        })
    }

    fn orders<'a>(&self, thread: u32, sources: &'a [std::net::SocketAddr]) -> Orders<'a> {
        let options = self.options;
        let threads = self.ports.len() as u32;
        let share =
            options.connections / threads + u32::from(thread < options.connections % threads);
        let schedule = |pace: Pace| Schedule::new(self.start, pace, thread, threads);
        let talks = options.mode.talks();
        let duration = options.duration.or(talks.then_some(TALK_FOR));
        let requests = options.requests_per_second.filter(|_| talks);
        let requests = requests.map(|per_second| Pace {
            per_second,
            ramp: Duration::ZERO,
        });
        Orders {
            mode: options.mode,
            connect: options.connect_to(&self.target),
            sources,
            connections: share,
            size: options.size(),
            pipeline: options.pipeline(),
            arrivals: options.pace().map(schedule),
            requests: requests.map(schedule),
            time_up_at: duration.and_then(|duration| self.start.checked_add(duration)),
            thread,
            threads,
        }
    }

    /// Waits for the threads, and shows the live line and the intervals.
    fn watch(&self, news: &mpsc::Receiver<Result<(), String>>) -> Result<(), String> {
        let live = std::io::stderr().is_terminal() && self.options.format == Format::Text;
        let bar = if live {
            ProgressBar::new_spinner()
        } else {
            ProgressBar::hidden()
        };
        let interval = self.options.interval.unwrap_or(Duration::MAX);
        let mut next_interval = self.start.checked_add(interval);
        let mut result = Ok(());
        loop {
            match news.recv_timeout(LIVE_EVERY.min(interval)) {
                Ok(Ok(())) => {}
                Ok(Err(text)) => {
                    // Without one of its threads the load is not what was asked for.
                    signals::stop(&self.ports);
                    result = Err(text);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if live {
                bar.set_message(self.with_moment(&[], None, |moment| moment.line()));
                bar.tick();
            }
            if let Some(at) = next_interval.filter(|at| Instant::now() >= *at) {
                next_interval = at.checked_add(interval);
                self.with_moment(&[], None, |moment| match self.options.format {
                    Format::Text => output::line(&moment.line()),
                    Format::Json => output::json(&moment.object("interval")),
                });
            }
        }
        bar.finish_and_clear();
        result
    }

    /// Prints the account; answers the exit code.
    fn conclude(&self, joint: Option<&Joint>) -> u8 {
        let mut missed = self.missed();
        missed.extend(joint.filter(|joint| !joint.balances).map(|joint| {
            let verdict = joint.verdict.trim_end_matches('.');
            verdict.to_owned()
        }));
        self.with_moment(&missed, joint, |moment| match self.options.format {
            Format::Text => drop(output::bytes(moment.text().as_bytes())),
            Format::Json => output::json(&moment.object("load")),
        });
        let counts = self.ledger.counts();
        if self.ledger.interrupted.load(Ordering::Relaxed) {
            INTERRUPTED
        } else if !missed.is_empty() {
            GATE_MISSED
        } else if counts.connected == 0 || counts.corrupt > 0 {
            NOTHING_OR_WRONG
        } else {
            0
        }
    }

    /// The gates that do not hold.
    fn missed(&self) -> Vec<String> {
        let counts = self.ledger.counts();
        let count_of = |name: &str| counts.named(name);
        let gates = self.options.expect.iter();
        let mut missed: Vec<String> = gates.filter_map(|gate| gate.missed(count_of)).collect();
        if let Some(max_p99) = self.options.max_p99 {
            let latencies = self.merged();
            let (name, histogram) = match self.options.mode {
                Mode::Echo | Mode::Stream => ("messages", &latencies.message),
                Mode::Connect | Mode::Hold => ("connects", &latencies.connect),
            };
            let p99 = Duration::from_nanos(histogram.value_at_quantile(0.99));
            if histogram.is_empty() || p99 > max_p99 {
                missed.push(format!(
                    "expected p99 of {name} within {max_p99:?}: it is {p99:?}"
                ));
            }
        }
        missed
    }

    fn merged(&self) -> Latencies {
        let mut all = Latencies::new();
        for latencies in &self.latencies {
            all.add(&latencies.lock().expect("nobody panics with it"));
        }
        all
    }

    fn with_moment<T>(
        &self,
        missed: &[String],
        joint: Option<&Joint>,
        tell: impl FnOnce(Moment<'_>) -> T,
    ) -> T {
        tell(Moment {
            joint,
            options: self.options,
            driver: self.ports[0].driver(),
            counts: &self.ledger.counts(),
            latencies: &self.merged(),
            interrupted: self.ledger.interrupted.load(Ordering::Relaxed),
            missed,
        })
    }
}
