//! Packages of another release of Debian, fetched and unpacked, never installed.
//!
//! apt uses separate lists below `target`: it checks the signatures, and does not change the
//! machine's own lists and packages. A chroot of the other release, made with debootstrap, was
//! rejected. It installs a whole system: for a kernel it takes a minute and 300 MB, and for Wine it
//! took three minutes. An interrupted run also left mounts behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::command;

const MIRROR: &str = "http://deb.debian.org/debian";
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// apt with the lists of one release. It knows no installed package.
pub(crate) struct Apt {
    options: Vec<String>,
    archives: PathBuf,
}

impl Apt {
    /// Prepares apt for the release `suite`, with its files at `place`.
    pub(crate) fn new(suite: &str, place: &Path) -> Result<Self> {
        let lists = place.join("lists");
        let cache = place.join("cache");
        let archives = cache.join("archives");
        fs::create_dir_all(lists.join("partial"))?;
        fs::create_dir_all(archives.join("partial"))?;
        let sources = place.join("debian.sources");
        let described = format!(
            "Types: deb\nURIs: {MIRROR}\nSuites: {suite}\nComponents: main\nSigned-By: {KEYS}\n\
             Targets: Packages\n"
        );
        fs::write(&sources, described)?;
        let settings = [
            ("Dir::Etc::sourcelist", sources.display().to_string()),
            ("Dir::Etc::sourceparts", "/dev/null".to_owned()),
            ("Dir::State::lists", lists.display().to_string()),
            ("Dir::State::status", "/dev/null".to_owned()),
            ("Dir::Cache", cache.display().to_string()),
            // apt's own user may not be able to read a checkout in a home directory.
            ("APT::Sandbox::User", "root".to_owned()),
            ("Acquire::Retries", "3".to_owned()),
            ("Acquire::Languages", "none".to_owned()),
            // Without this, apt ignores lists that it cannot fetch, and every package is missing
            // later.
            ("APT::Update::Error-Mode", "any".to_owned()),
        ];
        let options = settings.iter().flat_map(|(name, value)| {
            let setting = format!("{name}={value}");
            ["-o".to_owned(), setting]
        });
        let options = options.collect();
        Ok(Apt { options, archives })
    }

    pub(crate) fn update(&self) -> Result<()> {
        command::run(&mut self.get(&["update", "--quiet"]))
    }

    pub(crate) fn get(&self, arguments: &[&str]) -> Command {
        self.command("apt-get", arguments)
    }

    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options).args(arguments);
        command
    }

    /// Fetches these packages and their dependencies; returns the files, sorted by name.
    pub(crate) fn fetch(&self, packages: &[&str]) -> Result<Vec<PathBuf>> {
        // An interrupted run may have left files of another version.
        for old in self.fetched()? {
            fs::remove_file(old)?;
        }
        let arguments = ["install", "--yes", "--quiet", "--no-install-recommends"];
        let arguments = [&arguments[..], &["--download-only"], packages].concat();
        command::run(&mut self.get(&arguments))?;
        self.fetched()
    }

    fn fetched(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.archives)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }
}

/// Unpacks the files of a package, and runs none of its scripts.
pub(crate) fn unpack(package: &Path, to: &Path) -> Result<()> {
    let mut extract = Command::new("dpkg-deb");
    extract.arg("--extract").arg(package).arg(to);
    command::read(&mut extract).map(drop)
}
