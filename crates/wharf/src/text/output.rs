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
use wharf_port::{Address, DriverReport};

use crate::account::Account;
use crate::cli::{Format, ServingOptions};
use crate::processes::Child;
use crate::server::Visit;
use crate::sys;
use crate::text::wrap::{COLUMN, wrapped};
use queue::Queue;

mod queue;

/// Prints for one run of a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    format: Format,
    verbose: bool,
    quiet: bool,
    /// Another process prints for this one.
    part: bool,
}

#[derive(Serialize)]
struct Listening<'a> {
    event: &'static str,
    version: u32,
    service: &'a str,
    address: String,
    driver: String,
    passed_over: Vec<PassedOver<'a>>,
    processes: u32,
    /// Of all processes.
    threads: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    admin: Option<String>,
}

#[derive(Serialize)]
struct PassedOver<'a> {
    driver: String,
    reason: &'a str,
}

impl Output {
    pub(crate) fn new(options: &ServingOptions) -> Self {
        Output {
            format: options.format,
            verbose: options.verbose,
            quiet: options.quiet,
            part: options.division.part,
        }
    }

    pub(crate) fn listening(
        self,
        service: &str,
        address: &Address,
        driver: &DriverReport,
        admin: Option<&Address>,
        (processes, threads): (u32, u32),
    ) {
        if self.format == Format::Text {
            if !self.quiet {
                let admin = admin.map_or(String::new(), |admin| format!("; account at {admin}"));
                let processes = match processes {
                    1 => String::new(),
                    several => format!("; {several} processes"),
                };
                line(&format!(
                    "{service}: listening on {address}, driver {driver}{processes}{admin}"
                ));
            }
            return;
        }
        let passed_over = driver.passed_over.iter().map(|passed| PassedOver {
            driver: passed.kind.to_string(),
            reason: passed.reason,
        });
        json(&Listening {
            event: "listening",
            version: 1,
            service,
            address: address.to_string(),
            driver: driver.kind.to_string(),
            passed_over: passed_over.collect(),
            processes,
            threads,
            admin: admin.map(ToString::to_string),
        });
    }

    /// Whether there are lines for each connection.
    pub(crate) fn is_verbose(self) -> bool {
        self.verbose
    }

    /// A line for one connection.
    pub(crate) fn visit(self, visit: &Visit) {
        let text = match self.format {
            // What is text and numbers can be written.
            Format::Json => serde_json::to_string(visit).unwrap_or_default(),
            Format::Text => visit.text(),
        };
        if self.part {
            Child::line(text);
        } else {
            news(&text);
        }
    }

    pub(crate) fn account(self, account: &Account) {
        if self.format == Format::Json {
            return json(account);
        }
        let a = account;
        row(&format!(
            "accepted        {:>12}   peak {}",
            a.accepted, a.peak
        ));
        row(&format!(
            "left            {:>12}   by FIN {}, by RST {}, by error {}",
            a.left_by_fin + a.left_by_reset + a.left_by_error,
            a.left_by_fin,
            a.left_by_reset,
            a.left_by_error
        ));
        row(&format!("closed by us    {:>12}", a.closed_by_us));
        row(&format!(
            "refused         {:>12}   at the maximum {}, other {}; accept paused {} times",
            a.refused.max_connections + a.refused.other,
            a.refused.max_connections,
            a.refused.other,
            a.accept_pauses
        ));
        row(&format!(
            "bytes           {:>12}   in, {} out",
            a.bytes_in, a.bytes_out
        ));
        if a.lines_dropped > 0 {
            row(&format!(
                "lines dropped   {:>12}   which nobody had read in time",
                a.lines_dropped
            ));
        }
        let processes = match a.processes {
            1 => String::new(),
            several => format!("   in {several} processes"),
        };
        row(&format!("seconds         {:>12.3}{processes}", a.seconds));
        if let Some(us) = a.processor_us {
            row(&format!("processor time  {:>12.3}", us as f64 / 1e6));
        }
        let Some(resident_bytes) = a.resident_bytes else {
            return;
        };
        let each = match a.resident_bytes_per_connection_at_peak {
            Some(bytes) => format!("   {bytes} per connection at the peak"),
            None => String::new(),
        };
        row(&format!("resident bytes  {resident_bytes:>12}{each}"));
    }
}

/// A line of an account.
fn row(text: &str) {
    for part in wrapped(text, COLUMN) {
        line(&part);
    }
}

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
