//! An arrow that a layer forbids is found, and one that it allows is none.

use super::super::File;
use super::check;

const LIBRARY: &str = "crates/wharf-port/src/";
const PROGRAM: &str = "crates/wharf/src/";

fn found(path: &str, text: &str) -> String {
    let root = File {
        path: format!("{LIBRARY}lib.rs"),
        text: "//! T.\npub use port::{Port, Stats};\npub use error::Error;\n".to_owned(),
    };
    let file = File {
        path: path.to_owned(),
        text: format!("//! T.\n{text}\n"),
    };
    let problems = check(&[root, file]);
    problems.into_iter().map(|it| it.0 + "\n").collect()
}

#[track_caller]
fn is_refused(source: &str, file: &str, text: &str, why: &str) {
    let found = found(&format!("{source}{file}"), text);
    assert!(
        found.contains(":2: ") && found.contains(why),
        "{file}: {text}\nfound {found:?}"
    );
}

#[track_caller]
fn is_allowed(source: &str, file: &str, text: &str) {
    let found = found(&format!("{source}{file}"), text);
    assert_eq!(found, "", "{file}: {text}");
}

#[test]
fn below_the_face_nothing_imports_it() {
    let why = "nothing below the face imports it";
    is_refused(LIBRARY, "core/send.rs", "use crate::port::Port;", why);
    is_refused(LIBRARY, "core.rs", "use crate::{key, waiter};", why);
    is_refused(
        LIBRARY,
        "driver/sim/stage.rs",
        "use crate::port::Port;",
        why,
    );
    is_refused(
        LIBRARY,
        "driver/choice.rs",
        "fn f() { crate::Port::builder(); }",
        why,
    );
    is_refused(
        LIBRARY,
        "sys/unix.rs",
        "fn f() { let _ = matches!(x, crate::sim::A); }",
        why,
    );
    is_refused(
        LIBRARY,
        "core/send.rs",
        "fn f(it: crate::port::Port) {}",
        why,
    );
    is_allowed(LIBRARY, "core/send.rs", "use crate::packet::Packet;");
    is_allowed(LIBRARY, "core/send.rs", "use crate::Error;");
    is_allowed(LIBRARY, "waiter.rs", "use crate::batch::Batch;");
}

#[test]
fn a_word_knows_neither_the_face_nor_a_driver() {
    is_refused(
        LIBRARY,
        "packet.rs",
        "use crate::port::Port;",
        "no operation of the face",
    );
    is_refused(
        LIBRARY,
        "op.rs",
        "use crate::driver::sim::Peer;",
        "know no driver",
    );
    is_allowed(LIBRARY, "buffer.rs", "use crate::core::Core;");
}

#[test]
fn the_core_knows_the_seam_and_no_driver() {
    let why = "the core knows the seam, and no driver";
    is_refused(
        LIBRARY,
        "core/slot.rs",
        "use crate::driver::uring::request;",
        why,
    );
    is_refused(
        LIBRARY,
        "core/slot.rs",
        "use crate::driver::{self, choice};",
        why,
    );
    is_refused(
        LIBRARY,
        "core/slot.rs",
        "use super::super::driver::sim;",
        why,
    );
    is_refused(
        LIBRARY,
        "core/slot.rs",
        "use crate::driver; fn f() { driver::choice::choose(); }",
        why,
    );
    is_allowed(
        LIBRARY,
        "core/slot.rs",
        "use crate::driver::{Driver, kind::DriverKind};",
    );
    // Of the driver of this system, through the seam.
    is_allowed(LIBRARY, "core/locked.rs", "use crate::driver::SlotBlock;");
    is_allowed(
        LIBRARY,
        "core/slot.rs",
        "use crate::driver; fn f(it: driver::SlotBlock) { std::sim::sim(); }",
    );
    is_allowed(
        LIBRARY,
        "core/slot.rs",
        "/// [here](crate::Port)\nfn f() {}",
    );
}

