//! The compiler for targets that the default toolchain has no standard library for.
//!
//! If the toolchain has the target installed (`rustup target add`), it is used as it is. Otherwise
//! Debian's compiler builds the standard library from the sources that Debian ships with it. It is
//! called by its path and has its own target directories, so that the two compilers never rebuild
//! each other's work.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::command;

const CARGO: &str = "/usr/bin/cargo";
const RUSTC: &str = "/usr/bin/rustc";

/// A file and the package that contains it.
pub(crate) type Needed = (&'static str, &'static str);

const COMPILER: [Needed; 4] = [
    (CARGO, "cargo-web"),
    (RUSTC, "rustc-web"),
    ("/usr/bin/clippy-driver", "rust-web-clippy"),
    (
        "/usr/lib/rustlib/src/rust/library/Cargo.lock",
        "rust-web-src",
    ),
];

/// A cargo that can build for one foreign target.
#[derive(Debug)]
pub(crate) enum Toolchain {
    /// The default toolchain, which has the target installed.
    Default,
    /// Debian's, which builds the standard library too.
    Debian,
}

impl Toolchain {
    /// Chooses the toolchain for `target` and installs what it lacks.
    pub(crate) fn for_target(target: &str) -> Result<Self> {
        if has_standard_library(target)? {
            return Ok(Self::Default);
        }
        Self::debian()
    }

    /// Debian's compiler, whatever the default toolchain has installed.
    pub(crate) fn debian() -> Result<Self> {
        install(&COMPILER)?;
        Ok(Self::Debian)
    }

    /// `cargo <verb> --target <target>`, building in the directory `name`.
    pub(crate) fn cargo(&self, verb: &str, target: &str, name: &str) -> Command {
        let mut command = match self {
            Self::Default => command::cargo(&[verb]),
            Self::Debian => debian_cargo(verb),
        };
        command
            .args(["--target", target])
            .env("CARGO_TARGET_DIR", directory(name));
        command
    }
}

/// The target directory of the leg `name`.
pub(crate) fn directory(name: &str) -> PathBuf {
    command::target_directory().join(name)
}

fn debian_cargo(verb: &str) -> Command {
    let mut command = Command::new(CARGO);
    command.current_dir(command::root());
    forget_toolchain(&mut command);
    command
        .env("RUSTC", RUSTC)
        .env("RUSTDOC", "/usr/bin/rustdoc");
    // Building the standard library is an unstable option of a stable compiler.
    command.env("RUSTC_BOOTSTRAP", "1");
    // `cargo clippy` takes its driver from the directory of the first cargo-clippy in PATH.
    command.env(
        "PATH",
        format!("/usr/bin:{}", std::env::var("PATH").unwrap_or_default()),
    );
    command.args([verb, "-Zbuild-std=std,panic_unwind,test"]);
    command
}

/// Takes out of the environment what the cargo that runs this program has chosen.
pub(crate) fn forget_toolchain(command: &mut Command) {
    for variable in [
        "CARGO",
        "RUSTUP_TOOLCHAIN",
        "RUSTC_WRAPPER",
        "LD_LIBRARY_PATH",
    ] {
        command.env_remove(variable);
    }
}

fn has_standard_library(target: &str) -> Result<bool> {
    let sysroot = command::read(Command::new("rustc").args(["--print", "sysroot"]))?;
    Ok(Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(target)
        .join("lib")
        .is_dir())
}

/// Installs the packages whose files are missing; needs root, and says so.
pub(crate) fn install(needed: &[Needed]) -> Result<()> {
    let missing: Vec<&str> = needed
        .iter()
        .filter(|(file, _)| !Path::new(file).exists())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !has_apt() || !is_root()? {
        bail!(
            "missing packages; as root run: apt-get install {}",
            missing.join(" ")
        );
    }
    command::run(Command::new("apt-get").args(["update", "--quiet"]))?;
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive");
    install
        // A machine that has just started may still be installing its own updates.
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .args(["install", "--yes", "--quiet", "--no-install-recommends"])
        .args(missing);
    command::run(&mut install)
}

pub(crate) fn has_apt() -> bool {
    Path::new("/usr/bin/apt-get").exists()
}

pub(crate) fn is_root() -> Result<bool> {
    Ok(command::read(Command::new("id").arg("-u"))?.trim() == "0")
}
