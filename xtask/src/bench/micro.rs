//! `cargo xtask bench --micro`: what single operations cost, from criterion's own estimates.
//!
//! Criterion samples, separates outliers and bootstraps a confidence interval. This module only
//! runs it and reads its files. Its printed lines were rejected as a source: they round, and they
//! show the slope of a regression and not the median.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::command::{cargo, root, run, target_directory};

use super::{machine, section};

/// The heading of the section.
pub(super) const TITLE: &str = "Micro benches";

/// The measured operations: the names of criterion's groups, and their names in the table.
static OPERATIONS: [(&str, &str); 13] = [
    (
        "send to an idle socket",
        "submit: a send of 64 bytes, socket idle",
    ),
    (
        "send to a busy socket",
        "submit: a send that joins the queue of a busy socket",
    ),
    ("receive", "submit: a receive that streams"),
    ("dequeue 1", "dequeue: a packet, one a wait"),
    ("dequeue 8", "dequeue: a packet, 8 a wait"),
    ("dequeue 64", "dequeue: a packet, 64 a wait"),
    ("dequeue 256", "dequeue: a packet, 256 a wait"),
    (
        "post to another thread",
        "post to another thread, one of many",
    ),
    (
        "post there and back",
        "post to a thread that sleeps, and one back",
    ),
    ("timer armed", "timer: armed, of a million"),
    (
        "timer cancelled",
        "timer: cancelled, in the order they were armed",
    ),
    (
        "timer cancelled in any order",
        "timer: cancelled, in any order",
    ),
    ("timer expired", "timer: expired and its packet taken"),
];

/// A median with the bounds of its confidence interval, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Estimate {
    median: f64,
    low: f64,
    high: f64,
}

/// By operation and kind of port.
type Estimates = BTreeMap<(String, String), Estimate>;

/// Measures, and puts the section into the page at `output`.
pub(super) fn run_and_write(seconds: f64, output: &str) -> Result<()> {
    ensure!(seconds > 0.0, "a measurement takes some time: --seconds");
    let home = target_directory().join("criterion-micro");
    if home.exists() {
        fs::remove_dir_all(&home)?;
    }
    let seconds_text = seconds.to_string();
    let mut bench = cargo(&["bench", "--locked", "--package", "bench-micro", "--"]);
    bench.args(["--noplot", "--warm-up-time", "0.5", "--measurement-time"]);
    bench.arg(seconds_text).env("CRITERION_HOME", &home);
    run(bench.current_dir(root().join("bench")))?;
    let section = section(&read_all(&home)?, seconds)?;
    let path = root().join(output);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let page = fs::read_to_string(&path).unwrap_or_else(|_| "# Benchmarks\n".to_owned());
    fs::write(&path, section::put(&page, TITLE, &section))?;
    println!("{section}");
    Ok(())
}

/// Every estimate below the directory: `group/function/new/`.
fn read_all(home: &Path) -> Result<Estimates> {
    let mut estimates = Estimates::new();
    for entry in walkdir::WalkDir::new(home) {
        let entry = entry?;
        let path = entry.path();
        if path.file_name().is_none_or(|name| name != "benchmark.json")
            || path.parent().is_none_or(|parent| !parent.ends_with("new"))
        {
            continue;
        }
        let name = read_json(path)?;
        let estimate = read_json(&path.with_file_name("estimates.json"))?;
        let (key, estimate) = parse(&name, &estimate)
            .with_context(|| format!("{} is not as criterion writes it", path.display()))?;
        estimates.insert(key, estimate);
    }
    ensure!(!estimates.is_empty(), "criterion left no estimates");
    Ok(estimates)
}

fn read_json(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(serde_json::from_str(&text)?)
}

/// The operation, the kind of port, and the time of one operation.
fn parse(name: &Value, estimate: &Value) -> Option<((String, String), Estimate)> {
    let elements = name["throughput"]["Elements"].as_f64()?;
    let median = &estimate["median"];
    let interval = &median["confidence_interval"];
    let nanoseconds = |value: &Value| Some(value.as_f64()? / elements);
    let estimate = Estimate {
        median: nanoseconds(&median["point_estimate"])?,
        low: nanoseconds(&interval["lower_bound"])?,
        high: nanoseconds(&interval["upper_bound"])?,
    };
    let operation = name["group_id"].as_str()?.to_owned();
    Some((
        (operation, name["function_id"].as_str()?.to_owned()),
        estimate,
    ))
}

