//! What the doctor knows of a machine: plain numbers, so that what follows from them can be tested
//! with those of machines that are not here.
//!
//! What a system does not tell is `None`, never a guess; the report says "not told".

use serde::Serialize;

/// Everything that bounds how many connections a machine holds.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Facts {
    /// The system and its version, such as `Linux 6.12.1`.
    pub(crate) system: String,
    pub(crate) family: Family,
    pub(crate) processors: usize,
    pub(crate) open_files: OpenFiles,
    pub(crate) source_ports: Option<SourcePorts>,
    /// Ports within those that are never given out (`net.ipv4.ip_local_reserved_ports`).
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

/// Systems whose settings have names of their own.
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
    /// What a process starts with. The program raises its own to `hard`.
    pub(crate) soft: Option<u64>,
    /// What a process may raise its own to.
    pub(crate) hard: Option<u64>,
    /// What the hard limit may be raised to (`fs.nr_open`, `kern.maxfilesperproc`).
    pub(crate) process_max: Option<u64>,
    /// What all processes together may have (`fs.file-max`, `kern.maxfiles`).
    pub(crate) system_max: Option<u64>,
    pub(crate) system_used: Option<u64>,
}

/// Ports that the system gives to those who connect, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct SourcePorts {
    pub(crate) first: u16,
    pub(crate) last: u16,
}

/// Connections that wait until they are accepted. It bounds bursts, and not how many are held.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Backlog {
    /// Of a listener (`net.core.somaxconn`, `kern.ipc.somaxconn`).
    pub(crate) accept_max: Option<u64>,
    /// Of handshakes under way (`net.ipv4.tcp_max_syn_backlog`).
    pub(crate) handshakes_max: Option<u64>,
}

/// Memory for what has arrived or waits to be sent (`net.ipv4.tcp_mem`). An idle connection needs
/// none; one with a byte that nobody has read needs a page.
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
    /// Whether the connections that were opened to measure were tracked; nothing if none were.
    pub(crate) tracks_loopback: Option<bool>,
}

/// Memory of the machine, or of the container where that has less.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Memory {
    pub(crate) total_bytes: u64,
    pub(crate) available_bytes: u64,
    /// Whether a container's limit made these less than the machine's.
    pub(crate) limited_by_container: bool,
}

/// What the control groups of this process limit, each the smallest on the way up to the root; only
/// Linux has them.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub(crate) struct Cgroup {
    /// `memory.max`, or `memory.limit_in_bytes`. `Memory` takes it into account.
    pub(crate) memory_max_bytes: Option<u64>,
    /// `pids.max`, which counts threads too, and how many more there may be.
    pub(crate) tasks_max: Option<u64>,
    pub(crate) tasks_left: Option<u64>,
    /// `cpu.max`, or `cpu.cfs_quota_us`: the processor time of so many processors.
    pub(crate) processors: Option<f64>,
}

/// What one end of an idle connection costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct ConnectionMemory {
    pub(crate) kernel_bytes: u64,
    pub(crate) program_bytes: u64,
    /// Connections that were opened to measure it; with 0 it is what other machines have shown.
    pub(crate) measured_with: u64,
}

/// A driver, and why it does not work here, if so.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Driver {
    pub(crate) name: String,
    pub(crate) works: bool,
    pub(crate) reason: Option<String>,
    pub(crate) features: Vec<&'static str>,
}

/// What decides how fast a connection sends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct CongestionControl {
    pub(crate) current: String,
    pub(crate) available: Vec<String>,
}

/// What whoever runs this may change.
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
