//! What drivers share per operating system: the same names in the same order in each file.
//!
//! Nothing outside `sys` and `driver` asks which system it runs on.

#[cfg(unix)]
#[path = "sys/unix.rs"]
mod imp;
#[cfg(windows)]
#[path = "sys/windows.rs"]
mod imp;

pub(crate) mod open;

pub(crate) use imp::*;

/// What the program `wharf` needs of Windows; nothing elsewhere, where safe crates have it.
#[cfg(not(windows))]
pub mod program {}
#[cfg(windows)]
#[path = "sys/windows/program.rs"]
pub mod program;

/// What the error of an accept says about the listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AcceptFault {
    /// Only this connection is lost: accept the next.
    ThisConnection,
    /// The process or the system is out of descriptors.
    Descriptors,
    /// The system is out of memory or buffers.
    Memory,
    /// The listener itself is unusable.
    Listener,
}

/// What kind of socket a caller has brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SocketKind {
    /// One end of a connection, or what may become one.
    Stream,
    /// It waits for connections.
    #[allow(dead_code, reason = "not every system says which sockets listen")]
    Listening,
    /// Datagrams and the like.
    Other,
}
