//! `wharf bench`: both ends on this machine, measured, on one page.
//!
//! This program starts itself as a server and as a load, and reads the server's account. So it
//! measures what users run, and verifies every run as theirs are: the load compares each byte, and
//! the ledgers of both ends account for each connection. Measuring within one process was rejected:
//! it cannot separate the processor time and memory of the two ends.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use wharf_port::{DriverChoice, Port};

use crate::machine::congestion;
use crate::processes::{DESCRIPTORS_BESIDES, raise_descriptors};
use crate::sys::{Signal, processors};
use crate::text::output;
use crate::values::{Format, parse_driver, parse_duration, parse_switch, whole};
use crate::{machine, signals};
use ends::{Place, Stop};
use parts::{ECHO_CONNECTIONS, OPEN_AT_ONCE, Part, Sample};
use report::Report;

mod ends;
mod figures;
mod million;
mod page;
mod parts;
mod report;

/// Nothing could be measured.
const CANNOT_BEGIN: u8 = 2;
/// Some figures cannot be trusted.
const FAULTY: u8 = 3;
const INTERRUPTED: u8 = 130;
const AFTER_MILLION_HELP: &str = "\
It opens no more connections once --leave-memory is reached, and reports what limited it. The kernel \
keeps about 8 kB for each connection; both ends of it are on this machine.

Exit codes:
  0    it held all, or as many as the memory allows
  2    it could not begin
  3    the ledgers disagree, a connection failed or was lost, or a touched
       connection did not echo
  130  Ctrl-C; it measures and closes what was open all the same";

/// The congestion control of both ends, where the system has it. Another one, such as bbr, sends
/// more slowly than the machine could, by design.
const CONGESTION_CONTROL: &str = "cubic";

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BenchOptions {
    #[command(subcommand)]
    work: Option<BenchWork>,
    /// Driver to measure; may be repeated. all are the drivers that work here, auto is the one that
    /// a server would choose
    #[arg(long, default_value = "all", value_parser = parse_drivers, env = "WHARF_DRIVER",
          value_delimiter = ',', value_name = "all|auto|iocp|uring|poll")]
    driver: Vec<Drivers>,
    /// Duration of each run; by default 2s
    #[arg(long, visible_alias = "for", env = "WHARF_DURATION", value_name = "DURATION",
          value_parser = parse_run_duration)]
    duration: Option<Duration>,
    /// How many times to measure everything on each driver, the drivers in turn; by default 3
    #[arg(long, env = "WHARF_ROUNDS", value_name = "N",
          value_parser = whole(1_u16..=1_000))]
    rounds: Option<u16>,
    /// Number of connections to hold to measure their memory; by default 10,000, or as many as a
    /// process may open
    #[arg(long, env = "WHARF_CONNECTIONS", value_name = "N",
          value_parser = whole(1_u32..=1_000_000))]
    connections: Option<u32>,
    /// A first look, in seconds: by default one round, 300 ms a run, and 1,000 held connections
    #[arg(long, env = "WHARF_QUICK", value_parser = parse_switch)]
    quick: bool,
    /// How to print: text, or one JSON object
    #[arg(long, value_enum, default_value_t = Format::Text, env = "WHARF_FORMAT")]
    format: Format,
    /// Print only the page, and no progress
    #[arg(short, long, env = "WHARF_QUIET", value_parser = parse_switch)]
    quiet: bool,
}

/// What else bench can measure.
#[derive(Debug, Subcommand)]
enum BenchWork {
    /// Hold as many connections as this machine can, up to a million, in several processes or in one
    #[command(after_help = AFTER_MILLION_HELP)]
    Million(million::MillionOptions),
}

/// One value of `--driver`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Drivers {
    All,
    One(DriverChoice),
}

fn parse_drivers(text: &str) -> Result<Drivers, String> {
    match text {
        "all" => Ok(Drivers::All),
        _ => match parse_driver(text) {
            Ok(choice) => Ok(Drivers::One(choice)),
            Err(_) => Err("name one of all, auto, iocp, uring, poll".into()),
        },
    }
}

