//! The contract suite: every case, on every driver that is present, on shared and single-waiter
//! ports, against a far end made of plain sockets.
//!
//! Each is a test of its own, named `driver/sharing/behaviour`; what cannot run somewhere is
//! listed with its reason. `docs/contract.md` is made from the same table and compared with it.
//!
//! ```text
//! cargo test -p wharf-port --test it                       # everything
//! cargo test -p wharf-port --test it poll/shared/receive   # by name
//! WHARF_CONTRACT_WRITE=1 cargo test -p wharf-port --test it contract_table   # write the table
//! ```
//!
//! One binary, because each more costs a link and hides how the tests share the machine.

mod case;
mod crew;
#[cfg(windows)]
mod open_handles;
mod peer;
mod rig;
mod runner;
mod scarce;
mod system;
mod table;

mod accept;
mod at_hand;
mod behind;
mod bounds;
mod cancel;
mod close;
mod connect;
mod direct;
mod driver_choice;
mod drops;
mod edges;
mod end;
mod errors;
mod exhaust;
mod foreign;
mod fork;
mod handles;
mod held;
mod leaders;
mod leaving;
mod orderly;
mod pool;
mod port;
mod prompt;
mod receive;
mod room;
mod seeds;
mod send;
mod shares;
mod shutdown;
mod sim_peer;
mod sim_seeds;
mod spin;
mod storms;
mod surplus;
mod timers;
mod traced;
mod turns;
mod untaken;
mod waiters;
mod watch;

use std::process::{Command, Stdio};

use libtest_mimic::{Arguments, Failed, Trial};

use case::{Case, Driver, Inapplicable, Mode, Where};

/// Names the drivers that may not be missing, with commas between them.
const REQUIRE: &str = "WHARF_TEST_REQUIRE";

/// Names the cases to run, with commas between them, where all would take too long.
const ONLY: &str = "WHARF_TEST_ONLY";

/// All cases, by topic.
pub(crate) const TOPICS: &[(&str, &[Case])] = &[
    ("port", port::CASES),
    ("timers", timers::CASES),
    ("accept", accept::CASES),
    ("connect", connect::CASES),
    ("receive", receive::CASES),
    ("watch", watch::CASES),
    ("edges", edges::CASES),
    ("pool", pool::CASES),
    ("a pool that runs short", scarce::CASES),
    ("held", held::CASES),
    ("right behind a message", behind::CASES),
    ("send", send::CASES),
    ("room for sends", room::CASES),
    ("promptness", prompt::CASES),
    ("cancel", cancel::CASES),
    ("shutdown", shutdown::CASES),
    ("close", close::CASES),
    ("drops", drops::CASES),
    ("waiters", waiters::CASES),
    ("waiters that go", leaving::CASES),
    ("one that leads", leaders::CASES),
    ("looking before sleeping", spin::CASES),
    ("turns", turns::CASES),
    ("shares", shares::CASES),
    ("bounds", bounds::CASES),
    ("what nobody takes", untaken::CASES),
    ("exhaustion", exhaust::CASES),
    ("more than there are places", surplus::CASES),
    ("the end of a port", end::CASES),
    ("the end in order", orderly::CASES),
    ("at hand at the end", at_hand::CASES),
    ("errors", errors::CASES),
    ("handles", handles::CASES),
    ("forks", fork::CASES),
    ("sockets of the caller", foreign::CASES),
    ("storms", storms::CASES),
    ("system calls", traced::CASES),
    ("seeds", seeds::CASES),
    ("driver choice", driver_choice::CASES),
    ("direct descriptors", direct::CASES),
];

/// What no case can show.
pub(crate) const INAPPLICABLE: &[&[Inapplicable]] = &[
    port::INAPPLICABLE,
    accept::INAPPLICABLE,
    connect::INAPPLICABLE,
    receive::INAPPLICABLE,
    close::INAPPLICABLE,
    driver_choice::INAPPLICABLE,
];

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
    trials.extend(sim_seeds::trials());
    let chosen = chosen();
    for at in &places {
        let cases = cases().filter(|case| is_chosen(&chosen, case.name));
        trials.extend(cases.map(|case| runner::trial(case, *at)));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

pub(crate) fn cases() -> impl Iterator<Item = &'static Case> {
    TOPICS.iter().flat_map(|(_, cases)| cases.iter())
}

/// The names that somebody has chosen, if any. One that names nothing would run nothing.
fn chosen() -> Option<Vec<String>> {
    let names = std::env::var(ONLY).ok()?;
    let names: Vec<_> = names.split(',').map(str::to_owned).collect();
    for name in &names {
        let known = cases().any(|case| case.name == name);
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
                spin_us_max: 0,
            };
            if mode != Mode::Direct || at.builder().build().is_ok() {
                places.push(at);
            }
        }
    }
    places
}

/// Whether a program of Linux is here and may do what it is asked to.
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
        if let Some(case) = cases().find(|case| runner::name_of(case, at) == name) {
            return Some((case, *at));
        }
    }
    None
}

/// A driver that is gone takes its tests with it in silence, unless somebody counts.
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
