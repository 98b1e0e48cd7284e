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

/// What the system knows an open socket by, and who has it closes it: an `OwnedFd` on Unix, an
/// `OwnedSocket` on Windows.
///
/// One name for both, so that portable code needs no `cfg`. Sockets of `std` and of `socket2`
/// convert into it and from it.
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

/// The same while something else has the socket: a `BorrowedFd` on Unix, a `BorrowedSocket` on
/// Windows. `socket2::SockRef` and the calls of `rustix` take a reference to it.
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
