//! The result of bench as JSON. The text page is made from it.
//!
//! A version only adds members; docs/program/bench.md describes them. A figure that the system does
//! not report, or that was not measured before Ctrl-C, is null.

use std::sync::atomic::Ordering;

use serde::Serialize;
use wharf_port::Port;

use super::ends::Place;
use super::figures::Figure;
use super::parts::{
    BLOCK_BYTES, BULK_CONNECTIONS, ECHO_CONNECTIONS, MESSAGE_BYTES, Memory, Moment, Part, Sample,
};
use super::{Found, Plan};
use crate::load::model::percentiles::Percentiles;
use crate::machine;
use crate::sys::facts::Driver;
use crate::sys::{self, limits};
use crate::text::numbers;

const VERSION: u32 = 1;

/// The whole result.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    event: &'static str,
    version: u32,
    pub(super) machine: Machine,
    pub(super) settings: Settings,
    pub(super) interrupted: bool,
    pub(super) passed_over: Vec<PassedOver>,
    pub(super) drivers: Vec<OnDriver>,
    pub(super) faults: Vec<String>,
    pub(super) verdict: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Machine {
    pub(super) system: String,
    pub(super) processors: usize,
    pub(super) memory_bytes: u64,
}

/// The settings of the measurement.
#[derive(Debug, Serialize)]
pub(super) struct Settings {
    pub(super) rounds: u16,
    pub(super) seconds: f64,
    /// The processor of each end; null if it may run on any.
    pub(super) server_processor: Option<usize>,
    pub(super) load_processor: Option<usize>,
    /// The driver of the load, the same for all servers.
    pub(super) load_driver: Option<String>,
    /// The congestion control of the connections, and whether bench set it.
    pub(super) congestion_control: Option<String>,
    pub(super) congestion_control_set: bool,
    message_bytes: u64,
    block_bytes: u64,
    bulk_connections: u32,
    held_connections: u32,
}

/// A driver that does not work here.
#[derive(Debug, Serialize)]
pub(super) struct PassedOver {
    pub(super) driver: String,
    pub(super) reason: String,
}

/// Everything measured on one driver.
#[derive(Debug, Serialize)]
pub(super) struct OnDriver {
    pub(super) driver: String,
    pub(super) echo: Vec<Echo>,
    pub(super) bulk: Option<Bulk>,
    pub(super) accept: Option<Accept>,
    pub(super) hold: Option<Hold>,
}

/// The figures that every part has.
#[derive(Debug, Serialize)]
pub(super) struct Work {
    pub(super) runs: usize,
    /// How many of these ended before the steady state; their figures are those of the whole run.
    pub(super) unsteady_runs: usize,
    /// Microseconds of the server's processor time for an operation.
    pub(super) server_us: Option<Figure>,
    pub(super) per_second: Option<Figure>,
    pub(super) latency_us: Option<Latency>,
}

/// As the load measured them, in microseconds.
#[derive(Debug, Serialize)]
pub(super) struct Latency {
    pub(super) p50: Figure,
    p90: Figure,
    pub(super) p99: Figure,
    pub(super) p99_9: Figure,
    pub(super) max: Figure,
}

#[derive(Debug, Serialize)]
pub(super) struct Echo {
    pub(super) connections: u32,
    #[serde(flatten)]
    pub(super) work: Work,
}

#[derive(Debug, Serialize)]
pub(super) struct Bulk {
    #[serde(flatten)]
    pub(super) work: Work,
    /// Bytes a second in one direction; the same number goes back at the same time.
    pub(super) bytes_per_second_each_way: Option<Figure>,
}

#[derive(Debug, Serialize)]
pub(super) struct Accept {
    #[serde(flatten)]
    pub(super) work: Work,
    /// Of the round with the median rate.
    pub(super) over_time: Vec<Moment>,
}

#[derive(Debug, Serialize)]
pub(super) struct Hold {
    pub(super) connections: u32,
    #[serde(flatten)]
    pub(super) work: Work,
    pub(super) over_time: Vec<Moment>,
    pub(super) bytes_per_connection: PerConnection,
}

/// Memory of one more held connection.
#[derive(Debug, Serialize)]
pub(super) struct PerConnection {
    /// In the server: Wharf's tables and buffers.
    pub(super) wharf: Option<Figure>,
    /// In the server: how much its process grew, tables and buffers included.
    pub(super) process: Option<Figure>,
    /// In the kernel, for both ends: the other end is on this machine too.
    pub(super) kernel_both_ends: Option<Figure>,
}

impl Report {
    pub(super) fn new(plan: &Plan, place: &Place<'_>, found: &Found, interrupted: bool) -> Self {
        let runs = found.samples.len();
        Report {
            event: "bench",
            version: VERSION,
            machine: Machine::this(),
            settings: Settings::of(plan, place),
            interrupted: interrupted || place.interrupted.load(Ordering::Relaxed),
            passed_over: machine::drivers()
                .into_iter()
                .filter_map(passed_over)
                .collect(),
            drivers: plan
                .drivers
                .iter()
                .map(|driver| OnDriver::of(plan, driver, found))
                .collect(),
            verdict: verdict(runs, &found.faults, interrupted),
            faults: found.faults.clone(),
        }
    }

    pub(super) fn has_faults(&self) -> bool {
        !self.faults.is_empty()
    }
}

fn passed_over(driver: Driver) -> Option<PassedOver> {
    (!driver.works).then(|| PassedOver {
        driver: driver.name,
        reason: driver.reason.unwrap_or_default(),
    })
}

fn verdict(runs: usize, faults: &[String], interrupted: bool) -> String {
    let before = if interrupted { "interrupted: " } else { "" };
    let said = match faults.len() {
        0 => format!("in all {runs} runs every byte was right and the ledgers of both ends agree"),
        1 => format!("of {runs} runs, one is not to be trusted"),
        count => format!("of {runs} runs, some are not to be trusted: there are {count} faults"),
    };
    format!("{before}{said}.")
}

