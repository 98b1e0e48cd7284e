//! The `wine` leg: the Windows build, run for real on Wine's completion ports.
//!
//! Wine shows whether the Windows driver is correct, never how fast it is. The leg builds with
//! MinGW, because the MSVC linker runs only on Windows. Its prefix and everything it builds are in
//! `target/wine`. Building and running are separate, because `wine10` runs the same binaries under
//! a newer Wine.
//!
//! This leg runs builds with debug assertions. `wine10` builds and runs the profile `dist`, with
//! all optimizations of the linker: that takes minutes, and once is enough.

use std::ffi::OsString;
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
/// Called by its path, because PATH has a wrapper only with the package `wine`.
const WINE: &str = "/usr/lib/wine/wine64";
const WINE_SERVER: &str = "/usr/lib/wine/wineserver64";

const NEEDED: [Needed; 2] = [(COMPILER, "gcc-mingw-w64-x86-64"), (WINE, "wine64")];

/// One Wine: its starter, and the place of its C: drive.
#[derive(Debug)]
pub(crate) struct Wine {
    /// Starts a Windows program.
    pub(crate) program: PathBuf,
    pub(crate) server: PathBuf,
    pub(crate) prefix: PathBuf,
    /// Variables that this Wine needs in addition.
    pub(crate) variables: Vec<(&'static str, OsString)>,
}

pub(crate) fn wine() -> Result<()> {
    debian::install(&NEEDED)?;
    let build = Build::new()?;
    build.all()?;
    let base = debian::directory("wine");
    let libraries = base.join("libraries");
    fs::create_dir_all(&libraries)?;
    build_random_library(&libraries)?;
    let wine = Wine {
        program: WINE.into(),
        server: WINE_SERVER.into(),
        prefix: base.join("prefix"),
        variables: vec![("WINEPATH", windows_path(&libraries).into())],
    };
    wine.start()?;
    wine.exercise(&build)
}

/// How binaries are built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Profile {
    /// The directory where cargo puts them.
    directory: &'static str,
    options: &'static [&'static str],
}

/// With debug assertions.
pub(crate) const DEBUG: Profile = Profile {
    directory: "debug",
    options: &[],
};

/// The build that packages have.
#[cfg(target_os = "linux")]
pub(crate) const DIST: Profile = Profile {
    directory: "dist",
    options: &["--profile", "dist"],
};

impl Profile {
    /// The path of this Windows program.
    fn path(self, file: &str) -> PathBuf {
        let base = debian::directory("wine").join(TARGET);
        base.join(self.directory).join(file)
    }
}

/// The binaries for Windows, and the cargo that makes them.
#[derive(Debug)]
pub(crate) struct Build(Toolchain);

impl Build {
    /// Installs the compiler where it is missing.
    pub(crate) fn new() -> Result<Self> {
        debian::install(&NEEDED[..1])?;
        Ok(Build(Toolchain::for_target(TARGET)?))
    }

    fn cargo(&self, profile: Profile, arguments: &[&str]) -> Command {
        let [verb, arguments @ ..] = arguments else {
            unreachable!("cargo is always told what to do")
        };
        let mut command = self.0.cargo(verb, TARGET, "wine");
        command.args(profile.options).args(arguments);
        command.env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER", COMPILER);
        command
    }

    /// Builds what is missing or has changed.
    pub(crate) fn all(&self) -> Result<()> {
        timed("build the examples", || {
            let examples = ["build", "--package", "wharf-port", "--examples"];
            command::run(&mut self.cargo(DEBUG, &examples))
        })?;
        self.program_and_suite(DEBUG)
    }

    pub(crate) fn program_and_suite(&self, profile: Profile) -> Result<()> {
        let name = profile.directory;
        timed(&format!("build the program, {name}"), || {
            let program = ["build", "--package", "wharf", "--bins"];
            command::run(&mut self.cargo(profile, &program))
        })?;
        timed(&format!("build the suite, {name}"), || {
            let suite = [&SUITE[..], &["--no-run"]].concat();
            command::run(&mut self.cargo(profile, &suite))
        })
    }
}

const PROGRAM: &str = "wharf.exe";

/// With the library's own tests: faults of accepts, and the size of a slot, are shown in them.
const SUITE: [&str; 6] = ["test", "--package", "wharf-port", "--lib", "--test", "it"];

#[cfg(target_os = "linux")]
const PROGRAM_SUITE: [&str; 5] = ["test", "--package", "wharf", "--test", "it"];

