//! Root directories with packages of Debian 13, whose programs run next to those of this system.
//!
//! Packages of Debian 13 cannot be installed next to those of Debian 12, so a leg unpacks them into
//! its own root directory below `target`. Each start mounts what it needs of this system in its
//! own mount namespace: the kernel removes the mounts with the last process in it, however that
//! ends. Mounting in the namespace of the machine was rejected: the next `cargo clean` would delete
//! what an interrupted leg leaves mounted.
//!
//! A run may be interrupted at any point, and what it started goes on for a while. So the packages
//! are unpacked in a directory of this run alone, which becomes the root directory when it is
//! complete. The next run deletes what another run has left.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};

use anyhow::{Result, bail, ensure};

use crate::apt::{self, Apt};
use crate::command;
use crate::debian::{self, Needed};
use crate::legs::Skipped;
use crate::wine::timed;

/// The keys of Debian's packages; a fresh Ubuntu does not have them.
const NEEDED: [Needed; 1] = [(
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "debian-archive-keyring",
)];
const DEBIAN: &str = "trixie";
/// A shell, the links `/bin` and `/lib`, and what the scripts of packages rely on.
const GROUND: [&str; 3] = ["dash", "base-files", "coreutils"];

/// The error of a leg that finds out that it cannot run here.
pub(crate) fn skipped(what: &str, why: &anyhow::Error) -> anyhow::Error {
    Skipped(format!("{what}: {}", command::reason(why))).into()
}

/// Whether this process has the rights that each start in such a root directory needs.
pub(crate) fn require_rights(leg: &str) -> Result<()> {
    if !debian::is_root()? {
        let reason = format!("{leg} needs a root directory of its own: run it as root");
        return Err(Skipped(reason).into());
    }
    let mut trial = Command::new("unshare");
    trial.args(["--mount", "sh", "-c"]);
    trial.arg("mount --bind /proc /proc && exec chroot / true");
    let reason = match trial.stdin(Stdio::null()).output() {
        Ok(tried) if tried.status.success() => return Ok(()),
        Ok(tried) => {
            let complaint = String::from_utf8_lossy(&tried.stderr);
            format!("this system does not let root mount: {}", complaint.trim())
        }
        Err(error) => format!("cannot start unshare, of util-linux: {error}"),
    };
    Err(Skipped(reason).into())
}

/// The root directory below `base` with these packages; a run makes it where there is none.
///
/// `finish` sees the files of the packages and the unpacked tree, before it counts as complete.
pub(crate) fn obtain(
    base: &Path,
    packages: &[&str],
    finish: impl FnOnce(&[PathBuf], &Path) -> Result<()>,
) -> Result<PathBuf> {
    debian::install(&NEEDED)?;
    fs::create_dir_all(base)?;
    delete_leftovers(base)?;
    let root = base.join("root");
    if !root.exists() {
        ensure!(debian::has_apt(), "this system has no apt-get");
        let what = format!("unpack {} of Debian 13", packages.join(", "));
        timed(&what, || make(base, &root, packages, finish))?;
    }
    Ok(root)
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

fn make(
    base: &Path,
    root: &Path,
    wanted: &[&str],
    finish: impl FnOnce(&[PathBuf], &Path) -> Result<()>,
) -> Result<()> {
    let making = base.join(format!("{MAKING}{}", process::id()));
    let partial = making.join("root");
    fs::create_dir_all(&partial)?;
    let apt = Apt::new(DEBIAN, &making.join("apt"))?;
    apt.update()?;
    let mut packages = apt.fetch(&[wanted, &GROUND].concat())?;
    // It has the links /bin and /lib, which other packages need.
    packages.sort_by_key(|package| !is_of(package, "base-files"));
    for package in &packages {
        apt::unpack(package, &partial)?;
    }
    finish(&packages, &partial)?;
    fs::rename(&partial, root)?;
    fs::remove_dir_all(&making)?;
    Ok(())
}

/// Whether this file is that package.
pub(crate) fn is_of(file: &Path, package: &str) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.split('_').next() == Some(package)
}

/// Writes the script at `path` that starts `program` inside `root`, and returns its path. The
/// program sees the workspace, what is built, and the places `besides` of this system.
///
/// The script becomes the program in the end, so that a signal to it reaches the program.
pub(crate) fn starter(
    root: &Path,
    path: &Path,
    program: &str,
    besides: &[&Path],
) -> Result<PathBuf> {
    let temporary = std::env::temp_dir();
    let target = command::target_directory();
    let places = [
        Path::new("/proc"),
        Path::new("/sys"),
        Path::new("/dev"),
        Path::new("/dev/pts"),
        &temporary,
        command::root(),
        &target,
    ];
    // Not every container has terminals.
    let places = places.iter().chain(besides).filter(|place| place.exists());
    let places: Vec<String> = places.map(|place| place.display().to_string()).collect();
    if places.iter().any(|place| place.contains([' ', '\'', '"'])) {
        bail!("mounting {places:?} fails: move those that have spaces or quotes in them");
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
