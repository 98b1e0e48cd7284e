//! The share of a server's time in user space, and its number of system calls.
//!
//! The kernel here accounts user time by ticks, which is too coarse for a few hundred nanoseconds
//! an echo, and a virtual machine may have no instruction counter. So perf samples the server's own
//! processor clock 5,000 times a second. Each sample is in user or kernel mode, and the share of
//! user samples times the time of an operation is the time in user space. This is a separate run,
//! because sampling costs time; more often, it would cost a fifth of the whole. System calls are
//! counted at the kernel's trace point, relative to the same server's processor time.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::command::{read, target_directory};

use super::Plan;
use super::servers::{Running, Server, Servers, parse};
use super::statistics::Sample;
use super::workloads::Workload;

/// The result of sampling.
#[derive(Clone, Copy, Debug)]
pub(super) struct Profile {
    /// Microseconds an operation in user space.
    pub(super) user_us: f64,
    pub(super) system_calls: f64,
}

/// By workload and server.
pub(super) type Profiles = BTreeMap<(&'static str, &'static str), Profile>;

/// The workload whose user-space time and system calls have a target. Sampling all of them would
/// take longer than measuring them.
const SAMPLED: &str = "echo-64";
/// Seconds that perf needs to start and to end, and the client to warm up.
const MARGIN: f64 = 1.0;

pub(super) fn run(plan: &Plan, servers: &Servers) -> Profiles {
    let mut profiles = Profiles::new();
    if plan.profile_seconds <= 0.0 {
        return profiles;
    }
    let sampled = plan.workloads.iter();
    for workload in sampled.filter(|workload| workload.name == SAMPLED) {
        for server in servers.of(workload) {
            match profile(servers, server, workload, plan.profile_seconds) {
                Ok(profile) => {
                    profiles.insert((workload.name, server.name), profile);
                }
                Err(error) => println!("no profile of {}: {error:#}", server.name),
            }
        }
    }
    profiles
}

fn profile(
    servers: &Servers,
    server: &Server,
    workload: &Workload,
    seconds: f64,
) -> Result<Profile> {
    let directory = target_directory();
    let file = directory.join("bench-perf.data");
    let running = servers.start(server, workload)?;
    let sampled = |perf: &mut Command| under_load(servers, &running, workload, seconds, perf);
    let sample = sampled(&mut record(&running, &file, seconds))?;
    let user_us = modes(&file)? * sample.server_us;
    let counts = directory.join("bench-perf.txt");
    let sample = sampled(&mut count(&running, &counts, seconds))?;
    let (calls, time_us) = counted(&std::fs::read_to_string(&counts)?)?;
    Ok(Profile {
        user_us,
        system_calls: calls / time_us * sample.server_us,
    })
}

/// Runs the client, and perf in the middle of it.
fn under_load(
    servers: &Servers,
    running: &Running,
    workload: &Workload,
    seconds: f64,
    perf: &mut Command,
) -> Result<Sample> {
    let mut client = servers.client(running, workload, seconds + 2.0 * MARGIN);
    let client = client.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    std::thread::sleep(std::time::Duration::from_secs_f64(MARGIN));
    let outcome = read(perf.stderr(Stdio::null())).context("cannot run perf, or it may not sample");
    let sample = finish(client, workload)?;
    outcome?;
    Ok(sample)
}

fn finish(client: Child, workload: &Workload) -> Result<Sample> {
    let output = client.wait_with_output()?;
    parse(&String::from_utf8_lossy(&output.stdout), workload.unit)
}

fn record(running: &Running, file: &Path, seconds: f64) -> Command {
    let mut command = Command::new("perf");
    command.args([
        "record",
        "--event",
        "cpu-clock",
        "--freq",
        "5000",
        "--output",
    ]);
    command.arg(file).args(["--pid", &running.id().to_string()]);
    command.args(["--", "sleep", &seconds.to_string()]);
    command
}

/// The share of the samples in user space.
fn modes(file: &Path) -> Result<f64> {
    let mut command = Command::new("perf");
    command
        .args(["script", "--fields", "misc", "--input"])
        .arg(file);
    let text = read(command.stderr(Stdio::null()))?;
    let modes: Vec<&str> = text.split_whitespace().collect();
    let user = modes.iter().filter(|mode| mode.starts_with('U')).count();
    anyhow::ensure!(!modes.is_empty(), "perf took no samples");
    Ok(user as f64 / modes.len() as f64)
}

fn count(running: &Running, file: &Path, seconds: f64) -> Command {
    let mut command = Command::new("perf");
    command
        .args(["stat", "--field-separator", ",", "--output"])
        .arg(file);
    command.args(["--event", "raw_syscalls:sys_enter,task-clock"]);
    command.args([
        "--pid",
        &running.id().to_string(),
        "--",
        "sleep",
        &seconds.to_string(),
    ]);
    command
}

/// System calls, and the processor time in which they were made.
fn counted(text: &str) -> Result<(f64, f64)> {
    let value = |event: &str| -> Result<f64> {
        let line = text.lines().find(|line| line.contains(event));
        let field = line.and_then(|line| line.split(',').next());
        field
            .and_then(|field| field.parse().ok())
            .with_context(|| format!("no count of {event}"))
    };
    let milliseconds = value("task-clock")?;
    anyhow::ensure!(milliseconds > 0.0, "the server did nothing");
    Ok((value("raw_syscalls")?, milliseconds * 1e3))
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn counts_are_read_from_perf() {
        let text = "# started\n\n250,,raw_syscalls:sys_enter,501,100.00,,\n500.5,msec,task-clock,1,100.00,1.0,CPUs\n";
        assert_eq!(counted(text).expect("both are there"), (250.0, 500_500.0));
        assert!(counted("<not counted>,,raw_syscalls:sys_enter,0\n").is_err());
    }
}
