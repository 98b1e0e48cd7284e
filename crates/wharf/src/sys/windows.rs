//! Ctrl-C, Ctrl-Break, and the closing of the console.

use std::io;
use std::os::windows::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

/// No two sockets listen at one address here.
pub(crate) const DEALS_TO_PROCESSES: bool = false;

/// Calls `handler` for each event that asks the program to end.
pub(crate) fn on_stop_signal(handler: impl FnMut() + Send + 'static) -> io::Result<()> {
    ctrlc::set_handler(handler).map_err(io::Error::other)
}

/// Keeps the Ctrl-C of a console from a program.
pub(crate) fn keep_from_terminal(command: &mut Command) {
    /// `CREATE_NEW_PROCESS_GROUP`, in which Ctrl-C is off.
    const NEW_GROUP: u32 = 0x200;
    command.creation_flags(NEW_GROUP);
}

/// Whether whoever read what this program prints has gone. A pipe tells of that in three ways, of
/// which the library knows two.
pub(crate) fn is_closed_pipe(error: &io::Error) -> bool {
    /// `ERROR_PIPE_NOT_CONNECTED`, the only one of Wine.
    const NOT_CONNECTED: i32 = 233;
    error.kind() == io::ErrorKind::BrokenPipe || error.raw_os_error() == Some(NOT_CONNECTED)
}

/// The processor time of all threads of this process, in the kernel too; whole milliseconds.
pub(crate) fn processor_time() -> Option<Duration> {
    let this = sysinfo::get_current_pid().ok()?;
    let mut system = System::new();
    let only_this = ProcessesToUpdate::Some(&[this]);
    let times = ProcessRefreshKind::nothing().with_cpu();
    system.refresh_processes_specifics(only_this, false, times);
    let used = system.process(this)?.accumulated_cpu_time();
    (used > 0).then(|| Duration::from_millis(used))
}

/// Whether this path leads to a Unix socket, of which the library says that there are none here.
pub(crate) fn is_socket(_path: &Path) -> bool {
    true
}

/// Which file a path leads to; asked for Unix sockets only.
pub(crate) type FileIdentity = ();

/// What stands at this path: nothing of ours.
pub(crate) fn file_identity(_path: &Path) -> Option<FileIdentity> {
    None
}

/// Nothing is ever left behind: there are no Unix sockets here.
pub(crate) fn clear_stale_socket(_path: &Path) -> bool {
    false
}
