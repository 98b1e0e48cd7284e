//! Every status with which a request on a socket may end, by number, and what it means.
//!
//! The numbers are from ntstatus.h, so that the test finds a name that was confused with another.

use crate::error::ErrorKind::{self, *};

use super::{bind_error_kind, code_of_status, error_kind, winsock};

/// Statuses, each with its kind for a stream.
const STATUSES: [(u32, ErrorKind); 59] = [
    (0x0000_0102, TimedOut),           // STATUS_TIMEOUT
    (0x8000_0005, InvalidInput),       // STATUS_BUFFER_OVERFLOW
    (0x8000_000A, Cancelled),          // STATUS_HANDLES_CLOSED
    (0xC000_0002, Unsupported),        // STATUS_NOT_IMPLEMENTED
    (0xC000_0005, InvalidInput),       // STATUS_ACCESS_VIOLATION
    (0xC000_0007, OutOfMemory),        // STATUS_PAGEFILE_QUOTA
    (0xC000_0008, Other),              // STATUS_INVALID_HANDLE
    (0xC000_000D, InvalidInput),       // STATUS_INVALID_PARAMETER
    (0xC000_000E, Unreachable),        // STATUS_NO_SUCH_DEVICE
    (0xC000_000F, Unreachable),        // STATUS_NO_SUCH_FILE
    (0xC000_0017, OutOfMemory),        // STATUS_NO_MEMORY
    (0xC000_0018, AddressUnavailable), // STATUS_CONFLICTING_ADDRESSES
    (0xC000_0022, PermissionDenied),   // STATUS_ACCESS_DENIED
    (0xC000_0023, InvalidInput),       // STATUS_BUFFER_TOO_SMALL
    (0xC000_0024, Other),              // STATUS_OBJECT_TYPE_MISMATCH
    (0xC000_0034, Unreachable),        // STATUS_OBJECT_NAME_NOT_FOUND
    (0xC000_003A, Unreachable),        // STATUS_OBJECT_PATH_NOT_FOUND
    (0xC000_0043, AddressInUse),       // STATUS_SHARING_VIOLATION
    (0xC000_0044, OutOfMemory),        // STATUS_QUOTA_EXCEEDED
    (0xC000_0097, OutOfMemory),        // STATUS_TOO_MANY_PAGING_FILES
    (0xC000_009A, OutOfMemory),        // STATUS_INSUFFICIENT_RESOURCES
    (0xC000_00A1, OutOfMemory),        // STATUS_WORKING_SET_QUOTA
    (0xC000_00A3, Other),              // STATUS_DEVICE_NOT_READY
    (0xC000_00B0, Reset),              // STATUS_PIPE_DISCONNECTED
    (0xC000_00B5, TimedOut),           // STATUS_IO_TIMEOUT
    (0xC000_00BB, Unsupported),        // STATUS_NOT_SUPPORTED
    (0xC000_00BC, Refused),            // STATUS_REMOTE_NOT_LISTENING
    (0xC000_00BE, Unreachable),        // STATUS_BAD_NETWORK_PATH
    (0xC000_00BF, Unreachable),        // STATUS_NETWORK_BUSY
    (0xC000_00C3, Unreachable),        // STATUS_INVALID_NETWORK_RESPONSE
    (0xC000_00C4, Unreachable),        // STATUS_UNEXPECTED_NETWORK_ERROR
    (0xC000_00D0, Other),              // STATUS_REQUEST_NOT_ACCEPTED
    (0xC000_0120, Cancelled),          // STATUS_CANCELLED
    (0xC000_012D, OutOfMemory),        // STATUS_COMMITMENT_LIMIT
    (0xC000_013B, Reset),              // STATUS_LOCAL_DISCONNECT
    (0xC000_013C, Reset),              // STATUS_REMOTE_DISCONNECT
    (0xC000_013D, OutOfMemory),        // STATUS_REMOTE_RESOURCES
    (0xC000_013E, Reset),              // STATUS_LINK_FAILED
    (0xC000_013F, TimedOut),           // STATUS_LINK_TIMEOUT
    (0xC000_0140, NotConnected),       // STATUS_INVALID_CONNECTION
    (0xC000_0141, AddressUnavailable), // STATUS_INVALID_ADDRESS
    (0xC000_0206, InvalidInput),       // STATUS_INVALID_BUFFER_SIZE
    (0xC000_0207, AddressUnavailable), // STATUS_INVALID_ADDRESS_COMPONENT
    (0xC000_0209, AddressInUse),       // STATUS_TOO_MANY_ADDRESSES
    (0xC000_020A, AddressInUse),       // STATUS_ADDRESS_ALREADY_EXISTS
    (0xC000_020C, Reset),              // STATUS_CONNECTION_DISCONNECTED
    (0xC000_020D, Reset),              // STATUS_CONNECTION_RESET
    (0xC000_020F, Reset),              // STATUS_TRANSACTION_ABORTED
    (0xC000_0236, Refused),            // STATUS_CONNECTION_REFUSED
    (0xC000_0237, NotConnected),       // STATUS_GRACEFUL_DISCONNECT
    (0xC000_023A, NotConnected),       // STATUS_CONNECTION_INVALID
    (0xC000_023C, Unreachable),        // STATUS_NETWORK_UNREACHABLE
    (0xC000_023D, Unreachable),        // STATUS_HOST_UNREACHABLE
    (0xC000_023E, Unreachable),        // STATUS_PROTOCOL_UNREACHABLE
    (0xC000_023F, Refused),            // STATUS_PORT_UNREACHABLE
    (0xC000_0240, Cancelled),          // STATUS_REQUEST_ABORTED
    (0xC000_0241, Reset),              // STATUS_CONNECTION_ABORTED
    (0xC000_0350, Unreachable),        // STATUS_HOST_DOWN
    (0xC000_A012, Unreachable),        // STATUS_HOPLIMIT_EXCEEDED
];

#[test]
fn every_status_has_its_kind() {
    for (status, kind) in STATUSES {
        let code = code_of_status(status as i32);
        assert_eq!(error_kind(code), kind, "status {status:#X}, code {code}");
    }
}

/// Calls that fail at once return these codes instead of a status.
#[test]
fn every_code_has_its_kind() {
    let codes = [
        (52, AddressInUse),
        (53, Unreachable),
        (59, Unreachable),
        (64, Reset),
        (68, AddressInUse),
        (121, TimedOut),
        (233, Reset),
        (676, Cancelled),
        (995, Cancelled),
        (1225, Refused),
        (1226, NotConnected),
        (1231, Unreachable),
        (1234, Refused),
        (1235, Cancelled),
        (1236, Reset),
        (1256, Unreachable),
        (1450, OutOfMemory),
        (1453, OutOfMemory),
        (1455, OutOfMemory),
        (10013, PermissionDenied),
        (10048, AddressInUse),
        (10055, OutOfMemory),
        (10101, NotConnected),
    ];
    for (code, kind) in codes {
        assert_eq!(error_kind(code), kind, "code {code}");
    }
}

/// A port that another socket holds exclusively is reported as forbidden.
#[test]
fn a_bind_has_kinds_of_its_own() {
    assert_eq!(bind_error_kind(winsock::WSAEACCES), AddressInUse);
    assert_eq!(bind_error_kind(winsock::WSAENOBUFS), AddressInUse);
    assert_eq!(bind_error_kind(winsock::WSAEADDRINUSE), AddressInUse);
    let elsewhere = bind_error_kind(winsock::WSAEADDRNOTAVAIL);
    assert_eq!(elsewhere, AddressUnavailable);
}
