//! The `check-targets` leg: clippy for targets that cannot be run here.
//!
//! Clippy and not plain `cargo check`, because code behind a foreign `cfg` is
//! seen by no other leg, and the rule that each unsafe block states its reason
//! matters most in exactly that code.

use anyhow::{Context, Result};

use crate::command;
use crate::debian::Toolchain;

const TARGETS: [&str; 6] = [
    "x86_64-pc-windows-gnu",
    "x86_64-pc-windows-gnullvm",
    "x86_64-pc-windows-msvc",
    "aarch64-pc-windows-msvc",
    "aarch64-apple-darwin",
    "x86_64-unknown-freebsd",
];

pub(crate) fn check_targets() -> Result<()> {
    for target in TARGETS {
        let toolchain = Toolchain::for_target(target)?;
        let mut clippy = toolchain.cargo("clippy", target, "targets");
        clippy.args([
            "--package",
            "wharf-port",
            "--package",
            "wharf",
            "--all-targets",
        ]);
        clippy.args(["--", "-D", "warnings"]);
        // A target without native thread locals hides their `const` from clippy (windows-gnu).
        clippy.args(["-A", "clippy::missing_const_for_thread_local"]);
        command::run(&mut clippy).with_context(|| format!("target {target}"))?;
    }
    Ok(())
}
