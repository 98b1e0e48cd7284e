//! What one run measures: a new server, a load against it, and the server's account before and
//! after.
//!
//! Operations and processor time come from the same two accounts of the server, so their ratio does
//! not depend on the exact times of the two reads. The first moments are left out, because they
//! belong to connecting. Latencies are the load's, of the whole run.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use super::ends::{End, Place, Server, Standing, Stop};
use crate::doctor::believable;
use crate::load::CONNECTED_AND_CLOSING_MAX;
use crate::load::model::percentiles::Percentiles;
use crate::sys::limits;

/// Bytes of a message and of a block of bulk, and the number of connections that carry bulk.
pub(super) const MESSAGE_BYTES: u64 = 64;
pub(super) const BLOCK_BYTES: u64 = 65_536;
pub(super) const BULK_CONNECTIONS: u32 = 8;
/// Numbers of connections that echo.
pub(super) const ECHO_CONNECTIONS: [u32; 3] = [1, 64, 1_000];
/// The most connections that a part opens at once, except for the part that holds. The part that
/// connects and closes has this many.
pub(super) const OPEN_AT_ONCE: u32 = CONNECTED_AND_CLOSING_MAX;
/// More connects a second than any server accepts, so a load that connects and closes lasts to its
/// end.
const CONNECTS_A_SECOND_MAX: f64 = 150_000.0;
/// The connects that one source address has ports for, where there is only one address.
const CONNECTS_FROM_ONE_SOURCE: u32 = 12_000;
/// The most bars of a chart.
const MOMENTS: u32 = 32;
/// The kernel frees closed sockets within moments. It has settled when its memory shrinks by less
/// than this in this time.
const SETTLES_WITHIN: Duration = Duration::from_secs(3);
const SETTLED_AFTER: Duration = Duration::from_millis(100);
const SETTLED_BYTES: u64 = 256 << 10;
/// The exit code of a load that was interrupted.
pub(super) const INTERRUPTED: i32 = 130;
/// A limit on the time for starting, connecting and ending, in addition to the measured time. It
/// ends a hang, and is far longer than needed, even under emulation on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// One thing that is measured, on each driver in each round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// Open and hold this number of connections.
    Hold(u32),
    /// Send messages on this number of connections.
    Echo(u32),
    Bulk,
    /// Open, accept and close connections.
    Accept,
}

/// The figures of one run.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Sample {
    /// Microseconds of the server's processor time for one operation.
    pub(super) server_us: Option<f64>,
    /// Operations per second.
    pub(super) per_second: f64,
    /// Whether they were counted in the steady state, and not over the whole run.
    pub(super) steady: bool,
    pub(super) latencies: Option<Percentiles>,
    pub(super) memory: Option<Memory>,
    pub(super) moments: Vec<Moment>,
    /// Why the figures cannot be trusted.
    pub(super) faults: Vec<String>,
}

/// Bytes for each held connection.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Memory {
    pub(super) wharf: f64,
    pub(super) process: Option<f64>,
    /// For both ends.
    pub(super) kernel: Option<f64>,
}

/// The rate since the previous moment.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct Moment {
    pub(super) seconds: f64,
    pub(super) per_second: f64,
}

impl Part {
    pub(super) fn name(self) -> String {
        match self {
            Part::Hold(connections) => format!("hold {connections}"),
            Part::Echo(1) => "echo on 1 connection".to_owned(),
            Part::Echo(connections) => format!("echo on {connections} connections"),
            Part::Bulk => "bulk".to_owned(),
            Part::Accept => "accept and close".to_owned(),
        }
    }

