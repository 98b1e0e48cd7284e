//! The `package` leg: the packages of the crates stand on their own.
//!
//! `cargo package` must warn of nothing but what [`ACCEPTED`] names. The leg unpacks what it packed
//! into a workspace of its own below `target/packaged`, where nothing of this tree is within reach:
//! there the library, the examples and all tests have to compile, the examples of the
//! documentation have to pass, and the documentation has to build without a warning. The verification
//! of `cargo package` was rejected: it builds the library alone, and it looks for `wharf-port` in a
//! registry that does not have it yet.
//!
//! A package has no dependency on itself, which in the tree turns on `sim` for the tests, so the leg
//! turns all features on.
//!
//! The suites themselves run in the `test` leg: the same files, in the tree.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::command;
use crate::debian;
use crate::wine::timed;

/// The crates that have a package, each with files that its package must have.
const CRATES: [(&str, &[&str]); 3] = [
    ("wharf-port", &["examples/readme.rs", "tests/it/main.rs"]),
    ("wharf-async", &["src/lib.rs"]),
    ("wharf", &["src/main.rs", "tests/it/main.rs"]),
];
/// What every package has: the licences are copies of the workspace's.
const LICENCES: [&str; 2] = ["LICENSE-MIT", "LICENSE-APACHE"];

/// The project has no public address yet, and cargo wants one of the three.
const ACCEPTED: &str = "warning: manifest has no documentation, homepage or repository";

pub(crate) fn package() -> Result<()> {
    let base = debian::directory("packaged");
    timed("pack", || pack(&base.join("cargo")))?;
    let workspace = base.join("workspace");
    unpack(&base.join("cargo/package"), &workspace)?;
    let cargo = |arguments: &[&str]| {
        let mut cargo = command::cargo(arguments);
        cargo.current_dir(&workspace).arg("--all-features");
        cargo.env("CARGO_TARGET_DIR", base.join("target"));
        cargo
    };
    timed("compile everything", || {
        command::run(&mut cargo(&[
            "check",
            "--quiet",
            "--offline",
            "--all-targets",
        ]))
    })?;
    timed("run the examples of the documentation", || {
        command::run(&mut cargo(&["test", "--quiet", "--offline", "--doc"]))
    })?;
    timed("write the documentation", || {
        let mut doc = cargo(&["doc", "--quiet", "--offline", "--no-deps"]);
        command::run(doc.env("RUSTDOCFLAGS", "-D warnings"))
    })
}

/// Makes the packages, and fails on a warning.
fn pack(target: &Path) -> Result<()> {
    let mut pack = command::cargo(&["package", "--no-verify", "--allow-dirty", "--offline"]);
    // While `publish` is false, cargo looks in the registry for the crates that others depend on.
    pack.arg("--exclude-lockfile");
    for (name, _) in CRATES {
        pack.args(["--package", name]);
    }
    pack.env("CARGO_TARGET_DIR", target).stdin(Stdio::null());
    let packed = pack.output().context("cannot start cargo")?;
    let said = String::from_utf8_lossy(&packed.stderr);
    ensure!(packed.status.success(), "cargo package failed:\n{said}");
    let unexpected = said.lines().filter(|line| line.starts_with("warning"));
    let unexpected: Vec<_> = unexpected.filter(|line| *line != ACCEPTED).collect();
    ensure!(unexpected.is_empty(), "cargo package warns:\n{said}");
    Ok(())
}

/// Unpacks the packages of this version into a workspace that has nothing else.
fn unpack(packages: &Path, workspace: &Path) -> Result<()> {
    if workspace.exists() {
        fs::remove_dir_all(workspace)?;
    }
    fs::create_dir_all(workspace)?;
    let mut members = Vec::new();
    for (name, files) in CRATES {
        let directory = format!("{name}-{}", env!("CARGO_PKG_VERSION"));
        let mut tar = Command::new("tar");
        // The times in a package are all the same: cargo would take a change for no change.
        tar.arg("--touch").arg("-xf");
        tar.arg(packages.join(format!("{directory}.crate")));
        command::read(tar.arg("-C").arg(workspace))?;
        require(&workspace.join(&directory), files)?;
        members.push(format!("{directory:?}"));
    }
    let manifest = format!(
        "[workspace]\nresolver = \"3\"\nmembers = [{}]\n\n\
         [patch.crates-io]\nwharf-port = {{ path = \"wharf-port-{}\" }}\n",
        members.join(", "),
        env!("CARGO_PKG_VERSION"),
    );
    fs::write(workspace.join("Cargo.toml"), manifest)?;
    // The same versions of the dependencies as in the tree, which are here.
    fs::copy(
        command::root().join("Cargo.lock"),
        workspace.join("Cargo.lock"),
    )?;
    Ok(())
}

/// Fails where a package lacks a file, or has what belongs to the workspace alone.
fn require(package: &Path, files: &[&str]) -> Result<()> {
    for file in files.iter().chain(&["README.md", "Cargo.toml"]) {
        let path = package.join(file);
        ensure!(path.exists(), "no {} in the package", path.display());
    }
    for licence in LICENCES {
        let packed = fs::read(package.join(licence)).with_context(|| licence.to_owned())?;
        if packed != fs::read(command::root().join(licence))? {
            bail!("{}: {licence} is not the workspace's", package.display());
        }
    }
    let planted = package.join("tests/planted");
    ensure!(!planted.exists(), "{} is packed", planted.display());
    Ok(())
}
