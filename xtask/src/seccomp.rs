//! The `seccomp` leg: the contract suite on a machine that forbids io_uring.
//!
//! Docker's default profile refuses `io_uring_setup` with EPERM. gVisor and old kernels do not know
//! it (ENOSYS). Some profiles allow the set-up and refuse only `io_uring_enter`, which a driver
//! notices only when it tries. In each case `Auto` must choose the readiness driver and say why. A
//! filter cannot be removed, so each variant runs in its own process, which becomes the suite once
//! the filter is installed.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context, Result, bail};
use seccompiler::{SeccompAction, SeccompFilter, TargetArch};

use crate::command;
use crate::legs::{DRIVERS_REQUIRED, patient};

/// What the suite must print, once, when `WHARF_TEST_EXPECT_AUTO` is set. Without it the leg could
/// pass with a suite that never used `Auto`.
const PROOF: &str = "auto chose poll";

/// One way of forbidding io_uring.
struct Variant {
    name: &'static str,
    about: &'static str,
    system_call: i64,
    error: i32,
}

const VARIANTS: [Variant; 3] = [
    Variant {
        name: "setup-eperm",
        about: "io_uring_setup is refused, as in Docker",
        system_call: libc::SYS_io_uring_setup,
        error: libc::EPERM,
    },
    Variant {
        name: "setup-enosys",
        about: "io_uring_setup is unknown, as on an old kernel",
        system_call: libc::SYS_io_uring_setup,
        error: libc::ENOSYS,
    },
    Variant {
        name: "enter-eperm",
        about: "io_uring_setup works and io_uring_enter is refused",
        system_call: libc::SYS_io_uring_enter,
        error: libc::EPERM,
    },
];

pub(crate) fn seccomp() -> Result<()> {
    let suite = build_suite()?;
    for variant in &VARIANTS {
        println!("-- {}: {}", variant.name, variant.about);
        let mut filtered = Command::new(env::current_exe()?);
        // Cargo runs tests in their package's directory, so this leg does too.
        filtered.current_dir(command::root().join("crates/wharf-port"));
        filtered.args(["filtered", variant.name, &suite, "--nocapture"]);
        filtered.env("WHARF_TEST_EXPECT_AUTO", "poll");
        filtered.env(DRIVERS_REQUIRED, "poll,sim");
        patient(&mut filtered);
        let printed = command::run_and_read(&mut filtered)
            .with_context(|| format!("variant {}", variant.name))?;
        if !printed.contains(PROOF) {
            bail!(
                "variant {}: the suite never printed {PROOF:?} and why",
                variant.name
            );
        }
    }
    Ok(())
}

/// Installs the filter and becomes `program`; returns only if that fails.
pub(crate) fn run_filtered(name: &str, program: &[&String]) -> Result<()> {
    let Some(variant) = VARIANTS.iter().find(|variant| variant.name == name) else {
        bail!("no filter is called {name}");
    };
    let [program, arguments @ ..] = program else {
        bail!("no program to run")
    };
    forbid(variant)?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {program}"))
}

fn forbid(variant: &Variant) -> Result<()> {
    let architecture = TargetArch::try_from(env::consts::ARCH)?;
    let filter = SeccompFilter::new(
        // An empty list of rules matches the call whatever its arguments are.
        [(variant.system_call, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(variant.error.unsigned_abs()),
        architecture,
    )?;
    let program: seccompiler::BpfProgram = filter.try_into()?;
    seccompiler::apply_filter_all_threads(&program)?;
    Ok(())
}

/// Builds the suite and returns the path of its executable.
fn build_suite() -> Result<String> {
    if !command::root()
        .join("crates/wharf-port/tests/it/main.rs")
        .exists()
    {
        bail!("there is no contract suite: crates/wharf-port/tests/it/main.rs is missing");
    }
    let messages = command::read(&mut command::cargo(&[
        "test",
        "--package",
        "wharf-port",
        "--test",
        "it",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]))?;
    command::executable(&messages, "it").context("cargo built no executable for the suite")
}
