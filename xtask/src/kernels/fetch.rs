//! Kernels of other releases of Debian, fetched and unpacked, never installed.
//!
//! apt does it with lists of its own in `target/kernels`: it checks the signatures, and the
//! machine's own lists and packages stay as they are. A chroot of the other release was rejected:
//! it takes a minute and 300 MB for the same file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::directory;
use crate::command;

const MIRROR: &str = "http://deb.debian.org/debian";
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// For virtual machines: what a guest needs is built in, and it is a third of the size.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// The kernel of a release, unpacked; fetched if there is a newer one than here.
pub(super) fn image(suite: &str) -> Result<PathBuf> {
    let place = directory().join(suite);
    let apt = Apt::new(suite, &place)?;
    let name = match apt.newest() {
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
        let mut extract = Command::new("dpkg-deb");
        extract.arg("--extract").arg(package?.path()).arg(&unpack);
        command::run(&mut extract)?;
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

/// apt with the lists of one release.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new(suite: &str, place: &Path) -> Result<Self> {
        let lists = place.join("lists");
        let cache = place.join("cache");
        fs::create_dir_all(lists.join("partial"))?;
        fs::create_dir_all(cache.join("archives/partial"))?;
        let sources = place.join("debian.sources");
        let described = format!(
            "Types: deb\nURIs: {MIRROR}\nSuites: {suite}\nComponents: main\nSigned-By: {KEYS}\n"
        );
        fs::write(&sources, described)?;
        let settings = [
            ("Dir::Etc::sourcelist", sources.display().to_string()),
            ("Dir::Etc::sourceparts", "/dev/null".to_owned()),
            ("Dir::State::lists", lists.display().to_string()),
            ("Dir::State::status", "/dev/null".to_owned()),
            ("Dir::Cache", cache.display().to_string()),
            // Its own user may not read a checkout in somebody's home.
            ("APT::Sandbox::User", "root".to_owned()),
            ("Acquire::Retries", "3".to_owned()),
            ("Acquire::Languages", "none".to_owned()),
        ];
        let options = settings.iter().flat_map(|(name, value)| {
            let setting = format!("{name}={value}");
            ["-o".to_owned(), setting]
        });
        Ok(Apt {
            options: options.collect(),
        })
    }

    fn get(&self, arguments: &[&str]) -> Command {
        self.command("apt-get", arguments)
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options).args(arguments);
        command
    }

    /// The package of the newest kernel, which another one of a lasting name depends on.
    fn newest(&self) -> Result<String> {
        command::run(&mut self.get(&["update", "--quiet"]))?;
        let depends = command::read(&mut self.command("apt-cache", &["depends", PACKAGE]))?;
        let named = depends.lines().find_map(|line| {
            let package = line.trim().strip_prefix("Depends: ")?;
            package
                .starts_with("linux-image-")
                .then(|| package.to_owned())
        });
        named.with_context(|| format!("{PACKAGE} depends on no kernel:\n{depends}"))
    }
}
