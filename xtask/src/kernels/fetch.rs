//! Kernels of other releases of Debian, fetched and unpacked, never installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::directory;
use crate::apt::{self, Apt};
use crate::command;

/// For virtual machines: what a guest needs is built in, and it is a third of the size.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// The kernel of a release, unpacked; fetched if there is a newer one than here.
pub(super) fn image(suite: &str) -> Result<PathBuf> {
    let place = directory().join(suite);
    let apt = Apt::new(suite, &place)?;
    let name = match newest(&apt) {
        Ok(name) => name,
        // What was fetched before is as good where the mirror cannot be reached.
        Err(error) => return unpacked(&place).with_context(|| format!("{error:#}")),
    };
    let unpack = place.join("unpacked");
    let image = unpack
        .join("boot")
        .join(name.replace("linux-image-", "vmlinuz-"));
    if image.exists() {
        return Ok(image);
    }
    if unpack.exists() {
        fs::remove_dir_all(&unpack)?;
    }
    let packages = place.join("packages");
    if packages.exists() {
        fs::remove_dir_all(&packages)?;
    }
    fs::create_dir_all(&packages)?;
    command::run(apt.get(&["download", &name]).current_dir(&packages))?;
    for package in fs::read_dir(&packages)? {
        apt::unpack(&package?.path(), &unpack)?;
    }
    unpacked(&place)
}

fn unpacked(place: &Path) -> Result<PathBuf> {
    let boot = place.join("unpacked/boot");
    for entry in fs::read_dir(&boot).context("no kernel was fetched")? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("vmlinuz-") {
            return Ok(entry.path());
        }
    }
    bail!("{} has no kernel", boot.display())
}

/// The package of the newest kernel, which another one of a lasting name depends on.
fn newest(apt: &Apt) -> Result<String> {
    apt.update()?;
    let depends = command::read(&mut apt.command("apt-cache", &["depends", PACKAGE]))?;
    let named = depends.lines().find_map(|line| {
        let package = line.trim().strip_prefix("Depends: ")?;
        package
            .starts_with("linux-image-")
            .then(|| package.to_owned())
    });
    named.with_context(|| format!("{PACKAGE} depends on no kernel:\n{depends}"))
}
