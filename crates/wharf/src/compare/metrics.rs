//! Compares two results of loads: the median of each figure, its range, and the ratio.

use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;

use super::runs::FailedRun;
use super::{Results, number};

/// With fewer intervals their rates are not significant.
const INTERVALS_LEAST: usize = 4;

/// All figures of two results.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    event: &'static str,
    version: u32,
    a: String,
    b: String,
    /// Settings that differ, with both values.
    differing: Vec<Differing>,
    /// Runs whose figures cannot be trusted.
    failed_runs: Vec<FailedRun>,
    figures: Vec<Figure>,
    fail_above: Option<f64>,
    /// Figures in which B is slower than that allows.
    too_slow: Vec<String>,
    verdict: String,
}

#[derive(Debug, Serialize)]
struct Differing {
    setting: &'static str,
    a: Value,
    b: Value,
}

/// One figure on both sides.
#[derive(Debug, Serialize)]
pub(super) struct Figure {
    pub(super) name: String,
    a: Sample,
    b: Sample,
    /// The ratio of the medians, B to A; `None` if A is 0.
    pub(super) ratio: Option<f64>,
    /// What B is: `faster`, `slower` or `the same`.
    b_is: &'static str,
    /// How many times slower B is; below 1 it is faster. `None` if one side never finished.
    times_slower: f64,
    /// Whether no run of one side is within the range of the other; `None` with a single run.
    pub(super) beyond_spread: Option<bool>,
    /// Whether the figure is about speed, and not about a single event.
    #[serde(skip)]
    counts: bool,
}

/// Which direction is better.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Better {
    /// More is better, as for a rate.
    More,
    /// Less is better, as for a time.
    Less,
}

/// `into / of`, where both may be zero or infinite.
fn times(of: f64, into: f64) -> f64 {
    if of == into { 1.0 } else { into / of }
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
struct Sample {
    median: f64,
    min: f64,
    max: f64,
    count: usize,
}

/// The settings that two loads must share to be comparable.
const SETTINGS: [&str; 10] = [
    "driver",
    "connections",
    "processes",
    "threads",
    "rate_per_second",
    "size_bytes",
    "pipeline",
    "requests_per_second",
    "connects",
    "requests",
];
const PERCENTILES: [&str; 5] = ["p50", "p90", "p99", "p99_9", "max"];

impl Comparison {
    pub(super) fn new(a: &Results, b: &Results, fail_above: Option<f64>) -> Result<Self, String> {
        let modes = (mode(a)?, mode(b)?);
        if modes.0 != modes.1 {
            return Err(format!(
                "{} is of load {} and {} of load {}: there is nothing to compare",
                a.name, modes.0, b.name, modes.1
            ));
        }
        let differing = SETTINGS.into_iter().filter_map(|setting| {
            let value = |results: &Results| results.loads[0].get(setting).cloned();
            let (a, b) = (value(a)?, value(b)?);
            (a != b).then_some(Differing { setting, a, b })
        });
        let figures = figures(a, b, &modes.0);
        let is_too_slow = |it: &&Figure| fail_above.is_some_and(|most| it.is_slower_than(most));
        let too_slow = figures.iter().filter(is_too_slow);
        let too_slow: Vec<String> = too_slow.map(|it| it.name.clone()).collect();
        let failed_runs = [FailedRun::of(a), FailedRun::of(b)].concat();
        Ok(Comparison {
            event: "compare",
            version: 1,
            a: a.name.clone(),
            b: b.name.clone(),
            differing: differing.collect(),
            verdict: verdict(&figures, failed_runs.len(), &too_slow, fail_above),
            failed_runs,
            figures,
            fail_above,
            too_slow,
        })
    }

    /// Whether all runs can be trusted and B is as fast as required.
    pub(super) fn holds(&self) -> bool {
        self.failed_runs.is_empty() && self.too_slow.is_empty()
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to memory does not fail.
        let _ = writeln!(text, "A: {}\nB: {}", self.a, self.b);
        for it in &self.differing {
            let _ = writeln!(
                text,
                "not the same: {} is {} and {}",
                it.setting, it.a, it.b
            );
        }
        for run in &self.failed_runs {
            let _ = writeln!(text, "{}", run.text());
        }
        let _ = writeln!(text, "\n{:<22}{:>14}{:>14}{:>8}", "median", "A", "B", "B/A");
        for figure in &self.figures {
            let ratio = figure.ratio.map(|ratio| format!("{ratio:.3}"));
            let _ = writeln!(
                text,
                "{:<22}{:>14}{:>14}{:>8}   {}",
                figure.name,
                shown(figure.a.median),
                shown(figure.b.median),
                ratio.unwrap_or_default(),
                figure.said()
            );
        }
        let _ = writeln!(text, "\n{}", self.verdict);
        text
    }
}

impl Figure {
    fn said(&self) -> String {
        let range = |sample: Sample| format!("{}–{}", shown(sample.min), shown(sample.max));
        match self.beyond_spread {
            None => format!("{}; a single run: its spread is not known", self.b_is),
            Some(beyond) => format!(
                "{}, {} the spread ({} and {})",
                self.b_is,
                if beyond { "beyond" } else { "within" },
                range(self.a),
                range(self.b)
            ),
        }
    }
}

fn mode(results: &Results) -> Result<String, String> {
    let mode = |load: &Value| load["mode"].as_str().unwrap_or("?").to_owned();
    let first = mode(&results.loads[0]);
    if results.loads.iter().any(|load| mode(load) != first) {
        return Err(format!("{} has loads of several modes", results.name));
    }
    Ok(first)
}

fn figures(a: &Results, b: &Results, mode: &str) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut add = |name: &str, better: Better, a: Vec<f64>, b: Vec<f64>| {
        if let (Some(a), Some(b)) = (Sample::of(a), Sample::of(b)) {
            let is_of_connects =
                name.starts_with("connect_us") && matches!(mode, "echo" | "stream");
            let counts = !is_of_connects && !name.ends_with(" max");
            figures.push(Figure::new(name.to_owned(), better, counts, a, b));
        }
    };
    let rates: &[(&str, &str)] = match mode {
        // A load that holds has a fixed duration, so its connects a second are no rate.
        "hold" => &[],
        "connect" => &[("connects a second", "connected")],
        _ => &[
            ("messages a second", "messages"),
            ("bytes a second", "bytes_received"),
        ],
    };
    for (name, member) in rates {
        add(
            name,
            Better::More,
            self::rates(a, member),
            self::rates(b, member),
        );
    }
    for kind in ["connect_us", "message_us"] {
        for percentile in PERCENTILES {
            let values = |results: &Results| -> Vec<f64> {
                let runs = results.loads.iter();
                runs.filter_map(|load| latency(load, kind, percentile))
                    .collect()
            };
            let name = format!("{kind} {}", percentile.replace('_', "."));
            add(&name, Better::Less, values(a), values(b));
        }
    }
    figures
}

