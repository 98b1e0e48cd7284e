//! Seeds in which many threads wait on one port and take turns: the seed decides which thread goes
//! on, at each place where a waiter would sleep, wake, enter the driver or leave it.
//!
//! In most of them one waiter leads and the others are parked. The stage fails a seed at the moment
//! at which all threads sleep and something is queued, due, or closed. The books fail it for a
//! packet that comes twice, or for a socket that two waiters have at a time. `docs/decisions` says
//! why the threads are real and the turns are the network's.
//!
//! ```text
//! WHARF_SIM_SEEDS=10000 cargo test --release -p wharf-port --test it sim_seeds/threads
//! WHARF_SIM_SEED=4711 cargo test -p wharf-port --test it sim_seeds/threads
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use scene::Scene;

use super::{SAID, SEED, SEEDS, keep_words, number, summary, try_all};

mod books;
mod cast;
mod plan;
mod scene;
mod waiter;

/// The default number of seeds.
const SEEDS_PLAIN: u64 = 500;

/// The counts of seeds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tally {
    digest: u64,
    turns: u64,
    packets: u64,
    time_outs: u64,
    errors_of_waits: u64,
    forgotten: u64,
    kept: u64,
    panicked: u64,
    dropped: u64,
    closed_early: u64,
    in_order: u64,
    one_leads: u64,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.digest ^= other.digest;
        for (mine, more) in self.counts().into_iter().zip({ *other }.counts()) {
            *mine.1 += *more.1;
        }
    }

    fn counts(&mut self) -> [(&'static str, &mut u64); 11] {
        [
            ("turns", &mut self.turns),
            ("packets", &mut self.packets),
            ("waits whose time was up", &mut self.time_outs),
            ("errors of waits", &mut self.errors_of_waits),
            ("forgotten waiters", &mut self.forgotten),
            ("waiters kept by their threads", &mut self.kept),
            ("handlers that panic", &mut self.panicked),
            ("dropped connections", &mut self.dropped),
            ("ports that close early", &mut self.closed_early),
            ("ports that end in order", &mut self.in_order),
            ("ports where one leads", &mut self.one_leads),
        ]
    }
}

/// Every seed keeps the contract, and everything that may happen to a waiter has happened.
pub(crate) fn every_seed_keeps_the_contract() -> Result<(), String> {
    if let Some(seed) = number(SEED) {
        return attempt(seed).map(|tally| println!("seed {seed}: {tally:#?}"));
    }
    let count = number(SEEDS).unwrap_or(SEEDS_PLAIN);
    let began = Instant::now();
    let mut total = Tally::default();
    let failed = try_all(count, attempt, |tally| total.add(&tally))?;
    if !failed.is_empty() {
        let repeat = format!("{SEED}=one of them cargo test -p wharf-port --test it threads");
        return Err(summary(count, &failed) + "  repeat with " + &repeat);
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{count} seeds of threads in {seconds:.1} s: {total:#?}");
    let never = total.counts().into_iter().find(|(_, count)| **count == 0);
    match never {
        Some((what, _)) if count >= SEEDS_PLAIN => {
            Err(format!("no {what}: the seeds do not test them"))
        }
        _ => Ok(()),
    }
}

/// The same seed takes the same turns, and delivers the same packets.
pub(crate) fn a_seed_decides_everything() -> Result<(), String> {
    for seed in 0..20 {
        let (first, second) = (attempt(seed)?, attempt(seed)?);
        if first != second {
            return Err(format!("seed {seed} was {first:?} and then {second:?}"));
        }
    }
    Ok(())
}

/// Runs a seed, directed by this thread. The threads of a failed seed stay where they are: dropping
/// a port with inconsistent tables is not safe.
fn attempt(seed: u64) -> Result<Tally, String> {
    keep_words();
    SAID.set(Some(String::new()));
    let scene = Scene::new(seed);
    let played = catch_unwind(AssertUnwindSafe(|| scene.play()));
    let said = SAID.replace(None).unwrap_or_default();
    let failed = match played {
        Ok(Ok(tally)) => return Ok(tally),
        Ok(Err(why)) => why,
        Err(_) => said,
    };
    std::mem::forget(scene);
    Err(failed)
}
