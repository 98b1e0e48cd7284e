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

/// Calls `handler` for each event that requests an end.
pub(crate) fn on_stop_signal(mut handler: impl FnMut(Signal) + Send + 'static) -> io::Result<()> {
    program::on_console_event(move |event| {
        handler(match event {
            ConsoleEvent::Interrupt => Signal::Interrupt,
            ConsoleEvent::Close => Signal::Close,
        });
    })
}

/// Detaches a program from the console, so that it gets none of its events. The parent prints the
/// child's error output, and ends the child.
///
/// When a console closes, Windows notifies its processes one after the other, and goes on when one
/// has ended. A child that waits for its parent would keep the parent from being notified.
pub(crate) fn keep_from_terminal(command: &mut Command) {
    /// `DETACHED_PROCESS` and `CREATE_NEW_PROCESS_GROUP`.
    const DETACHED: u32 = 0x8 | 0x200;
    command.creation_flags(DETACHED).stderr(Stdio::piped());
}

/// Whether the reader of this program's output has gone. A pipe reports that in three ways, of
/// which the standard library knows two.
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

/// Whether this path is a Unix socket; the library has none here.
pub(crate) fn is_socket(_path: &Path) -> bool {
    true
}

/// The identity of a file; used for Unix sockets only.
pub(crate) type FileIdentity = ();

/// The file at this path: never ours.
pub(crate) fn file_identity(_path: &Path) -> Option<FileIdentity> {
    None
}

/// There is no file to remove: there are no Unix sockets here.
pub(crate) fn clear_stale_socket(_path: &Path) -> bool {
    false
}