fn parse_run_duration(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    let possible = Duration::from_millis(50)..=Duration::from_secs(600);
    if possible.contains(&duration) {
        Ok(duration)
    } else {
        Err("write a time from 50ms to 10m, such as \"2s\"".into())
    }
}

/// What bench measures, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Plan {
    drivers: Vec<String>,
    duration: Duration,
    rounds: u16,
    connections: u32,
}

/// Runs the benchmark; returns the exit code.
pub(crate) fn run(options: &BenchOptions) -> ExitCode {
    if let Some(BenchWork::Million(options)) = &options.work {
        return million::run(options);
    }
    match measure(options) {
        Ok(code) => ExitCode::from(code),
        Err(text) => {
            output::complaint(&text);
            ExitCode::from(CANNOT_BEGIN)
        }
    }
}

fn measure(options: &BenchOptions) -> Result<u8, String> {
    let plan = plan(options)?;
    let interrupted = listen_for_the_end()?;
    let two = processors::two();
    let has_it = congestion::check(CONGESTION_CONTROL).is_ok();
    let place = Place {
        server_processor: two.map(|(server, _)| server),
        load_processor: two.map(|(_, load)| load),
        congestion_control: has_it.then_some(CONGESTION_CONTROL),
        patience: ends::PATIENCE,
        interrupted: &interrupted,
    };
    let mut found = Found::default();
    let stopped = work(&plan, &place, options.quiet, &mut found);
    match stopped {
        Err(Stop::Failed(text)) if found.is_empty() => return Err(text),
        Err(Stop::Failed(text)) => found.faults.push(text),
        Ok(()) | Err(Stop::Interrupted) => {}
    }
    let interrupted = interrupted.load(Ordering::Relaxed);
    let report = Report::new(&plan, &place, &found, interrupted);
    match options.format {
        Format::Text => output::bytes(page::text(&report).as_bytes()),
        Format::Json => output::json(&report),
    }
    Ok(if interrupted {
        INTERRUPTED
    } else if report.has_faults() {
        FAULTY
    } else {
        0
    })
}

fn plan(options: &BenchOptions) -> Result<Plan, String> {
    let usual = if options.quick {
        (Duration::from_millis(300), 1, 1_000)
    } else {
        (Duration::from_secs(2), 3, 10_000)
    };
    let limit = raise_descriptors();
    let most = most_connections(limit)?;
    if let Some(wanted) = options.connections.filter(|&wanted| wanted > most) {
        return Err(format!(
            "a process may open {most} connections here (ulimit -n {limit}), not {wanted}"
        ));
    }
    Ok(Plan {
        drivers: chosen_drivers(&options.driver)?,
        duration: options.duration.unwrap_or(usual.0),
        rounds: options.rounds.unwrap_or(usual.1),
        connections: options.connections.unwrap_or(usual.2.min(most)),
    })
}

/// The number of connections that a process may open with this limit of open files. If it is lower
/// than what the parts open, bench would measure the shortage.
fn most_connections(limit: u64) -> Result<u32, String> {
    let needed = u64::from(OPEN_AT_ONCE) + DESCRIPTORS_BESIDES;
    if limit < needed {
        return Err(format!(
            "it opens up to {OPEN_AT_ONCE} connections at once, and a process may have {limit} open \
             files: as root run \"ulimit -n {needed}\""
        ));
    }
    Ok(u32::try_from(limit - DESCRIPTORS_BESIDES).unwrap_or(u32::MAX))
}

/// The names of the drivers to measure, each once. Refuses a driver that does not work.
fn chosen_drivers(asked: &[Drivers]) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = Vec::new();
    for drivers in asked {
        let more = match drivers {
            Drivers::All => {
                let all = machine::drivers();
                let works = all.into_iter().filter(|driver| driver.works);
                works.map(|driver| driver.name).collect()
            }
            Drivers::One(choice) => {
                let port = Port::builder().driver(*choice).build();
                let port = port.map_err(|error| error.to_string())?;
                vec![port.driver().kind.to_string()]
            }
        };
        for name in more {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Ok(names)
}

/// The first Ctrl-C ends the run, and bench prints the page. A second one ends the program at once.
/// In both cases the input of the two ends closes.
fn listen_for_the_end() -> Result<Arc<AtomicBool>, String> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&interrupted);
    signals::on_each(move |signal| {
        if told.swap(true, Ordering::Relaxed) && signal == Signal::Interrupt {
            std::process::exit(i32::from(INTERRUPTED));
        }
    })?;
    Ok(interrupted)
}

