//! What load prints: progress, the account, and a verdict.

use std::time::Duration;

use serde::Serialize;
use wharf_port::DriverReport;

use super::period::{Period, Told};
use super::verdict::age;
use crate::account::joint::Joint;
use crate::load::model::ledger::{Counts, Latencies, LostInSecond};
use crate::load::model::percentiles::{Percentiles, microseconds};
use crate::load::options::{LoadOptions, Mode};
use crate::text::wrap::{COLUMN, SENTENCE, TIED, wrapped};

/// Progress mentions messages without a reply that are older than this.
const TELLING_AGE: Duration = Duration::from_secs(1);
/// The version of the objects of `--format json`; docs/program/load.md describes them.
const VERSION: u32 = 1;

/// One line of `--format json`.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'a> {
    event: &'static str,
    version: u32,
    mode: &'static str,
    target: String,
    driver: String,
    connections: u32,
    processes: u32,
    threads: u32,
    seed: u64,
    rate_per_second: Option<f64>,
    size_bytes: Option<u32>,
    pipeline: Option<u32>,
    requests_per_second: Option<f64>,
    /// Whether requests kept their times regardless of earlier ones.
    connects: &'static str,
    requests: Option<&'static str>,
    interrupted: bool,
    #[serde(flatten)]
    counts: &'a Counts,
    connect_us: Option<Percentiles>,
    message_us: Option<Percentiles>,
    /// What this interval added.
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Option<Told>,
    /// The joint ledger.
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<&'a Joint>,
    verdict: String,
    missed: &'a [String],
    /// The exit code of the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
}

/// All that can be reported at one moment.
#[derive(Debug)]
pub(crate) struct Moment<'a> {
    pub(crate) options: &'a LoadOptions,
    pub(crate) driver: &'a DriverReport,
    pub(crate) processes: u32,
    /// Threads of each process.
    pub(crate) threads: u32,
    pub(crate) counts: &'a Counts,
    pub(crate) latencies: &'a Latencies,
    pub(crate) interrupted: bool,
    /// The joint ledger, at the end, if the load reads the server's account.
    pub(crate) joint: Option<&'a Joint>,
    /// What this interval added, if there are intervals.
    pub(crate) period: Option<&'a Period>,
    pub(crate) missed: &'a [String],
    /// The exit code, at the end.
    pub(crate) exit_code: Option<u8>,
}

