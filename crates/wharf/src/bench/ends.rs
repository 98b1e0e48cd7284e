//! The two ends of a run: this program as a server, and this program as a load.
//!
//! Each end is its own process. So the processor time of the server is its own, and each end may
//! run on its own processor. They print a line of JSON at a time. They end when their standard
//! input closes, so they end with this program, however it ends.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use crate::load::results::admin;
use crate::sys::{self, processors};
use crate::threads;

/// How long a program of one process may take to start, and to end once its input closes.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How often a wait checks for Ctrl-C.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Why a run did not finish.
#[derive(Debug)]
pub(super) enum Stop {
    Interrupted,
    Failed(String),
}

impl From<String> for Stop {
    fn from(text: String) -> Self {
        Stop::Failed(text)
    }
}

/// On which processors the ends run, and whether they should go on.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) server_processor: Option<usize>,
    pub(super) load_processor: Option<usize>,
    pub(super) congestion_control: Option<&'static str>,
    /// How long a program may take to start, and to end once its input closes.
    pub(super) patience: Duration,
    pub(super) interrupted: &'a AtomicBool,
}

impl Place<'_> {
    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Waits for this time.
    pub(super) fn rest(&self, time: Duration) -> Result<(), Stop> {
        let until = Instant::now() + time;
        loop {
            if self.is_interrupted() {
                return Err(Stop::Interrupted);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(LOOK_EVERY));
        }
    }
}

/// A program that runs.
#[derive(Debug)]
pub(super) struct End<'a> {
    place: &'a Place<'a>,
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    complaint: Option<JoinHandle<String>>,
    /// The last line that it printed.
    said: Value,
}

impl<'a> End<'a> {
    fn start(
        place: &'a Place<'a>,
        processor: Option<usize>,
        arguments: &[&str],
    ) -> Result<Self, Stop> {
        let name = arguments.join(" ");
        let failed = |error: std::io::Error| format!("cannot start wharf {name}: {error}");
        let mut command = Command::new(sys::program().map_err(failed)?);
        command.args(arguments);
        command.args(["--format", "json", "--until-eof"]);
        if let Some(congestion_control) = place.congestion_control {
            command.args(["--congestion-control", congestion_control]);
        }
        // The environment variables of this program are not for its children.
        for variable in own_variables(std::env::vars_os().map(|(name, _)| name)) {
            command.env_remove(variable);
        }
        // Ctrl-C is for this program, which then ends the children in order.
        sys::keep_from_terminal(&mut command);
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = processors::spawn_on(processor, &mut command).map_err(failed)?;
        let output = child.stdout.take().expect("it is piped");
        let mut errors = child.stderr.take().expect("it is piped");
        let (sender, lines) = mpsc::channel();
        let read = threads::start("lines", move || {
            let mut lines = BufReader::new(output).lines().map_while(Result::ok);
            // The reader has left if it has enough.
            lines.all(|line| sender.send(line).is_ok())
        });
        let complaint = threads::start("complaint", move || {
            let mut text = String::new();
            // Output that is not text is no error message.
            let _ = errors.read_to_string(&mut text);
            text.trim().to_owned()
        });
        let complaint = match read.and(complaint) {
            Ok(complaint) => complaint,
            Err(text) => {
                // It would end by itself when its input closes, but no one would wait for it.
                let _ = child.kill().and_then(|()| child.wait());
                return Err(Stop::Failed(text));
            }
        };
        Ok(End {
            place,
            name,
            input: child.stdin.take(),
            child,
            lines,
            complaint: Some(complaint),
            said: Value::Null,
        })
    }

