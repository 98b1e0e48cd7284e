//! SIGINT and SIGTERM, and the files that Unix sockets leave behind.
//!
//! SIGHUP is left alone: a server started with `nohup` outlives its terminal, which a handler for
//! it would undo.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Whether connections to one address are dealt out evenly to the processes that listen there. The
/// others that have `SO_REUSEPORT` give all of them to one, or to none in particular.
pub(crate) const DEALS_TO_PROCESSES: bool = cfg!(target_os = "linux");

/// Calls `handler` for each signal that asks the program to end.
pub(crate) fn on_stop_signal(mut handler: impl FnMut() + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let listen = move || signals.forever().for_each(|_| handler());
    thread::Builder::new()
        .name("signals".into())
        .spawn(listen)?;
    Ok(())
}

/// Keeps the Ctrl-C of a terminal, which goes to a group of processes, from a program.
pub(crate) fn keep_from_terminal(command: &mut Command) {
    command.process_group(0);
}

/// Whether whoever read what this program prints has gone.
pub(crate) fn is_closed_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// The processor time of all threads of this process, in the kernel too.
pub(crate) fn processor_time() -> Option<Duration> {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let (seconds, nanoseconds) = (time.tv_sec.try_into(), time.tv_nsec.try_into());
    Some(Duration::new(seconds.ok()?, nanoseconds.ok()?))
}

/// Whether this path leads to a Unix socket, as far as anybody can tell.
pub(crate) fn is_socket(path: &Path) -> bool {
    fs::metadata(path).map_or_else(
        |error| error.kind() == io::ErrorKind::PermissionDenied,
        |file| file.file_type().is_socket(),
    )
}

/// Removes the file of a Unix socket that nobody listens on any more; answers whether it did.
///
/// A server that was killed leaves its file, and nobody can bind there until it is gone. Whether
/// somebody listens is asked by connecting, as the file says nothing about it.
pub(crate) fn clear_stale_socket(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let nobody_listens = || {
        let refused = UnixStream::connect(path).map_err(|error| error.kind());
        refused.is_err_and(|kind| kind == io::ErrorKind::ConnectionRefused)
    };
    is_socket && nobody_listens() && fs::remove_file(path).is_ok()
}
