//! The `wine` leg: the Windows build, run for real on Wine's completion ports.
//!
//! Wine shows whether the Windows driver is right, never how fast it is. The
//! leg builds with MinGW, because the MSVC linker runs only on Windows, and
//! keeps its prefix and everything it builds in `target/wine`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::command;
use crate::debian::{self, Needed, Toolchain};
use crate::legs::DRIVERS_REQUIRED;

const TARGET: &str = "x86_64-pc-windows-gnu";
const COMPILER: &str = "/usr/bin/x86_64-w64-mingw32-gcc";
/// Called by its path, because without the package `wine` no wrapper is in PATH.
const WINE: &str = "/usr/lib/wine/wine64";
const WINE_SERVER: &str = "/usr/lib/wine/wineserver64";

const NEEDED: [Needed; 2] = [(COMPILER, "gcc-mingw-w64-x86-64"), (WINE, "wine64")];

/// Where Wine keeps its C: drive and finds what it lacks itself.
#[derive(Debug)]
struct Prefix {
    path: PathBuf,
    libraries: PathBuf,
}

pub(crate) fn wine() -> Result<()> {
    debian::install(&NEEDED)?;
    let toolchain = Toolchain::for_target(TARGET)?;
    let prefix = Prefix::new()?;
    let cargo = |verb: &str, arguments: &[&str]| {
        let mut command = toolchain.cargo(verb, TARGET, "wine");
        command.args(arguments);
        command.env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER", COMPILER);
        command.env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER", WINE);
        command.env(DRIVERS_REQUIRED, "iocp,sim");
        prefix.enter(&mut command);
        command
    };
    timed("build the examples", || {
        command::run(&mut cargo(
            "build",
            &["--package", "wharf-port", "--examples"],
        ))
    })?;
    timed("build the program", || {
        command::run(&mut cargo("build", &["--package", "wharf", "--bins"]))
    })?;
    // With the library's own tests: faults of accepts, and the size of a slot, are shown in them.
    timed("build the suite", || {
        command::run(&mut cargo(
            "test",
            &[
                "--package",
                "wharf-port",
                "--lib",
                "--test",
                "it",
                "--no-run",
            ],
        ))
    })?;
    timed("run the suite", || {
        let mut suite = cargo(
            "test",
            &["--package", "wharf-port", "--lib", "--test", "it"],
        );
        // The simulated network asks nothing of a system: what it shows is shown by the test leg.
        suite.args(["--", "--skip", "sim/", "--skip", "sim_seeds"]);
        command::run(&mut suite)
    })?;
    timed("run the examples against a client of this system", || {
        run_examples(&prefix)
    })?;
    timed("run the program against a client of this system", || {
        serve_native_client(&prefix)
    })
}

/// Runs the suite of the examples here, with their Windows builds under Wine.
fn run_examples(prefix: &Prefix) -> Result<()> {
    let examples = debian::directory("wine")
        .join(TARGET)
        .join("debug/examples");
    let mut suite = command::cargo(&["test", "--package", "wharf-port", "--test", "examples"]);
    suite.env(
        "WHARF_TEST_EXAMPLES",
        format!("{WINE} {}", examples.display()),
    );
    prefix.enter(&mut suite);
    command::run(&mut suite)
}

/// Runs the program's own suite here, with `wharf.exe` under Wine as the program.
///
/// The suite starts the words of `WHARF_TEST_PROGRAM` in place of the binary
/// that cargo built for it, so the same cases drive both.
fn serve_native_client(prefix: &Prefix) -> Result<()> {
    let program = debian::directory("wine")
        .join(TARGET)
        .join("debug/wharf.exe");
    let mut suite = command::cargo(&["test", "--package", "wharf", "--test", "it"]);
    suite.env(
        "WHARF_TEST_PROGRAM",
        format!("{WINE} {}", program.display()),
    );
    suite.env("WHARF_TEST_DRIVERS", "iocp");
    prefix.enter(&mut suite);
    command::run(&mut suite)
}

impl Prefix {
    fn new() -> Result<Self> {
        let base = debian::directory("wine");
        let prefix = Self {
            path: base.join("prefix"),
            libraries: base.join("libraries"),
        };
        fs::create_dir_all(&prefix.path)?;
        fs::create_dir_all(&prefix.libraries)?;
        build_random_library(&prefix.libraries)?;
        // One that an interrupted run left behind would refuse the next one.
        prefix.end_server()?;
        // A server that stays saves two seconds at each start of a program.
        command::run(&mut prefix.server("--persistent"))?;
        timed("start Wine", || {
            let mut start = Command::new(WINE);
            start.arg("wineboot");
            prefix.enter(&mut start);
            command::run(&mut start)
        })?;
        Ok(prefix)
    }

    /// Sets the variables that make `command`, and what it starts, use this prefix.
    fn enter(&self, command: &mut Command) {
        command.env("WINEPREFIX", &self.path);
        command.env("WINEPATH", windows_path(&self.libraries));
        command.env("WINEDEBUG", "-all");
        // Without these two Wine asks whether to download them.
        command.env("WINEDLLOVERRIDES", "mscoree,mshtml=");
    }

    fn server(&self, option: &str) -> Command {
        let mut server = Command::new(WINE_SERVER);
        server.arg(option);
        self.enter(&mut server);
        server
    }

    /// Ends the server, if one runs; that none does is no error.
    fn end_server(&self) -> Result<()> {
        self.server("--kill")
            .output()
            .context("cannot start wineserver")?;
        Ok(())
    }
}

impl Drop for Prefix {
    /// Ends the server of this prefix alone, with whatever a failed test left running.
    fn drop(&mut self) {
        if let Err(error) = self.end_server() {
            eprintln!("xtask: Wine may still be running: {error:#}");
        }
    }
}

fn build_random_library(directory: &Path) -> Result<()> {
    let source = command::root().join("xtask/wine/bcryptprimitives.c");
    let mut compile = Command::new(COMPILER);
    compile.args(["-shared", "-O2", "-Wall", "-Werror", "-o"]);
    compile
        .arg(directory.join("bcryptprimitives.dll"))
        .arg(source)
        .arg("-ladvapi32");
    command::run(&mut compile)
}

/// `/a/b` as Wine sees it; the drive Z: is the root of this system.
fn windows_path(path: &Path) -> String {
    format!("Z:{}", path.display()).replace('/', "\\")
}

fn timed<T>(step: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let outcome = work().with_context(|| step.to_owned());
    println!("-- {step}: {:.1} s", start.elapsed().as_secs_f64());
    outcome
}