fn section(estimates: &Estimates, seconds: f64) -> Result<String> {
    for (operation, _) in estimates.keys() {
        let is_known = OPERATIONS.iter().any(|(known, _)| known == operation);
        ensure!(
            is_known,
            "the table has no line for the group \"{operation}\": add it"
        );
    }
    let mut kinds: Vec<&str> = Vec::new();
    for driver in ["iocp", "uring", "poll", "sim"] {
        let columns = estimates.keys().map(|(_, kind)| kind.as_str());
        let mut columns: Vec<_> = columns.filter(|kind| kind.starts_with(driver)).collect();
        columns.sort_unstable_by_key(|kind| kind.ends_with("shared"));
        columns.dedup();
        kinds.extend(columns);
    }
    let mut text = introduction(seconds)?;
    write!(text, "\n| operation | {} |\n", kinds.join(" | "))?;
    writeln!(text, "|---|{}", "---|".repeat(kinds.len()))?;
    for (operation, about) in &OPERATIONS {
        let cell = |kind: &&str| {
            let key = ((*operation).to_owned(), (*kind).to_owned());
            estimates.get(&key).map_or(String::new(), shown)
        };
        let cells: Vec<String> = kinds.iter().map(cell).collect();
        writeln!(text, "| {about} | {} |", cells.join(" | "))?;
    }
    Ok(text)
}

fn introduction(seconds: f64) -> Result<String> {
    Ok(format!(
        "## {TITLE}\n\n\
         Written by `cargo xtask bench --micro`: what single operations of `wharf-port` cost, in nanoseconds, as \
         the median of criterion's samples and its 95 % confidence interval. Measured on {}; {}; {seconds} s each.\n\n\
         - A submission on `uring` queues a request, which the next wait submits; on `poll` it is the system call, unless the socket is busy.\n\
         - The packets that are dequeued are posts. *sim* is the simulated network: the core, without a kernel \
         below.\n\
         - Posts go from one core to the other. There and back are two wake-ups of a thread that sleeps in the \
         kernel.\n\
         - Timers are a million at a time, with random deadlines within 30 s. None allocates: the table \
         takes one allocation for each 4,096 the first time, and none after that \
         (`crates/wharf-port/tests/memory.rs` counts). Those that expire are all due within 200 ms and found at once.\n",
        machine::machine(),
        machine::compiler()?,
    ))
}

fn shown(estimate: &Estimate) -> String {
    let digits = if estimate.median < 100.0 { 1 } else { 0 };
    let number = |value: f64| format!("{value:.digits$}");
    format!(
        "{} ({}–{})",
        number(estimate.median),
        number(estimate.low),
        number(estimate.high)
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Estimate, Estimates, OPERATIONS, parse, section};
    use crate::command::root;

    #[test]
    fn an_estimate_is_of_one_operation() {
        let name = serde_json::json!({
            "group_id": "dequeue 8", "function_id": "poll shared", "throughput": {"Elements": 8}
        });
        let estimate = serde_json::json!({"median": {
            "confidence_interval": {"confidence_level": 0.95, "lower_bound": 72.0, "upper_bound": 96.0},
            "point_estimate": 80.0
        }});
        let expected = Estimate {
            median: 10.0,
            low: 9.0,
            high: 12.0,
        };
        let key = ("dequeue 8".to_owned(), "poll shared".to_owned());
        assert_eq!(parse(&name, &estimate), Some((key.clone(), expected)));
        assert_eq!(parse(&name, &serde_json::json!({})), None);

        let unknown = ("enqueue".to_owned(), key.1.clone());
        let error = section(&Estimates::from([(unknown, expected)]), 1.0);
        assert!(error.unwrap_err().to_string().contains("\"enqueue\""));
        let text = section(&Estimates::from([(key, expected)]), 1.0).expect("cargo has a version");
        assert!(
            text.contains("| dequeue: a packet, 8 a wait | 10.0 (9.0–12.0) |\n"),
            "{text}"
        );
        assert!(
            text.contains("| operation | poll shared |\n|---|---|\n"),
            "{text}"
        );
    }

    /// A line of the table that no group fills would be empty.
    #[test]
    fn every_operation_is_measured() {
        let directory = root().join("bench/micro/benches/micro");
        let text: String = fs::read_dir(directory)
            .expect("the benches are there")
            .map(|entry| fs::read_to_string(entry.expect("an entry").path()).expect("text"))
            .collect();
        for (operation, _) in &OPERATIONS {
            let stem = operation.trim_end_matches(|c: char| c.is_ascii_digit() || c == ' ');
            assert!(
                text.contains(&format!("\"{stem}")),
                "{operation} is not measured"
            );
        }
    }
}
