//! Kernels of other releases of Debian, fetched and unpacked, never installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::directory;
use crate::apt::{self, Apt};
use crate::command;

/// The kernel for virtual machines: everything that a guest needs is built in, and it has a third
/// of the size.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// The unpacked kernel of a release. A newer one is fetched if there is one.
pub(super) fn image(suite: &str) -> Result<PathBuf> {
    let place = directory().join(suite);
    let apt = Apt::new(suite, &place)?;
    let name = match newest(&apt) {
        Ok(name) => name,
        // Without the mirror, the kernel of the last fetch will do.
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

/// The package of the newest kernel. A package with a fixed name depends on it.
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
