//! The program's file is replaced while it runs, as cargo does it, and it starts itself again.

use std::process::{Command, Stdio};

use crate::program::needs_native;

#[test]
fn what_runs_starts_itself_although_its_file_is_gone() {
    if !needs_native() {
        return;
    }
    let name = format!("wharf-{}-replaced", std::process::id());
    let copy = std::env::temp_dir().join(name);
    std::fs::copy(env!("CARGO_BIN_EXE_wharf"), &copy).expect("there is room");
    // It starts a server and a load for each of its parts, one after the other.
    let words = "bench --driver poll --rounds 1 --for 50ms --connections 50 --format json";
    let bench = Command::new(&copy)
        .args(words.split(' '))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    // Once it is started, it runs the file that is no longer there.
    std::fs::remove_file(&copy).expect("it was there");
    let bench = bench.expect("it starts").wait_with_output();
    let bench = bench.expect("it ends");
    assert!(bench.status.success(), "{bench:?}");
}
