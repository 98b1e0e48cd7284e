//! A setting that a goal needs: the command for it on each system, and its effect.
//!
//! The commands are for the shell that starts the program next, and last until the machine
//! restarts. How to make one permanent differs between distributions; docs/program/doctor.md
//! describes it.

use super::reserved;
use crate::sys::facts::{Facts, Family, SourcePorts};

/// One setting, and its new value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    FilesOfSystem(u64),
    FilesOfProcess(u64),
    HardLimit(u64),
    Backlog(u64),
    Handshakes(u64),
    SourcePorts(u16, u16),
    /// Keeps clients from the default ports of servers. The clients' range is then this one.
    ReservedPorts(u16, u16),
    ConnectionTracking(u64),
    /// The maximum number of pages.
    TcpMemory(u64),
}

impl Change {
    /// Applies the setting to these facts.
    pub(crate) fn apply(self, facts: &mut Facts) {
        let files = &mut facts.open_files;
        match self {
            Change::FilesOfSystem(max) => files.system_max = Some(max),
            Change::FilesOfProcess(max) => files.process_max = Some(max),
            Change::HardLimit(hard) => files.hard = Some(hard),
            Change::Backlog(max) => facts.backlog.accept_max = Some(max),
            Change::Handshakes(max) => facts.backlog.handshakes_max = Some(max),
            Change::SourcePorts(first, last) => {
                facts.source_ports = Some(SourcePorts { first, last });
            }
            Change::ReservedPorts(first, last) => {
                let range = SourcePorts { first, last };
                let wanted = reserved::wanted(facts, Some(range));
                facts.reserved_ports = wanted.or(facts.reserved_ports.take());
            }
            Change::ConnectionTracking(max) => {
                if let Some(table) = &mut facts.connection_tracking {
                    table.max = max;
                }
            }
            Change::TcpMemory(max) => {
                if let Some(memory) = &mut facts.tcp_memory {
                    memory.max_pages = max;
                }
            }
        }
    }

    /// The command, for a user with the rights in `facts`.
    pub(crate) fn line(self, facts: &Facts) -> String {
        let sudo = if facts.rights.is_root { "" } else { "sudo " };
        if let Change::HardLimit(limit) = self {
            return hard_limit(facts, sudo, limit);
        }
        if let (Change::SourcePorts(first, last), Family::Windows) = (self, facts.family) {
            let number = SourcePorts { first, last }.count();
            return format!(
                "netsh int ipv4 set dynamicport tcp start={first} num={number}    # as administrator"
            );
        }
        let settings = self.settings(facts).join(" ");
        let place = if facts.rights.writes_settings {
            ""
        } else {
            "    # on the host: this container cannot write it"
        };
        format!("{sudo}sysctl -w {settings}{place}")
    }

    /// `name=value`, in the words of `sysctl`.
    fn settings(self, facts: &Facts) -> Vec<String> {
        let linux = facts.family == Family::Linux;
        let name = |on_linux: &str, elsewhere: &str, value: u64| {
            let name = if linux { on_linux } else { elsewhere };
            vec![format!("{name}={value}")]
        };
        match self {
            Change::FilesOfSystem(max) => name("fs.file-max", "kern.maxfiles", max),
            Change::FilesOfProcess(max) | Change::HardLimit(max) => {
                name("fs.nr_open", "kern.maxfilesperproc", max)
            }
            Change::Backlog(max) if facts.family == Family::Freebsd => {
                vec![format!("kern.ipc.soacceptqueue={max}")]
            }
            Change::Backlog(max) => name("net.core.somaxconn", "kern.ipc.somaxconn", max),
            // Other systems do not report the maximum.
            Change::Handshakes(max) => vec![format!("net.ipv4.tcp_max_syn_backlog={max}")],
            Change::SourcePorts(first, last) if linux => {
                vec![format!("net.ipv4.ip_local_port_range=\"{first} {last}\"")]
            }
            Change::ReservedPorts(first, last) => {
                let wanted = reserved::wanted(facts, Some(SourcePorts { first, last }));
                let ports = wanted.unwrap_or_default();
                vec![format!("net.ipv4.ip_local_reserved_ports=\"{ports}\"")]
            }
            Change::SourcePorts(first, last) => vec![
                format!("net.inet.ip.portrange.first={first}"),
                format!("net.inet.ip.portrange.last={last}"),
            ],
            Change::ConnectionTracking(max) => {
                vec![format!("net.netfilter.nf_conntrack_max={max}")]
            }
            Change::TcpMemory(max) => {
                // The ratios of the kernel's defaults.
                let (low, pressure) = (max / 2, max / 3 * 2);
                vec![format!("net.ipv4.tcp_mem=\"{low} {pressure} {max}\"")]
            }
        }
    }
}

/// The limit of the shell. Every program that it starts inherits it.
fn hard_limit(facts: &Facts, sudo: &str, limit: u64) -> String {
    if !facts.rights.raises_hard_limit {
        return format!(
            "docker run --ulimit nofile={limit}:{limit} …    # at the container's start: what \
             runs in it may not raise the limit"
        );
    }
    match facts.family {
        Family::Linux => format!("{sudo}prlimit --pid $$ --nofile={limit}:{limit}"),
        _ if facts.rights.is_root => format!("ulimit -n {limit}"),
        _ => format!("sudo sh -c \"ulimit -n {limit}; exec su $USER\""),
    }
}
