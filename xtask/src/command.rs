//! Starting other programs: what is run is printed first, and a failure names it.
//!
//! Standard input is always closed: continuous integration has none, and a leg that waits for it
//! would only hang there. In continuous integration (`CI` is set) a command runs in its own process
//! group with a time limit, so a hung test costs its limit and not the whole job. At a terminal
//! there is no limit and no group, so Ctrl-C reaches everything.

mod shown;
#[cfg(all(test, unix))]
mod tests;

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub(crate) use self::shown::Failed;
use self::shown::{BYTES_KEPT, Shown};

/// The time limit of one command in continuous integration.
const COMMAND_LIMIT: Duration = Duration::from_mins(20);

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lives inside the workspace")
}

/// The target directory.
pub(crate) fn target_directory() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(path) => root().join(path),
        None => root().join("target"),
    }
}

/// The cargo that started us, in the root of the workspace.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments);
    command
}

/// Runs `command` to its end. If it does not succeed, the error names it.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", show(command));
    if !unattended() {
        return check(start(command)?.wait()?, command);
    }
    Shown::prepare(command);
    let mut child = start(command)?;
    let shown = Shown::of(&mut child, BYTES_KEPT);
    let outcome = wait(&mut child).and_then(|status| check(status, command));
    let end = shown.end();
    outcome.map_err(|error| Failed::of(&error, &end).into())
}

/// Like [`run`], and also returns what the command wrote to standard output.
#[cfg(target_os = "linux")]
pub(crate) fn run_and_read(command: &mut Command) -> Result<String> {
    println!("$ {}", show(command));
    let mut child = start(command.stdout(Stdio::piped()))?;
    let shown = Shown::of(&mut child, usize::MAX);
    let outcome = wait(&mut child).and_then(|status| check(status, command));
    let text = shown.end();
    match outcome {
        Ok(()) => Ok(text),
        Err(error) => Err(Failed::of(&error, &text).into()),
    }
}

/// The reason of a failure in one line: the first error that apt reports, or else the last line of
/// the failed command, or else its exit status.
#[cfg(target_os = "linux")]
pub(crate) fn reason(error: &anyhow::Error) -> String {
    let printed = error.downcast_ref::<Failed>();
    let mut lines = printed.iter().flat_map(|failed| failed.end.lines());
    let named = lines.clone().find(|line| line.starts_with("E: "));
    let words = named.or_else(|| lines.rfind(|line| !line.is_empty()));
    words.map_or_else(|| format!("{error:#}"), str::to_owned)
}

/// Runs `command` without showing it and returns what it wrote to standard output.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = start(command.stdout(Stdio::piped()))?.wait_with_output()?;
    check(output.status, command)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The executable of the target called `name`, from cargo's messages in JSON.
pub(crate) fn executable(messages: &str, name: &str) -> Option<String> {
    messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let path = message["executable"].as_str()?;
        (message["target"]["name"] == name).then(|| path.to_owned())
    })
}

fn start(command: &mut Command) -> Result<Child> {
    command.stdin(Stdio::null());
    if unattended() {
        own_group(command);
    }
    command
        .spawn()
        .with_context(|| format!("cannot start {}", words(command)))
}

fn wait(child: &mut Child) -> Result<ExitStatus> {
    if unattended() {
        wait_limited(child, COMMAND_LIMIT)
    } else {
        Ok(child.wait()?)
    }
}

/// Whether this is continuous integration: it sets this variable everywhere.
pub(crate) fn unattended() -> bool {
    env::var_os("CI").is_some()
}

fn check(status: ExitStatus, command: &Command) -> Result<()> {
    if !status.success() {
        bail!("{status}: {}", words(command));
    }
    Ok(())
}

/// The command as a person would type it, with the variables it adds in front.
fn show(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        // PATH is long, and never the reason of a failure.
        let value = value.filter(|_| name != "PATH")?;
        Some(format!("{}={}", name.to_string_lossy(), quote(value)))
    });
    variables
        .chain([words(command)])
        .collect::<Vec<_>>()
        .join(" ")
}

/// The program and its arguments alone.
fn words(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(quote).collect::<Vec<_>>().join(" ")
}

fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    if word.is_empty() || word.contains([' ', '\\', '"', '$', ';']) {
        format!("'{word}'")
    } else {
        word.into_owned()
    }
}

fn wait_limited(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            end_group(child);
            child.wait()?;
            bail!("ended after {limit:?}, the limit of one command");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(unix)]
fn own_group(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;
    command.process_group(0);
}

#[cfg(not(unix))]
fn own_group(_: &mut Command) {}

/// Ends the child and, on Unix, everything that it started.
fn end_group(child: &mut Child) {
    if cfg!(unix) {
        let group = format!("-{}", child.id());
        // kill(1) sends the signal, because std can signal only the child itself.
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
    }
    let _ = child.kill();
}
