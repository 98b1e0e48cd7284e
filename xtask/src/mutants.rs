//! `cargo xtask mutants`: a sample of the mutants that cargo-mutants makes of the core and of the
//! drivers of Linux, each against the suites of wharf-port.
//!
//! Planted bugs are those that somebody thought of; these are a random sample, and so the share that
//! dies says how much of the code the suites hold. cargo-mutants makes the list. Running them by it
//! was rejected: it builds for each one, which costs more than the tests, and runs suites whole. Here
//! all of a sample are woven into one build (`weave.rs`), the suites run in the order of their speed,
//! those first that can see the mutant at all, and the first test that fails ends them (`suite.rs`).
//! Verdicts are kept in `target/mutants`, so that a run goes on where the last one ended.
//! By hand and nightly; it takes an hour, and is no part of `ci`. See `docs/measured/mutants.md`.

mod build;
mod list;
mod suite;
mod weave;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use self::build::{Built, Tree};
use self::list::Mutant;
use self::suite::Part;
use crate::command::target_directory;

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// By the test of this name, or by a process that did not end well.
    Killed(String),
    /// Every test passed, or none came to it.
    Survived(String),
    /// It does not compile.
    Unviable,
}

impl Verdict {
    fn words(&self) -> (&str, &str) {
        match self {
            Verdict::Killed(by) => ("killed", by),
            Verdict::Survived(why) => ("survived", why),
            Verdict::Unviable => ("unviable", "it does not compile"),
        }
    }

    fn from_words(word: &str, detail: &str) -> Option<Self> {
        match word {
            "killed" => Some(Verdict::Killed(detail.to_owned())),
            "survived" => Some(Verdict::Survived(detail.to_owned())),
            "unviable" => Some(Verdict::Unviable),
            _ => None,
        }
    }
}

pub(crate) fn interface() -> Command {
    let number = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_parser(value_parser!(u64))
            .help(help)
    };
    Command::new("mutants")
        .about("Linux: runs the suites of wharf-port against a sample of generated mutants")
        .arg(
            number(
                "draw",
                "Draws a new sample of this many mutants, and runs nothing",
            )
            .requires("seed"),
        )
        .arg(number("seed", "The seed of the random sample").requires("draw"))
        .arg(
            Arg::new("slice")
                .long("slice")
                .value_name("K/N")
                .help("Runs only every Nth mutant, beginning with the Kth"),
        )
        .arg(
            Arg::new("built")
                .long("built")
                .action(ArgAction::SetTrue)
                .help("Uses the build of the last run, so that slices can run in parallel"),
        )
        .arg(
            Arg::new("first")
                .long("first")
                .action(ArgAction::SetTrue)
                .conflicts_with("rest")
                .help("Runs only the stages that are quick and catch many mutants"),
        )
        .arg(
            Arg::new("rest")
                .long("rest")
                .action(ArgAction::SetTrue)
                .help("With --again, runs the other stages for mutants that survived the first"),
        )
        .arg(
            Arg::new("again")
                .long("again")
                .action(ArgAction::SetTrue)
                .help("Runs mutants that survived before, too"),
        )
        .arg(Arg::new("name").num_args(0..).help(
            "Runs only mutants with this text in their names, also those that were run before",
        ))
}

