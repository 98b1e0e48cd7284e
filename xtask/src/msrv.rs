//! The `msrv` leg: the oldest compilers that the manifests name build what they name.
//!
//! The library follows Debian stable, so the compiler of Debian 13 checks it, in a root directory
//! of its own ([`crate::trixie`]). It checks all targets for Linux and for Windows, and the library
//! for FreeBSD: code behind a foreign `cfg` is where a lint sees least. Clippy's `incompatible_msrv`
//! knows the names of the standard library, but neither syntax, such as `let` chains, nor
//! implementations of traits, such as the `Default` of raw pointers. For the two other systems the
//! compiler builds the standard library from Debian's sources; MSVC is the Windows for which it
//! needs no foreign tools.
//!
//! The program's compiler exists in no release of Debian: stable has an older one, backports
//! and unstable have newer ones. So the leg checks the program with rustup's toolchain where
//! this system has one of that version; elsewhere clippy alone holds it, and the leg says so.
//! The leg installs no toolchain: that would change how everything else here is built.
//!
//! Building with `cargo build` and running the suite were rejected: a second compiler
//! finds nothing else in them, and they take minutes.

use std::env;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::debian;
use crate::trixie::{self, skipped, starter};
use crate::wine::timed;

const LIBRARY: [&str; 2] = ["wharf-port", "wharf-async"];
const PROGRAM: &str = "wharf";
/// `gcc` links build scripts, and `rust-src` has the standard library of other systems.
const PACKAGES: [&str; 4] = ["rustc", "cargo", "gcc", "rust-src"];
/// The standard library's own lock file, in the package `rust-src`.
const STANDARD_LIBRARY: &str = "usr/lib/rustlib/src/rust/library/Cargo.toml";

/// A system, and the arguments of `cargo check` for it.
const SYSTEMS: [(&str, &[&str]); 3] = [
    ("Linux", &["--all-targets"]),
    (
        "Windows",
        &[
            "--all-targets",
            "--target=x86_64-pc-windows-msvc",
            "-Zbuild-std=std,panic_unwind,test",
        ],
    ),
    (
        "FreeBSD",
        &[
            "--target=x86_64-unknown-freebsd",
            "-Zbuild-std=std,panic_unwind",
        ],
    ),
];

pub(crate) fn msrv() -> Result<()> {
    check_program()?;
    trixie::require_rights("msrv")?;
    let compiler = obtain().map_err(|error| skipped("Debian 13 cannot be had here", &error))?;
    compiler.require_version(&floor(&LIBRARY)?)?;
    for (system, arguments) in SYSTEMS {
        timed(&format!("check the library for {system}"), || {
            let mut check = compiler.check(arguments);
            command::run(check.args(packages(&LIBRARY)))
        })?;
    }
    Ok(())
}

/// The `rust-version` that the manifests of these crates name, which is the same for all.
fn floor(crates: &[&str]) -> Result<String> {
    let metadata = ["metadata", "--no-deps", "--format-version=1"];
    let metadata = command::read(&mut command::cargo(&metadata))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let known = metadata["packages"].as_array().context("no packages")?;
    let named = |name: &&str| known.iter().find(|known| known["name"] == **name);
    let mut floors = crates.iter().map(|name| {
        let floor = named(name).and_then(|known| known["rust_version"].as_str());
        floor.with_context(|| format!("{name} names no rust-version"))
    });
    let first = floors.next().context("no crates")??;
    for other in floors {
        if other? != first {
            bail!("{crates:?} name more than one rust-version");
        }
    }
    Ok(first.to_owned())
}

fn packages<'a>(crates: &[&'a str]) -> Vec<&'a str> {
    crates.iter().flat_map(|name| ["--package", name]).collect()
}

/// Checks the program where rustup has its compiler.
fn check_program() -> Result<()> {
    let floor = floor(&[PROGRAM])?;
    let listed = Command::new("rustup").args(["toolchain", "list"]).output();
    let listed = listed.map_or_else(|_| Vec::new(), |listed| listed.stdout);
    let listed = String::from_utf8_lossy(&listed);
    let Some(toolchain) = toolchain_of(&floor, &listed) else {
        println!(
            "-- {PROGRAM} is not built with Rust {floor}, only linted: \
             for that, rustup toolchain install {floor} --profile minimal"
        );
        return Ok(());
    };
    timed(&format!("check {PROGRAM} with {toolchain}"), || {
        let mut check = Command::new("rustup");
        check.args(["run", toolchain, "cargo", "check", "--locked"]);
        check.arg("--all-targets").args(packages(&[PROGRAM]));
        check.current_dir(command::root());
        debian::forget_toolchain(&mut check);
        check.env(
            "CARGO_TARGET_DIR",
            debian::directory("msrv").join("program"),
        );
        command::run(&mut check)
    })
}