impl Wine {
    /// Starts the server, which stays, and makes the C: drive if there is none.
    pub(crate) fn start(&self) -> Result<()> {
        // A server of an interrupted run would refuse the next one.
        self.end_server()?;
        let complete = self.prefix.join("complete");
        if self.prefix.exists() && !complete.exists() {
            // A prefix that is only half there does not repair itself.
            fs::remove_dir_all(&self.prefix)?;
        }
        fs::create_dir_all(&self.prefix)?;
        // A server that stays saves two seconds at each start of a program.
        command::run(&mut self.server("--persistent"))?;
        timed("start Wine", || {
            let mut start = Command::new(&self.program);
            start.arg("wineboot");
            self.enter(&mut start);
            command::run(&mut start)
        })?;
        fs::write(complete, "")?;
        Ok(())
    }

    /// Runs everything under this Wine with a client of this system.
    pub(crate) fn exercise(&self, build: &Build) -> Result<()> {
        self.run_suite(build, DEBUG)?;
        timed("run the examples against a client of this system", || {
            self.run_examples()
        })?;
        timed("run the program against a client of this system", || {
            self.serve_native_client()
        })
    }

    pub(crate) fn run_suite(&self, build: &Build, profile: Profile) -> Result<()> {
        timed(&format!("run the suite, {}", profile.directory), || {
            let mut suite = build.cargo(profile, &SUITE);
            suite.env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER", &self.program);
            suite.env(DRIVERS_REQUIRED, "iocp,sim");
            // The simulated network uses nothing of the system; the test leg runs it.
            suite.args(["--", "--skip", "sim/", "--skip", "sim_seeds"]);
            self.enter(&mut suite);
            command::run(&mut suite)
        })
    }

    /// Runs the suite of the examples here, with their Windows builds under Wine.
    fn run_examples(&self) -> Result<()> {
        let mut suite = command::cargo(&["test", "--package", "wharf-port", "--test", "examples"]);
        suite.env("WHARF_TEST_EXAMPLES", self.words(&DEBUG.path("examples")));
        self.enter(&mut suite);
        command::run(&mut suite)
    }

    /// Runs the program's own suite here, with `wharf.exe` under Wine as the program.
    ///
    /// The suite starts the command in `WHARF_TEST_PROGRAM` in place of the binary that cargo built
    /// for it, so the same cases drive both.
    fn serve_native_client(&self) -> Result<()> {
        let mut suite = command::cargo(&["test", "--package", "wharf", "--test", "it"]);
        let program = DEBUG.path(PROGRAM);
        suite.env("WHARF_TEST_PROGRAM", self.words(&program));
        suite.env("WHARF_TEST_DRIVERS", "iocp");
        suite.env("WHARF_TEST_CONSOLE", self.console(&program)?);
        self.enter(&mut suite);
        command::run(&mut suite)
    }

    /// The helper that starts the program on a Windows console and sends it events.
    fn console(&self, program: &Path) -> Result<String> {
        let console = DEBUG.path("console.exe");
        let mut compile = Command::new(COMPILER);
        compile
            .args(["-O2", "-Wall", "-Werror", "-o"])
            .arg(&console);
        compile.arg(command::root().join("xtask/wine/console.c"));
        command::run(&mut compile)?;
        let starter = self.program.display();
        Ok(format!(
            "{starter} {} {}",
            console.display(),
            program.display()
        ))
    }

    /// Runs the program's own suite as on Windows: both are Windows programs, and no signal stops
    /// anything. The program is the one that packages have.
    #[cfg(target_os = "linux")]
    pub(crate) fn serve_client_of_windows(&self, build: &Build) -> Result<()> {
        let mut suite = build.cargo(DEBUG, &PROGRAM_SUITE);
        suite.env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER", &self.program);
        // The name means that it runs under Wine.
        suite.env("WHARF_TEST_PROGRAM", DIST.path(PROGRAM));
        suite.env("WHARF_TEST_DRIVERS", "iocp");
        self.enter(&mut suite);
        command::run(&mut suite)
    }

    /// This Wine, and the program that it runs.
    fn words(&self, path: &Path) -> String {
        format!("{} {}", self.program.display(), path.display())
    }

    /// Sets the variables that make `command`, and what it starts, use this Wine's prefix.
    fn enter(&self, command: &mut Command) {
        command.env("WINEPREFIX", &self.prefix);
        command.env("WINEDEBUG", "-all");
        // Without these two Wine asks whether to download them.
        command.env("WINEDLLOVERRIDES", "mscoree,mshtml=");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
    }

    fn server(&self, option: &str) -> Command {
        let mut server = Command::new(&self.server);
        server.arg(option);
        self.enter(&mut server);
        server
    }

    /// Ends the server if one runs. It is no error if none does.
    fn end_server(&self) -> Result<()> {
        self.server("--kill")
            .output()
            .context("cannot start wineserver")?;
        Ok(())
    }
}

impl Drop for Wine {
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

pub(crate) fn timed<T>(step: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let outcome = work().with_context(|| step.to_owned());
    println!("-- {step}: {:.1} s", start.elapsed().as_secs_f64());
    outcome
}
