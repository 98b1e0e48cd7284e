//! The legs of continuous integration: one table, which also defines the commands.
//!
//! Every leg always runs, even after another has failed. A switch to turn a leg off was rejected: a
//! leg that is off stays off. A leg that cannot run on this system is skipped, with the reason in
//! the summary.

use std::fmt;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::command::{Failed, cargo, run, target_directory, unattended};
use crate::{package, targets, tidy, wine};

/// One thing that continuous integration checks.
pub(crate) struct Leg {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    work: fn() -> Result<()>,
}

/// The drivers that the suite may not skip.
pub(crate) const DRIVERS_REQUIRED: &str = "WHARF_TEST_REQUIRE";

/// In running order: failures that are quick to fix come first.
pub(crate) static LEGS: [Leg; 14] = [
    Leg {
        name: "fmt",
        about: "Fails if cargo fmt would change something",
        work: fmt,
    },
    Leg {
        name: "tidy",
        about: "Checks the rules of CONTRIBUTING.md that a program can check",
        work: tidy::check,
    },
    Leg {
        name: "clippy",
        about: "Runs clippy on all targets; no warning is allowed",
        work: clippy,
    },
    Leg {
        name: "docs",
        about: "Runs rustdoc; no warning and no broken link is allowed",
        work: docs,
    },
    Leg {
        name: "test",
        about: "Runs cargo test, then the tests of xtask",
        work: test,
    },
    Leg {
        name: "seccomp",
        about: "Linux: runs the contract suite with io_uring forbidden; Auto must choose poll and say why",
        work: seccomp,
    },
    Leg {
        name: "polling",
        about: "Runs the contract suite with the readiness driver in its kqueue mode",
        work: polling,
    },
    Leg {
        name: "kernels",
        about: "Linux: runs the self-test, the program and a part of the suite on Linux 6.1 and 6.12, in qemu",
        work: kernels,
    },
    Leg {
        name: "tsan",
        about: "Linux on x86-64: runs the multi-threaded cases of the suite under ThreadSanitizer",
        work: tsan,
    },
    Leg {
        name: "package",
        about: "Packs the crates, then compiles, tests and documents the packages",
        work: package::package,
    },
    Leg {
        name: "msrv",
        about: "Linux, as root: checks the crates with the oldest compilers that their manifests name",
        work: msrv,
    },
    Leg {
        name: "check-targets",
        about: "Runs clippy for Windows, macOS and FreeBSD",
        work: targets::check_targets,
    },
    Leg {
        name: "wine",
        about: "Builds the suite, the examples and the program for Windows and runs them under Wine",
        work: wine::wine,
    },
    Leg {
        name: "wine10",
        about: "Linux, as root: runs the same under Wine 10, which is closer to Windows",
        work: wine10,
    },
];

/// The reason why a leg cannot run on this system, whatever the code is like. It is no failure.
#[derive(Debug)]
pub(crate) struct Skipped(pub(crate) String);

impl fmt::Display for Skipped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SKIPPED, nothing was run: {}", self.0)
    }
}

impl std::error::Error for Skipped {}

/// Runs the leg called `name`.
pub(crate) fn run_one(name: &str) -> Result<()> {
    let Some(leg) = LEGS.iter().find(|leg| leg.name == name) else {
        bail!("no leg is called {name}");
    };
    match (leg.work)() {
        Err(error) if error.is::<Skipped>() => {
            println!("==== {name}: {error}");
            Ok(())
        }
        outcome => outcome,
    }
}

/// Runs all legs, even after one has failed, and prints a summary.
pub(crate) fn run_all() -> Result<()> {
    let start = Instant::now();
    let mut summary = Vec::new();
    let mut failed = Vec::new();
    for leg in &LEGS {
        println!("\n==== {}: {}", leg.name, leg.about);
        let start = Instant::now();
        let word = match (leg.work)() {
            Ok(()) => "passed".to_owned(),
            Err(error) if error.is::<Skipped>() => error.to_string(),
            Err(error) => {
                println!("{error:#}");
                failed.push((leg.name, error));
                "FAILED".to_owned()
            }
        };
        let line = format!("{word} after {}", seconds(start.elapsed()));
        println!("==== {}: {line}", leg.name);
        summary.push(format!("{:<14} {line}", leg.name));
    }
    println!("\n==== summary after {}", seconds(start.elapsed()));
    for line in summary {
        println!("{line}");
    }
    for (name, error) in &failed {
        println!("\n==== {name} FAILED: {error:#}");
        if let Some(command) = error.downcast_ref::<Failed>() {
            println!("-- what it printed last:\n{}", command.end);
        }
    }
    if !failed.is_empty() {
        let names: Vec<_> = failed.iter().map(|(name, _)| *name).collect();
        bail!("failed: {}", names.join(", "));
    }
    Ok(())
}

