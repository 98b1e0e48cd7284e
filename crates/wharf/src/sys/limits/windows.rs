//! Windows has no limit of descriptors. `netsh` reports the range of dynamic ports.
//!
//! `netsh` prints in the user's language, so we read only the two numbers: the first port and the
//! number of ports.

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

/// What the system reports; `None` if it does not.
pub(super) fn memory() -> Memory {
    let (total_bytes, available_bytes) = program::machine_memory().unwrap_or_default();
    Memory {
        total_bytes,
        available_bytes,
        limited_by_container: false,
    }
}

/// Only performance counters report the pools of the kernel.
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

fn source_ports() -> Option<SourcePorts> {
    let arguments = ["int", "ipv4", "show", "dynamicport", "tcp"];
    let output = Command::new("netsh").args(arguments).output().ok()?;
    let told = numbers(&String::from_utf8_lossy(&output.stdout));
    // The words may include a number too, such as the "4" of "IPv4".
    let [.., first, count] = told[..] else {
        return None;
    };
    let last = (first + count).checked_sub(1)?;
    Some(SourcePorts {
        first: u16::try_from(first).ok()?,
        last: u16::try_from(last).ok()?,
    })
}
