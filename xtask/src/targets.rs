//! The `check-targets` leg: clippy for targets that cannot be run here.
//!
//! Clippy and not plain `cargo check`, because code behind a foreign `cfg` is
//! seen by no other leg, and the rule that each unsafe block states its reason
//! matters most in exactly that code.
//!
//! The automation itself asks only whether this is Linux, another Unix, or Windows, so one target of
//! each of the other two is enough for it.

use anyhow::{Context, Result};

use crate::command;
use crate::debian::{self, Needed, Toolchain};

const TARGETS: [&str; 6] = [
    "x86_64-pc-windows-gnu",
    "x86_64-pc-windows-gnullvm",
    "x86_64-pc-windows-msvc",
    "aarch64-pc-windows-msvc",
    "aarch64-apple-darwin",
    "x86_64-unknown-freebsd",
];

/// Those for which the automation is checked too.
const OF_XTASK: [&str; 2] = ["x86_64-pc-windows-gnu", "aarch64-apple-darwin"];

/// What rustc 1.96 makes the import libraries of the standard library with, for this target even
/// where nothing is linked.
const DLLTOOL: (&str, Needed) = (
    "x86_64-pc-windows-gnu",
    (
        "/usr/bin/x86_64-w64-mingw32-dlltool",
        "binutils-mingw-w64-x86-64",
    ),
);

pub(crate) fn check_targets() -> Result<()> {
    for target in TARGETS {
        let toolchain = Toolchain::for_target(target)?;
        if target == DLLTOOL.0 && matches!(toolchain, Toolchain::Debian) {
            debian::install(&[DLLTOOL.1])?;
        }
        let mut clippy = toolchain.cargo("clippy", target, "targets");
        clippy.args([
            "--package",
            "wharf-port",
            "--package",
            "wharf",
            "--all-targets",
        ]);
        if OF_XTASK.contains(&target) {
            clippy.args(["--package", "xtask"]);
        }
        clippy.args(["--", "-D", "warnings"]);
        // A target without native thread locals hides their `const` from clippy (windows-gnu).
        clippy.args(["-A", "clippy::missing_const_for_thread_local"]);
        command::run(&mut clippy).with_context(|| format!("target {target}"))?;
    }
    without_sim()
}

/// Checks the crates as a program has them, for a system whose one driver is `poll`. Tests turn on
/// the feature `sim`, which uses much of what the other drivers use: it hid four unused functions.
fn without_sim() -> Result<()> {
    let target = "x86_64-unknown-freebsd";
    let mut clippy = Toolchain::for_target(target)?.cargo("clippy", target, "targets");
    clippy.args(["--package", "wharf-port", "--package", "wharf"]);
    clippy.args(["--", "-D", "warnings"]);
    command::run(&mut clippy).with_context(|| format!("target {target} without sim"))
}
