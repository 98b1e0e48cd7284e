//! The doctor's report as text: one screen, a line for each limit, and the verdict in sentences.

use std::fmt::Write;

use super::Report;
use super::plan::{Capacity, Plan, Verdict};
use crate::sys::facts::{Facts, Family};
use crate::text::numbers::{bytes, grouped};
use crate::text::wrap::{SENTENCE, TIED, hung, wrapped};

/// The column of the second field.
const NAMES: usize = 21;

pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    for line in lines(report) {
        // Writing to memory does not fail.
        let _ = writeln!(text, "{line}");
    }
    text
}

fn lines(report: &Report) -> Vec<String> {
    let facts = &report.facts;
    let machine = format!(
        "{}, {} processors, {} of memory",
        facts.system,
        facts.processors,
        bytes(facts.memory.total_bytes)
    );
    let mut lines = wrapped(&machine, SENTENCE);
    lines.push(String::new());
    let entries = [
        ("open files", open_files(facts)),
        ("source ports", source_ports(facts)),
        ("backlog", backlog(facts)),
        ("TCP memory", tcp_memory(facts)),
        ("connection tracking", connection_tracking(facts)),
        ("memory", memory(facts)),
        ("a held connection", connection(facts)),
    ];
    let entries = entries.map(|(name, said)| format!("{name:NAMES$}{said}"));
    let entries = entries.into_iter().chain(cgroup(facts));
    let entries = entries.chain(drivers(facts));
    let entries = entries.chain(congestion_control(facts));
    lines.extend(entries.flat_map(|entry| wrapped(&entry, NAMES)));
    lines.push(String::new());
    lines.extend(holds(report).iter().flat_map(|it| wrapped(it, SENTENCE)));
    if let Some(plan) = &report.plan {
        lines.push(String::new());
        lines.extend(goal(plan));
    }
    lines
}

fn known(number: Option<u64>) -> String {
    match number {
        Some(u64::MAX) => "unlimited".to_owned(),
        Some(number) => grouped(number),
        None => "unknown".to_owned(),
    }
}

fn open_files(facts: &Facts) -> String {
    let files = facts.open_files;
    if facts.family == Family::Windows {
        return format!("no limit but {} handles a process", known(files.hard));
    }
    let names = match facts.family {
        Family::Linux => ("fs.nr_open", "fs.file-max"),
        _ => ("kern.maxfilesperproc", "kern.maxfiles"),
    };
    format!(
        "{} a process, raised by itself to {}; {}{TIED}{}; {}{TIED}{}, {}{TIED}used",
        known(files.soft),
        known(files.hard),
        names.0,
        known(files.process_max),
        names.1,
        known(files.system_max),
        known(files.system_used)
    )
}

fn source_ports(facts: &Facts) -> String {
    match facts.source_ports {
        Some(ports) => format!(
            "{}-{}: {} connections from one address to one server's address",
            ports.first,
            ports.last,
            grouped(ports.count())
        ),
        None => "unknown".to_owned(),
    }
}

fn backlog(facts: &Facts) -> String {
    let backlog = facts.backlog;
    match backlog.accept_max {
        None => "unknown; as large as a program requests".to_owned(),
        Some(max) => {
            let handshakes = backlog.handshakes_max.map_or(String::new(), |max| {
                format!(", {} handshakes", grouped(max))
            });
            format!(
                "{} to be accepted{handshakes}: bounds bursts only",
                grouped(max)
            )
        }
    }
}

fn tcp_memory(facts: &Facts) -> String {
    match facts.tcp_memory {
        Some(memory) => format!(
            "{} pages, {} used: a page for each end with unread bytes, none for an idle one",
            grouped(memory.max_pages),
            grouped(memory.used_pages)
        ),
        None => "unknown".to_owned(),
    }
}

fn connection_tracking(facts: &Facts) -> String {
    match facts.connection_tracking {
        Some(table) if table.tracks_loopback == Some(false) => {
            "loaded, but tracks nothing on loopback".to_owned()
        }
        Some(table) => format!("{} of {} used", grouped(table.used), grouped(table.max)),
        None if facts.family == Family::Linux => "not loaded".to_owned(),
        None => "unknown".to_owned(),
    }
}

fn memory(facts: &Facts) -> String {
    let container = if facts.memory.limited_by_container {
        ", by the limit of this container or control group"
    } else {
        ""
    };
    format!(
        "{} available{container}",
        bytes(facts.memory.available_bytes)
    )
}