/// The samples of all runs, by driver.
#[derive(Debug, Default)]
struct Found {
    samples: Vec<(String, Part, Sample)>,
    faults: Vec<String>,
}

impl Found {
    fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The samples of one part on one driver.
    fn of(&self, driver: &str, part: Part) -> Vec<&Sample> {
        let all = self.samples.iter();
        let these = all.filter(|(on, of, _)| on == driver && *of == part);
        these.map(|(.., sample)| sample).collect()
    }
}

/// The parts in their order. Parts that leave ports in TIME_WAIT come last: such ports are kernel
/// memory too, which the kernel gives back during the next run.
fn parts(plan: &Plan) -> [Vec<Part>; 2] {
    let echo = ECHO_CONNECTIONS.map(Part::Echo);
    let others = [&echo[..], &[Part::Bulk, Part::Accept]].concat();
    [vec![Part::Hold(plan.connections)], others]
}

/// Runs every part in every round on every driver. Each round starts with another driver.
fn work(plan: &Plan, place: &Place<'_>, quiet: bool, found: &mut Found) -> Result<(), Stop> {
    let count = plan.drivers.len();
    let stages = parts(plan);
    let runs = stages.iter().map(Vec::len).sum::<usize>() * count * usize::from(plan.rounds);
    let bar = progress_bar(runs as u64, "runs", quiet);
    for stage in &stages {
        for round in 0..usize::from(plan.rounds) {
            for &part in stage {
                for turn in 0..count {
                    let driver = &plan.drivers[(round + turn) % count];
                    bar.set_message(format!("{} on {driver}", part.name()));
                    let sample = part.run(place, driver, plan.duration)?;
                    let faults = sample.faults.iter();
                    let where_and_when =
                        format!("{} on {driver}, round {}", part.name(), round + 1);
                    let faults = faults.map(|fault| format!("{where_and_when}: {fault}"));
                    found.faults.extend(faults);
                    found.samples.push((driver.clone(), part, sample));
                    bar.inc(1);
                }
            }
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// A progress bar over `all` of these things.
fn progress_bar(all: u64, things: &str, quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = format!("{{wide_bar}} {{pos}} of {{len}} {things}: {{msg}}, {{eta}} left");
    let style = ProgressStyle::with_template(&template);
    let bar = ProgressBar::new(all);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_are_named_once_and_in_the_order_of_the_command_line() {
        let works: Vec<String> = machine::drivers()
            .into_iter()
            .filter(|driver| driver.works)
            .map(|driver| driver.name)
            .collect();
        let all = chosen_drivers(&[Drivers::All, Drivers::One(DriverChoice::Auto)]);
        assert_eq!(all, Ok(works));
        assert!(parse_drivers("select").unwrap_err().contains("all, auto"));
    }

    #[test]
    fn a_lack_of_open_files_is_refused_and_not_measured() {
        assert_eq!(most_connections(20_000), Ok(19_936));
        assert_eq!(most_connections(1_088), Ok(1_024));
        let error = most_connections(1_087).expect_err("too few");
        assert!(error.contains("ulimit -n 1088"), "{error}");
    }

    #[test]
    fn what_leaves_ports_waiting_comes_after_what_measures_memory() {
        let plan = Plan {
            drivers: Vec::new(),
            duration: Duration::from_secs(1),
            rounds: 1,
            connections: 7,
        };
        let [first, then] = parts(&plan);
        assert_eq!(first, [Part::Hold(7)]);
        assert!(!then.contains(&Part::Hold(7)) && then.contains(&Part::Accept));
    }
}