/// One percentile of a run. Infinite if it was never reached, `None` if there was nothing to
/// measure.
fn latency(load: &Value, kind: &str, percentile: &str) -> Option<f64> {
    let (answered, due) = match kind {
        "connect_us" => ("connected", "asked"),
        _ => ("messages", "messages_unanswered"),
    };
    let talks = matches!(load["mode"].as_str(), Some("echo" | "stream"));
    // An older version wrote 0 if it had no latencies, which looks like an instant reply.
    if load[answered] == 0 {
        let is_due = talks || number(load, due) > Some(0.0);
        return is_due.then_some(f64::INFINITY);
    }
    match load.get(kind)?.get(percentile)? {
        Value::Null => Some(f64::INFINITY),
        value => value.as_f64(),
    }
}

/// A number for people.
fn shown(number: f64) -> String {
    match number.is_finite() {
        true => format!("{number:.1}"),
        false => "never".to_owned(),
    }
}

/// One sentence.
fn verdict(
    figures: &[Figure],
    failed_runs: usize,
    too_slow: &[String],
    fail_above: Option<f64>,
) -> String {
    let beyond = |is: &str| {
        let these = figures.iter().filter(|it| it.beyond_spread == Some(true));
        these.filter(|it| it.counts && it.b_is == is).count()
    };
    let all = figures.iter().filter(|it| it.counts).count();
    let mut parts = match failed_runs {
        0 => Vec::new(),
        1 => vec!["one run has failed, and its figures are of what came back".to_owned()],
        runs => vec![format!(
            "{runs} runs have failed, and their figures are of what came back"
        )],
    };
    parts.push(format!(
        "beyond the spread B is faster in {} and slower in {} of {all} figures",
        beyond("faster"),
        beyond("slower")
    ));
    if let Some(most) = fail_above {
        parts.push(match too_slow {
            [] => format!("in none is it more than {most} times slower"),
            names => format!(
                "it is more than {most} times slower in {}",
                names.join(", ")
            ),
        });
    }
    format!("{}.", parts.join("; "))
}

/// Rates per second: of each run, or of each interval if there is only one run.
fn rates(results: &Results, member: &str) -> Vec<f64> {
    let runs: Vec<f64> = results
        .loads
        .iter()
        .filter_map(|load| Some(number(load, member)? / number(load, "seconds")?))
        .collect();
    if runs.len() > 1 {
        return runs;
    }
    let told = results.intervals.windows(2);
    let between: Vec<f64> = told
        .filter_map(|two| {
            let grown = number(&two[1], member)? - number(&two[0], member)?;
            Some(grown / (number(&two[1], "seconds")? - number(&two[0], "seconds")?))
        })
        .filter(|rate| rate.is_finite())
        .collect();
    if between.len() >= INTERVALS_LEAST {
        between
    } else {
        runs
    }
}

impl Sample {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Sample {
            median,
            min,
            max,
            count: values.len(),
        })
    }
}

impl Figure {
    fn new(name: String, better: Better, counts: bool, a: Sample, b: Sample) -> Self {
        let several = a.count > 1 && b.count > 1;
        let times_slower = match better {
            Better::More => times(b.median, a.median),
            Better::Less => times(a.median, b.median),
        };
        let b_is = match times_slower {
            more if more > 1.0 => "slower",
            less if less < 1.0 => "faster",
            _ => "the same",
        };
        let ratio = b.median / a.median;
        Figure {
            name,
            a,
            b,
            ratio: (a.median != 0.0 && ratio.is_finite() && a.median.is_finite()).then_some(ratio),
            b_is,
            times_slower,
            beyond_spread: several.then_some(a.max < b.min || b.max < a.min),
            counts,
        }
    }

    fn is_slower_than(&self, most: f64) -> bool {
        self.counts && self.times_slower > most && self.beyond_spread != Some(false)
    }
}