    /// Runs the part once on a driver, for this time.
    pub(super) fn run(
        self,
        place: &Place<'_>,
        driver: &str,
        time: Duration,
    ) -> Result<Sample, Stop> {
        let service = match self {
            Part::Hold(_) | Part::Accept => "hold",
            Part::Echo(_) | Part::Bulk => "echo",
        };
        let server = Server::start(place, service, driver, &[])?;
        let mut sample = match self {
            Part::Hold(connections) => hold(place, &server, connections)?,
            Part::Echo(connections) => {
                let operations = |it: &Standing| it.bytes_in / MESSAGE_BYTES;
                steadily(&server, "echo", connections, time, operations)?
            }
            Part::Bulk => {
                let operations = |it: &Standing| it.bytes_in / BLOCK_BYTES;
                steadily(&server, "stream", BULK_CONNECTIONS, time, operations)?
            }
            Part::Accept => {
                let operations = |it: &Standing| it.accepted;
                steadily(&server, "connect", connects(time), time, operations)?
            }
        };
        sample.faults.extend(server.end()?);
        Ok(sample)
    }
}

/// How long a run warms up before it is measured.
fn warm_up(time: Duration) -> Duration {
    (time / 3).min(Duration::from_millis(300))
}

/// More connects than any server accepts in the time, or as many as there are ports for.
fn connects(time: Duration) -> u32 {
    let has_more_addresses = std::net::TcpListener::bind("127.0.0.2:0").is_ok();
    if has_more_addresses {
        ((time + warm_up(time)).as_secs_f64() * CONNECTS_A_SECOND_MAX).min(16e6) as u32
    } else {
        CONNECTS_FROM_ONE_SOURCE
    }
}

/// A load that runs until it is interrupted, measured once it is warm.
///
/// An earlier version gave the load its duration in advance, with an estimate for connecting. On a
/// slower system the time was up before any message came back.
fn steadily(
    server: &Server<'_>,
    mode: &str,
    connections: u32,
    time: Duration,
    operations: impl Fn(&Standing) -> u64,
) -> Result<Sample, Stop> {
    let interval = (time / MOMENTS).max(Duration::from_millis(10));
    let warm_up = warm_up(time);
    let patience = warm_up + time + PATIENCE;
    let milliseconds = |time: Duration| format!("{}ms", time.as_millis().max(1));
    let (count, interval) = (connections.to_string(), milliseconds(interval));
    // Longer than bench waits for it.
    let longest = milliseconds(patience * 2);
    let first = server.ask()?;
    let mut before = first;
    let options = ["--connections", &count, "--for", &longest];
    let mut load = server.load(mode, &[&options[..], &["--interval", &interval]].concat())?;
    let until = Instant::now() + patience;
    let mut progress = Vec::new();
    let is_warm = |line: &Value| {
        let connected = mode == "connect" || line["connected"] == connections;
        connected && seconds_of(line) >= warm_up.as_secs_f64()
    };
    let mut steady = read(&mut load, until, &mut progress, is_warm)?;
    if steady {
        before = server.ask()?;
        progress.drain(..progress.len() - 1);
        let end = progress[0].0 + time.as_secs_f64();
        let is_over = |line: &Value| seconds_of(line) >= end;
        steady = read(&mut load, until, &mut progress, is_over)?;
    }
    let mut after = server.ask()?;
    let (told, code) = load.end()?;
    if operations(&after) == operations(&before) {
        // On a busy machine the server may not run within a short time. Then the whole run counts.
        (before, after, steady) = (first, server.ask()?, false);
    }
    let done = operations(&after).saturating_sub(operations(&before));
    // A load that connects and closes may have done all its connects.
    let expected_code = if told["interrupted"] == true {
        INTERRUPTED
    } else {
        0
    };
    let mut faults = faults(&told, code, expected_code);
    if done == 0 {
        faults.push("nothing went through".to_owned());
    }
    Ok(Sample {
        server_us: processor_us(&before, &after, done),
        // A load that ended early, on a busy machine, has only its own time.
        per_second: if steady {
            done as f64 / (after.seconds - before.seconds).max(1e-9)
        } else {
            done as f64 / seconds_of(&told).max(1e-9)
        },
        steady,
        latencies: latencies(&told),
        memory: None,
        moments: moments(&progress),
        faults,
    })
}