/// What a control group limits besides memory.
fn cgroup(facts: &Facts) -> Option<String> {
    let group = facts.cgroup;
    let processors = group.processors;
    let processors = processors.map(|count| format!("the time of {count} processors (cpu.max)"));
    let tasks = group.tasks_max.zip(group.tasks_left).map(|(max, left)| {
        format!(
            "{} more of {} processes and threads (pids.max)",
            grouped(left),
            grouped(max)
        )
    });
    let said: Vec<String> = processors.into_iter().chain(tasks).collect();
    (!said.is_empty()).then(|| format!("{:NAMES$}{}", "control group", said.join("; ")))
}

fn connection(facts: &Facts) -> String {
    let connection = facts.connection;
    let how = match connection.measured_with {
        0 => "as measured on other machines".to_owned(),
        count => format!("measured here with {}", grouped(count)),
    };
    format!(
        "{} bytes of the kernel's an end, {how}; at most {} of the program's",
        grouped(connection.kernel_bytes),
        connection.program_bytes
    )
}

fn drivers(facts: &Facts) -> Vec<String> {
    let mut lines: Vec<String> = facts
        .drivers
        .iter()
        .map(|driver| {
            let said = match &driver.reason {
                Some(reason) => format!("does not work: {reason}"),
                None if driver.features.is_empty() => "works".to_owned(),
                None => format!("works, with {}", driver.features.join("; ")),
            };
            format!("{:NAMES$}{said}", format!("driver {}", driver.name))
        })
        .collect();
    if let Some(by @ 1..) = facts.io_uring_disabled {
        lines.push(format!(
            "{:NAMES$}kernel.io_uring_disabled is {by}: set it to 0 to allow io_uring",
            ""
        ));
    }
    lines
}

fn congestion_control(facts: &Facts) -> Option<String> {
    let control = facts.congestion_control.as_ref()?;
    let pacing = if control.current == "bbr" {
        ": it paces, also on loopback; measure bulk transfers with cubic"
    } else {
        ""
    };
    Some(format!(
        "{:NAMES$}{} (of {}){pacing}",
        "congestion control",
        control.current,
        control.available.join(", ")
    ))
}

fn holds(report: &Report) -> Vec<String> {
    let all = report.capacities;
    let mut lines = vec![
        format!(
            "A server in one process holds {} here, and in several {}.",
            capacity(all.server_process),
            capacity(all.server)
        ),
        format!("With both ends here: {}.", capacity(all.both_ends)),
    ];
    if let Some(each) = all.per_source_address {
        lines.push(format!(
            "A client reaches {} from each of its addresses to one address and port.",
            grouped(each)
        ));
    }
    lines
}

fn capacity(capacity: Capacity) -> String {
    format!(
        "{} ({})",
        grouped(capacity.connections),
        capacity.bound_by.name()
    )
}

fn goal(plan: &Plan) -> Vec<String> {
    let goal = grouped(plan.goal);
    let said = |when: &str, it| wrapped(&format!("{goal} {when}: {}", verdict(it)), SENTENCE);
    let mut lines = said("as it is", &plan.now);
    if plan.lines.is_empty() {
        return lines;
    }
    lines.push("To change that, in the shell that starts the program:".to_owned());
    lines.extend(plan.lines.iter().flat_map(|line| command(line)));
    lines.extend(said("after that", &plan.after));
    lines
}

/// A command to copy, which is not wrapped. A remark comes before it.
fn command(line: &str) -> Vec<String> {
    let (line, remark) = match line.split_once("    # ") {
        Some((line, remark)) => (line, Some(remark)),
        None => (line, None),
    };
    let remark = remark.map(|remark| hung(&format!("    # {remark}"), "    # "));
    let mut lines = remark.unwrap_or_default();
    lines.push(format!("    {line}"));
    lines
}

fn verdict(verdict: &Verdict) -> String {
    let all = verdict.capacities;
    let server = match verdict.server_processes {
        Some(1) => "a server holds them in one process".to_owned(),
        Some(count) => format!(
            "a server needs {} processes of {} each",
            grouped(count),
            grouped(verdict.each_process)
        ),
        None => format!(
            "too many for a server here, which holds {}",
            capacity(all.server)
        ),
    };
    let both = if verdict.both_ends {
        "both ends fit on this machine".to_owned()
    } else {
        format!("both ends here reach {}", capacity(all.both_ends))
    };
    let sources = match verdict.source_addresses {
        Some(1) => "; a client needs one source address".to_owned(),
        Some(count) => format!("; a client needs {} source addresses", grouped(count)),
        None => String::new(),
    };
    format!("{server}; {both}{sources}.")
}