fn seconds(elapsed: Duration) -> String {
    format!("{:.1} s", elapsed.as_secs_f64())
}

fn fmt() -> Result<()> {
    run(&mut cargo(&["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    run(&mut cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    // Tests turn on the feature `sim`. This run checks the library without it, as programs use it.
    run(&mut cargo(&[
        "clippy",
        "--workspace",
        "--",
        "-D",
        "warnings",
    ]))
}

fn docs() -> Result<()> {
    // As a newcomer builds it, and with all features, as docs.rs does.
    for features in [&[][..], &["--features", "wharf-port/sim"]] {
        let mut doc = cargo(&["doc", "--workspace", "--no-deps"]);
        run(doc.args(features).env("RUSTDOCFLAGS", "-D warnings"))?;
    }
    Ok(())
}

/// The drivers of this system. The suite fails if it would skip one of them.
pub(crate) const DRIVERS: &str = if cfg!(windows) {
    "iocp,sim"
} else if cfg!(target_os = "linux") {
    "uring,poll,sim"
} else {
    "poll,sim"
};

fn test() -> Result<()> {
    let mut all = cargo(&["test"]);
    patient(&mut all);
    run(all.env(DRIVERS_REQUIRED, DRIVERS))?;
    run(&mut cargo(&["test", "--package", "xtask"]))
}

/// In continuous integration the machine may be slow, and no person waits for the report of a hang.
pub(crate) fn patient(suite: &mut Command) {
    if unattended() {
        suite.env("WHARF_TEST_SLOW", "3");
    }
}

/// Other systems use the crate `polling`, and a contributor may have none of them. While only the
/// code for epoll ran, a stream that ended just after its data hung there.
fn polling() -> Result<()> {
    let suite = ["--package", "wharf-port", "--test", "it", "--", "poll/"];
    let mut test = cargo(&[&["test"], &suite[..]].concat());
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    test.env("RUSTFLAGS", format!("{flags} --cfg wharf_polling"));
    test.env("CARGO_TARGET_DIR", target_directory().join("polling"));
    patient(&mut test);
    run(test.env(DRIVERS_REQUIRED, "poll"))
}

#[cfg(target_os = "linux")]
fn kernels() -> Result<()> {
    crate::kernels::kernels()
}

#[cfg(not(target_os = "linux"))]
fn kernels() -> Result<()> {
    bail!("this leg boots kernels only on Linux")
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn tsan() -> Result<()> {
    crate::tsan::tsan()
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn tsan() -> Result<()> {
    let reason = "this leg runs ThreadSanitizer only on Linux on x86-64";
    Err(Skipped(reason.to_owned()).into())
}

#[cfg(target_os = "linux")]
fn msrv() -> Result<()> {
    crate::msrv::msrv()
}

#[cfg(not(target_os = "linux"))]
fn msrv() -> Result<()> {
    let reason = "the compiler of Debian 13 runs only on Linux";
    Err(Skipped(reason.to_owned()).into())
}

#[cfg(target_os = "linux")]
fn wine10() -> Result<()> {
    crate::wine10::wine10()
}

#[cfg(not(target_os = "linux"))]
fn wine10() -> Result<()> {
    let reason = "a Wine in a root directory of its own exists only on Linux";
    Err(Skipped(reason.to_owned()).into())
}

#[cfg(target_os = "linux")]
fn seccomp() -> Result<()> {
    crate::seccomp::seccomp()
}

#[cfg(not(target_os = "linux"))]
fn seccomp() -> Result<()> {
    bail!("system call filters exist only on Linux")
}

/// Fails if a leg lists a case of the contract suite that does not exist.
#[cfg(all(test, target_os = "linux"))]
pub(crate) fn require_cases(names: &[&str]) {
    let suite = crate::command::root().join("crates/wharf-port/tests/it");
    let files = walkdir::WalkDir::new(suite).into_iter();
    let files = files.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok());
    let text: String = files.collect();
    for name in names {
        assert!(
            text.contains(&format!("fn {name}(")),
            "no case is called {name}"
        );
    }
}
