//! One error type for every driver: which operation failed, why, and how to fix it.
//!
//! Completion packets, refused requests and set-up failures all carry [`Error`]. Its kind is the
//! same on every driver for the same event. A reset by the peer is [`ErrorKind::Reset`] on Windows,
//! where the system's code is 10054, and on Linux, where it is 104. The error keeps the system's
//! own code as well. `std::io::Error` alone was rejected: it loses the operation, and its kinds
//! differ by system.

use std::fmt;
use std::io;
use std::num::NonZeroI32;

use crate::sys;

mod bound;
mod refused;
pub(crate) use bound::Bound;
use bound::OutOfRange;
pub use refused::Refused;

/// The operation that an [`Error`] belongs to.
///
/// ```
/// use wharf_port::Operation;
/// assert_eq!(Operation::Accept.to_string(), "accept");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Operation {
    /// Building a port and its driver.
    Build,
    /// Asking a port for a waiter.
    Waiter,
    /// Waiting for packets.
    Wait,
    /// Creating, binding and opening a listening socket.
    Listen,
    /// Associating a socket with a port.
    Associate,
    /// Accepting connections.
    Accept,
    /// Connecting to a peer.
    Connect,
    /// Receiving into lent buffers.
    Receive,
    /// Receiving into the caller's buffer.
    ReceiveInto,
    /// Sending.
    Send,
    /// Ending the write side.
    Shutdown,
    /// Watching for the peer to leave.
    Watch,
    /// Closing a socket.
    Close,
    /// Setting a timer.
    Timer,
    /// Posting a packet.
    Post,
    /// Asking for an address of a socket.
    Address,
    /// Asking for the descriptor of a socket.
    Descriptor,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Build => "build the port",
            Operation::Waiter => "make a waiter",
            Operation::Wait => "wait",
            Operation::Listen => "listen",
            Operation::Associate => "associate",
            Operation::Accept => "accept",
            Operation::Connect => "connect",
            Operation::Receive => "receive",
            Operation::ReceiveInto => "receive into a buffer",
            Operation::Send => "send",
            Operation::Shutdown => "shut down",
            Operation::Watch => "watch",
            Operation::Close => "close",
            Operation::Timer => "set a timer",
            Operation::Post => "post",
            Operation::Address => "read the address",
            Operation::Descriptor => "take the descriptor",
        })
    }
}

/// Why an operation failed; the same on every driver for the same event.
///
/// ```
/// use wharf_port::ErrorKind;
/// assert_eq!(ErrorKind::Reset.to_string(), "connection reset by the peer");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The peer reset the connection (RST); never used for a clean end.
    Reset,
    /// No socket listens at the address, or a firewall refused the connection in its place.
    Refused,
    /// The program's own close, or an earlier failed send, ended the operation.
    Aborted,
    /// The operation was cancelled on request.
    Cancelled,
    /// A deadline of the operation or of the protocol passed.
    TimedOut,
    /// No route leads to the address, or the network is down.
    Unreachable,
    /// Another socket is bound to the address, or every source port of a connect is taken.
    AddressInUse,
    /// The address does not belong to this machine.
    AddressUnavailable,
    /// The system forbids the operation to this user.
    PermissionDenied,
    /// The process or the system is out of descriptors.
    TooManyOpenFiles,
    /// The system is out of memory or of network buffers.
    OutOfMemory,
    /// A bound set when the port was built, or a socket's send queue, is reached.
    Full,
    /// An operation of this kind is already in progress on the socket.
    Busy,
    /// The port or the socket is closed, or the handle to it is stale.
    Closed,
    /// The socket is not connected.
    NotConnected,
    /// The write side is shut down: the program's own shutdown came first.
    BrokenPipe,
    /// This driver or this system does not support the operation.
    Unsupported,
    /// An argument is invalid.
    InvalidInput,
    /// Anything else; see the system's code.
    Other,
}

