//! Random programs (fuzzing), on every driver that is present and against plain sockets.
//!
//! `sim_seeds` tests the core on a network full of faults. There the core does not meet the state
//! that each real driver keeps: what is readable, what is armed, what was held back. Here each seed
//! is a separate port on a real driver, with small bounds and random peers, and the same ledger.
//! The kernel's order does not depend on the seed: a seed that fails may need several attempts.
//!
//! ```text
//! WHARF_SEEDS=10000 cargo test --release -p wharf-port --test it random_programs
//! WHARF_SEED=4711 cargo test -p wharf-port --test it poll/shared/random_programs
//! ```
//!
//! Running these programs on the simulated network too was rejected: its clock and its far end
//! belong to one thread, and `sim_seeds` already shows what it can show.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Instant;

use crate::random::sim::number;
use crate::rig::case::{Case, Driver, Where, case};
use crate::rig::runner::caught;
use crate::rig::system::patience;
use crate::rig::{OBSERVED, lock};
use run::Run;

mod connection;
mod dropper;
mod far;
mod plan;
mod program;
mod run;

const SEEDS: &str = "WHARF_SEEDS";
const SEED: &str = "WHARF_SEED";
/// The default number of seeds.
const SEEDS_PLAIN: u64 = 30;
/// How often a selected seed runs.
const TRIES: u64 = 20;
/// A seed that takes longer hangs where no deadline of its own ends it.
const SEED_SECONDS_MAX: u64 = 120;
/// As long as seeds are requested.
const SECONDS_MAX: u64 = 7 * 24 * 3600;

pub(crate) const CASES: &[Case] = &[case!(
    random_programs_keep_the_contract,
    [C1, C2, C5, C6, C7, C8, C10, C11, C18],
    "a stream under Wine that no case and no simulated seed saw hang"
)
.skip(|at| {
    (at.driver == Driver::Sim).then_some("the simulated network has seeds of its own: `sim_seeds`")
})
.seconds_max(SECONDS_MAX)];

fn random_programs_keep_the_contract(at: &Where) {
    if let Some(seed) = number(SEED) {
        (0..TRIES).for_each(|_| one(seed, at));
        return;
    }
    let count = number(SEEDS).unwrap_or(SEEDS_PLAIN);
    let began = Instant::now();
    (0..count).for_each(|seed| one(seed, at));
    let seconds = began.elapsed().as_secs_f64();
    println!("{count} seeds on {at} in {seconds:.1} s");
}

/// Runs one seed on a new thread. A failed seed stays there for good: dropping a port with
/// inconsistent tables is not safe.
fn one(seed: u64, at: &Where) {
    let observed = OBSERVED.with_borrow(Arc::clone);
    let (tell, told) = mpsc::channel();
    let place = *at;
    let thread = std::thread::spawn(move || {
        let made = caught(|| Run::new(seed, &place));
        let mut run = match made {
            Ok(run) => run,
            Err(why) => return tell.send(Err((why, String::new()))).unwrap_or_default(),
        };
        *lock(&observed.port) = Some(run.port());
        match caught(|| run.go()) {
            Ok(()) => {
                *lock(&observed.port) = None;
                drop(run);
                let _ = tell.send(Ok(()));
            }
            Err(why) => {
                let led_there = caught(|| run.describe()).unwrap_or_else(|why| why);
                let _ = tell.send(Err((why, led_there)));
                loop {
                    std::thread::park();
                }
            }
        }
    });
    let again = format!("{SEED}={seed} cargo test -p wharf-port --test it {at}/programs_made");
    match told.recv_timeout(patience(SEED_SECONDS_MAX)) {
        Ok(Ok(())) => thread.join().expect("it has told all"),
        Ok(Err((why, led_there))) => {
            panic!("seed {seed}: {why}\n  try {again}\n  {led_there}")
        }
        Err(_) => panic!("seed {seed} hangs, or ended without a word\n  try {again}"),
    }
}
