//! What differs between systems: how a program is told to end, what Unix sockets leave behind, and
//! where limits are told.

pub(crate) mod limits;

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::{DEALS_TO_PROCESSES, clear_stale_socket, on_stop_signal};
#[cfg(windows)]
pub(crate) use windows::{DEALS_TO_PROCESSES, clear_stale_socket, on_stop_signal};
