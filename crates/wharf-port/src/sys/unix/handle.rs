//! An open socket on Linux: a descriptor of the process, or an entry in the table of a ring.
//!
//! One number holds either. So an idle socket pays no byte for a kind of descriptor that most ports
//! never use. An enum was rejected: it would take eight bytes instead of four. System calls take
//! descriptors only; the driver that has the ring is the only code that looks at entries.

use std::io;
use std::net::TcpStream;
use std::num::NonZeroI32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use socket2::Socket;

/// An open socket.
///
/// Invariant: a negative number is the bitwise complement of a descriptor that this value owns. A
/// positive number is a place in a ring's own table, counted from 1, which the driver of that ring
/// frees.
#[derive(Debug)]
pub(crate) struct Handle(NonZeroI32);

impl Handle {
    /// Makes the handle of the socket in this place of a ring's table.
    pub(crate) fn direct(place: u32) -> Self {
        let place = i32::try_from(place).ok().and_then(|it| it.checked_add(1));
        let place = place.and_then(NonZeroI32::new);
        Handle(place.expect("a table has far fewer places"))
    }

    /// Returns the place in a ring's table, if the socket has no descriptor.
    pub(crate) fn place(&self) -> Option<u32> {
        u32::try_from(self.0.get() - 1).ok()
    }

    /// Returns another descriptor of the same socket.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        self.as_fd().try_clone_to_owned().map(Handle::from)
    }

    /// Returns the descriptor. If the socket has none, returns this handle unchanged.
    pub(crate) fn into_descriptor(self) -> Result<OwnedFd, Self> {
        if self.place().is_some() {
            return Err(self);
        }
        let number = self.number();
        std::mem::forget(self);
        // SAFETY: by the invariant the value owned the descriptor, and it no longer closes it.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    }

    /// Returns the number that requests to a ring carry: a descriptor, or a place in its table.
    pub(crate) fn number(&self) -> i32 {
        match self.0.get() {
            complement @ ..0 => !complement,
            place => place - 1,
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.place().is_none() {
            // SAFETY: by the invariant this value owns the descriptor, and nothing uses this value
            // afterwards.
            drop(unsafe { OwnedFd::from_raw_fd(self.number()) });
        }
    }
}

impl AsFd for Handle {
    /// # Panics
    /// If the socket has no descriptor. Callers check that first.
    fn as_fd(&self) -> BorrowedFd<'_> {
        assert!(self.place().is_none(), "the socket has a descriptor");
        // SAFETY: by the invariant the descriptor is open as long as this value lives.
        unsafe { BorrowedFd::borrow_raw(self.number()) }
    }
}

impl AsRawFd for Handle {
    fn as_raw_fd(&self) -> i32 {
        self.as_fd().as_raw_fd()
    }
}

impl From<OwnedFd> for Handle {
    fn from(descriptor: OwnedFd) -> Self {
        let complement = NonZeroI32::new(!descriptor.into_raw_fd());
        Handle(complement.expect("no descriptor is -1"))
    }
}

impl From<Socket> for Handle {
    fn from(socket: Socket) -> Self {
        OwnedFd::from(socket).into()
    }
}

impl From<TcpStream> for Handle {
    fn from(socket: TcpStream) -> Self {
        OwnedFd::from(socket).into()
    }
}

impl From<UnixStream> for Handle {
    fn from(socket: UnixStream) -> Self {
        OwnedFd::from(socket).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_a_descriptor_or_a_place_in_four_bytes() {
        assert_eq!(size_of::<Option<Handle>>(), 4);
        let (socket, _peer) = UnixStream::pair().expect("sockets");
        let number = socket.as_raw_fd();
        let handle = Handle::from(socket);
        assert_eq!((handle.number(), handle.place()), (number, None));
        assert_eq!(handle.as_raw_fd(), number);
        for place in [0, 1, (1 << 20) - 1] {
            let handle = Handle::direct(place);
            assert_eq!(handle.place(), Some(place));
            assert_eq!(handle.number(), i32::try_from(place).expect("small"));
        }
    }
}
