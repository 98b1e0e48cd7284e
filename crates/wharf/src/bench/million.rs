//! `wharf bench million`: the most connections that this machine holds, both ends of them.
//!
//! A process has a limit of open files, so each end is several processes, or one process with
//! direct descriptors. The commands already divide themselves and add up their accounts. This
//! module only has the order: open at a pace that no backlog overflows, measure the memory, touch a
//! random share, and close with RST. The machine keeps some memory free whatever the user requests:
//! a machine without free memory kills programs.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use clap::Args;
use indicatif::ProgressBar;
use serde_json::Value;
use wharf_port::DriverChoice;

use super::ends::{End, Place, Server, Standing, Stop};
use super::parts::{self, Moment};
use super::{CANNOT_BEGIN, CONGESTION_CONTROL, FAULTY, INTERRUPTED, listen_for_the_end};
use crate::load::model::percentiles::Percentiles;
use crate::machine::congestion;
use crate::processes::descriptors::Descriptors;
use crate::processes::raise_descriptors;
use crate::sys::limits;
use crate::text::{numbers, output};
use crate::values::{Format, parse_driver, parse_size, parse_switch, whole};
use division::{Division, patience};
use report::Report;

mod division;
mod report;

/// How often we read the server's account while connections close.
const ASK_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(crate) struct MillionOptions {
    /// Number of connections to open, if there is memory for them
    #[arg(long, default_value_t = 1_000_000, env = "WHARF_CONNECTIONS", value_name = "N",
          value_parser = whole(1_u32..=4_000_000))]
    connections: u32,
    /// Connects to start per second
    #[arg(long, default_value_t = 20_000, env = "WHARF_RATE", value_name = "PER SECOND",
          value_parser = whole(1_u32..=1_000_000))]
    rate: u32,
    /// At the end, send a message on this percentage of the connections, chosen at random
    #[arg(long, default_value = "1%", env = "WHARF_TOUCH", value_name = "PERCENT",
          value_parser = parse_touch)]
    touch: String,
    /// Seed that chooses the touched connections and the bytes that are sent
    #[arg(long, default_value_t = 1, value_parser = whole(0..=u64::MAX),
          env = "WHARF_SEED", value_name = "N")]
    seed: u64,
    /// Start no more connects once the machine has less available memory than this
    #[arg(long, default_value = "2GiB", value_parser = parse_size, env = "WHARF_LEAVE_MEMORY",
          value_name = "BYTES")]
    leave_memory: ByteSize,
    /// Driver of the servers: auto takes the best that works here; a named driver has no fallback
    #[arg(long, default_value = "auto", value_parser = parse_driver, env = "WHARF_DRIVER",
          value_name = "auto|iocp|uring|poll")]
    driver: DriverChoice,
    /// What a connection takes of its process, at both ends: a descriptor, or with direct none.
    /// With direct each end is one process with several rings; each ring has a table as large as
    /// the limit of open files. An experiment for uring on Linux, see
    /// docs/library/direct-descriptors.md
    #[arg(long, value_enum, default_value_t = Descriptors::Ordinary, env = "WHARF_DESCRIPTORS")]
    descriptors: Descriptors,
    /// How to print: text, or one JSON object
    #[arg(long, value_enum, default_value_t = Format::Text, env = "WHARF_FORMAT")]
    format: Format,
    /// Print only the page, and no progress
    #[arg(short, long, env = "WHARF_QUIET", value_parser = parse_switch)]
    quiet: bool,
}

fn parse_touch(text: &str) -> Result<String, String> {
    text.parse::<crate::load::Touch>()?;
    Ok(text.to_owned())
}

/// Everything that a run found, in order.
#[derive(Debug)]
struct Found {
    driver: String,
    server_processes: u32,
    /// Threads of all processes; each thread has a port.
    server_threads: u32,
    opened: Opened,
    held: Held,
    closed: Closed,
    interrupted: bool,
    faults: Vec<String>,
}

/// The opening of the connections.
#[derive(Debug)]
struct Opened {
    seconds: f64,
    server_us: Option<f64>,
    moments: Vec<Moment>,
}

/// The state when all connections were open.
#[derive(Clone, Debug)]
struct Held {
    before: Measured,
    after: Measured,
    load_resident_bytes: Option<u64>,
}

/// The memory of the machine and of the server.
#[derive(Clone, Debug)]
struct Measured {
    standing: Standing,
    kernel_bytes: Option<u64>,
    available_bytes: u64,
}

/// The closing of the connections.
#[derive(Debug)]
struct Closed {
    seconds: Option<f64>,
    /// The load's last line.
    told: Value,
    waiting_before: Option<u64>,
    waiting_after: Option<u64>,
}

