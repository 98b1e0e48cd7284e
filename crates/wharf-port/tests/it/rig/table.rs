//! The table of the contract: each clause on each driver, made from the cases.
//!
//! The page begins with the clauses in words, which `contract-clauses.md` has. Each links to its
//! cases, and a clause without words is an error.
//!
//! It is a file and not only a report, so that a review shows a change of what is proved. It
//! includes the drivers of other systems: a case is skipped by name or it runs there.

use std::fmt::Write as _;
use std::path::PathBuf;

use libtest_mimic::Failed;

use crate::cases::{INAPPLICABLE, TOPICS, all};
use crate::rig::case::{Case, Clause, Driver, Mode, Where};

/// Set to write the file instead of comparing it.
const WRITE: &str = "WHARF_CONTRACT_WRITE";

/// The parts of the file that people write.
const INTRO: &str = include_str!("contract-intro.md");
const CLAUSES: &str = include_str!("contract-clauses.md");
const HEAD: &str = include_str!("contract-head.md");
const TAIL: &str = include_str!("contract-tail.md");

fn path() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/library/contract.md"
    ))
}

/// Compares `docs/library/contract.md` with the cases.
pub(crate) fn check() -> Result<(), Failed> {
    let made = make()?;
    if std::env::var_os(WRITE).is_some() {
        return Ok(std::fs::write(path(), made)?);
    }
    let packed = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml.orig");
    if std::path::Path::new(packed).exists() {
        // A package has no pages; the workspace compares them.
        return Ok(());
    }
    if cfg!(windows) {
        // The sources are on another system; the file is compared there.
        return Ok(());
    }
    let written = std::fs::read_to_string(path()).unwrap_or_default();
    if written == made {
        return Ok(());
    }
    let line = written.lines().zip(made.lines()).position(|(a, b)| a != b);
    let line = line.unwrap_or_else(|| written.lines().count().min(made.lines().count()));
    let how = format!("{WRITE}=1 cargo test -p wharf-port --test it contract_table");
    Err(format!(
        "docs/library/contract.md is not current from line {}: run {how}",
        line + 1
    )
    .into())
}

fn make() -> Result<String, Failed> {
    let mut text = String::from(INTRO);
    text.push('\n');
    clauses(&mut text)?;
    text.push_str(HEAD);
    text.push('\n');
    let mut notes = Notes::default();
    summary(&mut text)?;
    for (clause, title) in Clause::ALL {
        section(&mut text, clause, title, &mut notes);
    }
    notes.write(&mut text);
    inapplicable(&mut text);
    text.push('\n');
    text.push_str(TAIL);
    Ok(text)
}

/// The clauses in words, each with a link to its cases.
fn clauses(text: &mut String) -> Result<(), Failed> {
    let mut written = CLAUSES.split("### ").skip(1);
    for (clause, title) in Clause::ALL {
        let heading = format!("{clause:?} {title}\n");
        let Some(words) = written.next().and_then(|it| it.strip_prefix(&heading)) else {
            return Err(format!("contract-clauses.md does not go on with {heading}").into());
        };
        let of = all().filter(|case| case.clauses.contains(&clause));
        let (words, cases) = (words.trim(), of.count());
        let _ = write!(text, "### {heading}\n{words}\n\n");
        let link = format!("#cases-of-{clause:?}").to_lowercase();
        let noun = if cases == 1 { "case" } else { "cases" };
        let _ = write!(text, "Proved by [{cases} {noun}]({link}).\n\n");
    }
    match written.next() {
        Some(other) => Err(format!("contract-clauses.md has no clause {other}").into()),
        None => Ok(()),
    }
}

/// The number of cases for each clause on each driver; none is an error.
fn summary(text: &mut String) -> Result<(), Failed> {
    text.push_str(
        "| clause | iocp | uring | poll | sim | uring, direct | sim, one leads |\n|---|---|---|---|---|---|---|\n",
    );
    for (clause, title) in Clause::ALL {
        let words = format!("#{clause:?} {title}")
            .replace(' ', "-")
            .to_lowercase();
        let cases = format!("#cases-of-{clause:?}").to_lowercase();
        let _ = write!(text, "| [{clause:?}]({words}) [{title}]({cases}) ");
        for column in Column::ALL {
            let of = all().filter(|case| case.clauses.contains(&clause));
            let (run, skipped) = of.fold((0, 0), |(run, skipped), case| match cell(case, column) {
                Cell::Skipped(_) => (run, skipped + 1),
                _ => (run + 1, skipped),
            });
            if run + skipped == 0 {
                return Err(format!("no case proves {clause:?} on {}", column.name()).into());
            }
            let skipped = match skipped {
                0 => String::new(),
                count => format!(", {count} skipped"),
            };
            let _ = write!(text, "| {run}{skipped} ");
        }
        text.push_str("|\n");
    }
    Ok(())
}

