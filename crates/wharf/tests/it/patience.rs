//! Time for cases about times, on a machine that is busy or stands still for seconds: more time, or
//! no limit at all.
//!
//! A load of half a second once had to exchange twenty messages. On such a machine that may not
//! even be enough to connect. A case that needs some of them tries again with more time. A case
//! that waits for a line has a load without an end, and stops it. Longer times for all cases were
//! rejected: every run would pay for what one in a thousand needs.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout};

use serde_json::Value;

use crate::codes::Code;
use crate::load::start;
use crate::program::code_of;
use crate::running::{self, Signal, ask_to_end};

/// Tries again with more time if an attempt did not come far enough. The factor makes all times of
/// the case longer. Anything that does not depend on time is asserted in each attempt.
pub(crate) fn given_time(mut attempt: impl FnMut(u32) -> Result<(), String>) {
    let is_enough = [1, 8].into_iter().any(|factor| attempt(factor).is_ok());
    if !is_enough && let Err(told) = attempt(64) {
        panic!("even in 64 times the time: {told}");
    }
}

/// The result of an attempt.
pub(crate) fn enough(is_enough: bool, told: &Value) -> Result<(), String> {
    is_enough.then_some(()).ok_or_else(|| told.to_string())
}

pub(crate) fn milliseconds(count: u32, factor: u32) -> String {
    format!("{}ms", count * factor)
}

pub(crate) fn has_messages(told: &Value) -> bool {
    told["messages"].as_u64() > Some(0)
}

/// A load without an end whose lines are read while it runs.
pub(crate) struct Watched {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watched {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = start(arguments);
        let output = child.stdout.take().expect("a pipe");
        let lines = BufReader::new(output).lines();
        Watched { child, lines }
    }

    fn next(&mut self) -> Value {
        let line = self.lines.next().expect("it goes on").expect("text");
        serde_json::from_str(&line).expect("an object a line")
    }

    /// The first interval that satisfies the condition.
    pub(crate) fn until(&mut self, is: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.next();
            assert_eq!(line["event"], "interval", "{line}");
            if is(&line) {
                return line;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        running::signal(&self.child, signal);
    }

    /// Stops it; returns its last line.
    pub(crate) fn interrupt(mut self) -> Value {
        ask_to_end(&mut self.child);
        let (last, code) = self.end();
        assert_eq!(code, Some(130), "{last}");
        last
    }

    /// Its last line and its code, once it ends.
    pub(crate) fn end(mut self) -> (Value, Code) {
        let mut last = self.next();
        while last["event"] != "load" {
            last = self.next();
        }
        (last, code_of(self.child.wait().expect("it ends")))
    }
}
