//! Runs the suites of wharf-port on one mutant, until a test fails.
//!
//! A test that fails runs once more alone, so that a busy machine kills no mutant. A suite that
//! does not end is a kill too: the cases have watchdogs, but a mutant may stop them.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::Verdict;
use super::build::Built;
use crate::legs::{DRIVERS, DRIVERS_REQUIRED};

/// A part of the suites: a binary, and a selection of its tests. Stages that are quick and catch
/// much come first.
struct Stage {
    name: &'static str,
    suite: usize,
    arguments: &'static [&'static str],
}

const RANDOM: &str = "random_programs";
const STAGES: [Stage; 10] = [
    stage("units", 0, &[]),
    stage("present", 1, &["required_drivers_are_present"]),
    stage("sim", 1, &["sim/"]),
    stage("poll-shared", 1, &["poll/shared/", "--skip", RANDOM]),
    stage("uring-shared", 1, &["uring/shared/", "--skip", RANDOM]),
    stage("sim_seeds", 1, &["sim_seeds/"]),
    stage("poll-single", 1, &["poll/single/", "--skip", RANDOM]),
    stage("uring-single", 1, &["uring/single/", "--skip", RANDOM]),
    stage("uring-direct", 1, &["uring/direct/", "--skip", RANDOM]),
    stage("seeds", 1, &[RANDOM]),
];
/// Which stages to run.
#[derive(Clone, Copy)]
pub(super) enum Part {
    First,
    Rest,
    All,
}

/// With `--first` the other stages are left for a time when the machine is idle.
const FIRST: usize = 6;

const fn stage(name: &'static str, suite: usize, arguments: &'static [&'static str]) -> Stage {
    Stage {
        name,
        suite,
        arguments,
    }
}

/// A stage that takes longer hangs.
const STAGE_LIMIT: Duration = Duration::from_mins(5);

const MUTANT: &str = "WHARF_MUTANT";
const REACHED: &str = "WHARF_MUTANTS_REACHED";

/// How a stage, or one test, ended.
enum End {
    Passed,
    Failed(String),
    Hung,
    /// Without naming a test.
    Died,
}

/// The mutants that each stage reaches. The suites must pass here, with no mutant on.
pub(super) fn reached(built: &Built, place: &Path) -> Result<Vec<BTreeSet<usize>>> {
    let known = place.join("reached-by");
    let is_known = built.suites.iter().all(|suite| is_same(suite, &known));
    let file = |stage: &Stage| place.join(format!("reached-{}", stage.name));
    for stage in STAGES.iter().filter(|_| !is_known) {
        fs::write(file(stage), "")?;
        println!("==== {}, without a mutant", stage.name);
        let mut command = command(built, stage, 0);
        command.env(REACHED, file(stage)).args(stage.arguments);
        match watch(command)? {
            End::Passed => {}
            End::Failed(test) => bail!("{test} fails without any mutant"),
            End::Hung | End::Died => bail!("{} hangs or crashes without any mutant", stage.name),
        }
    }
    fs::create_dir_all(&known)?;
    for suite in &built.suites {
        fs::copy(suite, known.join(suite.file_name().context("a name")?))?;
    }
    let numbers = |stage: &Stage| {
        let text = fs::read_to_string(file(stage))?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    };
    STAGES.iter().map(numbers).collect()
}

fn is_same(suite: &Path, known: &Path) -> bool {
    let copy = suite.file_name().map(|name| known.join(name));
    let old = copy.and_then(|copy| fs::read(copy).ok());
    old.is_some() && old == fs::read(suite).ok()
}

/// Runs the stages that can see the mutant of this number.
pub(super) fn run(
    built: &Built,
    number: usize,
    part: Part,
    sees: &dyn Fn(usize) -> bool,
) -> Result<Verdict> {
    let stages = match part {
        Part::First => 0..FIRST,
        Part::Rest => FIRST..STAGES.len(),
        Part::All => 0..STAGES.len(),
    };
    let mut once = String::new();
    let mut seen = false;
    for stage in stages.filter(|at| sees(*at)).map(|at| &STAGES[at]) {
        seen = true;
        let mut skipped: Vec<String> = Vec::new();
        loop {
            let mut all = command(built, stage, number);
            all.args(stage.arguments);
            for test in &skipped {
                all.args(["--skip", test]);
            }
            let test = match watch(all)? {
                End::Passed => break,
                End::Hung => return Ok(Verdict::Killed(format!("{} hangs", stage.name))),
                End::Died => return Ok(Verdict::Killed(format!("{} dies", stage.name))),
                End::Failed(test) => test,
            };
            let mut alone = command(built, stage, number);
            alone.args(["--exact", &test]);
            if !matches!(watch(alone)?, End::Passed) {
                return Ok(Verdict::Killed(test));
            }
            once += &format!("; {test} failed once");
            skipped.push(test);
        }
    }
    let why = match (part, seen) {
        (Part::First, _) => "the first stages pass",
        (Part::Rest, _) | (Part::All, true) => "all pass",
        (Part::All, false) => "no test reaches it",
    };
    Ok(Verdict::Survived(format!("{why}{once}")))
}

fn command(built: &Built, stage: &Stage, number: usize) -> Command {
    let mut command = Command::new(&built.suites[stage.suite]);
    // Cargo runs tests in their package's directory, so we do too.
    command.current_dir(crate::command::root().join("crates/wharf-port"));
    command.env(MUTANT, number.to_string());
    // A mutant may take a driver away. Its cases are skipped then, and the stage `present` fails.
    command.env(DRIVERS_REQUIRED, DRIVERS);
    command
}

/// Runs a suite until it ends, hangs, or reports a failed test.
fn watch(mut command: Command) -> Result<End> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    // Its own group, so that processes of single cases end with it.
    let mut child = command.stderr(Stdio::null()).process_group(0).spawn()?;
    let output = child.stdout.take().context("standard output is piped")?;
    let (tell, told) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if let Some(test) = failed(&line)
                && tell.send(test).is_err()
            {
                return;
            }
        }
    });
    match told.recv_timeout(STAGE_LIMIT) {
        Ok(test) => {
            end_group(&mut child)?;
            Ok(End::Failed(test))
        }
        Err(RecvTimeoutError::Timeout) => {
            end_group(&mut child)?;
            Ok(End::Hung)
        }
        Err(RecvTimeoutError::Disconnected) => {
            let good = child.wait()?.success();
            Ok(if good { End::Passed } else { End::Died })
        }
    }
}

/// The failed test that this line of a suite reports, if any.
fn failed(line: &str) -> Option<String> {
    let test = line.strip_prefix("test ")?.strip_suffix("... FAILED")?;
    Some(test.trim().to_owned())
}

fn end_group(child: &mut Child) -> Result<()> {
    let mut kill = Command::new("kill");
    kill.args(["-KILL", "--", &format!("-{}", child.id())]);
    kill.stderr(Stdio::null()).status()?;
    child.wait()?;
    Ok(())
}
