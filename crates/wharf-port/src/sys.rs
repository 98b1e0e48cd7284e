//! What the drivers of one operating system share. `sys/unix` and `sys/windows` have the same names
//! in the same order. `xtask/src/tidy/systems.rs` lists the names that one system alone needs, and
//! tidy checks the others.
//!
//! Only `sys` and `driver` ask which system this is.

#[cfg(unix)]
#[path = "sys/unix.rs"]
mod imp;
#[cfg(windows)]
#[path = "sys/windows.rs"]
mod imp;

pub(crate) mod open;

pub(crate) use imp::*;

/// The system's handle of an open socket, which closes the socket when it is dropped: an `OwnedFd`
/// on Unix, an `OwnedSocket` on Windows.
///
/// Both have one name, so portable code needs no `cfg`. Sockets of `std` and of `socket2` convert
/// into it and from it.
///
/// ```
/// use std::net::TcpListener;
/// use wharf_port::OwnedDescriptor;
/// # fn main() -> std::io::Result<()> {
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let descriptor: OwnedDescriptor = listener.into();
/// # Ok(()) }
/// ```
#[cfg(unix)]
pub type OwnedDescriptor = std::os::fd::OwnedFd;
#[cfg(windows)]
#[allow(missing_docs, reason = "the text above is for both")]
pub type OwnedDescriptor = std::os::windows::io::OwnedSocket;

/// The same handle, borrowed: a `BorrowedFd` on Unix, a `BorrowedSocket` on Windows.
/// `socket2::SockRef` and the calls of `rustix` take a reference to it.
///
/// ```
/// use wharf_port::BorrowedDescriptor;
/// fn is_the_same(one: BorrowedDescriptor<'_>, other: BorrowedDescriptor<'_>) -> bool {
///     format!("{one:?}") == format!("{other:?}")
/// }
/// ```
#[cfg(unix)]
pub type BorrowedDescriptor<'a> = std::os::fd::BorrowedFd<'a>;
#[cfg(windows)]
#[allow(missing_docs, reason = "the text above is for both")]
pub type BorrowedDescriptor<'a> = std::os::windows::io::BorrowedSocket<'a>;

/// What the program `wharf` needs from Windows. Empty on other systems, where safe crates
/// have all that the program needs.
#[cfg(not(windows))]
pub mod program {}
#[cfg(windows)]
#[path = "sys/windows/program.rs"]
pub mod program;

/// What the error of an accept means for the listener.
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

/// The kind of a socket that a caller supplied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SocketKind {
    /// One end of a connection, or a socket that may become one.
    Stream,
    /// A socket that listens for connections.
    #[allow(dead_code, reason = "not every system says which sockets listen")]
    Listening,
    /// Datagrams and the like.
    Other,
}
