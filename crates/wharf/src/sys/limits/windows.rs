//! Windows: there is no limit of descriptors, and `netsh` tells the range of dynamic ports.
//!
//! `netsh` speaks the language of its user, so only the two numbers are read: the first port and
//! how many there are.

use std::process::Command;

use wharf_port::program;

use super::{Limits, numbers};
use crate::sys::facts::{Backlog, Cgroup, Family, Memory, OpenFiles, Rights, SourcePorts};

/// Handles that one process may have: 2^24, by the layout of its handle table.
const HANDLES_MAX: u64 = 1 << 24;

pub(super) fn read() -> Limits {
    Limits {
        family: Family::Windows,
        open_files: OpenFiles {
            hard: Some(HANDLES_MAX),
            ..OpenFiles::default()
        },
        reserved_ports: None,
        source_ports: source_ports(),
        backlog: Backlog::default(),
        tcp_memory: None,
        connection_tracking: None,
        io_uring_disabled: None,
        congestion_control: None,
        cgroup: Cgroup::default(),
        rights: Rights {
            is_root: false,
            raises_hard_limit: true,
            writes_settings: true,
        },
    }
}

/// What the system tells of it; nothing where it does not.
pub(super) fn memory() -> Memory {
    let (total_bytes, available_bytes) = program::machine_memory().unwrap_or_default();
    Memory {
        total_bytes,
        available_bytes,
        limited_by_container: false,
    }
}

/// The pools of the kernel are told by performance counters only.
pub(super) fn kernel_object_bytes() -> Option<u64> {
    None
}

/// Not told.
pub(super) fn waiting_ports() -> Option<u64> {
    None
}

/// Its tables are told elsewhere.
pub(super) fn tracked_connections() -> Option<u64> {
    None
}

fn source_ports() -> Option<SourcePorts> {
    let arguments = ["int", "ipv4", "show", "dynamicport", "tcp"];
    let output = Command::new("netsh").args(arguments).output().ok()?;
    let told = numbers(&String::from_utf8_lossy(&output.stdout));
    // The words around may have a number too, such as the "4" of "IPv4".
    let [.., first, count] = told[..] else {
        return None;
    };
    let last = (first + count).checked_sub(1)?;
    Some(SourcePorts {
        first: u16::try_from(first).ok()?,
        last: u16::try_from(last).ok()?,
    })
}
