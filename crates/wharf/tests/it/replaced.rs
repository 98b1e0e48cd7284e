//! The program's file is replaced while it runs, as cargo does it, and it starts itself again.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::program::needs_native;

#[test]
fn what_runs_starts_itself_although_its_file_is_gone() {
    if !needs_native() {
        return;
    }
    let name = format!("wharf-{}-replaced", std::process::id());
    // A second name and not a copy: for a moment a program that another test starts inherits every
    // file that is open here, and a file that is open for writing is refused as "text file busy".
    let second = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::hard_link(env!("CARGO_BIN_EXE_wharf"), &second).expect("both are in target");
    // It starts a server and a load for each of its parts, one after the other.
    let words = "bench --driver poll --rounds 1 --for 50ms --connections 50 --format json";
    let bench = Command::new(&second)
        .args(words.split(' '))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    // Once started, it runs a file that no longer exists.
    std::fs::remove_file(&second).expect("it was there");
    let bench = bench.expect("it starts").wait_with_output();
    let bench = bench.expect("it ends");
    assert!(bench.status.success(), "{bench:?}");
}