/// The toolchain of the version `floor` in what rustup lists: `1.88-x86_64-…` or `1.88.0-x86_64-…`.
fn toolchain_of<'a>(floor: &str, listed: &'a str) -> Option<&'a str> {
    let names = listed.lines().filter_map(|line| line.split(' ').next());
    let mut names = names.filter(|name| {
        let rest = name.strip_prefix(floor);
        rest.is_some_and(|rest| rest.starts_with(['-', '.']))
    });
    names.next()
}

/// The compiler of Debian 13 in its root directory.
struct Compiler {
    cargo: PathBuf,
    rustc: PathBuf,
}

/// Makes the root directory where there is none, and fetches what the compiler reads there.
fn obtain() -> Result<Compiler> {
    let base = debian::directory("msrv");
    let root = trixie::obtain(&base, &PACKAGES, |_, root| {
        // What the package's script chooses among the compilers of a system.
        symlink("gcc", root.join("usr/bin/cc")).context("cannot name the linker")
    })?;
    // This system has a network, certificates and names; the root directory has none.
    let ours = command::root().join("Cargo.toml");
    for manifest in [ours, root.join(STANDARD_LIBRARY)] {
        let mut fetch = command::cargo(&["fetch", "--locked", "--quiet", "--manifest-path"]);
        // The standard library's manifests have unstable features.
        fetch.env("RUSTC_BOOTSTRAP", "1");
        command::run(fetch.arg(manifest))?;
    }
    let home = cargo_home()?;
    Ok(Compiler {
        cargo: starter(&root, &base.join("cargo"), "/usr/bin/cargo", &[&home])?,
        rustc: starter(&root, &base.join("rustc"), "/usr/bin/rustc", &[&home])?,
    })
}

/// Where cargo keeps what it has fetched.
fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home = env::home_dir().context("this user has no home directory")?;
    Ok(home.join(".cargo"))
}

impl Compiler {
    /// `cargo check` in the workspace, which fetches nothing.
    fn check(&self, arguments: &[&str]) -> Command {
        let mut check = self.start(&self.cargo);
        check.args(["check", "--locked", "--offline", "--quiet"]);
        if arguments.iter().any(|argument| argument.starts_with("-Z")) {
            // Building the standard library is an unstable option of a stable compiler.
            check.env("RUSTC_BOOTSTRAP", "1");
        }
        check.args(arguments);
        check
    }

    fn start(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(command::root());
        debian::forget_toolchain(&mut command);
        // A rustup in the home of cargo would come before Debian's compiler.
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env(
            "CARGO_TARGET_DIR",
            debian::directory("msrv").join("library"),
        );
        command
    }

    /// Fails where Debian 13 has another compiler than the manifests name.
    fn require_version(&self, floor: &str) -> Result<()> {
        let printed = command::read(self.start(&self.rustc).arg("--version"));
        let printed = printed.map_err(|error| skipped("its compiler does not start", &error))?;
        let version = printed.trim().strip_prefix("rustc ").unwrap_or_default();
        if !version.starts_with(&format!("{floor}.")) {
            bail!("the library names Rust {floor}, and Debian 13 has {printed:?}");
        }
        println!("-- {}", printed.trim());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{LIBRARY, PROGRAM, floor, toolchain_of};

    #[test]
    fn a_toolchain_is_found_by_its_version() {
        let listed = "stable-x86_64 (active)\n1.880.0-x86_64\n1.88.0-x86_64\n";
        assert_eq!(toolchain_of("1.88", listed), Some("1.88.0-x86_64"));
        assert_eq!(toolchain_of("1.8", listed), None);
        assert_eq!(
            toolchain_of("1.88", "1.88-x86_64 (default)"),
            Some("1.88-x86_64")
        );
    }

    #[test]
    fn every_crate_names_its_oldest_compiler() {
        let number = |floor: String| floor.split('.').nth(1)?.parse::<u32>().ok();
        let library = number(floor(&LIBRARY).expect("one floor"));
        let program = number(floor(&[PROGRAM]).expect("one floor"));
        assert!(library < program, "the program builds on the library");
    }
}
