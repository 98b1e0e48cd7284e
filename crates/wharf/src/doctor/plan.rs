//! Conclusions from the facts: how many connections a machine holds, what limits them, which
//! settings a goal needs, and what holds with these settings.
//!
//! Each setting is a [`Change`], which both prints its command and is applied to a copy of the
//! facts. The verdict after the commands is computed from that copy exactly as the verdict before
//! them. So the two cannot disagree about the effect of a command.

use serde::Serialize;

use super::change::Change;
use super::reserved;
use crate::sys::facts::{ConnectionTracking, Facts, Family, OpenFiles, SourcePorts};

/// Descriptors of a process for other things than connections.
pub(super) const FILES_BESIDES: u64 = 64;
/// Descriptors of the system for all other programs.
const FILES_LEFT: u64 = 1024;
/// A tenth of the available memory is left free.
const MEMORY_SHARE: (u64, u64) = (9, 10);
/// A backlog that survives a burst of connects.
const BACKLOG_WANTED: u64 = 4096;
/// The widest useful range of source ports.
const PORTS_WIDEST: (u16, u16) = (1024, 65_535);

/// A number of connections, and what limits it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Capacity {
    pub(crate) connections: u64,
    pub(crate) bound_by: Limit,
}

/// What can limit connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Limit {
    OpenFiles,
    OpenFilesOfSystem,
    ConnectionTracking,
    Memory,
}

/// How many connections a machine holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Capacities {
    /// For a server in one process.
    pub(crate) server_process: Capacity,
    /// For a server in as many processes as it needs.
    pub(crate) server: Capacity,
    /// With both ends on this machine, each in as many processes as it needs.
    pub(crate) both_ends: Capacity,
    /// For a client, from each of its addresses to each address and port of a server.
    pub(crate) per_source_address: Option<u64>,
}

/// What a goal needs from the machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Plan {
    pub(crate) goal: u64,
    pub(crate) now: Verdict,
    /// The commands to run, in this order; empty if no change is needed.
    pub(crate) lines: Vec<String>,
    pub(crate) after: Verdict,
}

/// How a machine meets a goal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Verdict {
    /// Whether a server in one process can hold this number.
    pub(crate) server_process: bool,
    /// Processes that a server needs; `None` if no number is enough.
    pub(crate) server_processes: Option<u64>,
    /// Connections that the open files of one process allow.
    pub(crate) each_process: u64,
    /// Whether both ends fit on this machine.
    pub(crate) both_ends: bool,
    /// Source addresses that a client needs.
    pub(crate) source_addresses: Option<u64>,
    pub(crate) capacities: Capacities,
}

impl Limit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Limit::OpenFiles => "open files of a process",
            Limit::OpenFilesOfSystem => "open files of the system",
            Limit::ConnectionTracking => "connection tracking",
            Limit::Memory => "memory",
        }
    }
}

/// The number of connections that the machine of these facts holds.
pub(crate) fn capacities(facts: &Facts) -> Capacities {
    let server = server(facts, 1);
    let process = files_of_process(facts.open_files);
    let server_process = if process < server.connections {
        Capacity {
            connections: process,
            bound_by: Limit::OpenFiles,
        }
    } else {
        server
    };
    Capacities {
        server_process,
        server,
        both_ends: self::server(facts, 2),
        per_source_address: facts.source_ports.map(SourcePorts::count),
    }
}

/// Connections with this number of ends on this machine, in as many processes as needed.
fn server(facts: &Facts, ends: u64) -> Capacity {
    let files = facts.open_files;
    let left = files.system_max.map(|max| {
        let used = files.system_used.unwrap_or(0);
        max.saturating_sub(used + FILES_LEFT) / ends
    });
    // A connection with both ends here is tracked once.
    let tracked = tracking(facts).map(|table| table.max.saturating_sub(table.used));
    let (share, of) = MEMORY_SHARE;
    let memory = facts.memory.available_bytes / of * share;
    let in_memory = memory / facts.connection.bytes().max(1) / ends;
    let bounds = [
        (Some(in_memory), Limit::Memory),
        (left, Limit::OpenFilesOfSystem),
        (tracked, Limit::ConnectionTracking),
    ];
    let told = bounds.into_iter().filter_map(|(connections, bound_by)| {
        connections.map(|connections| Capacity {
            connections,
            bound_by,
        })
    });
    told.min_by_key(|capacity| capacity.connections)
        .expect("memory is always known")
}

