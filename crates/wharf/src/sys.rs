//! What differs between systems: the signals that end a program, the resources it has used, the
//! files of Unix sockets, processors, and limits.

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

/// A request to end the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Signal {
    /// Shut down gracefully. A second one means at once.
    Interrupt,
    /// Its terminal or session goes away and ends the program in a moment. It shuts down gracefully
    /// in the time that is left, whatever came before.
    #[allow(
        dead_code,
        reason = "only Windows says that it ends a program, and when"
    )]
    Close,
}