/// Opens connections as fast as possible, and keeps them until both ends are measured.
fn hold(place: &Place<'_>, server: &Server<'_>, connections: u32) -> Result<Sample, Stop> {
    // The first read of the account takes memory that is not a connection's.
    server.ask()?;
    let kernel_before = settled_kernel_bytes(place)?;
    let before = server.ask()?;
    let count = connections.to_string();
    let mut load = server.load(
        "hold",
        &["--connections", &count, "--interval", "25ms", "--reset"],
    )?;
    let until = Instant::now() + PATIENCE + Duration::from_millis(u64::from(connections));
    let mut progress = vec![(0.0, 0)];
    let all_have_come = |line: &Value| {
        let count = |name: &str| line[name].as_u64().unwrap_or(0);
        count("connected") + count("failed") + count("lost") >= u64::from(connections)
    };
    let all = read(&mut load, until, &mut progress, all_have_come)?;
    let mut after = server.ask()?;
    while all && after.held < before.held + u64::from(connections) && Instant::now() < until {
        place.rest(Duration::from_millis(10))?;
        after = server.ask()?;
    }
    let kernel_after = limits::kernel_object_bytes();
    let kernel = kernel_after.zip(kernel_before);
    let kernel = kernel.map(|(after, before)| after.saturating_sub(before));
    let held = after.held.saturating_sub(before.held);
    // It runs until it is interrupted, which its exit code shows.
    let (told, code) = load.end()?;
    let mut faults = faults(&told, code, INTERRUPTED);
    if held != u64::from(connections) {
        faults.push(format!("of {connections} the server held {held}"));
    }
    let each = |bytes: u64| bytes as f64 / held.max(1) as f64;
    let resident = after.resident_bytes.zip(before.resident_bytes);
    // Before the first connection, the load itself was starting.
    let nothing_yet = progress.iter().take_while(|(_, count)| *count == 0).count();
    progress.drain(..nothing_yet.saturating_sub(1));
    let connecting = progress.last().map_or(0.0, |last| last.0) - progress[0].0;
    Ok(Sample {
        server_us: processor_us(&before, &after, held),
        per_second: held as f64 / connecting.max(1e-9),
        steady: true,
        latencies: latencies(&told),
        memory: Some(Memory {
            wharf: each(after.port_bytes),
            process: resident.map(|(after, before)| each(after.saturating_sub(before))),
            kernel: kernel
                .and_then(|grown| believable(grown, 2 * held))
                .map(|end| 2.0 * end as f64),
        }),
        moments: moments(&progress),
        faults,
    })
}

