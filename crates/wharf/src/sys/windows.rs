//! Ctrl-C, Ctrl-Break, the closing of the console, and the shutdown of the system.

use std::io;
use std::os::windows::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use wharf_port::program::{self, ConsoleEvent};

use crate::sys::Signal;

/// No two sockets listen at one address here.
pub(crate) const DEALS_TO_PROCESSES: bool = false;

/// Calls `handler` for each event that asks the program to end.
pub(crate) fn on_stop_signal(mut handler: impl FnMut(Signal) + Send + 'static) -> io::Result<()> {
    program::on_console_event(move |event| {
        handler(match event {
            ConsoleEvent::Interrupt => Signal::Interrupt,
            ConsoleEvent::Close => Signal::Close,
        });
    })
}

/// Keeps the events of a console from a program, which then has none: whoever starts it passes on what
/// it complains of, and has it end.
///
/// Windows tells all processes of a console that it closes, one after the other, and goes on with the
/// next when one has ended. A process that another one has to let go would keep that one from hearing
/// of it.
pub(crate) fn keep_from_terminal(command: &mut Command) {
    /// `DETACHED_PROCESS` and `CREATE_NEW_PROCESS_GROUP`.
    const DETACHED: u32 = 0x8 | 0x200;
    command.creation_flags(DETACHED).stderr(Stdio::piped());
}

/// Whether whoever read what this program prints has gone. A pipe tells of that in three ways, of
/// which the library knows two.
pub(crate) fn is_closed_pipe(error: &io::Error) -> bool {
    /// `ERROR_PIPE_NOT_CONNECTED`, the only one of Wine.
    const NOT_CONNECTED: i32 = 233;
    error.kind() == io::ErrorKind::BrokenPipe || error.raw_os_error() == Some(NOT_CONNECTED)
}

/// The processor time of all threads of this process, in the kernel too.
pub(crate) fn processor_time() -> Option<Duration> {
    program::processor_time()
}

/// The name and build of the system.
pub(crate) fn system_name() -> String {
    let build = windows_version::OsVersion::current().build;
    format!("Windows, kernel {build}")
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
