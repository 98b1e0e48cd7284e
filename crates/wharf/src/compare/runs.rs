//! Runs that have failed. Their figures cover only what came back.

use serde::Serialize;
use serde_json::Value;

use super::{Results, number};

/// The exit code of a load that was interrupted.
const INTERRUPTED: u64 = 130;

/// A run that cannot be trusted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct FailedRun {
    file: String,
    /// Its position in the file, from 1.
    run: usize,
    why: String,
}

impl FailedRun {
    pub(super) fn text(&self) -> String {
        format!("{}, run {} has failed: {}", self.file, self.run, self.why)
    }

    /// The failed runs of one side.
    pub(super) fn of(results: &Results) -> Vec<Self> {
        let runs = results.loads.iter().enumerate();
        let failed = runs.filter_map(|(place, load)| {
            Some(FailedRun {
                file: results.name.clone(),
                run: place + 1,
                why: why(load)?,
            })
        });
        failed.collect()
    }
}

/// Why a run has failed, if it has. If its exit code does not show it, because it was interrupted
/// or has no code, its counts do.
fn why(load: &Value) -> Option<String> {
    let has_failed = match load["exit_code"].as_u64() {
        Some(0) => false,
        Some(INTERRUPTED) | None => {
            let gone = ["failed", "lost", "unfinished", "corrupt"];
            let some = |name: &&str| number(load, name) > Some(0.0);
            let missed = load["missed"].as_array().is_some_and(|it| !it.is_empty());
            gone.iter().any(some) || missed || load["connected"] == 0
        }
        Some(_) => true,
    };
    let verdict = load["verdict"].as_str().unwrap_or("no verdict");
    has_failed.then(|| verdict.trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_run_fails_by_its_code_or_by_its_counts() {
        for (load, has_failed) in [
            (json!({"exit_code": 0, "lost": 5}), false),
            (json!({"exit_code": 1}), true),
            (json!({"exit_code": 3, "lost": 0}), true),
            (json!({"exit_code": 130, "lost": 0, "missed": []}), false),
            (json!({"exit_code": 130, "lost": 1}), true),
            (json!({"lost": 0, "connected": 1}), false),
            (json!({"connected": 0}), true),
            (json!({"missed": ["expected held=2: it is 1"]}), true),
        ] {
            assert_eq!(why(&load).is_some(), has_failed, "{load}");
        }
    }
}
