//! What the codes of Windows mean: the kinds of errors, and what cures some of them.
//!
//! Three lists of codes tell of the same events. Calls of Winsock return 10054 for a reset, calls
//! of Win32 64, and a request that ends later leaves an NTSTATUS (0xC000020D) in its block. The
//! status is the most exact of the three, so that it is translated here, to the code that a call of
//! Winsock would have returned. `RtlNtStatusToDosError` alone was rejected: it has one code, 59 or
//! 64, for events of several kinds, and others that no program for sockets knows.

use windows_sys::Win32::Foundation as win32;
use windows_sys::Win32::Networking::WinSock as winsock;

use crate::error::{ErrorKind, Operation};
use crate::sys::AcceptFault;

/// A code by the list it is from; the two do not overlap.
#[derive(Clone, Copy)]
enum Code {
    Win32(u32),
    Socket(winsock::WSA_ERROR),
}

impl Code {
    fn of(code: i32) -> Self {
        match u32::try_from(code) {
            Ok(code) if code < 10_000 => Code::Win32(code),
            _ => Code::Socket(code),
        }
    }
}

/// The kind of a system code; the same for the same event on every system.
pub(crate) fn error_kind(code: i32) -> ErrorKind {
    match Code::of(code) {
        Code::Win32(code) => win32_kind(code),
        Code::Socket(code) => socket_kind(code),
    }
}

fn win32_kind(code: u32) -> ErrorKind {
    match code {
        // Our own close never meets a request, because it cancels first: 1236 is the peer's doing.
        win32::ERROR_NETNAME_DELETED
        | win32::ERROR_CONNECTION_ABORTED
        | win32::ERROR_PIPE_NOT_CONNECTED => ErrorKind::Reset,
        win32::ERROR_CONNECTION_REFUSED
        | win32::ERROR_PORT_UNREACHABLE
        | win32::ERROR_REM_NOT_LIST => ErrorKind::Refused,
        win32::ERROR_OPERATION_ABORTED
        | win32::ERROR_REQUEST_ABORTED
        | win32::ERROR_HANDLES_CLOSED => ErrorKind::Cancelled,
        win32::ERROR_SEM_TIMEOUT | win32::ERROR_TIMEOUT => ErrorKind::TimedOut,
        win32::ERROR_NETWORK_UNREACHABLE
        | win32::ERROR_HOST_UNREACHABLE
        | win32::ERROR_HOST_DOWN
        | win32::ERROR_PROTOCOL_UNREACHABLE
        | win32::ERROR_BAD_NETPATH
        | win32::ERROR_NETWORK_BUSY
        | win32::ERROR_UNEXP_NET_ERR => ErrorKind::Unreachable,
        // 68: no source port is free.
        win32::ERROR_DUP_NAME | win32::ERROR_TOO_MANY_NAMES => ErrorKind::AddressInUse,
        win32::ERROR_INVALID_NETNAME => ErrorKind::AddressUnavailable,
        win32::ERROR_ACCESS_DENIED => ErrorKind::PermissionDenied,
        win32::ERROR_TOO_MANY_OPEN_FILES => ErrorKind::TooManyOpenFiles,
        win32::ERROR_NOT_ENOUGH_MEMORY
        | win32::ERROR_OUTOFMEMORY
        | win32::ERROR_NO_SYSTEM_RESOURCES
        | win32::ERROR_COMMITMENT_LIMIT
        | win32::ERROR_WORKING_SET_QUOTA
        | win32::ERROR_PAGEFILE_QUOTA
        | win32::ERROR_NOT_ENOUGH_QUOTA => ErrorKind::OutOfMemory,
        win32::ERROR_NOT_CONNECTED
        | win32::ERROR_CONNECTION_INVALID
        | win32::ERROR_GRACEFUL_DISCONNECT => ErrorKind::NotConnected,
        win32::ERROR_INVALID_PARAMETER => ErrorKind::InvalidInput,
        win32::ERROR_NOT_SUPPORTED | win32::ERROR_INVALID_FUNCTION => ErrorKind::Unsupported,
        _ => ErrorKind::Other,
    }
}

