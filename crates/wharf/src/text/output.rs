//! Output: lines of text, or one JSON object a line.
//!
//! A closed pipe is no reason to stop serving. But a closed pipe or a full disk is a reason not to
//! report success: if a server or a load cannot print a result, this module reports that once, and
//! remembers it until the exit. Otherwise each command would have to keep the outcome of every
//! line; some lost a result silently.
//!
//! A server or a load does not write itself. It starts a thread for each stream, and puts its lines
//! into their queues. So no thread that serves or stops waits for a reader, and the exit waits only
//! for a limited time. Commands that only print write directly.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;

use crate::sys;
use queue::Queue;

mod queue;

/// A result could not be written.
static UNWRITTEN: AtomicBool = AtomicBool::new(false);

/// The queue of a stream; empty for commands that only print.
static STDOUT: OnceLock<Arc<Queue>> = OnceLock::new();
static STDERR: OnceLock<Arc<Queue>> = OnceLock::new();

/// At the exit, how long the reader may read nothing, and how long everything may take.
const READS_WITHIN: Duration = Duration::from_secs(5);
const READS_ALL_WITHIN: Duration = Duration::from_secs(30);
/// The time that a terminal takes for a line.
const SETTLES_WITHIN: Duration = Duration::from_millis(200);
/// The same for error messages. Nothing depends on them.
const HEARS_WITHIN: Duration = Duration::from_secs(1);

/// From now on other threads write, and printing does not block.
pub(crate) fn begin() -> Result<(), String> {
    let stderr = Queue::start("stderr", io::stderr(), |_, _| ())?;
    let stdout = Queue::start("stdout", io::stdout(), unwritten_by_thread)?;
    // This is the first call.
    let _ = STDERR.set(stderr);
    let _ = STDOUT.set(stdout);
    Ok(())
}

/// A line of which there may be many. If it is not read in time it is dropped and counted.
pub(crate) fn news(text: &str) {
    match STDOUT.get() {
        Some(queue) => queue.offer(text),
        None => line(text),
    }
}

/// The same as an object.
pub(crate) fn news_json(value: &impl Serialize) {
    if let Ok(text) = serde_json::to_string(value) {
        news(&text);
    }
}

/// Waits a moment until lines are out, before the live line is drawn on a terminal.
pub(crate) fn settle() {
    if let Some(queue) = STDOUT.get() {
        // Without a reader there is no live line.
        let _ = queue.drain(SETTLES_WITHIN, SETTLES_WITHIN);
    }
}

/// Lines that were dropped so far.
pub(crate) fn dropped_lines() -> u64 {
    STDOUT.get().map_or(0, |queue| queue.dropped_lines())
}

pub(crate) fn line(text: &str) {
    bytes(format!("{text}\n").as_bytes());
}

pub(crate) fn json(value: &impl Serialize) {
    if let Ok(text) = serde_json::to_string(value) {
        line(&text);
    }
}

/// A warning or an error, in one line.
pub(crate) fn complaint(text: &str) {
    complaint_as_is(&format!("wharf: {text}\n"));
}

/// Help text as it is, on standard error.
pub(crate) fn complaint_as_is(text: &str) {
    match STDERR.get() {
        Some(queue) => queue.keep(text.as_bytes()),
        // Without a reader there is nothing left to do.
        None => drop(io::stderr().write_all(text.as_bytes())),
    }
}

/// Prints these bytes. The reader of a command that only prints may close the pipe early.
pub(crate) fn bytes(bytes: &[u8]) {
    if let Some(queue) = STDOUT.get() {
        return queue.keep(bytes);
    }
    let mut stdout = io::stdout();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    if let Err(error) = written
        && !sys::is_closed_pipe(&error)
    {
        unwritten(&error);
    }
}

/// Called when the thread of standard output cannot write. A reader that has closed the pipe does
/// not miss lines that may be dropped, but it misses an account.
fn unwritten_by_thread(error: &io::Error, kept: bool) {
    if kept || !sys::is_closed_pipe(error) {
        unwritten(error);
    }
}

fn unwritten(error: &io::Error) {
    if UNWRITTEN.swap(true, Ordering::Relaxed) {
        return;
    }
    let hint = if sys::is_closed_pipe(error) {
        "its reader is gone, and the rest of the output is lost"
    } else {
        "free some space, or write elsewhere"
    };
    complaint(&format!("cannot write to standard output: {error}: {hint}"));
}

/// The exit code of a command: `code`, or a failure if a result could not be written.
pub(crate) fn exit(code: ExitCode) -> ExitCode {
    let left = STDOUT
        .get()
        .map(|it| it.drain(READS_WITHIN, READS_ALL_WITHIN));
    if let Some(Err(bytes)) = left {
        UNWRITTEN.store(true, Ordering::Relaxed);
        complaint(&format!(
            "cannot write to standard output: it is not read, and its last {bytes} bytes are lost"
        ));
    }
    if let Some(queue) = STDERR.get() {
        // Without a reader of standard error, nothing can be reported.
        let _ = queue.drain(HEARS_WITHIN, HEARS_WITHIN);
    }
    match UNWRITTEN.load(Ordering::Relaxed) {
        true if code == ExitCode::SUCCESS => ExitCode::FAILURE,
        _ => code,
    }
}
