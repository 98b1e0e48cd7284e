//! The console output of a guest, and the checks of it.
//!
//! The console is the only output of a guest, so a silent step has failed: each step must begin,
//! end with its code, and print the proof that it did its work.

use anyhow::{Context, Result, bail, ensure};

use super::differences::{self, Difference, version_of};
use crate::command;

/// The first kernel with a setting that forbids io_uring.
const CAN_BE_FORBIDDEN: (u32, u32) = (6, 6);
/// The first kernel with direct descriptors, as in the README.
const HAS_DIRECT: (u32, u32) = (6, 8);

/// A step of the guest, in the words of `init.sh`.
#[derive(Debug)]
struct Step {
    name: String,
    lines: Vec<String>,
    /// Its exit code, if it ended.
    code: Option<i32>,
}

/// The console, in steps.
#[derive(Debug)]
pub(super) struct Console {
    lines: Vec<String>,
    steps: Vec<Step>,
    /// The last step is over.
    ended: bool,
}

impl Console {
    pub(super) fn read(text: &str) -> Self {
        let lines: Vec<_> = text.lines().map(plain).collect();
        let mut steps: Vec<Step> = Vec::new();
        let mut ended = false;
        for line in &lines {
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["@@", "begin", name] => steps.push(Step {
                    name: name.to_owned(),
                    lines: Vec::new(),
                    code: None,
                }),
                ["@@", "done", name, code] => {
                    if let Some(step) = steps.last_mut().filter(|step| step.name == name) {
                        step.code = code.parse().ok();
                    }
                }
                ["@@", "end"] => ended = true,
                _ => {
                    if let Some(step) = steps.last_mut().filter(|step| step.code.is_none()) {
                        step.lines.push(line.clone());
                    }
                }
            }
        }
        Console {
            lines,
            steps,
            ended,
        }
    }

    /// The whole text.
    pub(super) fn text(&self) -> String {
        self.lines.join("\n")
    }

    /// The lines that a reader of a passed leg wants to see.
    pub(super) fn summary(&self) -> String {
        let told = [
            "auto chose",
            " uses: ",
            "test result",
            "driver ",
            "every byte",
            "held",
        ];
        let mut summary = Vec::new();
        for step in &self.steps {
            let code = step
                .code
                .map_or_else(|| "no code".to_owned(), |it| it.to_string());
            summary.push(format!("{}: {code}", step.name));
            let lines = step.lines.iter().map(|line| line.trim());
            let lines = lines.filter(|line| told.iter().any(|part| line.contains(part)));
            summary.extend(lines.map(|line| format!("    {line}")));
        }
        summary.join("\n")
    }

    /// Checks the output of a kernel of this version.
    pub(super) fn require(&self, version: (u32, u32)) -> Result<()> {
        ensure!(self.ended, "the guest ended before its last step");
        let told = self.step("version")?.lines.join(" ");
        ensure!(
            version_of(&told) == Some(version),
            "another kernel booted: {told}"
        );
        self.passed("doctor", &["driver uring", "works, with"])?;
        self.passed("choice", &["auto chose uring", "test result: ok."])?;
        self.passed("units", &["test result: ok."])?;
        self.passed("hold", &["uring"])?;
        self.passed("echo", &["uring"])?;
        self.passed("suite", &["test result: ok."])?;
        self.require_abilities(version)?;
        self.require_direct(version)?;
        if version >= CAN_BE_FORBIDDEN {
            let proof = ["io_uring is forbidden here", "auto chose poll"];
            self.passed("forbidden", &proof)?;
        }
        Ok(())
    }

    /// For each row of the README: the driver reports the feature or its fallback.
    fn require_abilities(&self, version: (u32, u32)) -> Result<()> {
        let readme = std::fs::read_to_string(command::root().join("README.md"))?;
        let rows = differences::read(&readme)?;
        for mode in ["shared", "single", "direct"] {
            let used = self.used(mode)?;
            if mode == "direct" && version < HAS_DIRECT {
                ensure!(used.is_none(), "there are direct descriptors: {used:?}");
                continue;
            }
            let used =
                used.with_context(|| format!("the guest reported no port that is {mode}"))?;
            let rows: Vec<_> = rows
                .iter()
                .filter(|row| row.modes.contains(&mode))
                .collect();
            check_row_by_row(&rows, version, &used)
                .with_context(|| format!("a port that is {mode} uses {used:?}"))?;
        }
        Ok(())
    }

    /// The features that a port of this mode reports.
    fn used(&self, mode: &str) -> Result<Option<Vec<String>>> {
        let begin = format!("uring/{mode} uses: ");
        let lines = &self.step("choice")?.lines;
        let told = lines.iter().find_map(|line| {
            let (_, words) = line.split_once(&begin)?;
            Some(
                words
                    .split("; ")
                    .map(|word| word.trim().to_owned())
                    .collect(),
            )
        });
        Ok(told)
    }

    fn require_direct(&self, version: (u32, u32)) -> Result<()> {
        if version >= HAS_DIRECT {
            return self.passed("direct", &["uring"]);
        }
        let step = self.step("direct")?;
        ensure!(step.code != Some(0), "direct descriptors work: {step:?}");
        step.printed("direct descriptors need Linux 6.8 or later")
    }

    fn step(&self, name: &str) -> Result<&Step> {
        let step = self.steps.iter().find(|step| step.name == name);
        step.with_context(|| format!("the step {name:?} did not run"))
    }

    fn passed(&self, name: &str, proofs: &[&str]) -> Result<()> {
        let step = self.step(name)?;
        match step.code {
            Some(0) => {}
            Some(code) => bail!("the step {name:?} ended with {code}"),
            None => bail!("the step {name:?} did not end"),
        }
        proofs.iter().try_for_each(|proof| step.printed(proof))
    }
}

impl Step {
    fn printed(&self, proof: &str) -> Result<()> {
        ensure!(
            self.lines.iter().any(|line| line.contains(proof)),
            "the step {:?} did not print {proof:?}",
            self.name
        );
        Ok(())
    }
}

fn check_row_by_row(rows: &[&Difference], version: (u32, u32), used: &[String]) -> Result<()> {
    for row in rows {
        let expected = row.expected(version);
        ensure!(
            used.iter().any(|word| word == expected),
            "it should use {expected:?}"
        );
    }
    Ok(())
}

/// A line without the colours and the carriage returns of a console.
fn plain(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match c {
            // A sequence for the terminal ends with its first letter.
            '\u{1b}' => while rest.next().is_some_and(|c| !c.is_ascii_alphabetic()) {},
            '\r' => {}
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests;
