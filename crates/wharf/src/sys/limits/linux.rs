//! Linux: everything is a file in `/proc`, each described in `proc(5)` and `ip-sysctl.rst`.

use std::fs;
use std::fs::OpenOptions;
use std::path::Path;
use std::sync::OnceLock;

use super::cgroup::Groups;
use super::{Limits, numbers};
use crate::sys::facts::{
    Backlog, CongestionControl, ConnectionTracking, Family, Memory, OpenFiles, Rights, SourcePorts,
    TcpMemory,
};

/// The capability that raises hard limits, in the bits of `/proc/self/status`.
const CAP_SYS_RESOURCE: u64 = 1 << 24;

pub(super) fn read() -> Limits {
    Limits {
        family: Family::Linux,
        open_files: open_files(),
        source_ports: source_ports(),
        reserved_ports: text("net/ipv4/ip_local_reserved_ports").map(|it| it.trim().to_owned()),
        backlog: Backlog {
            accept_max: setting("net/core/somaxconn"),
            handshakes_max: setting("net/ipv4/tcp_max_syn_backlog"),
        },
        tcp_memory: tcp_memory(),
        connection_tracking: connection_tracking(),
        io_uring_disabled: setting("kernel/io_uring_disabled"),
        congestion_control: congestion_control(),
        cgroup: groups().told(),
        rights: rights(),
    }
}

/// The groups of this process, read once: memory is read often.
fn groups() -> &'static Groups {
    static GROUPS: OnceLock<Groups> = OnceLock::new();
    GROUPS.get_or_init(|| Groups::find(Path::new("/")))
}

/// The memory of the machine, or of a group if that has less. Without `/proc` a system call reports
/// memory, without what the kernel can reclaim from files.
pub(super) fn memory() -> Memory {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| Some(numbers(line).first()? * 1024))
    };
    let (total, available) = match (of("MemTotal:"), of("MemAvailable:")) {
        (Some(total), Some(available)) => (total, available),
        _ => {
            let told = rustix::system::sysinfo();
            let bytes = |units: u64| units * u64::from(told.mem_unit);
            let free = bytes(told.freeram) + bytes(told.bufferram);
            (bytes(told.totalram), free)
        }
    };
    let machine = Memory {
        total_bytes: total,
        available_bytes: available,
        limited_by_container: false,
    };
    match groups().memory() {
        Some(group) => Memory {
            total_bytes: group.max_bytes.min(total),
            available_bytes: group.available_bytes.min(available),
            limited_by_container: group.max_bytes < total,
        },
        None => machine,
    }
}

/// Memory of the slab allocator, from which the kernel takes sockets and their objects.
pub(super) fn kernel_object_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("Slab:"))?;
    Some(numbers(line).first()? * 1024)
}

/// `TCP: inuse 3 orphan 0 tw 17 alloc 5 mem 2`, in `/proc/net/sockstat`.
pub(super) fn waiting_ports() -> Option<u64> {
    let text = fs::read_to_string("/proc/net/sockstat").ok()?;
    let line = text.lines().find(|line| line.starts_with("TCP:"))?;
    let mut words = line.split_whitespace().skip_while(|word| *word != "tw");
    words.nth(1)?.parse().ok()
}

/// The entries in the firewall's table, if it is loaded.
pub(super) fn tracked_connections() -> Option<u64> {
    setting("net/netfilter/nf_conntrack_count")
}

fn text(name: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/sys/{name}")).ok()
}

/// A setting that is one number.
fn setting(name: &str) -> Option<u64> {
    numbers(&text(name)?).first().copied()
}

fn open_files() -> OpenFiles {
    let limits = rlimit::Resource::NOFILE.get().ok();
    // Used, free, and the most; the second has been 0 since Linux 2.6.
    let of_system = text("fs/file-nr").map(|text| numbers(&text));
    OpenFiles {
        soft: limits.map(|(soft, _)| soft),
        hard: limits.map(|(_, hard)| hard),
        process_max: setting("fs/nr_open"),
        system_max: setting("fs/file-max"),
        system_used: of_system.and_then(|numbers| numbers.first().copied()),
    }
}

fn source_ports() -> Option<SourcePorts> {
    let range = numbers(&text("net/ipv4/ip_local_port_range")?);
    let port = |place: usize| u16::try_from(*range.get(place)?).ok();
    Some(SourcePorts {
        first: port(0)?,
        last: port(1)?,
    })
}

fn tcp_memory() -> Option<TcpMemory> {
    let pages = numbers(&text("net/ipv4/tcp_mem")?);
    let sockets = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let line = sockets.lines().find(|line| line.starts_with("TCP:"));
    let used = line.and_then(|line| numbers(line).last().copied());
    Some(TcpMemory {
        low_pages: *pages.first()?,
        pressure_pages: *pages.get(1)?,
        max_pages: *pages.get(2)?,
        used_pages: used.unwrap_or(0),
    })
}

/// The files exist while the module is loaded.
fn connection_tracking() -> Option<ConnectionTracking> {
    Some(ConnectionTracking {
        used: tracked_connections()?,
        tracks_loopback: None,
        max: setting("net/netfilter/nf_conntrack_max")?,
    })
}

fn congestion_control() -> Option<CongestionControl> {
    let available = text("net/ipv4/tcp_available_congestion_control").unwrap_or_default();
    Some(CongestionControl {
        current: text("net/ipv4/tcp_congestion_control")?.trim().to_owned(),
        available: available.split_whitespace().map(str::to_owned).collect(),
    })
}

fn rights() -> Rights {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let is_root = line("Uid:").is_some_and(|ids| numbers(ids).get(1) == Some(&0));
    let bits = |name| line(name).and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    // A user who is not root may become root. Root has the capabilities of the bounding set.
    let capabilities = bits("CapBnd:").unwrap_or(u64::MAX);
    // Opening for writing writes nothing. A container fails with EROFS, and for other users than
    // root with EACCES.
    let writable = OpenOptions::new().write(true).open("/proc/sys/fs/nr_open");
    let read_only =
        writable.is_err_and(|error| error.kind() == std::io::ErrorKind::ReadOnlyFilesystem);
    Rights {
        is_root,
        raises_hard_limit: capabilities & CAP_SYS_RESOURCE != 0,
        writes_settings: !read_only,
    }
}