impl ErrorKind {
    fn text(self) -> &'static str {
        match self {
            ErrorKind::Reset => "connection reset by the peer",
            ErrorKind::Refused => "connection refused",
            ErrorKind::Aborted => "aborted by our own close",
            ErrorKind::Cancelled => "cancelled",
            ErrorKind::TimedOut => "timed out",
            ErrorKind::Unreachable => "address unreachable",
            ErrorKind::AddressInUse => "address in use",
            ErrorKind::AddressUnavailable => "address not on this machine",
            ErrorKind::PermissionDenied => "permission denied",
            ErrorKind::TooManyOpenFiles => "too many open files",
            ErrorKind::OutOfMemory => "out of memory or network buffers",
            ErrorKind::Full => "a bound is reached",
            ErrorKind::Busy => "already in progress",
            ErrorKind::Closed => "closed",
            ErrorKind::NotConnected => "not connected",
            ErrorKind::BrokenPipe => "the write side is shut down",
            ErrorKind::Unsupported => "not supported here",
            ErrorKind::InvalidInput => "invalid argument",
            ErrorKind::Other => "failed",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// A failed operation: which operation, why it failed, and the system's code if there is one.
///
/// The text names the fix if there is a known one.
///
/// It converts into [`std::io::Error`], which holds either a system's code or another error. If
/// there is a code, and `std` gives it the same kind, the conversion keeps the code, and
/// `raw_os_error` returns it; operation and fix are lost. Otherwise it keeps this error, which
/// [`get_ref`](std::io::Error::get_ref) returns. A cancelled operation is never
/// [`Interrupted`](std::io::ErrorKind::Interrupted), because `std` repeats interrupted operations.
///
/// ```
/// use std::io;
/// use wharf_port::{Error, ErrorKind, Operation};
/// let error = Error::new(Operation::Accept, ErrorKind::Cancelled);
/// assert_eq!(error.to_string(), "accept: cancelled");
/// assert_eq!(io::Error::from(error).kind(), io::ErrorKind::Other);
/// assert_eq!(io::Error::from(error).get_ref().unwrap().to_string(), "accept: cancelled");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Error {
    operation: Operation,
    kind: ErrorKind,
    /// No system has an error with the code 0. The niche keeps packets small.
    os: Option<NonZeroI32>,
    detail: Detail,
}

/// A text that replaces the text of the kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Detail {
    /// What a driver reports of itself, or a call of its argument; empty for none.
    Advice(&'static str),
    Range(OutOfRange),
}

const NO_DETAIL: Detail = Detail::Advice("");

/// The result of calls of this crate.
///
/// ```
/// fn always() -> wharf_port::Result<u32> { Ok(7) }
/// assert_eq!(always(), Ok(7));
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Makes an error that the library itself found, without a system code.
    ///
    /// ```
    /// use wharf_port::{Error, ErrorKind, Operation};
    /// assert_eq!(Error::new(Operation::Post, ErrorKind::Full).raw_os_error(), None);
    /// ```
    #[must_use]
    pub fn new(operation: Operation, kind: ErrorKind) -> Self {
        Error {
            operation,
            kind,
            os: None,
            detail: NO_DETAIL,
        }
    }

    /// Makes an error from a system code (`errno`, or a Win32 or Winsock code).
    ///
    /// ```
    /// use wharf_port::{Error, Operation};
    /// let error = Error::from_os(Operation::Receive, 104);
    /// assert_eq!(error.raw_os_error(), Some(104));
    /// ```
    #[must_use]
    pub fn from_os(operation: Operation, code: i32) -> Self {
        Error {
            operation,
            kind: sys::error_kind(code),
            os: NonZeroI32::new(code),
            detail: NO_DETAIL,
        }
    }

    /// A connect failed with a system code after its socket was opened and bound.
    pub(crate) fn of_connect(code: i32) -> Self {
        Error {
            kind: sys::connect_error_kind(code),
            ..Error::from_os(Operation::Connect, code)
        }
    }

