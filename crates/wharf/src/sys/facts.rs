//! What the doctor knows of a machine: plain numbers, so that tests can check the conclusions for
//! other machines.
//!
//! A value that the system does not report is `None`, never a guess; the report says "unknown".

use serde::Serialize;

/// Everything that limits how many connections a machine holds.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Facts {
    /// The system and its version, such as `Linux 6.12.1`.
    pub(crate) system: String,
    pub(crate) family: Family,
    pub(crate) processors: usize,
    pub(crate) open_files: OpenFiles,
    pub(crate) source_ports: Option<SourcePorts>,
    /// Ports that the system never gives to clients (`net.ipv4.ip_local_reserved_ports`).
    pub(crate) reserved_ports: Option<String>,
    pub(crate) backlog: Backlog,
    pub(crate) tcp_memory: Option<TcpMemory>,
    pub(crate) connection_tracking: Option<ConnectionTracking>,
    pub(crate) memory: Memory,
    pub(crate) cgroup: Cgroup,
    pub(crate) connection: ConnectionMemory,
    pub(crate) drivers: Vec<Driver>,
    pub(crate) io_uring_disabled: Option<u64>,
    pub(crate) congestion_control: Option<CongestionControl>,
    pub(crate) rights: Rights,
}

/// Systems, by the names of their settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code, reason = "each system makes its own; the tests make all")]
pub(crate) enum Family {
    Linux,
    Macos,
    Freebsd,
    Windows,
    Other,
}

/// Limits on descriptors; on Windows on handles.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct OpenFiles {
    /// The limit of a new process. The program raises its own to `hard`.
    pub(crate) soft: Option<u64>,
    /// The limit to which a process may raise its own.
    pub(crate) hard: Option<u64>,
    /// The limit to which the hard limit may be raised (`fs.nr_open`, `kern.maxfilesperproc`).
    pub(crate) process_max: Option<u64>,
    /// The limit for all processes together (`fs.file-max`, `kern.maxfiles`).
    pub(crate) system_max: Option<u64>,
    pub(crate) system_used: Option<u64>,
}

/// Ports that the system gives to clients, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct SourcePorts {
    pub(crate) first: u16,
    pub(crate) last: u16,
}

/// Connections that wait to be accepted. This limits bursts, and not the number of held
/// connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Backlog {
    /// For a listener (`net.core.somaxconn`, `kern.ipc.somaxconn`).
    pub(crate) accept_max: Option<u64>,
    /// For handshakes in progress (`net.ipv4.tcp_max_syn_backlog`).
    pub(crate) handshakes_max: Option<u64>,
}

/// Memory for received data and for data to send (`net.ipv4.tcp_mem`). An idle connection needs
/// none; a connection with one unread byte needs a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct TcpMemory {
    pub(crate) low_pages: u64,
    pub(crate) pressure_pages: u64,
    pub(crate) max_pages: u64,
    pub(crate) used_pages: u64,
}

/// The firewall's table of connections (`nf_conntrack`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct ConnectionTracking {
    pub(crate) used: u64,
    pub(crate) max: u64,
    /// Whether the connections of the measurement were tracked; `None` if there were none.
    pub(crate) tracks_loopback: Option<bool>,
}

/// Memory of the machine, or of the container if that has less.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Memory {
    pub(crate) total_bytes: u64,
    pub(crate) available_bytes: u64,
    /// Whether a container's limit is lower than the machine's memory.
    pub(crate) limited_by_container: bool,
}

/// The limits of the control groups of this process, each the smallest on the way to the root. Only
/// Linux has them.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub(crate) struct Cgroup {
    /// `memory.max`, or `memory.limit_in_bytes`. `Memory` includes it.
    pub(crate) memory_max_bytes: Option<u64>,
    /// `pids.max`, which counts threads too, and how many more are possible.
    pub(crate) tasks_max: Option<u64>,
    pub(crate) tasks_left: Option<u64>,
    /// `cpu.max`, or `cpu.cfs_quota_us`: the processor time, in processors.
    pub(crate) processors: Option<f64>,
}

/// The cost of one end of an idle connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct ConnectionMemory {
    pub(crate) kernel_bytes: u64,
    pub(crate) program_bytes: u64,
    /// Connections that were opened to measure it; 0 if the figure is from other machines.
    pub(crate) measured_with: u64,
}

/// A driver, and the reason if it does not work here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Driver {
    pub(crate) name: String,
    pub(crate) works: bool,
    pub(crate) reason: Option<String>,
    pub(crate) features: Vec<&'static str>,
}

/// TCP congestion control.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct CongestionControl {
    pub(crate) current: String,
    pub(crate) available: Vec<String>,
}

/// What the user who runs this may change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Rights {
    pub(crate) is_root: bool,
    /// Whether root may raise the hard limit of a process here; containers often forbid it.
    pub(crate) raises_hard_limit: bool,
    /// Whether settings of the system can be written here; in containers they often cannot.
    pub(crate) writes_settings: bool,
}

impl SourcePorts {
    pub(crate) fn count(self) -> u64 {
        u64::from(self.last.saturating_sub(self.first)) + 1
    }
}

impl ConnectionMemory {
    /// One end, in all.
    pub(crate) fn bytes(self) -> u64 {
        self.kernel_bytes + self.program_bytes
    }
}
