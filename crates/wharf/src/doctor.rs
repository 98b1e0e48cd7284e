//! `wharf doctor`: what this machine can hold, what limits it, and what to change for a goal.
//!
//! The doctor first reads and measures facts, and computes all conclusions from these alone. It
//! measures memory instead of quoting it: it opens connections on loopback and reads what the
//! kernel takes for them, because that differs by version, driver and options.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::machine;
use crate::sys::facts::Facts;
use crate::sys::{self, limits};
use crate::text::output;
use crate::values::{Format, parse_switch, whole};
pub(crate) use measure::believable;
use plan::{Capacities, Plan};

mod change;
mod measure;
mod plan;
mod report;
mod reserved;

/// The machine as it is cannot hold the goal.
const NOT_NOW: u8 = 3;

#[derive(Debug, Args)]
pub(crate) struct DoctorOptions {
    /// Number of connections to hold: prints the commands that make this possible, and exits with 3
    /// unless it is possible already
    #[arg(long, value_parser = whole(1_u64..=100_000_000),
          env = "WHARF_GOAL", value_name = "N")]
    pub(crate) goal: Option<u64>,
    /// How to print: text, or one JSON object
    #[arg(long, value_enum, default_value_t = Format::Text, env = "WHARF_FORMAT")]
    pub(crate) format: Format,
    /// Open no connections; the memory of a connection is then a figure from other machines
    #[arg(long, env = "WHARF_NO_MEASURE", value_parser = parse_switch)]
    pub(crate) no_measure: bool,
}

/// The report as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    event: &'static str,
    version: u32,
    facts: Facts,
    capacities: Capacities,
    plan: Option<Plan>,
}

/// Examines the machine; returns the exit code.
pub(crate) fn run(options: &DoctorOptions) -> ExitCode {
    let facts = examine(options);
    let report = Report {
        event: "doctor",
        version: 1,
        capacities: plan::capacities(&facts),
        plan: options.goal.map(|goal| plan::plan(&facts, goal)),
        facts,
    };
    match options.format {
        Format::Json => output::json(&report),
        Format::Text => output::bytes(report::text(&report).as_bytes()),
    }
    match &report.plan {
        Some(plan) if !plan.now.server_process => ExitCode::from(NOT_NOW),
        _ => ExitCode::SUCCESS,
    }
}

fn examine(options: &DoctorOptions) -> Facts {
    let mut limits = limits::read();
    // Its own limit is raised as the servers raise theirs, after it was read.
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(u64::MAX);
    let shown = if options.no_measure {
        measure::shown_elsewhere()
    } else {
        measure::connection(files)
    };
    if let Some(table) = &mut limits.connection_tracking {
        table.tracks_loopback = shown.tracked;
    }
    Facts {
        system: sys::system_name(),
        family: limits.family,
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        open_files: limits.open_files,
        source_ports: limits.source_ports,
        reserved_ports: limits.reserved_ports,
        backlog: limits.backlog,
        tcp_memory: limits.tcp_memory,
        connection_tracking: limits.connection_tracking,
        memory: limits::memory(),
        cgroup: limits.cgroup,
        connection: shown.memory,
        drivers: machine::drivers(),
        io_uring_disabled: limits.io_uring_disabled,
        congestion_control: limits.congestion_control,
        rights: limits.rights,
    }
}
