//! The result of `wharf bench million`, as JSON and as text.

use serde::Serialize;
use serde_json::Value;

use super::division::sources;
use super::{Found, MillionOptions, touch_latencies};
use crate::bench::figures::rounded;
use crate::bench::page::chart;
use crate::bench::parts::Moment;
use crate::bench::report::Machine;
use crate::doctor::believable;
use crate::load::model::percentiles::Percentiles;
use crate::processes::descriptors::Descriptors;
use crate::text::numbers::{bytes, grouped};

const VERSION: u32 = 1;

/// The whole result; docs/program/bench.md describes its members.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    event: &'static str,
    version: u32,
    machine: Machine,
    driver: String,
    descriptors: &'static str,
    server_processes: u32,
    load_processes: u64,
    /// The number of rings, where each thread has a ring with its own table; null elsewhere.
    server_rings: Option<u64>,
    load_rings: Option<u64>,
    load_driver: String,
    sources: &'static str,
    wanted: u32,
    rate_per_second: u32,
    leave_memory_bytes: u64,
    interrupted: bool,
    held: u64,
    bounded_by: BoundedBy,
    failed: u64,
    failed_by_reason: Value,
    held_back: u64,
    open: Open,
    touch: Touched,
    close: Close,
    memory: Memory,
    /// The joint ledger of both ends.
    server: Value,
    faults: Vec<String>,
    verdict: String,
}

/// Why there were not more connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum BoundedBy {
    /// The requested number was reached.
    Wanted,
    Memory,
    Interrupted,
    Failures,
}

#[derive(Debug, Serialize)]
struct Open {
    seconds: f64,
    per_second: f64,
    server_us: Option<f64>,
    /// Connects that started more than 1 ms late.
    late: u64,
    over_time: Vec<Moment>,
    connect_us: Option<Percentiles>,
}

#[derive(Debug, Serialize)]
struct Touched {
    connections: u64,
    echoed: u64,
    message_us: Option<Percentiles>,
}

#[derive(Debug, Serialize)]
struct Close {
    /// From the first close to the last; null if they did not all close in time.
    seconds: Option<f64>,
    ports_waiting_before: Option<u64>,
    ports_waiting_after: Option<u64>,
}

/// Bytes for each connection, except where noted.
#[derive(Debug, Serialize)]
struct Memory {
    kernel_both_ends: Option<f64>,
    server_wharf: f64,
    server_process: Option<f64>,
    /// All of it, not per connection.
    server_resident_bytes: Option<u64>,
    load_resident_bytes: Option<u64>,
    /// How much less memory the machine has.
    machine: Option<f64>,
    available_bytes_before: u64,
    available_bytes_held: u64,
}

impl Report {
    pub(super) fn new(options: &MillionOptions, found: &Found) -> Self {
        let told = &found.closed.told;
        let count = |name: &str| told[name].as_u64().unwrap_or(0);
        let held = found.held.after.standing.held;
        let direct = options.descriptors == Descriptors::Direct;
        let bounded_by = if held >= u64::from(options.connections) {
            BoundedBy::Wanted
        } else if count("held_back") > 0 {
            BoundedBy::Memory
        } else if found.interrupted {
            BoundedBy::Interrupted
        } else {
            BoundedBy::Failures
        };
        let mut report = Report {
            event: "bench_million",
            version: VERSION,
            machine: Machine::this(),
            driver: found.driver.clone(),
            descriptors: if direct { "direct" } else { "ordinary" },
            server_processes: found.server_processes,
            load_processes: count("processes").max(1),
            server_rings: direct.then_some(found.server_threads.into()),
            load_rings: direct.then(|| count("threads")),
            load_driver: told["driver"].as_str().unwrap_or_default().to_owned(),
            sources: sources(options.connections),
            wanted: options.connections,
            rate_per_second: options.rate,
            leave_memory_bytes: options.leave_memory.as_u64(),
            interrupted: found.interrupted,
            held,
            bounded_by,
            failed: count("failed"),
            failed_by_reason: told["failed_by_reason"].clone(),
            held_back: count("held_back"),
            open: Open {
                seconds: found.opened.seconds,
                per_second: held as f64 / found.opened.seconds.max(1e-9),
                server_us: found.opened.server_us,
                late: count("late"),
                over_time: found.opened.moments.clone(),
                connect_us: serde_json::from_value(told["connect_us"].clone()).ok(),
            },
            touch: Touched {
                connections: count("touched"),
                echoed: count("messages"),
                message_us: touch_latencies(told),
            },
            close: Close {
                seconds: found.closed.seconds,
                ports_waiting_before: found.closed.waiting_before,
                ports_waiting_after: found.closed.waiting_after,
            },
            memory: Memory::of(found, held),
            server: told["server"].clone(),
            faults: found.faults.clone(),
            verdict: String::new(),
        };
        report.verdict = report.verdict();
        report
    }

    fn verdict(&self) -> String {
        let (held, wanted) = (grouped(self.held), grouped(u64::from(self.wanted)));
        let bound = match self.bounded_by {
            BoundedBy::Wanted => format!("all {wanted} were held"),
            BoundedBy::Memory => {
                format!(
                    "{held} of {wanted} were held: more would have left less than {} of memory",
                    bytes(self.leave_memory_bytes)
                )
            }
            BoundedBy::Interrupted => format!("interrupted: {held} of {wanted} were held"),
            BoundedBy::Failures => format!("{held} of {wanted} were held, and others failed"),
        };
        let after = match &self.faults[..] {
            [] => "the ledgers of both ends agree, and all that were touched live".to_owned(),
            faults => format!("not to be trusted: {}", faults.join("; ")),
        };
        format!("{bound}; {after}.")
    }

