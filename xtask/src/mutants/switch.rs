//! The switch of the mutants that are woven into a copy of wharf-port. `cargo xtask mutants` copies
//! this file there; it is no part of xtask itself.
//!
//! An environment variable selects the mutant, because the suites start child processes.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

const UNKNOWN: u32 = u32::MAX;
const NUMBERS: usize = 4096;

static CHOSEN: AtomicU32 = AtomicU32::new(UNKNOWN);
static WATCHED: AtomicBool = AtomicBool::new(false);
static REACHED: [AtomicBool; NUMBERS] = [const { AtomicBool::new(false) }; NUMBERS];

/// Whether this mutant is on; with `WHARF_MUTANTS_REACHED` also records that a test reached it.
#[inline(never)]
pub(crate) fn on(number: u32) -> bool {
    let mut chosen = CHOSEN.load(Relaxed);
    if chosen == UNKNOWN {
        let word = std::env::var("WHARF_MUTANT").unwrap_or_default();
        chosen = word.parse().unwrap_or(0);
        let watched = std::env::var_os("WHARF_MUTANTS_REACHED").is_some();
        WATCHED.store(watched, Relaxed);
        CHOSEN.store(chosen, Relaxed);
    }
    if WATCHED.load(Relaxed) && !REACHED[number as usize].swap(true, Relaxed) {
        note(number);
    }
    chosen == number
}

fn note(number: u32) {
    let path = std::env::var_os("WHARF_MUTANTS_REACHED").unwrap_or_default();
    let mut options = std::fs::OpenOptions::new();
    if let Ok(mut file) = options.append(true).create(true).open(path) {
        let _ = file.write_all(format!("{number}\n").as_bytes());
    }
}