fn socket_kind(code: winsock::WSA_ERROR) -> ErrorKind {
    match code {
        // 10058 is how Wine tells that a peer has reset: our own shutdown refuses sends earlier.
        winsock::WSAECONNRESET
        | winsock::WSAECONNABORTED
        | winsock::WSAENETRESET
        | winsock::WSAESHUTDOWN => ErrorKind::Reset,
        winsock::WSAECONNREFUSED => ErrorKind::Refused,
        winsock::WSAETIMEDOUT => ErrorKind::TimedOut,
        winsock::WSAENETUNREACH
        | winsock::WSAEHOSTUNREACH
        | winsock::WSAENETDOWN
        | winsock::WSAEHOSTDOWN => ErrorKind::Unreachable,
        winsock::WSAEADDRINUSE => ErrorKind::AddressInUse,
        winsock::WSAEADDRNOTAVAIL => ErrorKind::AddressUnavailable,
        winsock::WSAEACCES => ErrorKind::PermissionDenied,
        winsock::WSAEMFILE => ErrorKind::TooManyOpenFiles,
        winsock::WSAENOBUFS => ErrorKind::OutOfMemory,
        winsock::WSAENOTCONN | winsock::WSAEDISCON => ErrorKind::NotConnected,
        winsock::WSAEINVAL
        | winsock::WSAEFAULT
        | winsock::WSAEMSGSIZE
        | winsock::WSAEDESTADDRREQ => ErrorKind::InvalidInput,
        winsock::WSAEOPNOTSUPP
        | winsock::WSAEAFNOSUPPORT
        | winsock::WSAEPROTONOSUPPORT
        | winsock::WSAENOPROTOOPT => ErrorKind::Unsupported,
        _ => ErrorKind::Other,
    }
}

/// The kind of a code that a bind failed with. Windows refuses a port that another socket holds for
/// itself as forbidden, and has no other word for an address without a free port than for memory.
pub(crate) fn bind_error_kind(code: i32) -> ErrorKind {
    match code {
        winsock::WSAEACCES | winsock::WSAENOBUFS => ErrorKind::AddressInUse,
        code => error_kind(code),
    }
}

/// The kind of a code that a connect itself ended with, after its bind.
pub(crate) fn connect_error_kind(code: i32) -> ErrorKind {
    error_kind(code)
}

/// What cures this here and nowhere else.
pub(crate) fn cure(
    kind: ErrorKind,
    operation: Operation,
    code: Option<i32>,
) -> Option<&'static str> {
    match (kind, operation) {
        (ErrorKind::AddressInUse, Operation::Listen) if code == Some(winsock::WSAEACCES) => Some(
            "choose another port, end the program that holds it, or look whether Windows keeps it \
             for itself: netsh int ipv4 show excludedportrange protocol=tcp",
        ),
        (ErrorKind::AddressInUse, Operation::Connect) => Some(
            "no source port is free: name another source, close connections, or allow more ports: \
             netsh int ipv4 set dynamicport tcp start=10000 num=55536",
        ),
        (ErrorKind::InvalidInput, Operation::Associate) => Some(
            "Windows gives a socket to one port, whichever of its handles asks: share its \
             SocketRef in place of a clone, and associate no handle that was opened as blocking",
        ),
        // Windows has no ports that are kept for the administrator.
        (ErrorKind::PermissionDenied, Operation::Listen) => {
            Some("let the program through the firewall, or run with more rights")
        }
        _ => None,
    }
}

