//! What the program prints: lines for people, or one JSON object a line.
//!
//! Nobody has to be listening: a closed pipe is no reason to stop serving. But neither it nor a full
//! disk is a reason to say that all went well: what a server or a load had to say and could not is told
//! once, and remembered until the end. Each command would otherwise have to carry what became of every
//! line; some had let a result go without a word.
//!
//! A server or a load writes nothing itself: it begins with a thread for each stream, and hands its
//! lines to their queues. So no thread that serves or stops waits for a reader, and neither does the
//! end for longer than a reader may take. The commands that only print write at once.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;

use crate::sys;
use queue::Queue;

mod queue;

/// Something could not be written, and somebody wanted it.
static UNWRITTEN: AtomicBool = AtomicBool::new(false);

/// What writes for those who must not wait; nothing for the commands that only print.
static STDOUT: OnceLock<Arc<Queue>> = OnceLock::new();
static STDERR: OnceLock<Arc<Queue>> = OnceLock::new();

/// At the end, how long nobody may have read anything, and how long all of it may take.
const READS_WITHIN: Duration = Duration::from_secs(5);
const READS_ALL_WITHIN: Duration = Duration::from_secs(30);
/// What a terminal takes for a line.
const SETTLES_WITHIN: Duration = Duration::from_millis(200);
/// The same of complaints, on which nothing depends.
const HEARS_WITHIN: Duration = Duration::from_secs(1);

/// From now on other threads write, and whoever prints goes on at once.
pub(crate) fn begin() -> Result<(), String> {
    let stderr = Queue::start("stderr", io::stderr(), |_, _| ())?;
    let stdout = Queue::start("stdout", io::stdout(), unwritten_by_thread)?;
    // Nobody has begun before.
    let _ = STDERR.set(stderr);
    let _ = STDOUT.set(stdout);
    Ok(())
}

/// A line of which there may be many: where nobody reads them in time it is dropped, and counted.
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

/// Waits a moment for lines to be out, for whoever draws over them on a terminal.
pub(crate) fn settle() {
    if let Some(queue) = STDOUT.get() {
        // Where nobody reads there is nothing to draw over.
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

/// Something the operator should know, or what ends the program, in one line.
pub(crate) fn complaint(text: &str) {
    complaint_as_is(&format!("wharf: {text}\n"));
}

/// Help that nobody asked for, as it is.
pub(crate) fn complaint_as_is(text: &str) {
    match STDERR.get() {
        Some(queue) => queue.keep(text.as_bytes()),
        // With nobody to hear it there is nothing left to do about it.
        None => drop(io::stderr().write_all(text.as_bytes())),
    }
}

/// Prints it. Whoever has read enough of what only prints may close the pipe.
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

/// What the thread of standard output could not write. Lines that might have been dropped as well are
/// not missed by whoever has closed the pipe; an account is.
fn unwritten_by_thread(error: &io::Error, kept: bool) {
    if kept || !sys::is_closed_pipe(error) {
        unwritten(error);
    }
}

fn unwritten(error: &io::Error) {
    if UNWRITTEN.swap(true, Ordering::Relaxed) {
        return;
    }
    let cure = if sys::is_closed_pipe(error) {
        "nobody reads it any more, and what was to be printed is lost"
    } else {
        "make room, or write elsewhere"
    };
    complaint(&format!("cannot write to standard output: {error}: {cure}"));
}

/// The exit of a command that has printed what it had to say, or has it fail if it could not.
pub(crate) fn exit(code: ExitCode) -> ExitCode {
    let left = STDOUT
        .get()
        .map(|it| it.drain(READS_WITHIN, READS_ALL_WITHIN));
    if let Some(Err(bytes)) = left {
        UNWRITTEN.store(true, Ordering::Relaxed);
        complaint(&format!(
            "cannot write to standard output: nobody reads it, and its last {bytes} bytes are lost"
        ));
    }
    if let Some(queue) = STDERR.get() {
        // Whoever does not read complaints either is told nothing.
        let _ = queue.drain(HEARS_WITHIN, HEARS_WITHIN);
    }
    match UNWRITTEN.load(Ordering::Relaxed) {
        true if code == ExitCode::SUCCESS => ExitCode::FAILURE,
        _ => code,
    }
}
