//! Thousands of seeds of the simulated network: each is a separate port with random bounds, faults
//! and peers, and the same ledgers for all.
//!
//! The default is a few hundred. A failure prints its seed, which repeats it exactly:
//!
//! ```text
//! WHARF_SIM_SEEDS=10000 cargo test --release -p wharf-port --test it sim_seeds
//! WHARF_SIM_SEED=4711 cargo test -p wharf-port --test it sim_seeds
//! ```

use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use wharf_port::sim::Faults;

use crate::rig::lock;
use plan::Dice;
use run::{Run, Tally};

pub(crate) mod asking;
mod connection;
mod crowd;
pub(crate) mod ledger;
pub(crate) mod plan;
mod program;
mod run;
mod threads;
pub(crate) mod waiting;

const SEEDS: &str = "WHARF_SIM_SEEDS";
const SEED: &str = "WHARF_SIM_SEED";
/// The default number of seeds.
const SEEDS_PLAIN: u64 = 200;
/// After this many failures no further seeds start: seeds that never end take long to fail.
const FAILED_MAX: usize = 20;
/// If no seed ends for this long, those in progress hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// A time that the program and its peers wait: mostly short.
pub(crate) fn some_time(dice: &mut Dice) -> Duration {
    let most = dice.pick(&[0, 10, 1_000, 30_000, 500_000]);
    Duration::from_micros(dice.below(most + 1) as u64)
}

/// The tests of this topic, next to the cases: they need no driver but their own.
pub(crate) fn trials() -> [Trial; 4] {
    let test = |name: &str, run: fn() -> Result<(), String>| {
        Trial::test(format!("sim_seeds/{name}"), move || {
            run().map_err(Failed::from)
        })
    };
    [
        test(
            "every_seed_keeps_the_contract",
            every_seed_keeps_the_contract,
        ),
        test("a_seed_decides_everything", a_seed_decides_everything),
        test(
            "threads_that_take_turns_keep_the_contract",
            threads::every_seed_keeps_the_contract,
        ),
        test(
            "a_seed_decides_the_turns_of_threads",
            threads::a_seed_decides_everything,
        ),
    ]
}

/// Every seed keeps the contract, and every kind of fault has happened.
fn every_seed_keeps_the_contract() -> Result<(), String> {
    if let Some(seed) = number(SEED) {
        return one(seed).map(|tally| println!("seed {seed}: {tally:#?}"));
    }
    let count = number(SEEDS).unwrap_or(SEEDS_PLAIN);
    let began = Instant::now();
    let tally = many(count)?;
    let seconds = began.elapsed().as_secs_f64();
    println!("{count} seeds in {seconds:.1} s: {tally:#?}");
    if count >= SEEDS_PLAIN {
        all_happened(&tally.faults)?;
    }
    Ok(())
}

/// The same seed does the same: that is the purpose of a seed.
fn a_seed_decides_everything() -> Result<(), String> {
    for seed in 0..20 {
        let (first, second) = (one(seed)?, one(seed)?);
        if first.digest != second.digest || first.packets != second.packets {
            return Err(format!("seed {seed} was {first:?} and then {second:?}"));
        }
    }
    Ok(())
}

pub(crate) fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Runs seeds from 0, and reports all that fail: by reason, the first of all in detail.
fn many(count: u64) -> Result<Tally, String> {
    let mut total = Tally::default();
    let run = |seed| attempt(seed, false).map_err(|failure| failure.why);
    let failed = try_all(count, run, |tally| add(&mut total, &tally))?;
    match failed.values().filter_map(BTreeSet::first).min() {
        None => Ok(total),
        Some(first) => Err(summary(count, &failed) + &one(*first).err().unwrap_or_default()),
    }
}

/// Seeds that failed, by reason.
type FailedSeeds = BTreeMap<String, BTreeSet<u64>>;

/// Runs seeds from 0 on every processor, and returns those that fail; passes on the others.
fn try_all<T: Send + 'static>(
    count: u64,
    run: fn(u64) -> Result<T, String>,
    mut done: impl FnMut(T),
) -> Result<FailedSeeds, String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = Arc::new(AtomicU64::new(0));
    let under_way = Arc::new(Mutex::new(BTreeSet::new()));
    let (tell, told) = mpsc::channel();
    for _ in 0..threads {
        let (next, under_way, tell) = (Arc::clone(&next), Arc::clone(&under_way), tell.clone());
        std::thread::spawn(move || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= count {
                    return;
                }
                lock(&under_way).insert(seed);
                let outcome = run(seed);
                lock(&under_way).remove(&seed);
                if tell.send((seed, outcome)).is_err() {
                    return; // Other seeds hang, and the receiver is gone.
                }
            }
        });
    }
    drop(tell);
    let mut failed = FailedSeeds::new();
    loop {
        match told.recv_timeout(PATIENCE) {
            Ok((_, Ok(outcome))) => done(outcome),
            Ok((seed, Err(why))) => {
                failed.entry(why).or_default().insert(seed);
                if failed.values().map(BTreeSet::len).sum::<usize>() >= FAILED_MAX {
                    // Past the end; those in progress are waited for.
                    next.store(count, Ordering::Relaxed);
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let seeds = lock(&under_way);
                return Err(format!("these hang: {seeds:?}; try {SEED}=one of them"));
            }
        }
    }
    Ok(failed)
}

