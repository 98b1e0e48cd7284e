//! The servers: how each is built and started, and one run of the client against one of them.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command::{cargo, read, root, target_directory};

use super::statistics::Sample;
use super::workloads::{Unit, Workload};

/// One server, and how to start it.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: &'static str,
    package: &'static str,
    binary: &'static str,
    /// Further arguments on its command line.
    arguments: &'static [&'static str],
    /// The workloads that it takes part in; all if empty.
    pub(super) only: &'static [&'static str],
    pub(super) role: Role,
    /// The package whose version the page shows.
    pub(super) versioned: &'static str,
}

/// The role of a server in comparisons.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Limit,
    Peer,
    Wharf,
}

const fn peer(name: &'static str, package: &'static str) -> Server {
    Server {
        name,
        package,
        binary: package,
        arguments: &[],
        only: &[],
        role: Role::Peer,
        versioned: name,
    }
}

const fn bare(name: &'static str, versioned: &'static str) -> Server {
    Server {
        name,
        package: "bench-bare",
        binary: name,
        arguments: &[],
        only: &[],
        role: Role::Limit,
        versioned,
    }
}

const fn wharf(name: &'static str, arguments: &'static [&'static str]) -> Server {
    Server {
        name,
        package: "bench-wharf",
        binary: "bench-wharf",
        arguments,
        only: &[],
        role: Role::Wharf,
        versioned: "wharf-port",
    }
}

/// A server that busy-polls costs a core, and is only useful for few connections.
const fn spinning(name: &'static str, arguments: &'static [&'static str]) -> Server {
    Server {
        only: &["echo-1"],
        ..wharf(name, arguments)
    }
}

/// Wharf's servers are between the limits that they are compared with, so the pairs are neighbours
/// in time.
pub(super) static SERVERS: [Server; 14] = [
    bare("bare-uring", "io-uring"),
    wharf("wharf-uring", &["uring", "single"]),
    spinning("wharf-uring-spin", &["uring", "single", "1000"]),
    peer("compio", "bench-compio"),
    peer("monoio", "bench-monoio"),
    wharf("wharf-poll", &["poll", "single"]),
    spinning("wharf-poll-spin", &["poll", "single", "1000"]),
    bare("bare-epoll", "rustix"),
    peer("tokio", "bench-tokio"),
    peer("mio", "bench-mio"),
    peer("async-io", "bench-async-io"),
    wharf("wharf-shared1", &["uring", "shared1"]),
    wharf("wharf-shared2", &["uring", "shared2"]),
    wharf("wharf-poll-s1", &["poll", "shared1"]),
];

const CLIENT: &str = "bench-client";

/// The servers of a run, and those that do not build, with the reason.
pub(super) struct Servers {
    chosen: Vec<&'static Server>,
    pub(super) broken: Vec<(&'static str, String)>,
    directory: PathBuf,
}

/// A running server. It ends when this value drops.
pub(super) struct Running {
    child: Child,
    port: u16,
}

/// Builds the client, and each server separately, so that only a server that does not build is
/// missing.
pub(super) fn build(chosen: &[&'static Server]) -> Result<Servers> {
    build_package(CLIENT)?;
    let mut broken: Vec<(&'static str, String)> = Vec::new();
    let mut done = vec![CLIENT];
    for server in chosen {
        if done.contains(&server.package) {
            continue;
        }
        done.push(server.package);
        if let Err(error) = build_package(server.package) {
            println!("{} does not build", server.package);
            broken.push((server.package, format!("{error:#}")));
        }
    }
    Ok(Servers {
        chosen: chosen.to_vec(),
        broken,
        directory: build_directory().join("release"),
    })
}

fn build_directory() -> PathBuf {
    if std::env::var_os("CARGO_TARGET_DIR").is_some() {
        target_directory()
    } else {
        root().join("bench/target")
    }
}

fn build_package(package: &str) -> Result<()> {
    let mut command = cargo(&[
        "build",
        "--release",
        "--quiet",
        "--locked",
        "--package",
        package,
    ]);
    command.current_dir(root().join("bench"));
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let errors = text.lines().filter(|line| line.starts_with("error"));
        bail!("{}", errors.collect::<Vec<_>>().join("\n"));
    }
    Ok(())
}

impl Servers {
    /// Those that can be started.
    pub(super) fn built(&self) -> Vec<&'static Server> {
        let is_broken = |server: &Server| {
            let broken = self.broken.iter();
            broken
                .map(|(package, _)| *package)
                .any(|package| package == server.package)
        };
        let chosen = self.chosen.iter().copied();
        chosen.filter(|server| !is_broken(server)).collect()
    }

    /// Those that take part in a workload.
    pub(super) fn of(&self, workload: &Workload) -> Vec<&'static Server> {
        let mut servers = self.built();
        servers.retain(|server| server.only.is_empty() || server.only.contains(&workload.name));
        servers
    }

    /// Starts a server for a workload.
    pub(super) fn start(&self, server: &Server, workload: &Workload) -> Result<Running> {
        let mut command = Command::new(self.directory.join(server.binary));
        command.arg(workload.work).args(server.arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let child = command.spawn().with_context(|| server.binary.to_owned())?;
        let mut running = Running { child, port: 0 };
        let output = running.child.stdout.take().expect("it is piped");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        running.port = line.trim().parse().context("the server printed no port")?;
        Ok(running)
    }

    /// The client's command line for a running server.
    pub(super) fn client(&self, running: &Running, workload: &Workload, seconds: f64) -> Command {
        let mut command = Command::new(self.directory.join(CLIENT));
        command.arg(workload.work);
        let numbers = [u32::from(running.port), running.child.id()];
        command.args(numbers.map(|number| number.to_string()));
        command.arg(seconds.to_string());
        let Workload {
            connections,
            depth,
            bytes,
            idle,
            ..
        } = *workload;
        command.args([connections, depth, bytes, idle].map(|number| number.to_string()));
        command
    }

    /// One run: a new server, the client, and the result.
    pub(super) fn load(
        &self,
        server: &Server,
        workload: &Workload,
        seconds: f64,
    ) -> Result<Sample> {
        let running = self.start(server, workload)?;
        let line = read(&mut self.client(&running, workload, seconds))?;
        parse(&line, workload.unit)
    }
}

impl Running {
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the client's line.
pub(super) fn parse(line: &str, unit: Unit) -> Result<Sample> {
    let value = |name: &str| -> Result<f64> {
        let pair = line
            .split_whitespace()
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let text = pair.with_context(|| format!("the client printed no {name}"))?;
        Ok(text.parse()?)
    };
    let operations = match unit {
        Unit::Block => value("bytes")? / 65_536.0,
        Unit::Echo | Unit::Connection => value("operations")?,
    };
    if operations <= 0.0 {
        bail!("the client did nothing");
    }
    Ok(Sample {
        server_us: value("server_ns")? / 1e3 / operations,
        rate: operations / value("time_ns")? * 1e9,
        p50_us: value("p50_ns")? / 1e3,
        p99_us: value("p99_ns")? / 1e3,
    })
}
