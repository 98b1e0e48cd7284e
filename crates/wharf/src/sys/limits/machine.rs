//! The memory of a machine without control groups.

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::sys::facts::Memory;

/// What the system reports.
pub(super) fn memory() -> Memory {
    let kind = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(kind);
    Memory {
        total_bytes: system.total_memory(),
        available_bytes: system.available_memory(),
        limited_by_container: false,
    }
}
