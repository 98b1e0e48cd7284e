//! What differs between systems: how a program is told to end, and what Unix sockets leave behind.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::{clear_stale_socket, on_stop_signal};
#[cfg(windows)]
pub(crate) use windows::{clear_stale_socket, on_stop_signal};