    pub(super) fn text(&self) -> String {
        let server = plural(u64::from(self.server_processes), self.server_rings);
        let load = plural(self.load_processes, self.load_rings);
        let direct = match self.server_rings {
            Some(_) => ", with direct descriptors",
            None => "",
        };
        let mut lines = vec![
            self.machine.line(),
            format!(
                "echo on {} in {server}, load on {} in {load}{direct}",
                self.driver, self.load_driver
            ),
            format!("loopback, from {}", self.sources),
            String::new(),
            format!(
                "held      {} of {}",
                grouped(self.held),
                grouped(u64::from(self.wanted))
            ),
        ];
        lines.extend(self.opened());
        lines.extend(chart(&self.open.over_time));
        lines.push(self.touched());
        lines.extend(self.closed());
        lines.extend(self.memory.lines());
        lines.push(self.verdict.clone());
        let lines: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
        lines.join("\n") + "\n"
    }

    fn opened(&self) -> [String; 2] {
        let cost = match self.open.server_us {
            Some(us) => format!("{} us of server CPU each", rounded(us)),
            None => "server CPU unknown".to_owned(),
        };
        [
            format!(
                "opened    in {} s, {} a second of {} that were to begin",
                rounded(self.open.seconds),
                rounded(self.open.per_second),
                grouped(u64::from(self.rate_per_second)),
            ),
            format!("          {cost}"),
        ]
    }

    fn touched(&self) -> String {
        let took = self.touch.message_us.as_ref().map_or(String::new(), |it| {
            let ms = |us: f64| rounded(us / 1e3);
            let half = it.p50.map_or("never".to_owned(), ms);
            format!(" in {half} ms (p50), {} ms (max)", ms(it.max))
        });
        format!(
            "touched   {} at random, {} echoed{took}",
            grouped(self.touch.connections),
            grouped(self.touch.echoed)
        )
    }

    fn closed(&self) -> Vec<String> {
        let seconds = match self.close.seconds {
            Some(seconds) => format!("in {} s with RST", rounded(seconds)),
            None => "not in time".to_owned(),
        };
        let waiting = self
            .close
            .ports_waiting_before
            .zip(self.close.ports_waiting_after);
        let waiting = waiting.map(|(before, after)| {
            let more = grouped(after.saturating_sub(before));
            format!("          on the machine {more} more ports wait in TIME_WAIT than before")
        });
        let closed = format!("closed    {seconds}");
        [Some(closed), waiting].into_iter().flatten().collect()
    }
}

impl Memory {
    fn of(found: &Found, held: u64) -> Self {
        let (before, after) = (&found.held.before, &found.held.after);
        let each = |bytes: u64| bytes as f64 / held.max(1) as f64;
        let grown = |before: Option<u64>, after: Option<u64>| {
            let grown = after?.checked_sub(before?)?;
            (held > 0).then(|| each(grown))
        };
        Memory {
            kernel_both_ends: kernel_of_each(before.kernel_bytes, after.kernel_bytes, held),
            server_wharf: each(after.standing.port_bytes),
            server_process: grown(
                before.standing.resident_bytes,
                after.standing.resident_bytes,
            ),
            server_resident_bytes: after.standing.resident_bytes,
            load_resident_bytes: found.held.load_resident_bytes,
            machine: grown(Some(after.available_bytes), Some(before.available_bytes)),
            available_bytes_before: before.available_bytes,
            available_bytes_held: after.available_bytes,
        }
    }

    fn lines(&self) -> [String; 5] {
        let each = |bytes: Option<f64>| match bytes {
            Some(bytes) => format!("{} bytes for each", rounded(bytes)),
            None => "unknown".to_owned(),
        };
        let all = |size: Option<u64>| size.map_or("an unknown size".to_owned(), bytes);
        let half = self.kernel_both_ends.map_or(String::new(), |both| {
            format!(" at both ends together, {} at one", rounded(both / 2.0))
        });
        [
            format!("kernel    {}{half}", each(self.kernel_both_ends)),
            format!(
                "server    grown by {}, to {}",
                each(self.server_process),
                all(self.server_resident_bytes)
            ),
            format!(
                "          {} bytes for each of Wharf's own tables and buffers",
                rounded(self.server_wharf)
            ),
            format!("load      {}", all(self.load_resident_bytes)),
            match self.machine {
                Some(_) => format!(
                    "machine   {} less available in all; {} are left",
                    each(self.machine),
                    bytes(self.available_bytes_held)
                ),
                // Other programs gave back more than the connections took.
                None => format!(
                    "machine   no less available; {} are left",
                    bytes(self.available_bytes_held)
                ),
            },
        ]
    }
}

/// Kernel memory for both ends of each connection. `None` if the figure cannot be right: then
/// another program took memory or gave it back.
fn kernel_of_each(before: Option<u64>, after: Option<u64>, held: u64) -> Option<f64> {
    let grown = after?.checked_sub(before?)?;
    believable(grown, 2 * held)?;
    Some(grown as f64 / held as f64)
}

fn plural(processes: u64, rings: Option<u64>) -> String {
    let processes = match processes {
        1 => "one process".to_owned(),
        several => format!("{several} processes"),
    };
    match rings {
        None => processes,
        Some(1) => processes + " with one ring",
        Some(rings) => format!("{processes} with {rings} rings"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn implausible_kernel_memory_is_left_out() {
        let of_each = |after| kernel_of_each(Some(1_000_000), after, 100);
        assert_eq!(of_each(Some(1_800_000)), Some(8_000.0));
        // Too little, too much, less than before, and unknown.
        for after in [Some(1_001_000), Some(90_000_000), Some(900_000), None] {
            assert_eq!(of_each(after), None, "{after:?}");
        }
        assert_eq!(kernel_of_each(Some(1), Some(2), 0), None);
    }
}
