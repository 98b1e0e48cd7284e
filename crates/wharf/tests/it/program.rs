//! The program under test, and how to run it to its end.

use std::process::{Command, ExitStatus, Output};

use crate::codes::{self, Code};

/// The program under test, without arguments.
pub(crate) fn program() -> Command {
    let words = std::env::var("WHARF_TEST_PROGRAM");
    let words = words.unwrap_or_else(|_| env!("CARGO_BIN_EXE_wharf").into());
    let mut words = words.split_whitespace();
    let mut command = Command::new(words.next().expect("a program to start"));
    command.args(words);
    command
}

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    let mut program = program();
    program.args(arguments);
    let output = program.output().expect("the program starts");
    if is_native() {
        output
    } else {
        without_words_of_wine(output)
    }
}

/// The output and exit code of the program. If one of its threads lost Wine's server while the
/// program ended, Wine prints a complaint and ends the process with a code of its own. The
/// program's own code is then lost, as it is when the server ended first.
#[cfg(unix)]
fn without_words_of_wine(output: Output) -> Output {
    use std::os::unix::process::ExitStatusExt;

    // The second is printed by the loader, if Wine 10 opens a library while its process ends.
    const WORDS: [&[u8]; 2] = [b"wine client error:", b"Inconsistency detected by ld.so:"];
    let lines = output.stderr.split_inclusive(|byte| *byte == b'\n');
    let stderr: Vec<u8> = lines
        .filter(|line| !WORDS.iter().any(|words| line.starts_with(words)))
        .collect::<Vec<_>>()
        .concat();
    if stderr.len() == output.stderr.len() {
        return output;
    }
    let killed = ExitStatus::from_raw(9);
    let is_lost = matches!(output.status.code(), Some(1 | 127));
    let status = if is_lost { killed } else { output.status };
    Output {
        status,
        stderr,
        ..output
    }
}

/// A Windows program sees of another what Windows reports, under Wine too.
#[cfg(not(unix))]
fn without_words_of_wine(output: Output) -> Output {
    output
}

/// The words of a command line that has no quotes.
pub(crate) fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// The exit code, as far as it is known.
pub(crate) fn code_of(status: ExitStatus) -> Code {
    codes::code_of(status, is_native())
}

/// Whether the program is the one that cargo built for this system, and not a foreign build or one
/// that runs under Wine.
pub(crate) fn is_native() -> bool {
    std::env::var_os("WHARF_TEST_PROGRAM").is_none()
}

/// The same, for tests that do not apply elsewhere: it says so.
pub(crate) fn needs_native() -> bool {
    if !is_native() {
        println!("skipped: this is a matter of the system that the tests run on");
    }
    is_native()
}
