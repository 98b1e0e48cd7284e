//! The counters between the two ends of the measured time.

use std::error::Error;
use std::fmt;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

use crate::{Load, WARM_UP};

/// The counters of one run.
pub(crate) struct Measure {
    server: ClockId,
    starts: Instant,
    ends: Instant,
    running: bool,
    started: Instant,
    server_before: Duration,
    latencies: Histogram<u64>,
    /// Operations since the start: echoes, or accepted connections.
    pub(crate) operations: u64,
    pub(crate) bytes: u64,
}

/// The result of a run.
pub(crate) struct Report {
    operations: u64,
    bytes: u64,
    time: Duration,
    server: Duration,
    latencies: Histogram<u64>,
}

impl Measure {
    pub(crate) fn new(load: &Load) -> Result<Self, Box<dyn Error>> {
        let now = Instant::now();
        Ok(Measure {
            server: clock_getcpuclockid(Pid::from_raw(load.server))?,
            starts: now + WARM_UP,
            ends: now + WARM_UP + load.time,
            running: false,
            started: now,
            server_before: Duration::ZERO,
            latencies: Histogram::new_with_bounds(1, 60_000_000_000, 3)?,
            operations: 0,
            bytes: 0,
        })
    }

    /// Records the start of the measured time; returns whether its end has come.
    pub(crate) fn is_over(&mut self, now: Instant) -> Result<bool, Box<dyn Error>> {
        if !self.running && now >= self.starts {
            self.running = true;
            self.operations = 0;
            self.bytes = 0;
            self.latencies.reset();
            self.server_before = self.server.now()?.into();
            self.started = Instant::now();
        }
        Ok(now >= self.ends)
    }

    /// The next instant at which `is_over` has something to do.
    pub(crate) fn next(&self) -> Instant {
        if self.running { self.ends } else { self.starts }
    }

    pub(crate) fn latency(&mut self, sent: Instant, now: Instant, count: u64) {
        let nanoseconds = now.saturating_duration_since(sent).as_nanos() as u64;
        self.latencies.saturating_record_n(nanoseconds, count);
    }

    pub(crate) fn report(self) -> Result<Report, Box<dyn Error>> {
        let server: Duration = self.server.now()?.into();
        if self.operations == 0 && self.bytes == 0 {
            return Err("nothing happened in the measured time".into());
        }
        Ok(Report {
            operations: self.operations,
            bytes: self.bytes,
            time: self.started.elapsed(),
            server: server.saturating_sub(self.server_before),
            latencies: self.latencies,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "operations={} bytes={} time_ns={} server_ns={} p50_ns={} p99_ns={}",
            self.operations,
            self.bytes,
            self.time.as_nanos(),
            self.server.as_nanos(),
            self.latencies.value_at_quantile(0.5),
            self.latencies.value_at_quantile(0.99),
        )
    }
}
