//! The last output of a command, kept while it is printed.
//!
//! Logs of continuous integration are often cut to their end, and the failure is in the middle. So
//! a failed command keeps its last lines, and the summary prints them again. This applies only in
//! continuous integration: at a terminal the command has the terminal itself, with its colours and
//! its progress.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// For each of the two outputs. The list of failures of a test binary and the reasons of several
/// fit in.
const BYTES_KEPT: usize = 4 * 1024;

/// A daemon that the command leaves behind keeps the pipe open as long as it lives.
const PATIENCE: Duration = Duration::from_secs(2);

/// A command that did not succeed.
#[derive(Debug)]
pub(crate) struct Failed {
    /// The exit status and the command.
    what: String,
    /// The end of standard output, then of standard error.
    pub(crate) end: String,
}

impl Failed {
    /// Keeps the end of `printed`.
    pub(super) fn of(error: &anyhow::Error, printed: &str) -> Self {
        let from = printed.len().saturating_sub(2 * BYTES_KEPT);
        Self {
            what: format!("{error:#}"),
            end: printed[printed.ceil_char_boundary(from)..].to_owned(),
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.what)
    }
}

impl std::error::Error for Failed {}

/// Prints both outputs of a command line by line, and keeps their end.
pub(super) struct Shown {
    readers: [(Arc<Mutex<Last>>, JoinHandle<()>); 2],
}

#[derive(Default)]
struct Last {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Shown {
    /// Call this before `command` is started.
    pub(super) fn prepare(command: &mut Command) {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    }

    pub(super) fn of(child: &mut Child) -> Self {
        Self::to(child, io::stdout, io::stderr)
    }

    /// Prints to these.
    pub(super) fn to<O: Write + 'static, E: Write + 'static>(
        child: &mut Child,
        outputs: fn() -> O,
        complaints: fn() -> E,
    ) -> Self {
        let output = child.stdout.take().expect("standard output is piped");
        let errors = child.stderr.take().expect("standard error is piped");
        let readers = [pass_on(output, outputs), pass_on(errors, complaints)];
        Self { readers }
    }

    /// Call this once the command has ended.
    pub(super) fn end(self) -> String {
        let deadline = Instant::now() + PATIENCE;
        let running = || self.readers.iter().any(|(_, reader)| !reader.is_finished());
        while running() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        let mut end = String::new();
        for (last, _) in &self.readers {
            let last = last.lock().unwrap_or_else(PoisonError::into_inner);
            end.extend(last.lines.iter().map(String::as_str));
        }
        end
    }
}

impl Last {
    fn keep(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.bytes > BYTES_KEPT && self.lines.len() > 1 {
            self.bytes -= self.lines.pop_front().map_or(0, |line| line.len());
        }
    }
}

fn pass_on<W: Write + 'static>(
    from: impl Read + Send + 'static,
    to: fn() -> W,
) -> (Arc<Mutex<Last>>, JoinHandle<()>) {
    let kept = Arc::<Mutex<Last>>::default();
    let last = Arc::clone(&kept);
    let reader = thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            // The reader of our own output may have gone. Read the command to its end all the same.
            let _ = to().write_all(&line);
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            last.keep(String::from_utf8_lossy(&line).into_owned());
            line.clear();
        }
    });
    (kept, reader)
}
