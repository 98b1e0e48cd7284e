//! `cargo xtask tsan`: a part of the contract suite under ThreadSanitizer, which reports memory
//! that two threads use without synchronization.
//!
//! The standard library must be instrumented too, or its own locks look like races. No toolchain of
//! rustup has an instrumented one, and a toolchain without `rust-src` cannot build it. Debian's
//! compiler can, as for foreign targets. The default toolchain provides the runtime (`linker.sh`).
//! ThreadSanitizer does not see what the kernel does with a ring. The ring's indices are atomics on
//! our side, which is the necessary order.
//!
//! A program with a known race runs first, because a missing sanitizer reports nothing either.
//! Everything made here is in `target/tsan`.

mod cases;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command;
use crate::debian::{self, Toolchain};
use crate::legs::DRIVERS_REQUIRED;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The exit code of a program in which a race was reported.
const RACE: i32 = 66;

/// Two threads add to a number without synchronization.
const RACY: &str = "\
static mut NUMBER: u64 = 0;

fn add() {
    for _ in 0..1000 {
        unsafe { NUMBER += 1 }
    }
}

fn main() {
    let other = std::thread::spawn(add);
    add();
    other.join().unwrap();
    println!(\"added\");
}
";

pub(crate) fn tsan() -> Result<()> {
    let build = Build::new()?;
    finds_a_race(&build)?;
    let mut suite = build.cargo("test");
    // With the C library ThreadSanitizer sees what is mapped and unmapped. Otherwise, if another
    // thread maps the memory of a ring that is gone, it reports a false race.
    suite.args(["--features", "rustix/use-libc"]);
    suite.args([
        "--package",
        "wharf-port",
        "--lib",
        "--test",
        "it",
        "--no-run",
    ]);
    let messages = command::read(&mut suite)?;
    let executable = |name: &str| {
        let built = command::executable(&messages, name);
        built.with_context(|| format!("cargo built no executable {name}"))
    };
    let units = executable("wharf_port")?;
    command::run(&mut watched(&units)).context("the library's own tests")?;
    let suite = executable("it")?;
    for driver in ["uring", "poll"] {
        let mut suite = watched(&suite);
        suite.env(DRIVERS_REQUIRED, "uring,poll");
        suite.env("WHARF_TEST_ONLY", cases::CASES.join(","));
        suite.arg(format!("{driver}/"));
        command::run(&mut suite).with_context(|| format!("the suite on {driver}"))?;
    }
    Ok(())
}

/// How programs are built for ThreadSanitizer.
struct Build {
    toolchain: Toolchain,
    runtime: PathBuf,
}

impl Build {
    fn new() -> Result<Self> {
        let toolchain = Toolchain::debian()?;
        let sysroot = command::read(Command::new("rustc").args(["--print", "sysroot"]))?;
        let libraries = PathBuf::from(sysroot.trim())
            .join("lib/rustlib")
            .join(TARGET);
        let found = fs::read_dir(libraries.join("lib"))?.find_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?;
            (name.starts_with("librustc") && name.ends_with("_rt.tsan.a")).then_some(path)
        });
        let runtime = found.context(
            "the default toolchain has no runtime of ThreadSanitizer: use a toolchain from rustup",
        )?;
        Ok(Build { toolchain, runtime })
    }

    /// `cargo <verb>`, which names in JSON what it builds.
    fn cargo(&self, verb: &str) -> Command {
        let mut cargo = self.toolchain.cargo(verb, TARGET, "tsan");
        // Among the flags, so that programs for the compiler itself are linked as usual.
        let linker = command::root().join("xtask/tsan/linker.sh");
        let linker = format!("-Clinker={}", linker.display());
        let flags = ["-Zsanitizer=thread", "-Zexternal-clangrt", &linker];
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
        cargo.env("WHARF_TSAN_RUNTIME", &self.runtime);
        // Fast enough for the suite, and with line numbers for the reports.
        cargo.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
        cargo.env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
        cargo.arg("--message-format=json-render-diagnostics");
        cargo
    }
}

/// A program that exits with [`RACE`] if a race was seen. It has longer deadlines.
fn watched(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(command::root().join("crates/wharf-port"));
    command.env("TSAN_OPTIONS", format!("exitcode={RACE}"));
    command.env("WHARF_TEST_SLOW", "5");
    command
}

/// Requires that a race is found in a program that is built like the suite.
fn finds_a_race(build: &Build) -> Result<()> {
    let package = debian::directory("tsan").join("racy");
    fs::create_dir_all(package.join("src"))?;
    let manifest = "[package]\nname = \"racy\"\nedition = \"2021\"\n\n[workspace]\n";
    fs::write(package.join("Cargo.toml"), manifest)?;
    fs::write(package.join("src/main.rs"), RACY)?;
    let messages = command::read(build.cargo("build").current_dir(&package))?;
    let racy = command::executable(&messages, "racy").context("cargo built no racy program")?;
    let output = watched(&racy).output()?;
    let (told, said) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
    ensure!(
        output.status.code() == Some(RACE) && said.contains("WARNING: ThreadSanitizer: data race"),
        "ThreadSanitizer did not report the known race: {}\n{}{said}",
        output.status,
        String::from_utf8_lossy(told)
    );
    println!("-- ThreadSanitizer reports the known race");
    Ok(())
}
