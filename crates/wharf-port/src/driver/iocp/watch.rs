//! Watching for the peer's leaving: a poll of the network driver, as `select` itself makes it.
//!
//! Winsock has no overlapped call that completes when the peer leaves and consumes no data. So this
//! calls `\Device\Afd` below it, as wepoll, mio and libuv do. The poll goes to the watched socket's
//! own handle: its packet comes to the port with which the socket is associated, and it is
//! cancelled like any other request. One handle of `\Device\Afd` for many sockets was rejected: it
//! needs tables, and a cancel walks through all of its requests.
//!
//! Wine 8 and 10 report a FIN only once the data before it has been read (a named difference).

use std::ffi::c_void;
use std::ptr;

use windows_sys::Wdk::System::IO::NtDeviceIoControlFile;
use windows_sys::Win32::Foundation::STATUS_PENDING;
use windows_sys::Win32::System::IO::OVERLAPPED;

use super::block::Poll;
use super::request::base;
use crate::sys::{self, Handle};

const IOCTL_AFD_POLL: u32 = 0x0001_2024;

/// The peer has sent FIN.
pub(super) const DISCONNECTED: u32 = 0x08;
/// The connection was reset.
pub(super) const ABORTED: u32 = 0x10;

/// Waits until the peer leaves.
///
/// # Safety
/// `poll` and `overlapped` stay valid, and no other code touches them, until the packet.
pub(super) unsafe fn wait_leaving(
    socket: &Handle,
    poll: *mut Poll,
    overlapped: *mut OVERLAPPED,
) -> Result<(), i32> {
    let bytes = size_of::<Poll>() as u32;
    // SAFETY: the first half of an OVERLAPPED is the status block of the native interface; both are
    // the caller's promise. The context is what the packet carries, as with WSARecv.
    let status = unsafe {
        NtDeviceIoControlFile(
            base(socket),
            ptr::null_mut(),
            None,
            overlapped.cast::<c_void>(),
            overlapped.cast(),
            IOCTL_AFD_POLL,
            poll.cast::<c_void>(),
            bytes,
            poll.cast::<c_void>(),
            bytes,
        )
    };
    if status >= 0 || status == STATUS_PENDING {
        return Ok(());
    }
    Err(sys::code_of_status(status))
}

/// Returns the poll to make: whether this socket's peer leaves, without a time limit.
pub(super) fn question(socket: &Handle) -> Poll {
    Poll {
        timeout: i64::MAX,
        sockets: 1,
        exclusive: 0,
        socket: base(socket),
        events: DISCONNECTED | ABORTED,
        status: 0,
    }
}
