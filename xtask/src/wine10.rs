//! The `wine10` leg: what the `wine` leg runs, under the Wine of Debian 13.
//!
//! Wine 10 behaves like Windows in places where Wine 8 does not: after a reset without a pending
//! receive, a read fails (10054); closing a port wakes the threads that wait on it; a request on a
//! connection that was reset fails at once. Without this leg that code would run nowhere before it
//! runs on Windows.
//!
//! The suite runs twice: with debug assertions, because only this Wine reaches some code, and in the
//! profile `dist`. The program with debug assertions serves a client of this system, and that of
//! `dist` a client of Windows.
//!
//! The packages of Debian 13 are in a root directory below `target/wine10`: see [`crate::trixie`].
//!
//! If that Wine is not available or does not start, the leg is skipped, with the reason: a mirror
//! that is down and a container that may not mount are no faults of the code. Once Wine has
//! started, every error is a failure.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::debian;
use crate::trixie::{self, skipped, starter};
use crate::wine::{Build, DIST, Wine, timed};

const WINE: &str = "/usr/lib/wine/wine64";
const WINE_SERVER: &str = "/usr/lib/wine/wineserver64";
/// The lowest version that does what this leg is for.
const VERSION_MIN: u32 = 10;

pub(crate) fn wine10() -> Result<()> {
    trixie::require_rights("wine10")?;
    let wine = obtain();
    let wine = wine.map_err(|error| skipped("Wine 10 cannot be had here", &error))?;
    let started = wine.start();
    started.map_err(|error| skipped("Wine 10 does not start here", &error))?;
    require_version(&wine.program)?;
    let build = Build::new()?;
    build.all()?;
    build.program_and_suite(DIST)?;
    wine.exercise(&build)?;
    wine.run_suite(&build, DIST)?;
    timed("run the program against a client of Windows", || {
        wine.serve_client_of_windows(&build)
    })
}

/// Wine in its root directory, which is made if there is none.
fn obtain() -> Result<Wine> {
    let base = debian::directory("wine10");
    let root = trixie::obtain(&base, &["wine64"], |packages, root| {
        // Only this script makes a file that Wine needs to start.
        let library = packages.iter().find(|file| trixie::is_of(file, "libwine"));
        configure(library.context("wine64 depends on no libwine")?, root)
    })?;
    // Wine resolves names there, and the release has no such file. If an IPv6 address comes before
    // another address, Wine does not align the second, which aborts a Rust program with debug
    // assertions.
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n")?;
    let runtime = base.join("runtime");
    fs::create_dir_all(&runtime)?;
    Ok(Wine {
        program: starter(&root, &base.join("wine64"), WINE, &[])?,
        server: starter(&root, &base.join("wineserver64"), WINE_SERVER, &[])?,
        prefix: base.join("prefix"),
        // Without it each start prints a warning, which the tests would read.
        variables: vec![("XDG_RUNTIME_DIR", runtime.into())],
    })
}

/// Runs the script of a package that follows its unpacking.
fn configure(package: &Path, root: &Path) -> Result<()> {
    let control = "tmp/control";
    let mut extract = Command::new("dpkg-deb");
    extract
        .arg("--control")
        .arg(package)
        .arg(root.join(control));
    command::read(&mut extract)?;
    let mut script = Command::new("chroot");
    script.arg(root).arg("sh");
    script.arg(format!("/{control}/postinst")).arg("configure");
    command::run(&mut script)
}

fn require_version(wine: &Path) -> Result<()> {
    let printed = command::read(Command::new(wine).arg("--version"))
        .context("cannot start Wine in its root directory")?;
    let number = printed.trim().strip_prefix("wine-").unwrap_or_default();
    let major = number.split(['.', ' ']).next().unwrap_or_default();
    if major.parse().is_ok_and(|major: u32| major >= VERSION_MIN) {
        println!("-- {}", printed.trim());
        return Ok(());
    }
    bail!("wine10 needs Wine {VERSION_MIN} or later, and found {printed:?}");
}