    /// The next line, or `None` if the program has ended.
    pub(super) fn next(&mut self, until: Instant) -> Result<Option<Value>, Stop> {
        loop {
            if self.place.is_interrupted() {
                return Err(Stop::Interrupted);
            }
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left.min(LOOK_EVERY)) {
                Ok(line) => {
                    let value = serde_json::from_str(&line);
                    let wrong = |error| format!("wharf {} said {line}: {error}", self.name);
                    self.said = value.map_err(wrong)?;
                    return Ok(Some(self.said.clone()));
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) if left.is_zero() => {
                    return Err(Stop::Failed(format!("wharf {} hangs", self.name)));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Ends the program; returns its last line and its exit code.
    pub(super) fn end(mut self) -> Result<(Value, Option<i32>), Stop> {
        self.ask_to_end();
        let patience = self.place.patience;
        self.last(patience)
    }

    /// The last line that it printed so far.
    pub(super) fn said(&self) -> &Value {
        &self.said
    }

    /// Closes its input, so that it ends.
    pub(super) fn ask_to_end(&mut self) {
        drop(self.input.take());
    }

    /// Waits until it ends by itself; returns its last line and its exit code.
    pub(super) fn last(mut self, patience: Duration) -> Result<(Value, Option<i32>), Stop> {
        let until = Instant::now() + patience;
        while self.next(until)?.is_some() {}
        let status = self.child.wait().map_err(|error| error.to_string())?;
        if self.said.is_null() {
            return Err(self.complained());
        }
        Ok((std::mem::take(&mut self.said), status.code()))
    }

    /// The error for output other than expected.
    fn complained(&mut self) -> Stop {
        let text = self.complaint.take().map(JoinHandle::join);
        let text = text.and_then(Result::ok).unwrap_or_default();
        let text = text.strip_prefix("wharf: ").unwrap_or(&text);
        Stop::Failed(format!("wharf {}: {text}", self.name))
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        drop(self.input.take());
        let until = Instant::now() + self.place.patience;
        // We ignore its remaining output and wait for its end.
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let _ = self.child.kill();
                    break;
                }
            }
        }
        let _ = self.child.wait();
    }
}

/// The environment variables of this program's options.
fn own_variables(names: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let is_own = |name: &OsString| name.to_string_lossy().starts_with("WHARF_");
    names.filter(is_own).collect()
}

/// A server that runs.
#[derive(Debug)]
pub(super) struct Server<'a> {
    end: End<'a>,
    pub(super) address: String,
    pub(super) processes: u32,
    pub(super) threads: u32,
    pub(super) admin: SocketAddr,
}

/// The figures that a server reports while it runs.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
pub(super) struct Standing {
    pub(super) seconds: f64,
    pub(super) accepted: u64,
    pub(super) held: u64,
    pub(super) bytes_in: u64,
    pub(super) resident_bytes: Option<u64>,
    pub(super) port_bytes: u64,
    pub(super) processor_us: Option<u64>,
}

impl<'a> Server<'a> {
    /// Starts a server on a free port of loopback.
    pub(super) fn start(
        place: &'a Place<'a>,
        service: &str,
        driver: &str,
        more: &[&str],
    ) -> Result<Self, Stop> {
        let anywhere = "127.0.0.1:0";
        let arguments = [service, anywhere, "--admin", anywhere, "--driver", driver];
        let arguments = [&arguments, more].concat();
        let mut end = End::start(place, place.server_processor, &arguments)?;
        let Some(listening) = end.next(Instant::now() + place.patience)? else {
            return Err(end.complained());
        };
        let address = listening["address"].as_str().unwrap_or_default().to_owned();
        let admin = listening["admin"].as_str().and_then(|it| it.parse().ok());
        let admin = admin.ok_or_else(|| format!("wharf {service} does not report its --admin"))?;
        let count = |name: &str| listening[name].as_u64().map_or(1, |count| count as u32);
        Ok(Server {
            processes: count("processes"),
            threads: count("threads"),
            end,
            address,
            admin,
        })
    }

    /// Reads the server's current account.
    pub(super) fn ask(&self) -> Result<Standing, Stop> {
        let value = admin::account(self.admin)?;
        let lacks = |error| format!("the account of the server: {error}");
        Ok(serde_json::from_value(value).map_err(lacks)?)
    }

    /// Starts a load against this server. The load reads the server's account too.
    pub(super) fn load(&self, mode: &str, arguments: &[&str]) -> Result<End<'a>, Stop> {
        let admin = self.admin.to_string();
        let all = [&["load", mode, &self.address, "--admin", &admin], arguments].concat();
        End::start(self.end.place, self.end.place.load_processor, &all)
    }

    /// Ends the server; returns what is wrong with its account.
    pub(super) fn end(self) -> Result<Option<String>, Stop> {
        let (account, code) = self.end.end()?;
        let count = |name: &str| account[name].as_u64().unwrap_or(0);
        let left = count("left_by_fin") + count("left_by_reset") + count("left_by_error");
        let (accepted, gone) = (count("accepted"), left + count("closed_by_us"));
        Ok(if accepted != gone {
            Some(format!("the server accepted {accepted}, and {gone} went"))
        } else {
            (code != Some(0)).then(|| format!("the server ended with {code:?}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_variables_of_this_program_are_kept_from_the_ends() {
        let names = ["PATH", "WHARF_RATE", "SOME_WHARF_RATE", "WHARF_FORMAT"];
        let own = own_variables(names.into_iter().map(OsString::from));
        assert_eq!(own, ["WHARF_RATE", "WHARF_FORMAT"].map(OsString::from));
    }
}
