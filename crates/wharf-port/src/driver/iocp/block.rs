//! The memory that the system writes to: one block per request, at a stable address.
//!
//! After the call that makes a request, the system needs only its `OVERLAPPED`: Winsock copies
//! buffer lists and addresses during the call. The block of the reading side is part of the slot,
//! because an idle connection always has a request there. The block of the writing side is part of
//! the work block. To the compiler the cells are raw memory: the code never makes a reference to
//! memory that the system may write.

use std::cell::UnsafeCell;
use std::fmt;
use std::ptr::NonNull;

use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::System::IO::OVERLAPPED;

use crate::sys;

/// An `OVERLAPPED` that is lent to the system for one request after another.
#[derive(Default)]
pub(super) struct Overlapped(UnsafeCell<OVERLAPPED>);

// SAFETY: only the thread that holds the slot's lock reads and writes the cell, and only while no
// request is with the system; in between only the system touches it.
unsafe impl Send for Overlapped {}
// SAFETY: as above.
unsafe impl Sync for Overlapped {}

impl Overlapped {
    /// Returns the address that a packet carries. An address from a packet is dereferenced only
    /// after it has matched one of our own.
    pub(super) fn address(&self) -> *mut OVERLAPPED {
        self.0.get()
    }

    /// Clears the block for a new request, and lends it. The event stays 0: with an event, the
    /// request would end with the thread that made it.
    ///
    /// The caller holds the slot's lock, and no request of this block is with the system.
    pub(super) fn lend(&self) -> *mut OVERLAPPED {
        // SAFETY: no other code touches the cell, as the caller promises.
        unsafe { self.address().write(OVERLAPPED::default()) };
        self.address()
    }

    /// Returns how the request ended, and how many bytes it moved. The caller has taken its packet
    /// and holds the slot's lock.
    pub(super) fn result(&self) -> Result<usize, i32> {
        // SAFETY: the packet is out, so the system is done with the block.
        let (status, count) = unsafe {
            let block = self.address();
            ((*block).Internal, (*block).InternalHigh)
        };
        // An NTSTATUS is 32 bits wide. Warnings count as failures here (676 of Wine).
        match status as u32 {
            0 => Ok(count),
            status => Err(sys::code_of_status(status as i32)),
        }
    }
}

impl fmt::Debug for Overlapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("Overlapped")
    }
}

/// What the driver keeps in each slot: the request of the reading side.
#[derive(Debug, Default)]
pub(crate) struct SlotBlock {
    pub(super) overlapped: Overlapped,
    pub(super) watched: Watched,
}

/// Input and output of a poll of the network driver: one socket, and what happened to it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Poll {
    pub(super) timeout: i64,
    pub(super) sockets: u32,
    pub(super) exclusive: u32,
    pub(super) socket: HANDLE,
    pub(super) events: u32,
    pub(super) status: i32,
}

/// A poll that is lent to the system together with the slot's `OVERLAPPED`.
pub(super) struct Watched(UnsafeCell<Poll>);

// SAFETY: as for `Overlapped`, whose request it belongs to.
unsafe impl Send for Watched {}
// SAFETY: as above.
unsafe impl Sync for Watched {}

impl Watched {
    /// Fills the poll in and lends it. The conditions for the slot's `OVERLAPPED` hold here too.
    pub(super) fn lend(&self, poll: Poll) -> *mut Poll {
        // SAFETY: no request is with the system, as the caller promises.
        unsafe { self.0.get().write(poll) };
        self.0.get()
    }

    /// Returns what happened. The packet of the poll is out.
    pub(super) fn events(&self) -> u32 {
        // SAFETY: the packet is out, so the system is done with the block.
        unsafe { (*self.0.get()).events }
    }
}

impl Default for Watched {
    fn default() -> Self {
        Watched(UnsafeCell::new(Poll {
            timeout: 0,
            sockets: 0,
            exclusive: 0,
            socket: std::ptr::null_mut(),
            events: 0,
            status: 0,
        }))
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("Watched")
    }
}

/// What the driver keeps in each work block: the request of the writing side.
#[derive(Debug, Default)]
pub(crate) struct WorkBlock {
    sending: Option<Lent<Overlapped>>,
}

impl WorkBlock {
    /// Returns the block of the writing side. The first send makes it, and later sends reuse it.
    pub(super) fn sending(&mut self) -> &Overlapped {
        self.sending
            .get_or_insert_with(|| Lent::new(Overlapped::default()))
            .get()
    }

    /// Whether this is the address of the writing side's block.
    pub(super) fn is_sending(&self, address: *mut OVERLAPPED) -> bool {
        let sending = self.sending.as_ref();
        sending.is_some_and(|sending| sending.get().address() == address)
    }
}

/// A heap value at a stable address, which the system may hold too.
///
/// Invariant: `0` came from a box that this value alone owns. It is not a `Box`, because moving a
/// `Box` asserts that no other code uses its memory.
#[derive(Debug)]
pub(super) struct Lent<T>(NonNull<T>);

// SAFETY: the value is owned, and what it holds may be sent.
unsafe impl<T: Send> Send for Lent<T> {}
// SAFETY: only shared references to the value are given out.
unsafe impl<T: Sync> Sync for Lent<T> {}

impl<T> Lent<T> {
    pub(super) fn new(value: T) -> Self {
        Lent(NonNull::from(Box::leak(Box::new(value))))
    }

    pub(super) fn get(&self) -> &T {
        // SAFETY: valid until the drop, by the invariant; what the system writes is in cells.
        unsafe { self.0.as_ref() }
    }

    /// Returns the value, once the system is done with it.
    pub(super) fn into_inner(self) -> T {
        let pointer = self.0;
        std::mem::forget(self);
        // SAFETY: from a box, by the invariant, and no other code drops it.
        *unsafe { Box::from_raw(pointer.as_ptr()) }
    }
}

impl<T> Drop for Lent<T> {
    fn drop(&mut self) {
        // SAFETY: from a box, by the invariant. The code that drops it knows that no request holds
        // it: a port that cannot know that keeps its tables forever.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

#[cfg(test)]
mod tests {
    use crate::core::slot::Slot;

    /// What an associated idle socket costs: its slot, with both blocks.
    #[test]
    fn an_idle_socket_costs_at_most_160_bytes() {
        let bytes = size_of::<Slot>();
        println!("{bytes} bytes a slot");
        assert!(bytes <= 160, "{bytes} bytes a slot");
    }
}