/// The code of a request that ended with this status, which is none of success.
///
/// Those that are not named here become what Win32 has for them.
pub(crate) fn code_of_status(status: win32::NTSTATUS) -> i32 {
    match status {
        // Wine says `HANDLES_CLOSED` where a handle was closed under a request.
        win32::STATUS_CANCELLED | win32::STATUS_REQUEST_ABORTED | win32::STATUS_HANDLES_CLOSED => {
            winsock::WSA_OPERATION_ABORTED
        }
        win32::STATUS_CONNECTION_RESET
        | win32::STATUS_CONNECTION_DISCONNECTED
        | win32::STATUS_REMOTE_DISCONNECT
        | win32::STATUS_LINK_FAILED => winsock::WSAECONNRESET,
        win32::STATUS_CONNECTION_ABORTED
        | win32::STATUS_LOCAL_DISCONNECT
        | win32::STATUS_TRANSACTION_ABORTED => winsock::WSAECONNABORTED,
        win32::STATUS_CONNECTION_REFUSED
        | win32::STATUS_REMOTE_NOT_LISTENING
        | win32::STATUS_PORT_UNREACHABLE => winsock::WSAECONNREFUSED,
        win32::STATUS_IO_TIMEOUT | win32::STATUS_LINK_TIMEOUT | win32::STATUS_TIMEOUT => {
            winsock::WSAETIMEDOUT
        }
        win32::STATUS_NETWORK_UNREACHABLE
        | win32::STATUS_PROTOCOL_UNREACHABLE
        | win32::STATUS_BAD_NETWORK_PATH => winsock::WSAENETUNREACH,
        // A router gave up on the packet: as on Linux, the host cannot be reached.
        win32::STATUS_HOST_UNREACHABLE | win32::STATUS_HOPLIMIT_EXCEEDED => {
            winsock::WSAEHOSTUNREACH
        }
        win32::STATUS_HOST_DOWN => winsock::WSAEHOSTDOWN,
        // The interface or its driver is gone.
        win32::STATUS_NETWORK_BUSY
        | win32::STATUS_INVALID_NETWORK_RESPONSE
        | win32::STATUS_UNEXPECTED_NETWORK_ERROR
        | win32::STATUS_NO_SUCH_DEVICE
        | win32::STATUS_NO_SUCH_FILE
        | win32::STATUS_OBJECT_NAME_NOT_FOUND
        | win32::STATUS_OBJECT_PATH_NOT_FOUND => winsock::WSAENETDOWN,
        win32::STATUS_ADDRESS_ALREADY_EXISTS
        | win32::STATUS_SHARING_VIOLATION
        | win32::STATUS_TOO_MANY_ADDRESSES => winsock::WSAEADDRINUSE,
        win32::STATUS_CONFLICTING_ADDRESSES
        | win32::STATUS_INVALID_ADDRESS
        | win32::STATUS_INVALID_ADDRESS_COMPONENT => winsock::WSAEADDRNOTAVAIL,
        win32::STATUS_INSUFFICIENT_RESOURCES
        | win32::STATUS_NO_MEMORY
        | win32::STATUS_COMMITMENT_LIMIT
        | win32::STATUS_PAGEFILE_QUOTA
        | win32::STATUS_QUOTA_EXCEEDED
        | win32::STATUS_REMOTE_RESOURCES
        | win32::STATUS_TOO_MANY_PAGING_FILES
        | win32::STATUS_WORKING_SET_QUOTA => winsock::WSAENOBUFS,
        win32::STATUS_INVALID_CONNECTION | win32::STATUS_CONNECTION_INVALID => winsock::WSAENOTCONN,
        win32::STATUS_GRACEFUL_DISCONNECT => winsock::WSAEDISCON,
        win32::STATUS_PIPE_DISCONNECTED => winsock::WSAESHUTDOWN,
        win32::STATUS_BUFFER_OVERFLOW | win32::STATUS_INVALID_BUFFER_SIZE => winsock::WSAEMSGSIZE,
        win32::STATUS_ACCESS_VIOLATION | win32::STATUS_BUFFER_TOO_SMALL => winsock::WSAEFAULT,
        win32::STATUS_INVALID_HANDLE | win32::STATUS_OBJECT_TYPE_MISMATCH => winsock::WSAENOTSOCK,
        win32::STATUS_NOT_SUPPORTED | win32::STATUS_NOT_IMPLEMENTED => winsock::WSAEOPNOTSUPP,
        win32::STATUS_DEVICE_NOT_READY | win32::STATUS_REQUEST_NOT_ACCEPTED => {
            winsock::WSAEWOULDBLOCK
        }
        status => {
            // SAFETY: a translation of one number into another.
            let code = unsafe { win32::RtlNtStatusToDosError(status) };
            code as i32
        }
    }
}

/// What the driver itself reports when a request that was asked to end has ended.
pub(crate) const CANCELLED: i32 = winsock::WSA_OPERATION_ABORTED;

pub(crate) fn is_cancelled(code: i32) -> bool {
    error_kind(code) == ErrorKind::Cancelled
}

/// Whether a send failed because nothing can be sent any more, without saying why: Windows says.
pub(crate) fn is_broken_pipe(_code: i32) -> bool {
    false
}

pub(crate) fn accept_fault(code: i32) -> AcceptFault {
    match (error_kind(code), Code::of(code)) {
        (ErrorKind::TooManyOpenFiles, _) => AcceptFault::Descriptors,
        (ErrorKind::OutOfMemory, _) => AcceptFault::Memory,
        (ErrorKind::InvalidInput | ErrorKind::Unsupported, _)
        | (_, Code::Win32(win32::ERROR_INVALID_HANDLE) | Code::Socket(winsock::WSAENOTSOCK)) => {
            AcceptFault::Listener
        }
        _ => AcceptFault::ThisConnection,
    }
}

#[cfg(test)]
#[path = "codes/tests.rs"]
mod tests;
