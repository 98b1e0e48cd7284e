//! The part's side: it reads orders from its standard input and tells on its standard output.

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::thread;

use serde::Serialize;

use super::{Order, Part, Told};

/// The exit code of a part that nobody listens to any more.
const ORPHANED: i32 = 1;

/// The process that has started this one.
#[derive(Debug)]
pub(crate) struct Superior {
    pub(crate) part: Part,
}

impl Superior {
    /// Reads which part this process has.
    pub(crate) fn meet() -> Result<Self, String> {
        let part = next_line().and_then(|line| serde_json::from_str(&line).ok());
        let part = part.ok_or("--part is for the program itself: use --processes")?;
        Ok(Superior { part })
    }

    /// Tells that this part can begin, and waits until all can.
    pub(crate) fn ready(&self, addresses: Vec<String>) {
        tell(&Told::<()>::Ready(addresses));
        while let Some(line) = next_line() {
            if Order::of(&line) == Some(Order::Begin) {
                return;
            }
        }
        std::process::exit(ORPHANED);
    }

    /// Carries out orders, on a thread of its own, until there are no more.
    ///
    /// The end of the input is the end of those who gave them, and of this process.
    pub(crate) fn obey(&self, carry_out: impl Fn(Order) + Send + 'static) -> Result<(), String> {
        let obey = move || {
            while let Some(line) = next_line() {
                if let Some(order) = Order::of(&line) {
                    carry_out(order);
                }
            }
            std::process::exit(ORPHANED);
        };
        let thread = thread::Builder::new().name("orders".into()).spawn(obey);
        let failed = |error| format!("cannot start a thread: {error}");
        thread.map(drop).map_err(failed)
    }

    pub(crate) fn standing<S: Serialize>(standing: S) {
        tell(&Told::Standing(standing));
    }

    /// A line to print, from one of this process's threads.
    pub(crate) fn line(text: String) {
        tell(&Told::<()>::Line(text));
    }

    /// Tells how it ended; the exit code of this process, in which nobody is interested.
    pub(crate) fn end<S: Serialize>(result: Result<S, String>) -> ExitCode {
        match result {
            Ok(standing) => {
                tell(&Told::Over(standing));
                ExitCode::SUCCESS
            }
            Err(text) => {
                tell(&Told::<()>::Failed(text));
                ExitCode::from(2)
            }
        }
    }
}

fn next_line() -> Option<String> {
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(1..) => Some(line.trim_end().to_owned()),
        Ok(0) | Err(_) => None,
    }
}

fn tell<S: Serialize>(told: &Told<S>) {
    if let Ok(mut text) = serde_json::to_string(told) {
        text.push('\n');
        // With nobody to hear it, the end of the input ends this process.
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
    }
}
