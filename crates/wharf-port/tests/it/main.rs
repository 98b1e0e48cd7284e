//! The contract suite: every case, on every driver that is present, on shared and single-waiter
//! ports, against a far end made of plain sockets.
//!
//! Each case is its own test, named `driver/sharing/behaviour`. Cases that cannot run somewhere are
//! listed with the reason. The same table makes `docs/library/contract.md`, which a test compares
//! with it.
//!
//! ```text
//! cargo test -p wharf-port --test it                       # everything
//! cargo test -p wharf-port --test it poll/shared/receive   # by name
//! WHARF_CONTRACT_WRITE=1 cargo test -p wharf-port --test it contract_table   # write the table
//! ```
//!
//! There is one binary, because each further one costs a link and hides how the tests share the
//! machine.

mod cases;
mod random;
mod rig;

use std::process::{Command, Stdio};

use libtest_mimic::{Arguments, Failed, Trial};

use rig::case::{Case, Driver, Mode, Where};
use rig::{runner, system, table};

/// The drivers that may not be missing, separated by commas.
const REQUIRE: &str = "WHARF_TEST_REQUIRE";

/// The cases to run, separated by commas, if all would take too long.
const ONLY: &str = "WHARF_TEST_ONLY";

fn main() {
    runner::keep_panics();
    let places = places();
    if let Ok(name) = std::env::var(runner::ALONE) {
        let (case, at) = named(&name, &places).expect("the parent names a test of this binary");
        runner::run_alone(case, &at);
    }
    let arguments = Arguments::from_args();
    let mut trials = vec![
        Trial::test("contract_table", table::check),
        Trial::test("required_drivers_are_present", required_are_present),
    ];
    trials.extend(random::sim::trials());
    let chosen = chosen();
    for at in &places {
        let cases = cases::all().filter(|case| is_chosen(&chosen, case.name));
        trials.extend(cases.map(|case| runner::trial(case, *at)));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// The selected names, if any. A name that selects nothing would run nothing.
fn chosen() -> Option<Vec<String>> {
    let names = std::env::var(ONLY).ok()?;
    let names: Vec<_> = names.split(',').map(str::to_owned).collect();
    for name in &names {
        let known = cases::all().any(|case| case.name == name);
        assert!(known, "{ONLY}: no case is called {name:?}");
    }
    Some(names)
}

fn is_chosen(chosen: &Option<Vec<String>>, name: &str) -> bool {
    chosen
        .as_ref()
        .is_none_or(|names| names.iter().any(|it| it == name))
}

/// Every driver of this machine, shared in every way.
fn places() -> Vec<Where> {
    let ipv6 = std::net::TcpListener::bind("[::1]:0").is_ok();
    let namespaces = runs(&["unshare", "-rn", "true"]);
    let strace = runs(&["strace", "-o", "/dev/null", "true"]);
    let wine = system::is_wine();
    let mut places = Vec::new();
    for driver in Driver::present() {
        let modes = Mode::ALL.into_iter().chain([Mode::Direct, Mode::Leader]);
        for mode in modes.filter(|mode| mode.is_of(driver)) {
            let at = Where {
                driver,
                mode,
                wine,
                linux: cfg!(target_os = "linux"),
                ipv6,
                namespaces,
                strace,
                spin_max: std::time::Duration::ZERO,
            };
            if mode != Mode::Direct || at.builder().build().is_ok() {
                places.push(at);
            }
        }
    }
    places
}

/// Whether a Linux program is installed and works.
fn runs(words: &[&str]) -> bool {
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    cfg!(target_os = "linux") && command.status().is_ok_and(|status| status.success())
}

fn named(name: &str, places: &[Where]) -> Option<(&'static Case, Where)> {
    for at in places {
        if let Some(case) = cases::all().find(|case| runner::name_of(case, at) == name) {
            return Some((case, *at));
        }
    }
    None
}

/// A missing driver removes its tests silently, unless we count.
fn required_are_present() -> Result<(), Failed> {
    let required = std::env::var(REQUIRE).unwrap_or_default();
    let present = Driver::present();
    for name in required.split(',').filter(|name| !name.is_empty()) {
        if !present.iter().any(|driver| driver.name() == name) {
            return Err(format!("the driver {name} is required and not present").into());
        }
    }
    Ok(())
}
