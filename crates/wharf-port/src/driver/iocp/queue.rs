//! The completion port itself: associate, post, dequeue.
//!
//! A packet's key is the slot's number, not the caller's key. The caller's key is in the slot, so
//! any value is legal and no value is ever taken for a pointer (golang #21172 and #58870 are
//! crashes caused by foreign packets). Packets are dequeued in batches. The block of a request has
//! its result.

use std::os::windows::io::{AsRawHandle, AsRawSocket, FromRawHandle, OwnedHandle};
use std::ptr;
use std::time::Duration;

use windows_sys::Win32::Foundation::{HANDLE, INVALID_HANDLE_VALUE, WAIT_TIMEOUT};
use windows_sys::Win32::System::IO::{
    CreateIoCompletionPort, GetQueuedCompletionStatusEx, OVERLAPPED, OVERLAPPED_ENTRY,
    PostQueuedCompletionStatus,
};
use windows_sys::Win32::System::Threading::INFINITE;

use crate::core::slot::SlotId;
use crate::sys::{self, Handle};

/// The most packets that one call takes.
const PACKETS_MAX: usize = 64;

/// The key of packets that only wake a thread. No slot has this number.
const WAKE: usize = usize::MAX;

/// What a packet means.
#[derive(Clone, Copy, Debug)]
pub(super) enum Dequeued {
    /// A thread is to return.
    Wake,
    /// The request of this block, on the socket in this slot, is over.
    Request(u32, *mut OVERLAPPED),
}

#[derive(Debug)]
pub(super) struct Queue(OwnedHandle);

impl Queue {
    pub(super) fn new() -> Result<Self, i32> {
        // 0 lets as many threads run at a time as there are processors.
        let handle = create(INVALID_HANDLE_VALUE, ptr::null_mut(), 0)?;
        // SAFETY: just created, and no other code owns it.
        Ok(Queue(unsafe { OwnedHandle::from_raw_handle(handle) }))
    }

    /// Lets the ends of this socket's requests come here, as long as it is open.
    pub(super) fn associate(&self, socket: &Handle, id: SlotId) -> Result<(), i32> {
        let socket = socket.as_raw_socket() as HANDLE;
        create(socket, self.0.as_raw_handle(), id.index as usize).map(drop)
    }

    /// Posts a packet that wakes a thread. Returns whether the system took it.
    pub(super) fn post_wake(&self) -> bool {
        // SAFETY: the values of a posted packet mean nothing to the system.
        let result =
            unsafe { PostQueuedCompletionStatus(self.0.as_raw_handle(), 0, WAKE, ptr::null()) };
        result != 0
    }

    /// Waits for packets, at most this long, and passes each to `take`.
    pub(super) fn dequeue(
        &self,
        at_most: Option<Duration>,
        packets_max: usize,
        mut take: impl FnMut(Dequeued),
    ) -> Result<(), i32> {
        let mut entries = [OVERLAPPED_ENTRY::default(); PACKETS_MAX];
        let wanted = packets_max.clamp(1, PACKETS_MAX) as u32;
        let mut count = 0;
        // SAFETY: only the call writes the entries and the count, within `wanted`.
        let result = unsafe {
            GetQueuedCompletionStatusEx(
                self.0.as_raw_handle(),
                entries.as_mut_ptr(),
                wanted,
                &raw mut count,
                milliseconds(at_most),
                0,
            )
        };
        if result == 0 {
            // After a time-out the count says 1, on Windows and on Wine, although nothing was
            // dequeued.
            let code = sys::last_error();
            let timed_out = code == WAIT_TIMEOUT as i32;
            return if timed_out { Ok(()) } else { Err(code) };
        }
        for entry in &entries[..count as usize] {
            take(match entry.lpCompletionKey {
                WAKE => Dequeued::Wake,
                key => Dequeued::Request(key as u32, entry.lpOverlapped),
            });
        }
        Ok(())
    }
}

fn create(file: HANDLE, port: HANDLE, key: usize) -> Result<HANDLE, i32> {
    // SAFETY: the handles are open for the call; no memory is handed over.
    let handle = unsafe { CreateIoCompletionPort(file, port, key, 0) };
    if handle.is_null() {
        return Err(sys::last_error());
    }
    Ok(handle)
}

/// Returns whole milliseconds, rounded up, so that no wait ends early.
fn milliseconds(at_most: Option<Duration>) -> u32 {
    let Some(at_most) = at_most else {
        return INFINITE;
    };
    let whole = at_most.as_nanos().div_ceil(1_000_000);
    u32::try_from(whole).map_or(INFINITE - 1, |whole| whole.min(INFINITE - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_rounded_up_to_milliseconds() {
        assert_eq!(milliseconds(None), INFINITE);
        assert_eq!(milliseconds(Some(Duration::ZERO)), 0);
        assert_eq!(milliseconds(Some(Duration::from_nanos(1))), 1);
        assert_eq!(milliseconds(Some(Duration::from_micros(1_001))), 2);
        assert_eq!(milliseconds(Some(Duration::MAX)), INFINITE - 1);
    }

    #[test]
    fn posted_wakes_come_one_by_one() {
        let queue = Queue::new().expect("the system creates a completion port");
        assert!(queue.post_wake() && queue.post_wake() && queue.post_wake());
        let mut wakes = Vec::new();
        let limits = [2, 2, 2];
        for limit in limits {
            let mut count = 0;
            let dequeued = queue.dequeue(Some(Duration::ZERO), limit, |packet| {
                assert!(matches!(packet, Dequeued::Wake));
                count += 1;
            });
            dequeued.expect("an empty port is no error");
            wakes.push(count);
        }
        assert_eq!(wakes, [2, 1, 0]);
    }
}
