//! macOS, FreeBSD and related systems: the program `sysctl` reports their limits.
//!
//! The system call of `sysctl` needs unsafe code, which this program does not have.

use std::process::Command;

pub(super) use super::machine::memory;
use super::{Limits, numbers};
use crate::sys::facts::{
    Backlog, Cgroup, CongestionControl, Family, OpenFiles, Rights, SourcePorts,
};

pub(super) fn read() -> Limits {
    let limits = rlimit::Resource::NOFILE.get().ok();
    let port = |name: &str| setting(name).and_then(|port| u16::try_from(port).ok());
    let ports = (
        port("net.inet.ip.portrange.first"),
        port("net.inet.ip.portrange.last"),
    );
    let current = text("net.inet.tcp.cc.algorithm");
    Limits {
        family: family(),
        open_files: OpenFiles {
            soft: limits.map(|(soft, _)| soft),
            hard: limits.map(|(_, hard)| hard),
            process_max: setting("kern.maxfilesperproc"),
            system_max: setting("kern.maxfiles"),
            system_used: setting("kern.num_files").or_else(|| setting("kern.openfiles")),
        },
        reserved_ports: None,
        source_ports: match ports {
            (Some(first), Some(last)) => Some(SourcePorts { first, last }),
            _ => None,
        },
        backlog: Backlog {
            accept_max: setting("kern.ipc.soacceptqueue").or_else(|| setting("kern.ipc.somaxconn")),
            handshakes_max: None,
        },
        tcp_memory: None,
        connection_tracking: None,
        io_uring_disabled: None,
        congestion_control: current.map(|current| CongestionControl {
            current,
            available: text("net.inet.tcp.cc.available")
                .unwrap_or_default()
                .split([' ', ',', '\n'])
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
        }),
        cgroup: Cgroup::default(),
        rights: Rights {
            is_root: output("id", &["-u"]).is_some_and(|id| id == "0"),
            raises_hard_limit: true,
            writes_settings: true,
        },
    }
}

/// These systems have no single number.
pub(super) fn kernel_object_bytes() -> Option<u64> {
    None
}

/// Not reported.
pub(super) fn waiting_ports() -> Option<u64> {
    None
}

/// Not reported in this way.
pub(super) fn tracked_connections() -> Option<u64> {
    None
}

fn family() -> Family {
    if cfg!(target_os = "macos") {
        Family::Macos
    } else if cfg!(target_os = "freebsd") {
        Family::Freebsd
    } else {
        Family::Other
    }
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success()).then(|| text.trim().to_owned())
}

fn text(name: &str) -> Option<String> {
    output("sysctl", &["-n", name])
}

fn setting(name: &str) -> Option<u64> {
    numbers(&text(name)?).first().copied()
}