impl Machine {
    pub(super) fn this() -> Self {
        Machine {
            system: sys::system_name(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: limits::memory().total_bytes,
        }
    }

    pub(super) fn line(&self) -> String {
        format!(
            "{}, {} processors, {} of memory",
            self.system,
            self.processors,
            numbers::bytes(self.memory_bytes)
        )
    }
}

impl Settings {
    fn of(plan: &Plan, place: &Place<'_>) -> Self {
        let load = Port::builder().single_waiter().build().ok();
        let set = place.congestion_control;
        let of_system = || limits::read().congestion_control.map(|it| it.current);
        Settings {
            rounds: plan.rounds,
            seconds: plan.duration.as_secs_f64(),
            server_processor: place.server_processor,
            load_processor: place.load_processor,
            load_driver: load.map(|port| port.driver().kind.to_string()),
            congestion_control: set.map(str::to_owned).or_else(of_system),
            congestion_control_set: set.is_some(),
            message_bytes: MESSAGE_BYTES,
            block_bytes: BLOCK_BYTES,
            bulk_connections: BULK_CONNECTIONS,
            held_connections: plan.connections,
        }
    }
}

impl OnDriver {
    fn of(plan: &Plan, driver: &str, found: &Found) -> Self {
        let samples = |part| {
            let samples = found.of(driver, part);
            (!samples.is_empty()).then_some(samples)
        };
        let echo = ECHO_CONNECTIONS.into_iter().filter_map(|connections| {
            let work = Work::of(&samples(Part::Echo(connections))?);
            Some(Echo { connections, work })
        });
        OnDriver {
            driver: driver.to_owned(),
            echo: echo.collect(),
            bulk: samples(Part::Bulk).map(|samples| Bulk {
                work: Work::of(&samples),
                bytes_per_second_each_way: figure(&samples, |it| {
                    Some(it.per_second * BLOCK_BYTES as f64)
                }),
            }),
            accept: samples(Part::Accept).map(|samples| Accept {
                work: Work::of(&samples),
                over_time: in_the_middle(&samples),
            }),
            hold: samples(Part::Hold(plan.connections)).map(|samples| Hold {
                connections: plan.connections,
                work: Work::of(&samples),
                over_time: in_the_middle(&samples),
                bytes_per_connection: PerConnection::of(&samples),
            }),
        }
    }
}

impl Work {
    fn of(samples: &[&Sample]) -> Self {
        Work {
            runs: samples.len(),
            unsteady_runs: samples.iter().filter(|sample| !sample.steady).count(),
            server_us: figure(samples, |it| it.server_us),
            per_second: figure(samples, |it| Some(it.per_second)),
            latency_us: Latency::of(samples),
        }
    }
}

impl Latency {
    fn of(samples: &[&Sample]) -> Option<Self> {
        let told = || samples.iter().filter_map(|it| it.latencies.as_ref());
        // A run with this many missing replies would be missing from the median.
        let of = |value: fn(&Percentiles) -> Option<f64>| {
            let values: Option<Vec<f64>> = told().map(value).collect();
            Figure::of(values?)
        };
        Some(Latency {
            p50: of(|it| it.p50)?,
            p90: of(|it| it.p90)?,
            p99: of(|it| it.p99)?,
            p99_9: of(|it| it.p99_9)?,
            max: of(|it| Some(it.max))?,
        })
    }
}

impl PerConnection {
    fn of(samples: &[&Sample]) -> Self {
        let of = |value: fn(&Memory) -> Option<f64>| {
            figure(samples, |it| it.memory.as_ref().and_then(value))
        };
        PerConnection {
            wharf: of(|it| Some(it.wharf)),
            process: of(|it| it.process),
            kernel_both_ends: of(|it| it.kernel),
        }
    }
}

fn figure(samples: &[&Sample], value: impl Fn(&Sample) -> Option<f64>) -> Option<Figure> {
    Figure::of(samples.iter().filter_map(|sample| value(sample)))
}

/// The moments of the run whose rate is the median.
fn in_the_middle(samples: &[&Sample]) -> Vec<Moment> {
    let mut by_rate = samples.to_vec();
    by_rate.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    let middle = by_rate.get(samples.len() / 2);
    middle.map_or(Vec::new(), |sample| sample.moments.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_is_of_the_round_in_the_middle() {
        let sample = |per_second: f64| Sample {
            per_second,
            moments: vec![Moment {
                seconds: 1.0,
                per_second,
            }],
            ..Sample::default()
        };
        let samples = [sample(30.0), sample(10.0), sample(20.0)];
        let moments = in_the_middle(&samples.iter().collect::<Vec<_>>());
        assert_eq!(moments[0].per_second, 20.0);
        assert_eq!(in_the_middle(&[]), []);
    }

    #[test]
    fn a_figure_without_rounds_is_none_and_not_zero() {
        let told = Sample {
            server_us: Some(3.0),
            ..Sample::default()
        };
        let untold = Sample::default();
        assert_eq!(Work::of(&[&untold]).server_us, None);
        let both = Work::of(&[&told, &untold]).server_us.expect("one is known");
        assert_eq!((both.low, both.high), (3.0, 3.0));
        assert!(Work::of(&[&untold]).latency_us.is_none());
    }

    #[test]
    fn the_verdict_says_whether_all_is_to_be_trusted() {
        assert!(verdict(9, &[], false).starts_with("in all 9 runs"));
        let one = verdict(9, &["bulk on poll: lost".to_owned()], true);
        assert_eq!(one, "interrupted: of 9 runs, one is not to be trusted.");
    }
}
