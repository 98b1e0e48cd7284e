//! The `wine10` leg: what the `wine` leg runs, under the Wine of Debian 13.
//!
//! Wine 10 behaves like Windows in places where Wine 8 does not: after a reset without a pending
//! receive, a read fails (10054); closing a port wakes the threads that wait on it; a request on a
//! connection that was reset fails at once. Without this leg that code would run nowhere before it
//! runs on Windows.
//!
//! The suite runs twice: with debug assertions, because only this Wine reaches some code, and as a
//! release build. The program with debug assertions serves a client of this system, and the release
//! build a client of Windows.
//!
//! Packages of Debian 13 cannot be installed next to those of Debian 12, so they are unpacked into
//! a root directory below `target/wine10`. Each start mounts what it needs of this system in its
//! own mount namespace: the kernel removes the mounts with the last process in it, however that
//! ends. Mounting in the namespace of the machine was rejected: the next `cargo clean` would delete
//! what an interrupted leg leaves mounted.
//!
//! If that Wine is not available or does not start, the leg is skipped, with the reason: a mirror
//! that is down and a container that may not mount are no faults of the code. Once Wine has
//! started, every error is a failure.
//!
//! A run may be interrupted at any point, and what it started goes on for a while. So the packages
//! are unpacked in a directory of this run alone, which becomes the root directory when it is
//! complete. The next run deletes what another run has left.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::apt::{self, Apt};
use crate::command;
use crate::debian::{self, Needed};
use crate::legs::Skipped;
use crate::wine::{Build, RELEASE, Wine, timed};

/// The keys of Debian's packages; a fresh Ubuntu does not have them.
const NEEDED: [Needed; 1] = [(
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "debian-archive-keyring",
)];
const DEBIAN: &str = "trixie";
/// Wine, a shell, and what the scripts of packages rely on.
const PACKAGES: [&str; 4] = ["wine64", "dash", "base-files", "coreutils"];
const WINE: &str = "/usr/lib/wine/wine64";
const WINE_SERVER: &str = "/usr/lib/wine/wineserver64";
/// The lowest version that does what this leg is for.
const VERSION_MIN: u32 = 10;

pub(crate) fn wine10() -> Result<()> {
    require_rights()?;
    let wine = obtain();
    let wine = wine.map_err(|error| skipped("Wine 10 cannot be had here", &error))?;
    let started = wine.start();
    started.map_err(|error| skipped("Wine 10 does not start here", &error))?;
    require_version(&wine.program)?;
    let build = Build::new()?;
    build.all()?;
    build.program_and_suite(RELEASE)?;
    wine.exercise(&build)?;
    wine.run_suite(&build, RELEASE)?;
    timed("run the program against a client of Windows", || {
        wine.serve_client_of_windows(&build)
    })
}

fn skipped(what: &str, why: &anyhow::Error) -> anyhow::Error {
    Skipped(format!("{what}: {}", command::reason(why))).into()
}

/// Wine in its root directory, which is made if there is none.
fn obtain() -> Result<Wine> {
    debian::install(&NEEDED)?;
    let base = debian::directory("wine10");
    fs::create_dir_all(&base)?;
    delete_leftovers(&base)?;
    let root = base.join("root");
    if !root.exists() {
        ensure!(debian::has_apt(), "this system has no apt-get");
        timed("unpack the Wine of Debian 13", || make(&base, &root))?;
    }
    // Wine resolves names there, and the release has no such file. If an IPv6 address comes before
    // another address, Wine does not align the second, which aborts a Rust program with debug
    // assertions.
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n")?;
    let runtime = base.join("runtime");
    fs::create_dir_all(&runtime)?;
    Ok(Wine {
        program: starter(&root, &base.join("wine64"), WINE)?,
        server: starter(&root, &base.join("wineserver64"), WINE_SERVER)?,
        prefix: base.join("prefix"),
        // Without it each start prints a warning, which the tests would read.
        variables: vec![("XDG_RUNTIME_DIR", runtime.into())],
    })
}

/// Whether this process has the rights that each start of this Wine needs.
fn require_rights() -> Result<()> {
    if !debian::is_root()? {
        let reason = "a root directory of its own for Wine needs root: run it as root";
        return Err(Skipped(reason.to_owned()).into());
    }
    let mut trial = Command::new("unshare");
    trial.args(["--mount", "sh", "-c"]);
    trial.arg("mount --bind /proc /proc && exec chroot / true");
    let reason = match trial.stdin(Stdio::null()).output() {
        Ok(tried) if tried.status.success() => return Ok(()),
        Ok(tried) => {
            let complaint = String::from_utf8_lossy(&tried.stderr);
            format!("this system forbids root to mount: {}", complaint.trim())
        }
        Err(error) => format!("cannot start unshare, of util-linux: {error}"),
    };
    Err(Skipped(reason).into())
}

/// The prefix of the directories in which runs make root directories.
const MAKING: &str = "making-";

/// Deletes what an interrupted run has left. A directory that is still being written is left to the
/// next run.
fn delete_leftovers(base: &Path) -> Result<()> {
    for entry in fs::read_dir(base)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(MAKING)
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            println!("-- {} stays for now: {error}", entry.path().display());
        }
    }
    Ok(())
}

/// Makes the root directory, first in a place of this run alone: a root directory that is only half
/// there is never used, and what an interrupted run had started writes elsewhere.
fn make(base: &Path, root: &Path) -> Result<()> {
    let making = base.join(format!("{MAKING}{}", process::id()));
    let partial = making.join("root");
    fs::create_dir_all(&partial)?;
    let apt = Apt::new(DEBIAN, &making.join("apt"))?;
    apt.update()?;
    let mut packages = apt.fetch(&PACKAGES)?;
    // It has the links /bin and /lib, which other packages need.
    packages.sort_by_key(|package| !is_of(package, "base-files"));
    for package in &packages {
        apt::unpack(package, &partial)?;
    }
    // Only this script makes a file that Wine needs to start.
    let library = packages.iter().find(|package| is_of(package, "libwine"));
    let library = library.context("wine64 depends on no libwine")?;
    configure(library, &partial)?;
    fs::rename(&partial, root)?;
    fs::remove_dir_all(&making)?;
    Ok(())
}

fn is_of(file: &Path, package: &str) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.split('_').next() == Some(package)
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

/// Writes the script at `path` that starts `program` inside `root`, and returns its path.
///
/// It becomes the program in the end, so a signal to it reaches the program.
fn starter(root: &Path, path: &Path, program: &str) -> Result<PathBuf> {
    let places = [
        Path::new("/proc"),
        Path::new("/sys"),
        Path::new("/dev"),
        Path::new("/dev/pts"),
        &std::env::temp_dir(),
        command::root(),
        &command::target_directory(),
    ];
    // Not every container has terminals.
    let places = places.iter().filter(|place| place.exists());
    let places: Vec<String> = places.map(|place| place.display().to_string()).collect();
    if places.iter().any(|place| place.contains([' ', '\'', '"'])) {
        bail!("wine10 mounts the paths {places:?}: move those that have spaces or quotes in them");
    }
    let script = format!(
        r#"#!/bin/sh
exec unshare --mount sh -c '
    for place in {places}; do
        mkdir -p "{root}$place" && mount --bind "$place" "{root}$place" || exit 125
    done
    exec chroot "{root}" sh -c "cd \"\$0\" && exec {program} \"\$@\"" "$PWD" "$@"
' sh "$@"
"#,
        places = places.join(" "),
        root = root.display(),
    );
    fs::write(path, script)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(path.to_owned())
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