/// The firewall's table, unless measurement shows that it tracks nothing.
fn tracking(facts: &Facts) -> Option<ConnectionTracking> {
    let table = facts.connection_tracking;
    table.filter(|table| table.tracks_loopback != Some(false))
}

/// Connections of one process, after it has raised its own limit.
fn files_of_process(files: OpenFiles) -> u64 {
    let limit = files.hard.unwrap_or(u64::MAX);
    let limit = limit.min(files.process_max.unwrap_or(u64::MAX));
    limit.saturating_sub(FILES_BESIDES)
}

fn verdict(facts: &Facts, goal: u64) -> Verdict {
    let capacities = capacities(facts);
    let each = files_of_process(facts.open_files);
    let fits = capacities.server.connections >= goal && each > 0;
    Verdict {
        server_process: capacities.server_process.connections >= goal,
        server_processes: fits.then(|| goal.div_ceil(each)),
        each_process: each,
        both_ends: capacities.both_ends.connections >= goal,
        source_addresses: capacities
            .per_source_address
            .map(|each| goal.div_ceil(each)),
        capacities,
    }
}

/// What a goal needs here.
pub(crate) fn plan(facts: &Facts, goal: u64) -> Plan {
    let changes = changes(facts, goal);
    let mut changed = facts.clone();
    for change in &changes {
        change.apply(&mut changed);
    }
    Plan {
        goal,
        now: verdict(facts, goal),
        lines: changes.iter().map(|change| change.line(facts)).collect(),
        after: verdict(&changed, goal),
    }
}

/// The settings that a goal needs, both ends on this machine, in the order to make them.
fn changes(facts: &Facts, goal: u64) -> Vec<Change> {
    let mut changes = Vec::new();
    files_changes(facts, goal, &mut changes);
    let backlog = facts.backlog;
    let wanted = BACKLOG_WANTED.min(goal);
    if backlog.accept_max.is_some_and(|max| max < wanted) {
        changes.push(Change::Backlog(BACKLOG_WANTED));
    }
    if backlog.handshakes_max.is_some_and(|max| max < wanted) {
        changes.push(Change::Handshakes(BACKLOG_WANTED));
    }
    ports_changes(facts, goal, &mut changes);
    if let Some(table) = tracking(facts)
        && table.max.saturating_sub(table.used) < goal
    {
        changes.push(Change::ConnectionTracking(round(
            table.used + goal + goal / 4,
        )));
    }
    if let Some(memory) = facts.tcp_memory {
        // A page for each end, in case every connection has an unread message, but never more than
        // half of the memory.
        let wanted = (2 * goal).min(facts.memory.total_bytes / 2 / PAGE_BYTES);
        if memory.max_pages < wanted {
            changes.push(Change::TcpMemory(wanted));
        }
    }
    changes
}

/// Source ports for clients, except for the default ports of servers.
fn ports_changes(facts: &Facts, goal: u64, changes: &mut Vec<Change>) {
    let Some(ports) = facts.source_ports else {
        return;
    };
    let (first, last) = PORTS_WIDEST;
    let is_wider = ports.count() < goal.min(u64::from(last - first) + 1);
    let range = match is_wider {
        true => SourcePorts { first, last },
        false => ports,
    };
    // This comes before the wider range, so that no client has such a port by then.
    if reserved::wanted(facts, Some(range)).is_some() {
        changes.push(Change::ReservedPorts(range.first, range.last));
    }
    if is_wider {
        changes.push(Change::SourcePorts(first, last));
    }
}

/// The page size in which the network's limits are counted.
pub(super) const PAGE_BYTES: u64 = 4096;

fn files_changes(facts: &Facts, goal: u64, changes: &mut Vec<Change>) {
    let files = facts.open_files;
    let process = goal + FILES_BESIDES;
    if let Some(max) = files.system_max {
        let system = 2 * goal + files.system_used.unwrap_or(0) + FILES_LEFT;
        if max < system {
            changes.push(Change::FilesOfSystem(round(system)));
        }
    }
    if files.process_max.is_some_and(|max| max < process) {
        changes.push(Change::FilesOfProcess(round(process)));
    }
    if files.hard.is_some_and(|hard| hard < process) && facts.family != Family::Windows {
        changes.push(Change::HardLimit(round(process)));
    }
}

/// The next round number.
fn round(number: u64) -> u64 {
    let unit = match number {
        0..100_000 => 1_000,
        100_000..1_000_000 => 10_000,
        _ => 100_000,
    };
    number.div_ceil(unit) * unit
}

#[cfg(test)]
mod tests;
