//! The output of a command, kept while it is printed.
//!
//! Logs of continuous integration are often cut to their end, and the failure is in the middle. So
//! a failed command keeps its last lines, and the summary prints them again. This applies only in
//! continuous integration: at a terminal the command has the terminal itself, with its colours and
//! its progress.
//!
//! A leg may also need all of standard output. Reading it after the end, in one piece, was
//! rejected: a person would not see which test hangs.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// For each of the two outputs. The list of failures of a test binary and the reasons of several
/// fit in.
pub(super) const BYTES_KEPT: usize = 4 * 1024;

/// A daemon that the command leaves behind keeps the pipe open as long as it lives. After this time
/// without a line nothing more comes of the command itself.
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

/// Prints the outputs of a command that are piped, line by line, and keeps their end.
pub(super) struct Shown {
    readers: Vec<(Arc<Mutex<Last>>, JoinHandle<()>)>,
}

struct Last {
    lines: VecDeque<String>,
    bytes: usize,
    bytes_max: usize,
    /// When the latest line came.
    latest: Instant,
}

impl Shown {
    /// Call this before `command` is started, to show both outputs.
    pub(super) fn prepare(command: &mut Command) {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    }

    /// Keeps at most this much of each output.
    pub(super) fn of(child: &mut Child, bytes_max: usize) -> Self {
        Self::to(child, bytes_max, io::stdout, io::stderr)
    }

    /// Prints to these.
    pub(super) fn to<O: Write + 'static, E: Write + 'static>(
        child: &mut Child,
        bytes_max: usize,
        outputs: fn() -> O,
        complaints: fn() -> E,
    ) -> Self {
        let output = child.stdout.take();
        let output = output.map(|it| pass_on(it, bytes_max, outputs));
        let errors = child.stderr.take();
        let errors = errors.map(|it| pass_on(it, bytes_max, complaints));
        let readers = output.into_iter().chain(errors).collect();
        Self { readers }
    }

    /// Call this once the command has ended. Returns the end of standard output, then of standard
    /// error.
    pub(super) fn end(self) -> String {
        let begun = Instant::now();
        let reads = |(last, reader): &(Arc<Mutex<Last>>, JoinHandle<()>)| {
            let latest = begun.max(lock(last).latest);
            !reader.is_finished() && latest.elapsed() < PATIENCE
        };
        while self.readers.iter().any(reads) {
            thread::sleep(Duration::from_millis(10));
        }
        let mut end = String::new();
        for (last, _) in &self.readers {
            end.extend(lock(last).lines.iter().map(String::as_str));
        }
        end
    }
}

impl Last {
    fn keep(&mut self, line: String) {
        self.latest = Instant::now();
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.bytes > self.bytes_max && self.lines.len() > 1 {
            self.bytes -= self.lines.pop_front().map_or(0, |line| line.len());
        }
    }
}

fn lock(last: &Mutex<Last>) -> MutexGuard<'_, Last> {
    last.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pass_on<W: Write + 'static>(
    from: impl Read + Send + 'static,
    bytes_max: usize,
    to: fn() -> W,
) -> (Arc<Mutex<Last>>, JoinHandle<()>) {
    let kept = Arc::new(Mutex::new(Last {
        lines: VecDeque::new(),
        bytes: 0,
        bytes_max,
        latest: Instant::now(),
    }));
    let last = Arc::clone(&kept);
    let reader = thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            // The reader of our own output may have gone. Read the command to its end all the same.
            let _ = to().write_all(&line);
            lock(&last).keep(String::from_utf8_lossy(&line).into_owned());
            line.clear();
        }
    });
    (kept, reader)
}
