//! Two results of loads: the median of each figure, its range, and the ratio.

use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;

use super::{Results, number};

/// With fewer intervals their rates say little.
const INTERVALS_LEAST: usize = 4;

/// All figures of two results.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    event: &'static str,
    version: u32,
    a: String,
    b: String,
    /// Settings that are not the same, with both values.
    differing: Vec<Differing>,
    figures: Vec<Figure>,
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
    /// Of the medians, B to A; nothing where A is 0.
    pub(super) ratio: Option<f64>,
    /// Whether no run of one side is within the range of the other; nothing with a single run.
    pub(super) beyond_spread: Option<bool>,
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
struct Sample {
    median: f64,
    min: f64,
    max: f64,
    count: usize,
}

/// What two loads have to have in common for their figures to be comparable.
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
    pub(super) fn new(a: &Results, b: &Results) -> Result<Self, String> {
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
        Ok(Comparison {
            event: "compare",
            version: 1,
            a: a.name.clone(),
            b: b.name.clone(),
            differing: differing.collect(),
            figures: figures(a, b, &modes.0),
        })
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
        let _ = writeln!(text, "\n{:<22}{:>14}{:>14}{:>8}", "median", "A", "B", "B/A");
        for figure in &self.figures {
            let ratio = figure.ratio.map(|ratio| format!("{ratio:.3}"));
            let _ = writeln!(
                text,
                "{:<22}{:>14.1}{:>14.1}{:>8}   {}",
                figure.name,
                figure.a.median,
                figure.b.median,
                ratio.unwrap_or_default(),
                figure.said()
            );
        }
        text
    }
}

impl Figure {
    fn said(&self) -> String {
        let range = |sample: Sample| format!("{:.1}–{:.1}", sample.min, sample.max);
        match self.beyond_spread {
            None => "a single run: its spread is not known".to_owned(),
            Some(beyond) => format!(
                "{} the spread ({} and {})",
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
    let mut add = |name: &str, a: Vec<f64>, b: Vec<f64>| {
        if let (Some(a), Some(b)) = (Sample::of(a), Sample::of(b)) {
            figures.push(Figure::new(name.to_owned(), a, b));
        }
    };
    let rates: &[(&str, &str)] = match mode {
        // A held load lasts as long as it was told to: what it opened a second is no rate.
        "hold" => &[],
        "connect" => &[("connects a second", "connected")],
        _ => &[
            ("messages a second", "messages"),
            ("bytes a second", "bytes_received"),
        ],
    };
    for (name, member) in rates {
        add(name, self::rates(a, member), self::rates(b, member));
    }
    for kind in ["connect_us", "message_us"] {
        for percentile in PERCENTILES {
            let values = |results: &Results| -> Vec<f64> {
                let runs = results.loads.iter();
                runs.filter_map(|load| number(load.get(kind)?, percentile))
                    .collect()
            };
            let name = format!("{kind} {}", percentile.replace('_', "."));
            add(&name, values(a), values(b));
        }
    }
    figures
}

/// How many a second: of each run, or of each interval where there is one run only.
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
    fn new(name: String, a: Sample, b: Sample) -> Self {
        let several = a.count > 1 && b.count > 1;
        Figure {
            name,
            a,
            b,
            ratio: (a.median != 0.0).then(|| b.median / a.median),
            beyond_spread: several.then_some(a.max < b.min || b.max < a.min),
        }
    }
}
