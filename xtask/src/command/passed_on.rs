//! A command whose output both a leg and a person read.
//!
//! Legs on Linux read the output of a suite while it runs. Reading it after the end, in one piece,
//! was rejected: a person would not see which test hangs.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::Result;

use super::{Failed, check, show, start, wait};

/// Like [`run`](super::run), and also returns what the command wrote to standard output.
pub(crate) fn run_and_read(command: &mut Command) -> Result<String> {
    println!("$ {}", show(command));
    let mut child = start(command.stdout(Stdio::piped()))?;
    let output = child.stdout.take().expect("standard output is piped");
    // Lines are printed as they come, so a person can see which test hangs.
    let reader = thread::spawn(move || {
        let mut text = String::new();
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            text.push_str(&line);
            text.push('\n');
        }
        text
    });
    let status = wait(&mut child)?;
    let text = reader.join().expect("reading lines does not panic");
    match check(status, command) {
        Ok(()) => Ok(text),
        Err(error) => Err(Failed::of(&error, &text).into()),
    }
}
