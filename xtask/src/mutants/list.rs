//! The list of mutants, and the sample that was drawn from it.
//!
//! `cargo mutants --list` makes the list; it is a separate tool and no dependency. The key of a
//! mutant is its file, its change, and its number among equal changes of that file. It is not its
//! line, so the list still fits after the file has changed elsewhere.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use proc_macro2::LineColumn;
use serde_json::Value;

use super::weave::Lines;
use crate::command::{cargo, read, root};

/// The sample, in the tree.
pub(super) const SAMPLE: &str = "docs/measured/mutants.txt";

const SOURCES: &str = "crates/wharf-port/src/";

/// Code that no test on Linux reaches: the driver of Windows, the readiness of other systems, and
/// the simulated driver, which is test equipment.
const LEFT_OUT: [&str; 5] = [
    "driver/iocp",
    "driver/poll/queue/polling.rs",
    "driver/sim",
    "sim.rs",
    "sys/windows",
];

/// One mutant of the current tree.
#[derive(Debug)]
pub(super) struct Mutant {
    /// Its key in the sample.
    pub(super) key: String,
    pub(super) file: String,
    pub(super) genre: String,
    pub(super) replacement: String,
    start: LineColumn,
    end: LineColumn,
}

impl Mutant {
    pub(super) fn range(&self, lines: &Lines<'_>) -> Range<usize> {
        lines.offset(self.start)..lines.offset(self.end)
    }

    pub(super) fn line(&self) -> usize {
        self.start.line
    }

    pub(super) fn from_json(json: &Value, met: &mut BTreeMap<String, usize>) -> Option<Self> {
        let file = json["file"].as_str()?;
        let text = |name: &str| json[name].as_str().map(str::to_owned);
        let at = |end: &str| {
            let number = |name: &str| usize::try_from(json["span"][end][name].as_u64()?).ok();
            let (line, column) = (number("line")?, number("column")? - 1);
            Some(LineColumn { line, column })
        };
        // The name is `file:line:column: what`.
        let name = text("name")?;
        let what = name.splitn(4, ':').nth(3)?.trim().to_owned();
        let short = file.strip_prefix(SOURCES).unwrap_or(file);
        let same = met.entry(format!("{short}: {what}")).or_default();
        *same += 1;
        let ordinal = if *same > 1 {
            format!(" #{same}")
        } else {
            String::new()
        };
        Some(Mutant {
            key: format!("{short}: {what}{ordinal}"),
            file: file.to_owned(),
            genre: text("genre")?,
            replacement: text("replacement")?,
            start: at("start")?,
            end: at("end")?,
        })
    }
}

/// All mutants of the core and of the drivers of Linux.
pub(super) fn all() -> Result<Vec<Mutant>> {
    let arguments = ["mutants", "--list", "--json", "--package", "wharf-port"];
    let json = read(&mut cargo(&arguments))
        .context("cannot run cargo-mutants: `cargo install --locked cargo-mutants`")?;
    let json: Value = serde_json::from_str(&json)?;
    let mut met = BTreeMap::new();
    let mut all = Vec::new();
    for one in json.as_array().context("cargo-mutants lists mutants")? {
        let mutant = Mutant::from_json(one, &mut met);
        all.push(mutant.with_context(|| format!("cargo-mutants has other fields now: {one}"))?);
    }
    all.retain(|mutant| is_ours(&mutant.file));
    ensure!(!all.is_empty(), "cargo-mutants found nothing to change");
    Ok(all)
}

fn is_ours(file: &str) -> bool {
    let Some(file) = file.strip_prefix(SOURCES) else {
        return false;
    };
    let is_test = file.ends_with("/tests.rs") || file.contains("/tests/");
    !is_test && !LEFT_OUT.iter().any(|left_out| file.starts_with(left_out))
}

/// Draws a sample and writes it, with the command that repeats it.
pub(super) fn draw(size: usize, seed: u64) -> Result<()> {
    let mut keys: Vec<String> = all()?.into_iter().map(|mutant| mutant.key).collect();
    keys.sort();
    let count = keys.len();
    ensure!(size <= count, "there are {count} mutants");
    let mut random = seed;
    for at in 0..size {
        let other = at + usize::try_from(next(&mut random) % (count - at) as u64)?;
        keys.swap(at, other);
    }
    keys.truncate(size);
    keys.sort();
    let mut git = Command::new("git");
    let commit = read(
        git.args(["rev-parse", "--short", "HEAD"])
            .current_dir(root()),
    )?;
    let head = format!(
        "# {size} of the {count} mutants of the core and of the drivers of Linux at {}\n\
         # made by `cargo xtask mutants --draw {size} --seed {seed}`\n",
        commit.trim()
    );
    fs::write(root().join(SAMPLE), head + &keys.join("\n") + "\n")?;
    Ok(())
}

/// SplitMix64: a few lines, so that a seed means the same list for ever.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The mutants of the sample that still exist, with their numbers, from 1. Prints those that are
/// gone.
pub(super) fn sample() -> Result<Vec<(usize, Mutant)>> {
    let text = fs::read_to_string(root().join(SAMPLE))?;
    let mut all: BTreeMap<String, Mutant> =
        all()?.into_iter().map(|it| (it.key.clone(), it)).collect();
    let mut sample = Vec::new();
    let keys = text.lines().filter(|line| !line.starts_with('#'));
    for (at, key) in keys.enumerate() {
        match all.remove(key) {
            Some(mutant) => sample.push((at + 1, mutant)),
            None => println!("no longer in the tree, because the code has changed: {key}"),
        }
    }
    if sample.is_empty() {
        bail!("{SAMPLE} names no mutant of this tree");
    }
    Ok(sample)
}
