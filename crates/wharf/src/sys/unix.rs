//! SIGINT, SIGTERM and SIGHUP, and the files that Unix sockets leave behind.
//!
//! SIGHUP, which comes when a terminal goes away, ends a program like the others. If it is ignored
//! it stays ignored: a server that was started with `nohup` outlives its terminal. A handler would
//! undo that.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use socket2::{Domain, SockAddr, Socket, Type};
use sysinfo::System;

use crate::sys::Signal;
use crate::threads;

/// Whether the system distributes connections to one address evenly to the processes that listen on
/// it. Other systems with `SO_REUSEPORT` give all of them to one process, or to an unspecified one.
pub(crate) const DEALS_TO_PROCESSES: bool = cfg!(target_os = "linux");

/// Calls `handler` for each signal that requests an end.
pub(crate) fn on_stop_signal(mut handler: impl FnMut(Signal) + Send + 'static) -> io::Result<()> {
    let hangup = ends_at_hangup().then_some(SIGHUP);
    let mut signals = Signals::new([SIGINT, SIGTERM].into_iter().chain(hangup))?;
    let listen = move || signals.forever().for_each(|_| handler(Signal::Interrupt));
    let started = threads::start("signals", listen);
    started.map(drop).map_err(io::Error::other)
}

/// Whether SIGHUP is not ignored, as it is with `nohup`. Only Linux reports that; elsewhere the
/// signal stays as it is.
fn ends_at_hangup() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    ignored.is_some_and(|bits| bits & (1 << (SIGHUP - 1)) == 0)
}

/// Moves a program out of the process group of the terminal, so that Ctrl-C does not reach it.
pub(crate) fn keep_from_terminal(command: &mut Command) {
    command.process_group(0);
}

/// Whether the reader of this program's output has gone.
pub(crate) fn is_closed_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// The processor time of all threads of this process, in the kernel too.
pub(crate) fn processor_time() -> Option<Duration> {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let (seconds, nanoseconds) = (time.tv_sec.try_into(), time.tv_nsec.try_into());
    Some(Duration::new(seconds.ok()?, nanoseconds.ok()?))
}

/// The name and version of the system.
pub(crate) fn system_name() -> String {
    let name = System::name().unwrap_or_else(|| std::env::consts::OS.to_owned());
    match System::kernel_version() {
        Some(version) => format!("{name}, kernel {version}"),
        None => name,
    }
}

/// Whether this path is a Unix socket, as far as the system reports.
pub(crate) fn is_socket(path: &Path) -> bool {
    fs::metadata(path).map_or_else(
        |error| error.kind() == io::ErrorKind::PermissionDenied,
        |file| file.file_type().is_socket(),
    )
}

/// The identity of a file: its device and its inode. A path is no identity: another server's file
/// may be there by now.
pub(crate) type FileIdentity = (u64, u64);

/// The file at this path itself, without following links.
pub(crate) fn file_identity(path: &Path) -> Option<FileIdentity> {
    let file = fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

/// Removes the file of a Unix socket without a listener; returns whether it did.
///
/// A server that was killed leaves its file, and no server can bind there until it is gone. A
/// connect finds out whether a server listens, because the file does not say. The connect does not
/// block: a server with a full backlog would block it for ever, and it returns `EAGAIN`.
pub(crate) fn clear_stale_socket(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let identity = file_identity(path);
    let connect = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket
        && connect().is_err_and(refused)
        && file_identity(path) == identity
        && fs::remove_file(path).is_ok()
}
