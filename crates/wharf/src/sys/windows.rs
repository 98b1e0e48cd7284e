//! Ctrl-C, Ctrl-Break, and the closing of the console.

use std::io;
use std::path::Path;

/// No two sockets listen at one address here.
pub(crate) const DEALS_TO_PROCESSES: bool = false;

/// Calls `handler` for each event that asks the program to end.
pub(crate) fn on_stop_signal(handler: impl FnMut() + Send + 'static) -> io::Result<()> {
    ctrlc::set_handler(handler).map_err(io::Error::other)
}

/// Nothing is ever left behind: there are no Unix sockets here.
pub(crate) fn clear_stale_socket(_path: &Path) -> bool {
    false
}
