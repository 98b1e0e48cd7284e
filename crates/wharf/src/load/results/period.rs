//! One period of a load: what was counted and measured since the previous one.
//!
//! A load counts from its start, so a server that stalls for a second hardly shows in the figures
//! of an hour. A plot of latency over time needs the latencies of each period.

use std::time::Duration;

use serde::Serialize;

use super::hdr::HdrFile;
use crate::load::model::ledger::Latencies;
use crate::load::model::percentiles::Percentiles;
use crate::load::model::standing::Standing;
use crate::load::options::LoadOptions;

/// The period of `--hdr` without `--interval`.
const LENGTH: Duration = Duration::from_secs(1);

/// The periods of a load, one after the other.
#[derive(Debug)]
pub(crate) struct Periods {
    before: Standing,
    hdr: Option<HdrFile>,
    /// The length of a period; `None` if no option needs periods.
    length: Option<Duration>,
}

impl Periods {
    pub(crate) fn new(options: &LoadOptions, hdr: Option<HdrFile>) -> Self {
        let length = hdr.as_ref().map(|_| LENGTH);
        Periods {
            before: Standing::nothing(),
            hdr,
            length: options.interval.or(length),
        }
    }

    pub(crate) fn length(&self) -> Option<Duration> {
        self.length
    }

    /// Ends the current period and returns it.
    pub(crate) fn next(&mut self, now: &Standing) -> Period {
        let period = Period::between(&self.before, now);
        self.before = now.clone();
        if let Some(hdr) = &mut self.hdr {
            hdr.add(&period);
        }
        period
    }

    /// Whether the periods were written completely.
    pub(crate) fn end(&mut self) -> Result<(), String> {
        self.hdr.take().map_or(Ok(()), HdrFile::end)
    }
}

/// The state of a load at the end of a period, and what the period added.
#[derive(Debug)]
pub(crate) struct Period {
    from_seconds: f64,
    connected: u64,
    failed: u64,
    lost: u64,
    messages: u64,
    bytes_received: u64,
    seconds: f64,
    latencies: Latencies,
}

/// A period, in the objects of `--format json`.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Told {
    seconds: f64,
    connected: u64,
    failed: u64,
    lost: u64,
    messages: u64,
    bytes_received: u64,
    pub(crate) connect_us: Option<Percentiles>,
    pub(crate) message_us: Option<Percentiles>,
}

impl Period {
    /// The difference between two moments.
    pub(crate) fn between(before: &Standing, now: &Standing) -> Self {
        let (counts, earlier) = (&now.counts, &before.counts);
        // A count that is lower than before belonged to a process that died.
        let grown = |now: u64, before: u64| now.saturating_sub(before);
        Period {
            from_seconds: earlier.seconds,
            seconds: (counts.seconds - earlier.seconds).max(0.0),
            connected: grown(counts.connected, earlier.connected),
            failed: grown(counts.failed, earlier.failed),
            lost: grown(counts.lost, earlier.lost),
            messages: grown(counts.messages, earlier.messages),
            bytes_received: grown(counts.bytes_received, earlier.bytes_received),
            latencies: now.latencies.since(&before.latencies),
        }
    }

    pub(crate) fn told(&self) -> Told {
        Told {
            seconds: self.seconds,
            connected: self.connected,
            failed: self.failed,
            lost: self.lost,
            messages: self.messages,
            bytes_received: self.bytes_received,
            connect_us: Percentiles::of(&self.latencies.connect, 0),
            message_us: Percentiles::of(&self.latencies.message, 0),
        }
    }

    pub(crate) fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// The start of the period, counted from the start of the load, and its length.
    pub(crate) fn time(&self) -> (Duration, Duration) {
        let time = |seconds: f64| Duration::from_secs_f64(seconds.max(0.0));
        (time(self.from_seconds), time(self.seconds))
    }
}