/// Runs the command; returns the exit code.
pub(super) fn run(options: &MillionOptions) -> ExitCode {
    match measure(options) {
        Ok(code) => ExitCode::from(code),
        Err(Stop::Failed(text)) => {
            output::complaint(&text);
            ExitCode::from(CANNOT_BEGIN)
        }
        Err(Stop::Interrupted) => ExitCode::from(INTERRUPTED),
    }
}

fn measure(options: &MillionOptions) -> Result<u8, Stop> {
    let (descriptors, connections) = (options.descriptors, options.connections);
    let driver = division::driver(descriptors, options.driver)?;
    let division = Division::new(descriptors, connections, raise_descriptors())?;
    let interrupted = listen_for_the_end()?;
    // Ctrl-C ends the opening. What is open is then measured and closed as usual.
    let never = AtomicBool::new(false);
    let place = Place {
        server_processor: None,
        load_processor: None,
        congestion_control: congestion::check(CONGESTION_CONTROL)
            .is_ok()
            .then_some(CONGESTION_CONTROL),
        patience: patience(connections),
        interrupted: &never,
    };
    let more: Vec<&str> = division.server.iter().map(String::as_str).collect();
    let server = Server::start(&place, "echo", &driver, &more)?;
    let is_interrupted = || interrupted.load(Ordering::Relaxed);
    let mut found = go_through(options, &place, server, &division, &is_interrupted)?;
    found.driver = driver;
    let report = Report::new(options, &found);
    match options.format {
        Format::Text => output::bytes(report.text().as_bytes()),
        Format::Json => output::json(&report),
    }
    Ok(if found.interrupted {
        INTERRUPTED
    } else if found.faults.is_empty() {
        0
    } else {
        FAULTY
    })
}

/// Opens, measures, touches and closes.
fn go_through<'a>(
    options: &MillionOptions,
    place: &'a Place<'a>,
    server: Server<'a>,
    division: &Division,
    is_interrupted: &dyn Fn() -> bool,
) -> Result<Found, Stop> {
    let bar = super::progress_bar(options.connections.into(), "connections", options.quiet);
    server.ask()?;
    parts::settled_kernel_bytes(place)?;
    let before = measured(&server)?;
    let waiting_before = limits::waiting_ports();
    let mut load = start_load(options, &server, division)?;
    bar.set_message("opening");
    let mut progress = vec![(0.0, 0)];
    open(options, &mut load, &mut progress, &bar, is_interrupted)?;
    let interrupted = is_interrupted();
    let connected = progress.last().map_or(0, |last| last.1);
    let accepted = wait_for(&server, connected, place.patience)?;
    let after = measured(&server)?;
    let load_resident_bytes = load.said()["resident_bytes"].as_u64();
    bar.set_message("ending");
    load.ask_to_end();
    let seconds = wait_until_ended(&server, after.standing.held, place.patience)?;
    let (told, code) = load.last(place.patience)?;
    let mut faults = parts::faults(&told, code, parts::INTERRUPTED);
    let (touched, echoed) = (&told["touched"], &told["messages"]);
    if touched != echoed {
        faults.push(format!("of {touched} touched, {echoed} echoed"));
    }
    if !accepted {
        faults.push("the server did not accept all that were connected".to_owned());
    }
    let (server_processes, server_threads) = (server.processes, server.threads);
    faults.extend(server.end()?);
    bar.finish_and_clear();
    Ok(Found {
        driver: String::new(),
        server_processes,
        server_threads,
        opened: Opened {
            seconds: opening_seconds(&progress),
            server_us: parts::processor_us(&before.standing, &after.standing, connected),
            moments: parts::moments(from_the_first(&progress)),
        },
        held: Held {
            before,
            after,
            load_resident_bytes,
        },
        closed: Closed {
            seconds,
            told,
            waiting_before,
            waiting_after: limits::waiting_ports(),
        },
        interrupted,
        faults,
    })
}