/// The number of failed seeds for each reason.
fn summary(count: u64, failed: &FailedSeeds) -> String {
    let number: usize = failed.values().map(BTreeSet::len).sum();
    let at_least = if number >= FAILED_MAX {
        "at least "
    } else {
        ""
    };
    let mut text = format!("{at_least}{number} of {count} seeds fail:\n");
    for (why, seeds) in failed {
        let some: Vec<_> = seeds.iter().take(5).collect();
        let _ = writeln!(text, "  {} such as {some:?}: {why}", seeds.len());
    }
    text
}

/// Runs one seed; if it fails, reports why, and what led there.
fn one(seed: u64) -> Result<Tally, String> {
    let why = match attempt(seed, false) {
        Ok(tally) => return Ok(tally),
        Err(failure) => failure.why,
    };
    let again = attempt(seed, true).err();
    let led_there = again.map_or("it does not fail again".into(), |it| it.led_there);
    let repeat = format!("{SEED}={seed} cargo test -p wharf-port --test it sim_seeds");
    Err(format!(
        "seed {seed}: {why}\n  repeat with {repeat}\n  {led_there}"
    ))
}

struct Failure {
    why: String,
    led_there: String,
}

thread_local! {
    /// Where and why the seed of this thread failed; set while one runs.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps the panic texts of seeds that fail for their report: each runs twice, to report more.
fn keep_words() {
    static KEEPING: Once = Once::new();
    KEEPING.call_once(|| {
        let ordinary = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let words = words_of(info.payload());
            let place = info.location().map(ToString::to_string);
            let kept = SAID.with_borrow_mut(|said| {
                let kept = said.as_mut()?;
                *kept = format!("{}: {words}", place.unwrap_or_default());
                Some(())
            });
            if kept.is_none() {
                ordinary(info);
            }
        }));
    });
}

/// Runs a seed on a new thread. A failed seed stays there for good: dropping a port with
/// inconsistent tables is not safe, and the end of its waiter's thread would do that.
fn attempt(seed: u64, logs: bool) -> Result<Tally, Failure> {
    keep_words();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut run = Run::new(seed, logs);
        SAID.set(Some(String::new()));
        let done = catch_unwind(AssertUnwindSafe(|| run.go()));
        let why = SAID.replace(None).unwrap_or_default();
        match done {
            Ok(tally) => {
                drop(run);
                let _ = tell.send(Ok(tally));
            }
            Err(_) => {
                SAID.set(Some(String::new()));
                let led_there = catch_unwind(AssertUnwindSafe(|| run.describe()));
                let led_there = led_there.unwrap_or_else(|_| "its state cannot be told".into());
                let _ = tell.send(Err(Failure { why, led_there }));
                loop {
                    std::thread::park();
                }
            }
        }
    });
    told.recv().unwrap_or_else(|_| {
        let why = "the port did not bear being dropped".into();
        let led_there = String::new();
        Err(Failure { why, led_there })
    })
}

fn words_of(payload: &(dyn Any + Send)) -> String {
    let words = payload.downcast_ref::<&str>().map(ToString::to_string);
    let words = words.or_else(|| payload.downcast_ref::<String>().cloned());
    words.unwrap_or_else(|| "it panicked without words".into())
}

fn add(total: &mut Tally, one: &Tally) {
    total.operations += one.operations;
    total.packets += one.packets;
    total.connections += one.connections;
    total.bytes += one.bytes;
    for (place, (_, count)) in total_faults(&mut total.faults).into_iter().enumerate() {
        *count += *total_faults(&mut { one.faults })[place].1;
    }
}

/// Each kind of fault by name.
fn total_faults(faults: &mut Faults) -> [(&'static str, &mut u64); 14] {
    [
        ("short receives", &mut faults.short_receives),
        ("short sends", &mut faults.short_sends),
        ("receive errors", &mut faults.receive_errors),
        ("send errors", &mut faults.send_errors),
        ("connect errors", &mut faults.connect_errors),
        ("accept errors", &mut faults.accept_errors),
        ("descriptor shortages", &mut faults.descriptor_shortages),
        ("descriptor errors", &mut faults.descriptor_errors),
        ("accept bursts", &mut faults.accept_bursts),
        ("late cancels", &mut faults.late_cancels),
        ("lost cancels", &mut faults.lost_cancels),
        ("unasked cancels", &mut faults.unasked_cancels),
        ("late ends", &mut faults.late_ends),
        ("buffer shortages", &mut faults.buffer_shortages),
    ]
}

fn all_happened(faults: &Faults) -> Result<(), String> {
    for (name, count) in total_faults(&mut { *faults }) {
        if *count == 0 {
            return Err(format!("no {name} happened: the seeds do not test them"));
        }
    }
    Ok(())
}