pub(crate) fn run(arguments: &ArgMatches) -> Result<()> {
    if let Some(size) = arguments.get_one::<u64>("draw") {
        let seed = arguments.get_one::<u64>("seed");
        return list::draw(usize::try_from(*size)?, *seed.context("a seed")?);
    }
    let names: Vec<&String> = arguments.get_many("name").unwrap_or_default().collect();
    let again = arguments.get_flag("again");
    let (first, step) = slice(arguments.get_one::<String>("slice").map_or("1/1", |it| it))?;
    let sample = list::sample()?;
    let before = verdicts()?;
    let is_due = |number: usize, mutant: &Mutant| {
        if !names.is_empty() {
            return names.iter().any(|name| mutant.key.contains(*name));
        }
        let known = match before.get(&mutant.key) {
            None => false,
            Some(Verdict::Survived(_)) => !again,
            Some(_) => true,
        };
        number % step == first % step && !known
    };
    let due: Vec<bool> = sample
        .iter()
        .map(|(number, it)| is_due(*number, it))
        .collect();
    if due.contains(&true) {
        let woven = Tree::new(&place(), "woven")?;
        let built = match arguments.get_flag("built") {
            true => woven.built()?,
            false => woven.weave(&sample)?,
        };
        let reached = suite::reached(&built, &place())?;
        let part = match (arguments.get_flag("first"), arguments.get_flag("rest")) {
            (true, _) => Part::First,
            (_, true) => Part::Rest,
            _ => Part::All,
        };
        for ((number, mutant), _) in sample.iter().zip(&due).filter(|(_, due)| **due) {
            if verdicts()?.get(&mutant.key) != before.get(&mutant.key) {
                continue; // Another slice was here meanwhile.
            }
            let start = Instant::now();
            let verdict = if !built.refused.contains(number) {
                suite::run(&built, *number, part, &|stage| {
                    reached[stage].contains(number)
                })?
            } else {
                alone(mutant)?
            };
            keep(&mutant.key, &verdict, start.elapsed().as_secs())?;
        }
    }
    sum_up(&sample)
}

/// Builds a mutant that cannot be woven by itself, and runs the suites on it.
fn alone(mutant: &Mutant) -> Result<Verdict> {
    // One tree, and slices that may run in parallel.
    let one_at_a_time = fs::File::create(place().join("alone.lock"))?;
    one_at_a_time.lock()?;
    match Tree::new(&place(), "alone")?.alone(mutant)? {
        Some(Built { suites, .. }) => {
            let built = Built {
                suites,
                refused: Vec::new(),
            };
            suite::run(&built, 0, Part::All, &|_| true)
        }
        None => Ok(Verdict::Unviable),
    }
}

/// Reads `K/N`.
fn slice(text: &str) -> Result<(usize, usize)> {
    let (first, step) = text.split_once('/').context("a slice is K/N")?;
    let (first, step) = (first.parse()?, step.parse()?);
    ensure!(0 < first && first <= step, "a slice is from 1/N to N/N");
    Ok((first, step))
}

fn place() -> PathBuf {
    target_directory().join("mutants")
}

fn results() -> PathBuf {
    place().join("results.tsv")
}

/// What became of each mutant the last time.
fn verdicts() -> Result<BTreeMap<String, Verdict>> {
    let Ok(text) = fs::read_to_string(results()) else {
        return Ok(BTreeMap::new());
    };
    let of_line = |line: &str| {
        let mut words = line.split('\t');
        let (word, _, detail, key) = (words.next()?, words.next()?, words.next()?, words.next()?);
        Some((key.to_owned(), Verdict::from_words(word, detail)?))
    };
    let lines = text
        .lines()
        .map(|line| of_line(line).context(line.to_owned()));
    lines.collect()
}

fn keep(key: &str, verdict: &Verdict, seconds: u64) -> Result<()> {
    let (word, detail) = verdict.words();
    println!("{word:<8} {seconds:>4} s  {key}  ({detail})");
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(results())?;
    writeln!(file, "{word}\t{seconds}\t{detail}\t{key}")?;
    Ok(())
}

fn sum_up(sample: &[(usize, Mutant)]) -> Result<()> {
    let verdicts = verdicts()?;
    let (mut killed, mut survived, mut unviable, mut open) = (0, 0, 0, 0);
    for (_, mutant) in sample {
        match verdicts.get(&mutant.key) {
            Some(Verdict::Killed(_)) => killed += 1,
            Some(Verdict::Survived(why)) => {
                survived += 1;
                println!(
                    "survives: {}:{}: {} ({why})",
                    mutant.file,
                    mutant.line(),
                    mutant.key
                );
            }
            Some(Verdict::Unviable) => unviable += 1,
            None => open += 1,
        }
    }
    let viable = killed + survived;
    println!(
        "{killed} of {viable} viable mutants killed; {unviable} do not compile, {open} not run yet"
    );
    Ok(())
}