fn start_load<'a>(
    options: &MillionOptions,
    server: &Server<'a>,
    division: &Division,
) -> Result<End<'a>, Stop> {
    let interval = if options.connections > 200_000 {
        "1s"
    } else {
        "100ms"
    };
    let sources = division::sources(options.connections);
    let mut arguments: Vec<String> = ["--interval", interval, "--source", sources, "--reset"]
        .map(str::to_owned)
        .to_vec();
    arguments.extend_from_slice(&division.load);
    for (name, value) in [
        ("--connections", options.connections.to_string()),
        ("--rate", options.rate.to_string()),
        ("--touch", options.touch.clone()),
        ("--seed", options.seed.to_string()),
        (
            "--leave-memory",
            format!("{}B", options.leave_memory.as_u64()),
        ),
        // A late connect still counts.
        ("--connect-timeout", "60s".to_owned()),
    ] {
        arguments.extend([name.to_owned(), value]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    server.load("hold", &arguments)
}

/// Reads the lines of the load until it has opened all that it can.
fn open(
    options: &MillionOptions,
    load: &mut End<'_>,
    progress: &mut Vec<(f64, u64)>,
    bar: &ProgressBar,
    is_interrupted: &dyn Fn() -> bool,
) -> Result<(), Stop> {
    let wanted = u64::from(options.connections);
    let pace = Duration::from_secs_f64(f64::from(options.connections) / f64::from(options.rate));
    // A machine may be much slower than the requested pace.
    let until = Instant::now() + pace * 4 + patience(options.connections);
    let over = |line: &Value| {
        let count = |name: &str| line[name].as_u64().unwrap_or(0);
        bar.set_position(count("connected"));
        let answered = count("connected") + count("failed");
        // Connects that were held back have no outcome. Connects in flight are waited for.
        is_interrupted() || answered + count("held_back") >= wanted
    };
    let goes_on = parts::read(load, until, progress, over)?;
    // An interval may report it before the load has ended.
    if load.said()["held_back"] == wanted {
        let leave = numbers::bytes(options.leave_memory.as_u64());
        return Err(Stop::Failed(format!(
            "less than {leave} of memory is available already: free some, or lower --leave-memory"
        )));
    }
    if goes_on {
        return Ok(());
    }
    let why = load.said()["verdict"].as_str().unwrap_or("no word");
    Err(Stop::Failed(format!("the load ended early: {why}")))
}

/// Waits until the server has accepted every connection; returns whether it has.
fn wait_for(server: &Server<'_>, connected: u64, patience: Duration) -> Result<bool, Stop> {
    let give_up_at = Instant::now() + patience;
    while server.ask()?.accepted < connected {
        if Instant::now() >= give_up_at {
            return Ok(false);
        }
        thread::sleep(ASK_EVERY);
    }
    Ok(true)
}

/// The time from the first close to the last, as the server sees it; `None` if they do not all
/// close.
fn wait_until_ended(
    server: &Server<'_>,
    held: u64,
    patience: Duration,
) -> Result<Option<f64>, Stop> {
    let give_up_at = Instant::now() + patience;
    let mut begun = Instant::now();
    while Instant::now() < give_up_at {
        let asked = Instant::now();
        match server.ask()?.held {
            0 => return Ok(Some(begun.elapsed().as_secs_f64())),
            // Meanwhile the load touches them.
            all if all >= held => begun = asked,
            _ => {}
        }
        thread::sleep(ASK_EVERY);
    }
    Ok(None)
}

fn measured(server: &Server<'_>) -> Result<Measured, Stop> {
    Ok(Measured {
        standing: server.ask()?,
        kernel_bytes: limits::kernel_object_bytes(),
        available_bytes: limits::memory().available_bytes,
    })
}

/// The progress without the time in which the processes of the load start.
fn from_the_first(progress: &[(f64, u64)]) -> &[(f64, u64)] {
    let nothing_yet = progress.iter().take_while(|(_, count)| *count == 0).count();
    &progress[nothing_yet.saturating_sub(1)..]
}

fn opening_seconds(progress: &[(f64, u64)]) -> f64 {
    let progress = from_the_first(progress);
    let time = |at: Option<&(f64, u64)>| at.map_or(0.0, |at| at.0);
    let last = progress.last().map_or(0, |last| last.1);
    // Lines after the last connection say nothing new.
    let all = progress.iter().find(|(_, count)| *count == last);
    time(all) - time(progress.first())
}

/// The latencies of the messages that touched connections.
fn touch_latencies(told: &Value) -> Option<Percentiles> {
    if told["messages"] == 0 {
        return None;
    }
    serde_json::from_value(told["message_us"].clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_has_no_latency() {
        let told = |messages: u64| {
            let us =
                serde_json::json!({"p50": 1.0, "p90": 1.0, "p99": 1.0, "p99_9": 1.0, "max": 2.0});
            serde_json::json!({"messages": messages, "message_us": us})
        };
        assert_eq!(touch_latencies(&told(0)), None);
        assert_eq!(touch_latencies(&told(3)).map(|it| it.max), Some(2.0));
    }

    #[test]
    fn the_time_to_open_is_from_the_first_to_the_last() {
        let progress = [(0.0, 0), (1.0, 0), (2.0, 50), (3.0, 90), (4.0, 90)];
        assert_eq!(opening_seconds(&progress), 2.0);
        assert_eq!(opening_seconds(&[(0.0, 0)]), 0.0);
        assert_eq!(from_the_first(&progress).len(), 4);
    }
}