fn section(text: &mut String, clause: Clause, title: &str, notes: &mut Notes) {
    let _ = write!(text, "\n### Cases of {clause:?}\n\n{title}\n\n");
    text.push_str(
        "| case | iocp | uring | poll | sim | uring, direct | sim, one leads | learnt from |\n|---|---|---|---|---|---|---|---|\n",
    );
    for case in all().filter(|case| case.clauses.contains(&clause)) {
        let _ = write!(text, "| `{}` ", case.name);
        for column in Column::ALL {
            let cell = match cell(case, column) {
                Cell::Both => "yes".into(),
                Cell::One(mode, reason) => format!("{} [{}]", mode.name(), notes.number(reason)),
                Cell::Skipped(reason) => format!("skipped [{}]", notes.number(reason)),
            };
            let _ = write!(text, "| {cell} ");
        }
        let _ = writeln!(text, "| {} |", case.source);
    }
}

/// Where a case runs on a driver.
enum Cell {
    Both,
    /// Only in this mode; the other is skipped with this reason.
    One(Mode, &'static str),
    Skipped(&'static str),
}

/// A column of the table: a driver with the modes of every driver, or a driver with an additional
/// mode.
#[derive(Clone, Copy)]
enum Column {
    Of(Driver),
    Direct,
    Leader,
}

impl Column {
    const ALL: [Column; 6] = [
        Column::Of(Driver::Iocp),
        Column::Of(Driver::Uring),
        Column::Of(Driver::Poll),
        Column::Of(Driver::Sim),
        Column::Direct,
        Column::Leader,
    ];

    fn name(self) -> &'static str {
        match self {
            Column::Of(driver) => driver.name(),
            Column::Direct => "uring with direct descriptors",
            Column::Leader => "sim where one waiter leads",
        }
    }
}

fn cell(case: &Case, column: Column) -> Cell {
    let alone = |driver, mode| {
        let skip = (case.skip)(&Where::documented(driver, mode));
        skip.map_or(Cell::Both, Cell::Skipped)
    };
    let driver = match column {
        Column::Of(driver) => driver,
        Column::Direct => return alone(Driver::Uring, Mode::Direct),
        Column::Leader => return alone(Driver::Sim, Mode::Leader),
    };
    let skip = |mode| (case.skip)(&Where::documented(driver, mode));
    match (skip(Mode::Shared), skip(Mode::Single)) {
        (None, None) => Cell::Both,
        (None, Some(reason)) => Cell::One(Mode::Shared, reason),
        (Some(reason), None) => Cell::One(Mode::Single, reason),
        (Some(reason), Some(_)) => Cell::Skipped(reason),
    }
}

/// Whether a case runs under Wine that does not on Windows, and the reason for the reverse.
fn under_wine(case: &Case, mode: Mode) -> (bool, Option<&'static str>) {
    let mut at = Where::documented(Driver::Iocp, mode);
    let on_windows = (case.skip)(&at);
    at.wine = true;
    let under_wine = (case.skip)(&at);
    match on_windows {
        Some(_) => (under_wine.is_none(), None),
        None => (false, under_wine),
    }
}

/// The reasons of skips, numbered in order of appearance.
#[derive(Default)]
struct Notes(Vec<&'static str>);

impl Notes {
    fn number(&mut self, reason: &'static str) -> usize {
        let known = self.0.iter().position(|note| *note == reason);
        known.unwrap_or_else(|| {
            self.0.push(reason);
            self.0.len() - 1
        }) + 1
    }

    fn write(&self, text: &mut String) {
        text.push_str("\n## Why a case is skipped\n\n");
        for (place, reason) in self.0.iter().enumerate() {
            let _ = writeln!(text, "{}. {reason}.", place + 1);
        }
        text.push_str("\nUnder Wine these are skipped as well:\n\n");
        let mut any = false;
        for case in all() {
            // A case that runs in only one mode is checked there.
            let skipped = Mode::ALL
                .into_iter()
                .find_map(|mode| under_wine(case, mode).1);
            if let Some(reason) = skipped {
                any = true;
                let _ = writeln!(text, "- `{}`: {reason}.", case.name);
            }
        }
        if !any {
            text.push_str("- none.\n");
        }
        text.push_str("\nUnder Wine these run, though on Windows they cannot:\n\n");
        for case in all().filter(|case| under_wine(case, Mode::Shared).0) {
            let _ = writeln!(text, "- `{}`", case.name);
        }
    }
}

/// What no case can show, and the number of cases by topic.
fn inapplicable(text: &mut String) {
    text.push_str(
        "\n## What no case can show\n\n| behaviour | why | learnt from |\n|---|---|---|\n",
    );
    for it in INAPPLICABLE.iter().copied().flatten() {
        let _ = writeln!(text, "| `{}` | {} | {} |", it.name, it.reason, it.source);
    }
    text.push_str("\nCases by topic:");
    for (place, (topic, cases)) in TOPICS.iter().enumerate() {
        let comma = if place == 0 { "" } else { "," };
        let _ = write!(text, "{comma} {topic} {}", cases.len());
    }
    text.push_str(".\n");
}
