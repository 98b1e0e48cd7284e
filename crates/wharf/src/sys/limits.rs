//! The limits of a system, read in each system's own way.
//!
//! A value that cannot be read is left out, never guessed.

use crate::sys::facts::{
    Backlog, Cgroup, CongestionControl, ConnectionTracking, Family, Memory, OpenFiles, Rights,
    SourcePorts, TcpMemory,
};

#[cfg(target_os = "linux")]
mod cgroup;
#[cfg(all(unix, not(target_os = "linux")))]
mod machine;

#[cfg(all(unix, not(target_os = "linux")))]
#[path = "limits/bsd.rs"]
mod system;
#[cfg(target_os = "linux")]
#[path = "limits/linux.rs"]
mod system;
#[cfg(windows)]
#[path = "limits/windows.rs"]
mod system;

/// What the system reports.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Limits {
    pub(crate) family: Family,
    pub(crate) open_files: OpenFiles,
    pub(crate) source_ports: Option<SourcePorts>,
    /// Ports that the system never gives to clients, in the system's notation; Linux only.
    pub(crate) reserved_ports: Option<String>,
    pub(crate) backlog: Backlog,
    pub(crate) tcp_memory: Option<TcpMemory>,
    pub(crate) connection_tracking: Option<ConnectionTracking>,
    pub(crate) io_uring_disabled: Option<u64>,
    pub(crate) congestion_control: Option<CongestionControl>,
    pub(crate) cgroup: Cgroup,
    pub(crate) rights: Rights,
}

/// Reads the limits.
pub(crate) fn read() -> Limits {
    system::read()
}

/// The memory of the machine, or of a control group of this process if that has less.
pub(crate) fn memory() -> Memory {
    system::memory()
}

/// Bytes of the kernel's own objects; Linux only.
pub(crate) fn kernel_object_bytes() -> Option<u64> {
    system::kernel_object_bytes()
}

/// Ports in TIME_WAIT; Linux only.
pub(crate) fn waiting_ports() -> Option<u64> {
    system::waiting_ports()
}

/// The entries in the firewall's table of connections; `None` if there is no table.
pub(crate) fn tracked_connections() -> Option<u64> {
    system::tracked_connections()
}

/// The numbers in a text, whatever is between them.
fn numbers(text: &str) -> Vec<u64> {
    let digits = text.split(|letter: char| !letter.is_ascii_digit());
    digits.filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_in_every_language() {
        let german = "Startport : 49152\r\nAnzahl Ports : 16384\r\n";
        assert_eq!(numbers(german), [49152, 16384]);
        assert_eq!(numbers("32768\t60999\n"), [32768, 60999]);
    }

    #[test]
    fn this_system_reports_its_limits() {
        let limits = read();
        if limits.family == Family::Linux {
            assert!(limits.open_files.system_max > Some(0), "{limits:?}");
            assert!(limits.source_ports.is_some_and(|ports| ports.count() > 0));
            assert!(limits.congestion_control.is_some(), "{limits:?}");
            assert!(kernel_object_bytes() > Some(1 << 20));
        }
        if cfg!(unix) {
            assert!(limits.open_files.soft <= limits.open_files.hard);
            assert!(limits.open_files.hard.is_some());
        }
    }
}
