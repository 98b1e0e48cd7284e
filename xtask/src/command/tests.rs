//! A command that hangs is ended, with everything that it has started; one that fails carries its last lines.

use std::io::{self, Read as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::shown::{BYTES_KEPT, Failed, Shown};
use super::{end_group, own_group, wait_limited};

#[test]
fn a_hung_command_is_ended_with_its_children() {
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 600 & sleep 600"]);
    own_group(command.stdout(Stdio::piped()));
    let mut child = command.spawn().expect("every Unix has sh");
    let mut output = child.stdout.take().expect("it is piped");
    let outcome = wait_limited(&mut child, Duration::from_millis(200));
    let error = outcome.expect_err("it sleeps for ten minutes").to_string();
    assert!(error.contains("the limit of one command"), "{error}");
    // The pipe ends when the last process that holds it is gone.
    output
        .read_to_end(&mut Vec::new())
        .expect("the pipe can be read to its end");
}

#[test]
fn a_command_within_its_limit_gives_its_status() {
    let mut command = Command::new("sh");
    let mut child = command
        .args(["-c", "exit 7"])
        .spawn()
        .expect("every Unix has sh");
    let status = wait_limited(&mut child, Duration::from_secs(60)).expect("it ends at once");
    assert_eq!(status.code(), Some(7));
}

#[test]
fn a_failed_command_carries_what_it_printed_last() {
    let mut command = Command::new("sh");
    // Something that outlives the command keeps its output open.
    let script = "seq 100000; echo 'this test failed' >&2; sleep 60 & exit 3";
    Shown::prepare(command.args(["-c", script]));
    own_group(&mut command);
    let mut child = command.spawn().expect("every Unix has sh");
    let shown = Shown::to(&mut child, BYTES_KEPT, io::sink, io::sink);
    let status = child.wait().expect("it is our child");
    let end = shown.end();
    end_group(&mut child);
    assert_eq!(status.code(), Some(3));
    assert!(end.contains("\n100000\n"), "{end}");
    assert!(end.contains("this test failed\n"), "{end}");
    assert!(end.len() < 10_000, "{} bytes", end.len());
    let failed = Failed::of(&anyhow::anyhow!("exit status: 3"), &end);
    assert!(failed.end.ends_with("this test failed\n"), "{}", failed.end);
}

#[test]
fn a_leg_reads_all_that_a_command_printed() {
    let mut command = Command::new("sh");
    let mut child = command
        .args(["-c", "seq 100000"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("every Unix has sh");
    let shown = Shown::to(&mut child, usize::MAX, io::sink, io::sink);
    child.wait().expect("it is our child");
    let text = shown.end();
    assert_eq!(text.lines().count(), 100_000);
    assert!(text.starts_with("1\n2\n") && text.ends_with("\n100000\n"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_reason_is_one_line() {
    let of = |printed: &str| {
        let failed = Failed::of(&anyhow::anyhow!("exit status: 100"), printed);
        super::reason(&anyhow::Error::from(failed).context("unpack"))
    };
    assert_eq!(of("a\n\nE: no name\nE: all failed\n"), "E: no name");
    assert_eq!(
        of("mount: a is b\nmount: forbidden\n\n"),
        "mount: forbidden"
    );
    assert_eq!(of(""), "unpack: exit status: 100");
}
