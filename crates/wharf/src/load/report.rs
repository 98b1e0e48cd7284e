//! What load tells: how it stands, the account, and one sentence.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use wharf_port::DriverReport;

use super::ledger::{Counts, Latencies, LostInSecond};
use super::options::{LoadOptions, Mode};
use crate::compare::ledgers::Joint;
use crate::wrap::{COLUMN, SENTENCE, TIED, wrapped};

/// The version of the objects of `--format json`; docs/load.md describes them.
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
    /// Whether times were kept whatever became of what was before.
    connects: &'static str,
    requests: Option<&'static str>,
    interrupted: bool,
    #[serde(flatten)]
    counts: &'a Counts,
    connect_us: Percentiles,
    message_us: Option<Percentiles>,
    /// The ledger of both ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<&'a Joint>,
    verdict: String,
    missed: &'a [String],
}

/// Microseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    pub(crate) max: f64,
}

impl Percentiles {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Percentiles {
            p50: at(0.50),
            p90: at(0.90),
            p99: at(0.99),
            p99_9: at(0.999),
            max: histogram.max() as f64 / 1e3,
        }
    }
}

/// All there is to tell at one moment.
#[derive(Debug)]
pub(crate) struct Moment<'a> {
    pub(crate) options: &'a LoadOptions,
    pub(crate) driver: &'a DriverReport,
    pub(crate) processes: u32,
    /// Of each process.
    pub(crate) threads: u32,
    pub(crate) counts: &'a Counts,
    pub(crate) latencies: &'a Latencies,
    pub(crate) interrupted: bool,
    /// Of both ends, at the end, where the server was asked.
    pub(crate) joint: Option<&'a Joint>,
    pub(crate) missed: &'a [String],
}

impl Moment<'_> {
    /// As an object: an `interval` in between, or the `load` at the end.
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
            connect_us: Percentiles::of(&self.latencies.connect),
            message_us: (talks || touches).then(|| Percentiles::of(&self.latencies.message)),
            server: self.joint,
            verdict: self.verdict(),
            missed: self.missed,
        }
    }

    /// How it stands, in one line.
    pub(crate) fn line(&self) -> String {
        let counts = self.counts;
        let mut text = format!(
            "{:.1} s  connected {} of {}, failed {}, lost {}",
            counts.seconds, counts.connected, self.options.connections, counts.failed, counts.lost
        );
        if self.options.mode.talks() {
            text += &format!(", messages {}", counts.messages);
        }
        text
    }

    /// The account for people, in lines.
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
                "connected       {:>12}   {}",
                counts.connected,
                connect_rate(counts)
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
        lines.push(latency_line("connect", &self.latencies.connect, open));
        if self.options.touch.is_some() {
            lines.push(format!(
                "touched         {:>12}   {} messages came back right",
                counts.touched, counts.messages
            ));
            lines.push(latency_line("message", &self.latencies.message, false));
        }
        lines.extend(self.message_lines());
        if let Some(joint) = self.joint {
            lines.push(format!(
                "accepted        {:>12}   by the server; {} never, {} of others",
                joint.accepted, joint.never_accepted, joint.of_others
            ));
        }
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

    /// What became of the messages; nothing where there are none.
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
            latency_line("message", &self.latencies.message, open),
            format!(
                "bytes           {:>12}   out, {} back, {:.1}{TIED}MiB/s each{TIED}way",
                counts.bytes_sent,
                counts.bytes_received,
                counts.bytes_received as f64 / counts.seconds / f64::from(1 << 20)
            ),
        ]
    }

    /// One sentence.
    pub(crate) fn verdict(&self) -> String {
        let counts = self.counts;
        let wanted = u64::from(self.options.connections);
        let mut faults = Vec::new();
        for (count, what) in [
            (
                wanted.saturating_sub(counts.asked + counts.held_back),
                "were not begun in time",
            ),
            (counts.held_back, "were not begun, to leave memory"),
            (counts.failed, "failed to connect"),
            (counts.unfinished, "had not connected when it ended"),
            (counts.lost, "were lost"),
            (counts.corrupt, "brought wrong bytes"),
        ] {
            if count > 0 {
                faults.push(format!("{count} {what}"));
            }
        }
        let what = match self.options.mode {
            Mode::Connect => "connected and closed",
            Mode::Hold => "connected and held",
            Mode::Echo | Mode::Stream => "connected, and every byte came back right",
        };
        let all = if faults.is_empty() {
            let touched = match (self.options.touch, counts.touched) {
                (Some(_), touched) => format!("; {touched} of them were touched, and echo"),
                (None, _) => String::new(),
            };
            format!("all {wanted} {what}{touched}")
        } else {
            format!("of {wanted} wanted, {}", faults.join(", "))
        };
        let before = if self.interrupted {
            "interrupted: "
        } else {
            ""
        };
        let agree = self.joint.filter(|joint| joint.balances);
        let agree = agree.map_or(String::new(), |joint| {
            format!("; {}", joint.verdict.trim_end_matches('.'))
        });
        let after: String = self
            .missed
            .iter()
            .map(|missed| format!("; {missed}"))
            .collect();
        format!("{before}{all}{agree}{after}.")
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

/// How fast they connected, while they did: a hold may go on for hours after that.
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

/// One line of percentiles; nothing where nothing was measured.
fn latency_line(name: &str, histogram: &Histogram<u64>, open: bool) -> String {
    if histogram.is_empty() {
        return String::new();
    }
    let it = Percentiles::of(histogram);
    format!(
        "{name:<16}{:>9.1} us   p50; p90{TIED}{:.1}, p99{TIED}{:.1}, p99.9{TIED}{:.1}, \
         max{TIED}{:.1}; from {}",
        it.p50,
        it.p90,
        it.p99,
        it.p99_9,
        it.max,
        if open {
            "when each was due"
        } else {
            "its begin"
        }
    )
}
