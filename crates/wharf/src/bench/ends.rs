//! The two ends of a run: this program again, once as a server and once as a load.
//!
//! Both are processes of their own, so that the processor time of the server is the server's, and
//! each may run on a processor of its own. What they print is JSON, a line at a time. They end when
//! their input does: whatever ends this program, even at once, ends them too.

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

/// How long a program may take to start, and to end once its input has, where it has no more than
/// one process.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How often somebody who waits looks for Ctrl-C.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Why a run did not come to its end.
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

/// Where the ends run, and whether they still should.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) server_processor: Option<usize>,
    pub(super) load_processor: Option<usize>,
    pub(super) congestion_control: Option<&'static str>,
    /// How long a program may take to start, and to end once its input has.
    pub(super) patience: Duration,
    pub(super) interrupted: &'a AtomicBool,
}

impl Place<'_> {
    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Waits so long.
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
    /// The last line it has said.
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
        // What is set for this program is not meant for them.
        for variable in own_variables(std::env::vars_os().map(|(name, _)| name)) {
            command.env_remove(variable);
        }
        // Ctrl-C is for this program, which then ends them in their order.
        sys::keep_from_terminal(&mut command);
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = processors::spawn_on(processor, &mut command).map_err(failed)?;
        let output = child.stdout.take().expect("it is piped");
        let mut errors = child.stderr.take().expect("it is piped");
        let (sender, lines) = mpsc::channel();
        let read = threads::start("lines", move || {
            let mut lines = BufReader::new(output).lines().map_while(Result::ok);
            // Whoever has read enough is gone.
            lines.all(|line| sender.send(line).is_ok())
        });
        let complaint = threads::start("complaint", move || {
            let mut text = String::new();
            // What is no text is no complaint.
            let _ = errors.read_to_string(&mut text);
            text.trim().to_owned()
        });
        let complaint = match read.and(complaint) {
            Ok(complaint) => complaint,
            Err(text) => {
                // Without its input it ends by itself, but nobody would wait for it.
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

    /// The next line; nothing when it has ended.
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

    /// Ends it; its last line, and its exit code.
    pub(super) fn end(mut self) -> Result<(Value, Option<i32>), Stop> {
        self.tell_to_end();
        let patience = self.place.patience;
        self.last(patience)
    }

    /// The last line it has said so far.
    pub(super) fn said(&self) -> &Value {
        &self.said
    }

    /// Has it end, in its time.
    pub(super) fn tell_to_end(&mut self) {
        drop(self.input.take());
    }

    /// Waits until it ends by itself; its last line, and its exit code.
    pub(super) fn last(mut self, patience: Duration) -> Result<(Value, Option<i32>), Stop> {
        let until = Instant::now() + patience;
        while self.next(until)?.is_some() {}
        let status = self.child.wait().map_err(|error| error.to_string())?;
        if self.said.is_null() {
            return Err(self.complained());
        }
        Ok((std::mem::take(&mut self.said), status.code()))
    }

    /// What it said instead of what was expected.
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
        // What it still has to say is of no use; that it ends is.
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

/// The variables that options of this program come from.
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

/// What a server tells while it runs.
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
        let admin = admin.ok_or_else(|| format!("wharf {service} does not tell where to ask"))?;
        let count = |name: &str| listening[name].as_u64().map_or(1, |count| count as u32);
        Ok(Server {
            processes: count("processes"),
            threads: count("threads"),
            end,
            address,
            admin,
        })
    }

    /// How it stands.
    pub(super) fn ask(&self) -> Result<Standing, Stop> {
        let value = admin::account(self.admin)?;
        let lacks = |error| format!("the account of the server: {error}");
        Ok(serde_json::from_value(value).map_err(lacks)?)
    }

    /// Starts a load that is aimed at it, and asks it too.
    pub(super) fn load(&self, mode: &str, arguments: &[&str]) -> Result<End<'a>, Stop> {
        let admin = self.admin.to_string();
        let all = [&["load", mode, &self.address, "--admin", &admin], arguments].concat();
        End::start(self.end.place, self.end.place.load_processor, &all)
    }

    /// Ends it; what is wrong with its account.
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