    /// Like [`Error::from_io`], for a bind: there the codes mean other things.
    pub(crate) fn from_bind(operation: Operation, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(code) => Error {
                kind: sys::bind_error_kind(code),
                ..Error::from_os(operation, code)
            },
            None => Error::from_io(operation, error),
        }
    }

    pub(crate) fn from_io(operation: Operation, error: &io::Error) -> Self {
        let own = error.get_ref().and_then(|it| it.downcast_ref::<Error>());
        match error.raw_os_error() {
            _ if own.is_some() => own.copied().expect("looked at"),
            Some(code) => Error::from_os(operation, code),
            None => Error::new(operation, kind_of_io(error.kind())),
        }
    }

    /// A required driver does not work here.
    pub(crate) fn unavailable(advice: &'static str, os: Option<i32>) -> Self {
        Error {
            operation: Operation::Build,
            kind: ErrorKind::Unsupported,
            os: os.and_then(NonZeroI32::new),
            detail: Detail::Advice(advice),
        }
    }

    /// The operation is not possible in this way; the advice names a way that is.
    pub(crate) fn advised(operation: Operation, kind: ErrorKind, advice: &'static str) -> Self {
        Error {
            operation,
            kind,
            os: None,
            detail: Detail::Advice(advice),
        }
    }

    /// The value is outside the range of a bound of the port to build.
    pub(crate) fn out_of_range(bound: Bound, value: u32) -> Self {
        Error {
            detail: Detail::Range(OutOfRange { bound, value }),
            ..Error::new(Operation::Build, ErrorKind::InvalidInput)
        }
    }

    /// Wraps this error, for a function that returns [`io::Error`].
    pub(crate) fn wrapped(self) -> io::Error {
        io::Error::new(io_kind(self.kind), self)
    }

    /// Returns the operation that failed.
    ///
    /// ```
    /// use wharf_port::{Error, ErrorKind, Operation};
    /// assert_eq!(Error::new(Operation::Send, ErrorKind::Full).operation(), Operation::Send);
    /// ```
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// Returns why it failed.
    ///
    /// ```
    /// use wharf_port::{Error, ErrorKind, Operation};
    /// assert_eq!(Error::new(Operation::Send, ErrorKind::Full).kind(), ErrorKind::Full);
    /// ```
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the system's own code, if the failure came from the system.
    ///
    /// ```
    /// use wharf_port::{Error, ErrorKind, Operation};
    /// assert_eq!(Error::new(Operation::Send, ErrorKind::Full).raw_os_error(), None);
    /// ```
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        self.os.map(NonZeroI32::get)
    }

    fn hint(&self) -> Option<&'static str> {
        if let Some(hint) = sys::hint(self.kind, self.operation, self.raw_os_error()) {
            return Some(hint);
        }
        match (self.kind, self.operation) {
            (ErrorKind::AddressInUse, Operation::Connect) => Some(
                "no source port is free for this peer: name another source, wait until one is \
                 free, or widen the range of ports that connects may use",
            ),
            (ErrorKind::AddressInUse, _) => {
                Some("choose another port, or end the program that holds it")
            }
            (ErrorKind::AddressUnavailable, _) => Some("name an address of this machine"),
            (ErrorKind::PermissionDenied, Operation::Listen) => Some(
                "choose a port of 1024 or above or a path you may write to, or run with more rights",
            ),
            (ErrorKind::Full, Operation::Send) if self.os.is_none() => {
                Some("wait for SendReady, then send again")
            }
            (ErrorKind::Full, _) => Some(self.raw_os_error().map_or(AT_BOUND, sys::full_advice)),
            (ErrorKind::Busy, Operation::Waiter) => {
                Some("a single-waiter port has one waiter: build a shared port for several")
            }
            (ErrorKind::Busy, _) => Some("wait for its last packet, or cancel it"),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail {
            NO_DETAIL => {}
            Detail::Advice(advice) => return write!(f, "{}: {advice}", self.operation),
            Detail::Range(wrong) => return write!(f, "{}: {wrong}", self.operation),
        }
        write!(f, "{}: {}", self.operation, self.kind)?;
        if self.kind == ErrorKind::TooManyOpenFiles {
            return f.write_str(&sys::descriptor_advice());
        }
        if self.kind == ErrorKind::Other {
            if let Some(code) = self.raw_os_error() {
                write!(f, ": {}", io::Error::from_raw_os_error(code))?;
            }
        }
        match self.hint() {
            Some(hint) => write!(f, ": {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("operation", &self.operation)
            .field("kind", &self.kind)
            .field("os", &self.raw_os_error())
            .finish()
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = io_kind(error.kind);
        let Some(code) = error.raw_os_error() else {
            return error.wrapped();
        };
        let plain = io::Error::from_raw_os_error(code);
        // If `std` has no kind for it, `Other` is as good.
        let unknown = io::Error::from_raw_os_error(i32::MAX).kind();
        match plain.kind() == kind || kind == io::ErrorKind::Other && plain.kind() == unknown {
            true => plain,
            false => error.wrapped(),
        }
    }
}

/// What to do at a bound of the port.
pub(crate) const AT_BOUND: &str = "raise the bound where the port is built";

fn io_kind(kind: ErrorKind) -> io::ErrorKind {
    match kind {
        ErrorKind::Reset => io::ErrorKind::ConnectionReset,
        ErrorKind::Refused => io::ErrorKind::ConnectionRefused,
        ErrorKind::Aborted => io::ErrorKind::ConnectionAborted,
        ErrorKind::TimedOut => io::ErrorKind::TimedOut,
        ErrorKind::Unreachable => io::ErrorKind::HostUnreachable,
        ErrorKind::AddressInUse => io::ErrorKind::AddrInUse,
        ErrorKind::AddressUnavailable => io::ErrorKind::AddrNotAvailable,
        ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
        ErrorKind::OutOfMemory => io::ErrorKind::OutOfMemory,
        ErrorKind::Full => io::ErrorKind::WouldBlock,
        ErrorKind::Busy => io::ErrorKind::ResourceBusy,
        ErrorKind::Closed | ErrorKind::NotConnected => io::ErrorKind::NotConnected,
        ErrorKind::BrokenPipe => io::ErrorKind::BrokenPipe,
        ErrorKind::Unsupported => io::ErrorKind::Unsupported,
        ErrorKind::InvalidInput => io::ErrorKind::InvalidInput,
        ErrorKind::Cancelled | ErrorKind::TooManyOpenFiles | ErrorKind::Other => {
            io::ErrorKind::Other
        }
    }
}

fn kind_of_io(kind: io::ErrorKind) -> ErrorKind {
    match kind {
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => ErrorKind::InvalidInput,
        io::ErrorKind::Unsupported => ErrorKind::Unsupported,
        io::ErrorKind::TimedOut => ErrorKind::TimedOut,
        _ => ErrorKind::Other,
    }
}
