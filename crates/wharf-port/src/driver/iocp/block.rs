//! The memory the system writes to: one block per request, at an address that stays.
//!
//! What a request needs beyond the call that makes it is its `OVERLAPPED`; Winsock captures buffer
//! lists and addresses in the call. The reading side's block is part of the slot, because an idle
//! connection always has a request there; that of the writing side comes with the work block. The
//! cells are raw memory to the compiler: no reference to what the system may write is ever made.

use std::cell::UnsafeCell;
use std::fmt;
use std::ptr::NonNull;

use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::System::IO::OVERLAPPED;

use crate::sys;

/// An `OVERLAPPED` that is lent to the system for one request after another.
#[derive(Default)]
pub(super) struct Overlapped(UnsafeCell<OVERLAPPED>);

// SAFETY: the cell is read and written by the thread that holds its slot's lock, and only while no
// request is with the system; in between only the system touches it.
unsafe impl Send for Overlapped {}
// SAFETY: as above.
unsafe impl Sync for Overlapped {}

impl Overlapped {
    /// The address as a packet brings it; never read through unless it is one's own.
    pub(super) fn address(&self) -> *mut OVERLAPPED {
        self.0.get()
    }

    /// Empties the block for a new request, and lends it. The event stays 0: with one, the request
    /// would end with the thread that made it.
    ///
    /// The caller holds the slot's lock, and no request of this block is with the system.
    pub(super) fn lend(&self) -> *mut OVERLAPPED {
        // SAFETY: nobody else touches the cell, as the caller promises.
        unsafe { self.address().write(OVERLAPPED::default()) };
        self.address()
    }

    /// How the request ended, and how many bytes it moved. The caller has taken its packet and
    /// holds the slot's lock.
    pub(super) fn result(&self) -> Result<usize, i32> {
        // SAFETY: the packet is out, so the system is done with the block.
        let (status, count) = unsafe {
            let block = self.address();
            ((*block).Internal, (*block).InternalHigh)
        };
        // An NTSTATUS is 32 bits wide; the warnings among them are failures here (676 of Wine).
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

/// What a poll of the network driver asks and answers: one socket, and what happened to it.
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
    /// Fills the poll in and lends it; the same conditions hold as for the slot's `OVERLAPPED`.
    pub(super) fn lend(&self, poll: Poll) -> *mut Poll {
        // SAFETY: no request is with the system, as the caller promises.
        unsafe { self.0.get().write(poll) };
        self.0.get()
    }

    /// What happened; the packet of the poll is out.
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
    /// The block of the writing side, made at the first send and used for all that follow.
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

/// A heap value at an address that stays, which the system may hold too.
///
/// Invariant: `0` came from a box that this value alone owns. No `Box`, because moving one claims
/// that nobody else uses its memory.
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

    /// The value, once the system is done with it.
    pub(super) fn into_inner(self) -> T {
        let pointer = self.0;
        std::mem::forget(self);
        // SAFETY: from a box, by the invariant, and nobody drops it but this.
        *unsafe { Box::from_raw(pointer.as_ptr()) }
    }
}

impl<T> Drop for Lent<T> {
    fn drop(&mut self) {
        // SAFETY: from a box, by the invariant. Whoever drops it knows that no request holds it:
        // a port that cannot know keeps its tables for ever.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

#[cfg(test)]
mod tests {
    use crate::core::slot::Slot;

    /// What an associated socket costs while nothing happens: its slot, with both blocks.
    #[test]
    fn an_idle_socket_costs_at_most_160_bytes() {
        let bytes = size_of::<Slot>();
        println!("{bytes} bytes a slot");
        assert!(bytes <= 160, "{bytes} bytes a slot");
    }
}
