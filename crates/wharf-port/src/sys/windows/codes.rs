//! What the error codes of Windows mean: their kinds, and hints for some of them.
//!
//! Three lists of codes describe the same events. For a reset, calls of Winsock return 10054, calls
//! of Win32 return 64, and a request that ends later leaves an NTSTATUS (0xC000020D) in its block.
//! The status is the most exact of the three. So this module translates it to the code that a call
//! of Winsock would have returned. `RtlNtStatusToDosError` alone was rejected: it has one code, 59
//! or 64, for events of several kinds, and it has codes that no socket program knows.

use windows_sys::Win32::Foundation as win32;
use windows_sys::Win32::Networking::WinSock as winsock;

use crate::error::{ErrorKind, Operation};
use crate::sys::AcceptFault;

/// A code, by the list that it is from. The two lists do not overlap.
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

/// Returns the kind of a system code. An event has the same kind on every system.
pub(crate) fn error_kind(code: i32) -> ErrorKind {
    match Code::of(code) {
        Code::Win32(code) => win32_kind(code),
        Code::Socket(code) => socket_kind(code),
    }
}

fn win32_kind(code: u32) -> ErrorKind {
    match code {
        // 1236 is always the peer's doing: before we close a socket, we cancel its requests.
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
        // Wine reports a peer's reset as 10058. It cannot come from our own shutdown, after which
        // the port refuses sends without a call.
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

/// Returns the kind of a code with which a bind failed. If another socket has the port exclusively,
/// Windows reports that access is forbidden. If an address has no free port, it reports a lack of
/// buffers.
pub(crate) fn bind_error_kind(code: i32) -> ErrorKind {
    match code {
        winsock::WSAEACCES | winsock::WSAENOBUFS => ErrorKind::AddressInUse,
        code => error_kind(code),
    }
}

/// Returns the kind of a code with which the connect itself failed, after its bind.
pub(crate) fn connect_error_kind(code: i32) -> ErrorKind {
    error_kind(code)
}

/// Returns a hint that applies to Windows only.
pub(crate) fn hint(
    kind: ErrorKind,
    operation: Operation,
    code: Option<i32>,
) -> Option<&'static str> {
    match (kind, operation) {
        (ErrorKind::AddressInUse, Operation::Listen) if code == Some(winsock::WSAEACCES) => Some(
            "choose another port, end the program that holds it, or check whether Windows reserves \
             it: netsh int ipv4 show excludedportrange protocol=tcp",
        ),
        (ErrorKind::AddressInUse, Operation::Connect) => Some(
            "no source port is free: name another source, close connections, or allow more ports: \
             netsh int ipv4 set dynamicport tcp start=10000 num=55536",
        ),
        (ErrorKind::InvalidInput, Operation::Associate) => Some(
            "Windows associates a socket with one port, through all of its handles: share its \
             SocketRef instead of a clone, and associate no handle that was opened as blocking",
        ),
        // Windows has no privileged ports.
        (ErrorKind::PermissionDenied, Operation::Listen) => {
            Some("let the program through the firewall, or run with more rights")
        }
        _ => None,
    }
}

/// Returns the code for the status of a request that failed.
///
/// A status that is not listed here becomes the code that Win32 has for it.
pub(crate) fn code_of_status(status: win32::NTSTATUS) -> i32 {
    match status {
        // Wine reports `HANDLES_CLOSED` if a handle was closed while a request was pending.
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
        // A router dropped the packet: the host is unreachable, as on Linux.
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
            // SAFETY: the call translates one number into another and accesses no memory of ours.
            let code = unsafe { win32::RtlNtStatusToDosError(status) };
            code as i32
        }
    }
}

/// The code that the driver itself reports for a request that ended because it was cancelled.
pub(crate) const CANCELLED: i32 = winsock::WSA_OPERATION_ABORTED;

pub(crate) fn is_cancelled(code: i32) -> bool {
    error_kind(code) == ErrorKind::Cancelled
}

/// Whether this code of a failed send means that nothing can be sent any more, without a reason. On
/// Windows every code has a reason.
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