/// Reads lines of a load until `enough`; returns whether that came before its end.
pub(super) fn read(
    load: &mut End<'_>,
    until: Instant,
    progress: &mut Vec<(f64, u64)>,
    enough: impl Fn(&Value) -> bool,
) -> Result<bool, Stop> {
    while let Some(line) = load.next(until)? {
        if line["event"] != "interval" {
            return Ok(false);
        }
        let connected = line["connected"].as_u64().unwrap_or(0);
        progress.push((seconds_of(&line), connected));
        if enough(&line) {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn seconds_of(line: &Value) -> f64 {
    line["seconds"].as_f64().unwrap_or(0.0)
}

/// The latencies of messages, or of connects if there are no messages.
pub(super) fn latencies(told: &Value) -> Option<Percentiles> {
    let of = |name: &str| serde_json::from_value(told[name].clone()).ok();
    of("message_us").or_else(|| of("connect_us"))
}

/// The connections between one line and the next.
pub(super) fn moments(progress: &[(f64, u64)]) -> Vec<Moment> {
    let pairs = progress.windows(2).filter_map(|pair| {
        let [(from, first), (seconds, last)] = *pair else {
            return None;
        };
        let count = last.saturating_sub(first) as f64;
        (seconds > from).then(|| Moment {
            seconds,
            per_second: count / (seconds - from),
        })
    });
    pairs.collect()
}

pub(super) fn processor_us(before: &Standing, after: &Standing, operations: u64) -> Option<f64> {
    let used = after.processor_us?.checked_sub(before.processor_us?)?;
    (operations > 0).then(|| used as f64 / operations as f64)
}

/// Why a load's figures cannot be trusted.
pub(super) fn faults(told: &Value, code: Option<i32>, expected_code: i32) -> Vec<String> {
    let joint = &told["server"];
    let mut faults = Vec::new();
    if joint["balances"] != true {
        let verdict = joint["verdict"]
            .as_str()
            .unwrap_or("no ledger of both ends");
        faults.push(verdict.trim_end_matches('.').to_owned());
    }
    if code != Some(expected_code) {
        let verdict = told["verdict"].as_str().unwrap_or("no verdict");
        let code = code.map_or("no code".to_owned(), |code| format!("code {code}"));
        faults.push(format!("the load ended with {code}: {verdict}"));
    }
    for name in ["failed", "unfinished", "lost", "corrupt"] {
        match told[name].as_u64() {
            Some(0) => {}
            Some(count) => faults.push(format!("{count} connections {name}")),
            None => faults.push(format!("the load does not report {name}")),
        }
    }
    faults
}

/// The kernel memory of sockets and files, once those of the previous run are freed; `None` if the
/// system does not report it.
pub(super) fn settled_kernel_bytes(place: &Place<'_>) -> Result<Option<u64>, Stop> {
    let give_up_at = Instant::now() + SETTLES_WITHIN;
    let mut lowest = limits::kernel_object_bytes();
    loop {
        place.rest(SETTLED_AFTER)?;
        let now = limits::kernel_object_bytes();
        let falls = now
            .zip(lowest)
            .is_some_and(|(now, before)| now + SETTLED_BYTES < before);
        if !falls || Instant::now() >= give_up_at {
            return Ok(now);
        }
        lowest = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_ledger_that_does_not_balance_is_a_fault() {
        let told = |balances: bool, lost: u64| {
            let server = json!({"balances": balances, "verdict": "they do not agree."});
            json!({
                "server": server, "failed": 0, "unfinished": 0, "lost": lost, "corrupt": 0,
                "verdict": "so.",
            })
        };
        assert_eq!(faults(&told(true, 0), Some(0), 0), [""; 0]);
        assert_eq!(faults(&told(false, 0), Some(0), 0), ["they do not agree"]);
        assert_eq!(faults(&told(true, 3), Some(0), 0), ["3 connections lost"]);
        let ended = faults(&told(true, 0), Some(1), 0);
        assert_eq!(ended, ["the load ended with code 1: so."]);
        assert_eq!(faults(&Value::Null, None, 0).len(), 6);
    }

    #[test]
    fn a_rate_is_what_came_since_the_moment_before() {
        let rates = moments(&[(0.0, 0), (0.5, 100), (0.5, 100), (1.5, 150)]);
        let rates: Vec<(f64, f64)> = rates.iter().map(|it| (it.seconds, it.per_second)).collect();
        assert_eq!(rates, [(0.5, 200.0), (1.5, 50.0)]);
    }

    #[test]
    fn unknown_processor_time_is_not_zero() {
        let standing = |processor_us| Standing {
            seconds: 1.0,
            accepted: 0,
            held: 0,
            bytes_in: 0,
            resident_bytes: None,
            port_bytes: 0,
            processor_us,
        };
        let (some, more) = (standing(Some(100)), standing(Some(300)));
        assert_eq!(processor_us(&some, &more, 100), Some(2.0));
        assert_eq!(processor_us(&some, &more, 0), None);
        assert_eq!(processor_us(&standing(None), &more, 100), None);
    }
}
