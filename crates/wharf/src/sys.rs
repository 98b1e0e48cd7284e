//! What differs between systems: how a program is told to end, what it has used, what Unix sockets
//! leave behind, which processor it runs on, and where limits are told.

pub(crate) mod facts;
pub(crate) mod limits;
pub(crate) mod processors;
mod program;

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

pub(crate) use program::program;
#[cfg(unix)]
pub(crate) use unix::{
    DEALS_TO_PROCESSES, FileIdentity, clear_stale_socket, file_identity, is_closed_pipe, is_socket,
    keep_from_terminal, on_stop_signal, processor_time, system_name,
};
#[cfg(windows)]
pub(crate) use windows::{
    DEALS_TO_PROCESSES, FileIdentity, clear_stale_socket, file_identity, is_closed_pipe, is_socket,
    keep_from_terminal, on_stop_signal, processor_time, system_name,
};

/// What asks the program to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Signal {
    /// It is to end in order. One that comes again means at once.
    Interrupt,
    /// What it runs in goes away, and takes it with it in a moment: what is left of that is for an
    /// end in order, whatever came before.
    #[allow(
        dead_code,
        reason = "only Windows says that it ends a program, and when"
    )]
    Close,
}