#[test]
fn drivers_do_not_know_each_other() {
    let why = "drivers do not know each other";
    is_refused(LIBRARY, "driver/poll.rs", "use super::uring::Uring;", why);
    is_refused(
        LIBRARY,
        "driver/iocp/queue.rs",
        "use crate::driver::poll;",
        why,
    );
    is_refused(
        LIBRARY,
        "driver/uring/queue/bell.rs",
        "use crate::driver::sim::Peer;",
        why,
    );
    is_refused(
        LIBRARY,
        "driver/sim.rs",
        "use crate::driver::{iocp::Iocp, reading};",
        why,
    );
    is_refused(
        LIBRARY,
        "driver/poll.rs",
        "use crate::driver::{self, reading}; fn f(it: driver::uring::Uring) {}",
        why,
    );
    is_allowed(
        LIBRARY,
        "driver/poll.rs",
        "use super::reading::{self, READABLE};",
    );
    is_allowed(LIBRARY, "driver/poll/accept.rs", "use super::Poll;");
    is_allowed(LIBRARY, "driver/choice.rs", "use super::uring::Uring;");
}

#[test]
fn sys_knows_neither_the_core_nor_a_driver() {
    let why = "sys knows neither the core nor a driver";
    is_refused(
        LIBRARY,
        "sys/unix.rs",
        "pub(crate) use crate::driver::WorkBlock;",
        why,
    );
    is_refused(LIBRARY, "sys.rs", "use crate::core::slot;", why);
    is_allowed(
        LIBRARY,
        "sys/unix/handle.rs",
        "use super::imp;\nuse crate::address::Address;",
    );
}

#[test]
fn only_main_imports_the_command_line() {
    let why = "only main imports the command line";
    is_refused(PROGRAM, "server.rs", "use crate::cli::Format;", why);
    is_refused(PROGRAM, "values/address.rs", "use super::super::cli;", why);
    is_allowed(PROGRAM, "main.rs", "use crate::cli::Command;");
    is_allowed(PROGRAM, "cli/modes.rs", "use crate::cli::parse;");
    is_allowed(
        PROGRAM,
        "cli.rs",
        "use crate::server::options::HoldOptions;",
    );
}

#[test]
fn the_ground_and_the_commands_import_nothing_above_them() {
    let ground = "the ground imports nothing above it";
    is_refused(PROGRAM, "signals.rs", "use crate::server::STOP;", ground);
    is_refused(
        PROGRAM,
        "sys/limits.rs",
        "use crate::processes::Part;",
        ground,
    );
    let commands = "only bench imports other commands";
    is_refused(PROGRAM, "load.rs", "use crate::doctor;", commands);
    is_refused(
        PROGRAM,
        "server/admin.rs",
        "use crate::load::results;",
        commands,
    );
    is_refused(PROGRAM, "doctor.rs", "use crate::{load, sys};", commands);
    is_refused(PROGRAM, "compare.rs", "use crate::server;", commands);
    let shared = "what several commands share knows none of them";
    is_refused(PROGRAM, "account/joint.rs", "use crate::load;", shared);
    is_allowed(PROGRAM, "bench.rs", "use crate::{doctor, load};");
    is_allowed(PROGRAM, "load.rs", "use crate::{account, processes, text};");
}

#[test]
fn what_only_tests_see_is_no_arrow() {
    let test = "#[cfg(test)]\nmod tests {\n    use crate::port::Port;\n}\n";
    is_allowed(LIBRARY, "core/send.rs", test);
    is_allowed(LIBRARY, "core/send/tests.rs", "use crate::port::Port;");
    is_allowed(LIBRARY, "core/send.rs", "#[cfg(test)]\nuse crate::Port;\n");
    is_allowed(
        LIBRARY,
        "core/send.rs",
        "/// See [`Port`](crate::port::Port).\nfn f() {}",
    );
    let behind = format!("{test}use crate::port::Port;");
    let found = found(&format!("{LIBRARY}core/send.rs"), &behind);
    assert!(found.contains(":6: "), "{found}");
}
