//! `wharf compare`: compares two results, and says whether the difference is significant.
//!
//! A file has what `--format json` printed: the `load` objects of one or more runs, one after the
//! other. Two results of loads give ratios. A load and the account of its server give one ledger.
//! The runs themselves decide whether a ratio is significant: only if no run of one side is within
//! the range of the other. A single run has no spread, except for the rates that `--interval`
//! printed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use crate::text::output;
use crate::values::{Format, parse_ratio};
use metrics::Comparison;

mod metrics;
mod runs;

const CANNOT_COMPARE: u8 = 2;
/// Ledgers do not agree, a run has failed, or B is slower than allowed.
const DOES_NOT_HOLD: u8 = 3;

#[derive(Debug, Args)]
pub(crate) struct CompareOptions {
    /// File with the output of load --format json; it may have several runs, one after the other
    pub(crate) a: PathBuf,
    /// The same of another load, or the output of the server of that load
    pub(crate) b: PathBuf,
    /// Exit with 3 if B is slower than A by more than this ratio, such as 1.1 for a tenth. Only
    /// figures count whose difference is beyond the spread or whose spread is not known
    #[arg(long, env = "WHARF_FAIL_ABOVE", value_name = "RATIO", value_parser = parse_ratio)]
    pub(crate) fail_above: Option<f64>,
    /// How to print: text, or one JSON object
    #[arg(long, value_enum, default_value_t = Format::Text, env = "WHARF_FORMAT")]
    pub(crate) format: Format,
}

/// The objects of a file that compare uses.
#[derive(Debug, Default)]
struct Results {
    name: String,
    loads: Vec<Value>,
    intervals: Vec<Value>,
    accounts: Vec<Value>,
}

/// Compares; returns the exit code.
pub(crate) fn run(options: &CompareOptions) -> ExitCode {
    match compare(options) {
        Ok(code) => ExitCode::from(code),
        Err(text) => {
            output::complaint(&text);
            ExitCode::from(CANNOT_COMPARE)
        }
    }
}

fn compare(options: &CompareOptions) -> Result<u8, String> {
    let (a, b) = (Results::read(&options.a)?, Results::read(&options.b)?);
    match (a.is_load(), b.is_load()) {
        (true, true) => {
            let comparison = Comparison::new(&a, &b, options.fail_above)?;
            tell(options.format, &comparison, &comparison.text());
            Ok(if comparison.holds() { 0 } else { DOES_NOT_HOLD })
        }
        (true, false) => ledger(options.format, &a, &b),
        (false, true) => ledger(options.format, &b, &a),
        (false, false) => Err(format!(
            "{} and {} are both of servers: one has to be of a load",
            a.name, b.name
        )),
    }
}

fn ledger(format: Format, load: &Results, server: &Results) -> Result<u8, String> {
    let joint = crate::account::joint::Joint::new(&load.loads, &server.accounts)?;
    let told = crate::account::joint::Told {
        event: "ledgers",
        version: 1,
        joint: &joint,
    };
    tell(format, &told, &joint.text());
    Ok(if joint.balances { 0 } else { DOES_NOT_HOLD })
}

fn tell(format: Format, object: &impl serde::Serialize, text: &str) {
    match format {
        Format::Json => output::json(object),
        Format::Text => output::bytes(text.as_bytes()),
    }
}

impl Results {
    fn read(path: &Path) -> Result<Self, String> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let hint = "name a file with what --format json printed";
            format!("cannot read {name}: {error}: {hint}")
        })?;
        Results::parse(name, &text)
    }

    fn parse(name: String, text: &str) -> Result<Self, String> {
        let mut results = Results {
            name,
            ..Results::default()
        };
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let value: Value = serde_json::from_str(line).map_err(|error| {
                let name = &results.name;
                format!(
                    "{name}, line {}: not what --format json prints: {error}",
                    number + 1
                )
            })?;
            match value["event"].as_str() {
                Some("load") => results.loads.push(value),
                Some("interval") => results.intervals.push(value),
                Some("account") => results.accounts.push(value),
                _ => {}
            }
        }
        if results.loads.is_empty() && results.accounts.is_empty() {
            let name = &results.name;
            return Err(format!(
                "{name} has neither the end of a load nor the account of a server: save what \
                 --format json prints, to its end"
            ));
        }
        Ok(results)
    }

    fn is_load(&self) -> bool {
        !self.loads.is_empty()
    }
}

/// The number of a member, or nothing.
fn number(value: &Value, name: &str) -> Option<f64> {
    value.get(name)?.as_f64()
}

#[cfg(test)]
mod tests;