impl Moment<'_> {
    /// As an object: an `interval` during the load, or `load` at the end.
    pub(crate) fn object(&self, event: &'static str) -> Report<'_> {
        let target = self.options.address.addresses.first();
        let talks = self.options.mode.talks();
        let touches = self.options.touch.is_some();
        Report {
            event,
            version: VERSION,
            mode: self.options.mode.name(),
            target: target.map(ToString::to_string).unwrap_or_default(),
            driver: self.driver.kind.to_string(),
            connections: self.options.connections,
            processes: self.processes,
            threads: self.threads,
            seed: self.options.seed,
            rate_per_second: self.options.pace().map(|pace| pace.per_second),
            size_bytes: (talks || touches).then(|| self.options.size()),
            pipeline: talks.then(|| self.options.pipeline()),
            requests_per_second: self.options.requests_per_second.filter(|_| talks),
            connects: loop_name(self.options.pace().is_some()),
            requests: talks.then(|| loop_name(self.options.requests_per_second.is_some())),
            interrupted: self.interrupted,
            counts: self.counts,
            connect_us: self.connects(),
            message_us: self.messages().filter(|_| talks || touches),
            period: self.period.map(Period::told),
            server: self.joint,
            verdict: self.verdict(),
            missed: self.missed,
            exit_code: self.exit_code,
        }
    }

    /// Of connects. At the end this includes those that were due and had not connected.
    fn connects(&self) -> Option<Percentiles> {
        let never = self.exit_code.map(|_| self.counts.connects_unanswered());
        Percentiles::of(&self.latencies.connect, never.unwrap_or(0))
    }

    /// Of messages. At the end this includes those that were due and had no reply.
    pub(crate) fn messages(&self) -> Option<Percentiles> {
        let never = self.exit_code.map(|_| self.counts.messages_unanswered);
        Percentiles::of(&self.latencies.message, never.unwrap_or(0))
    }

    /// Progress, in one line.
    pub(crate) fn line(&self) -> String {
        let counts = self.counts;
        let mut text = format!(
            "{:.1} s  connected {} of {}, failed {}, lost {}",
            counts.seconds, counts.connected, self.options.connections, counts.failed, counts.lost
        );
        if self.options.mode.talks() {
            text += &format!(", messages {}", counts.messages);
            if let Some(age) = age(counts).filter(|age| *age >= TELLING_AGE) {
                let unanswered = counts.messages_unanswered;
                text += &format!(", unanswered {unanswered} (for {age:?})");
            }
        }
        if let Some(told) = self.period.map(Period::told) {
            let latency = told.message_us.or(told.connect_us);
            let latency = latency.map(|it| (microseconds(it.p50), microseconds(it.p99)));
            text += &latency.map_or(String::new(), |(p50, p99)| {
                format!("; in this interval p50 {p50}, p99 {p99} us")
            });
        }
        text
    }

    /// The account as lines of text.
    pub(crate) fn text(&self) -> String {
        let counts = self.counts;
        let mut lines = vec![
            format!(
                "asked           {:>12}   connects in {}, {} late",
                counts.asked,
                loop_name(self.options.pace().is_some()),
                counts.late
            ),
            format!(
                "connected       {:>12}   {}{}",
                counts.connected,
                connect_rate(counts),
                self.which()
            ),
            format!(
                "failed          {:>12}   {}",
                counts.failed,
                reasons(
                    counts
                        .failed_by_reason
                        .iter()
                        .map(|(name, count)| (name.clone(), *count))
                )
            ),
        ];
        if counts.unfinished > 0 {
            lines.push(format!("unfinished      {:>12}", counts.unfinished));
        }
        if self.options.mode != Mode::Connect {
            let lost = counts.lost_by_reason.iter();
            let lost: Vec<String> = lost.map(|(reason, lost)| losses(reason, lost)).collect();
            lines.push(format!("held            {:>12}", counts.held));
            lines.push(format!(
                "lost            {:>12}   {}",
                counts.lost,
                lost.join(", ")
            ));
        }
        let open = self.options.pace().is_some();
        lines.push(latency_line("connect", self.connects(), open));
        lines.extend(self.touched_lines());
        lines.extend(self.message_lines());
        if let Some(joint) = self.joint {
            lines.push(format!(
                "accepted        {:>12}   by the server; {} never, {} of others",
                joint.accepted, joint.never_accepted, joint.of_others
            ));
        }
        lines.push(self.held_there());
        let processes = match self.processes {
            1 => String::new(),
            several => format!("   in {several} processes"),
        };
        lines.push(format!(
            "seconds         {:>12.3}{processes}",
            counts.seconds
        ));
        lines.retain(|line| !line.is_empty());
        let lines = lines
            .iter()
            .flat_map(|line| wrapped(line.trim_end(), COLUMN));
        let sentence = wrapped(&self.verdict(), SENTENCE);
        let lines: Vec<String> = lines.chain(sentence).collect();
        lines.join("\n") + "\n"
    }

    /// What the server held; empty if the load did not read it.
    fn held_there(&self) -> String {
        let held = self.joint.and_then(|it| it.held.zip(it.held_by_server));
        held.map_or(String::new(), |(here, there)| {
            let between = here - there;
            format!(
                "held there      {there:>12}   by the server, before the first was closed; {between} \
                 wait in between"
            )
        })
    }

    /// The address of a name that was connected to; empty if it has only one.
    fn which(&self) -> String {
        let name = !self.options.address.others.is_empty();
        let address = self.counts.connected_to.as_ref().filter(|_| name);
        address.map_or(String::new(), |address| format!(", to {address}"))
    }

    /// The outcome of touched connections; empty without `--touch`.
    fn touched_lines(&self) -> Vec<String> {
        let counts = self.counts;
        if self.options.touch.is_none() {
            return Vec::new();
        }
        vec![
            format!(
                "touched         {:>12}   {} messages came back right",
                counts.touched, counts.messages
            ),
            latency_line("message", self.messages(), false),
            self.unanswered(),
        ]
    }

    /// Messages that were due and had no reply; empty if there are none.
    fn unanswered(&self) -> String {
        let counts = self.counts;
        match age(counts) {
            Some(age) if counts.messages_unanswered > 0 => format!(
                "unanswered      {:>12}   messages, the oldest for {age:?}",
                counts.messages_unanswered
            ),
            _ => String::new(),
        }
    }

    /// The outcome of messages; empty if there are none.
    fn message_lines(&self) -> Vec<String> {
        let counts = self.counts;
        if !self.options.mode.talks() {
            return Vec::new();
        }
        let open = self.options.requests_per_second.is_some();
        let unsent = match counts.messages_unsent {
            0 => String::new(),
            unsent => format!(", {unsent} never sent"),
        };
        vec![
            format!(
                "messages        {:>12}   {:.1} a second in {}, {} late{unsent}",
                counts.messages,
                counts.messages as f64 / counts.seconds,
                loop_name(open),
                counts.messages_late
            ),
            latency_line("message", self.messages(), open),
            self.unanswered(),
            format!(
                "bytes           {:>12}   out, {} back, {:.1}{TIED}MiB/s each{TIED}way",
                counts.bytes_sent,
                counts.bytes_received,
                counts.bytes_received as f64 / counts.seconds / f64::from(1 << 20)
            ),
        ]
    }
}

fn loop_name(open: bool) -> &'static str {
    if open { "open loop" } else { "closed loop" }
}

fn reasons(counts: impl Iterator<Item = (String, u64)>) -> String {
    let parts: Vec<String> = counts
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    parts.join(", ")
}

/// The rate of connects while they lasted: a hold may go on for hours after that.
fn connect_rate(counts: &Counts) -> String {
    if counts.connected == 0 {
        return String::new();
    }
    let rate = counts.connected as f64 / counts.connect_seconds.max(1e-9);
    format!("{rate:.1} a second in {:.3} s", counts.connect_seconds)
}

/// Losses of a reason, and in which seconds.
fn losses(reason: &str, lost: &[LostInSecond]) -> String {
    let count: u64 = lost.iter().map(|lost| lost.count).sum();
    match lost {
        [] => String::new(),
        [one] => format!("{reason} {count} (in second {})", one.second),
        [first, .., last] => format!(
            "{reason} {count} (in seconds {} to {})",
            first.second, last.second
        ),
    }
}

/// One line of percentiles; empty without replies.
fn latency_line(name: &str, percentiles: Option<Percentiles>, open: bool) -> String {
    let Some(it) = percentiles else {
        return String::new();
    };
    format!(
        "{name:<16}{:>9} us   p50; {}; from {}",
        microseconds(it.p50),
        it.text(),
        if open {
            "when each was due"
        } else {
            "its begin"
        }
    )
}
