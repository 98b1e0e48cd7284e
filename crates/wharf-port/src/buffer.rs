//! Bytes that operations own: what a send takes, and what a receive lends.
//!
//! Contract C3: an operation owns its bytes until its outcome is delivered. So buffers move in and
//! come back in packets. Borrowed slices were rejected: safe code may forget a guard, and the
//! kernel would continue to write (RUSTSEC-2020-0021).
//!
//! A lease is a buffer of the pool. A lease that is queued for a peer that does not read is copied
//! out when the pool runs short. So slow peers cannot exhaust the pool.

use std::fmt;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::core::Core;
use crate::core::pool::PoolBuffer;
use crate::core::slot::SlotId;

/// Bytes to send: a vector, a static slice, shared bytes, or a [`Lease`] passed on without a copy.
///
/// ```
/// use wharf_port::Buffer;
/// let buffer = Buffer::from(b"Disconnecting you..");
/// assert_eq!(buffer.len(), 19);
/// assert_eq!(Buffer::from(vec![1, 2]).into_vec(), [1, 2]);
/// ```
pub struct Buffer(Repr);

enum Repr {
    Bytes(Vec<u8>),
    Lease(Lease),
    Static(&'static [u8]),
    Shared(Arc<[u8]>),
}

impl Buffer {
    /// Returns the bytes as a vector. Copies them unless they are one already.
    ///
    /// ```
    /// assert_eq!(wharf_port::Buffer::from("ab").into_vec(), b"ab");
    /// ```
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        match self.0 {
            Repr::Bytes(bytes) => bytes,
            _ => self.to_vec(),
        }
    }
}

impl Buffer {
    /// Copies a queued lease out of its pool if that pool runs short. The pool may be another
    /// port's.
    pub(crate) fn leave_scarce_pool(&mut self) {
        if let Repr::Lease(lease) = &mut self.0 {
            if matches!(lease.bytes, Bytes::Pool(_)) && lease.core.pool().is_scarce() {
                lease.leave_pool();
            }
        }
    }

    /// Whether it is a lease of a port whose pool runs short.
    pub(crate) fn comes_from_scarce_pool(&self) -> bool {
        match &self.0 {
            Repr::Lease(lease) => lease.core.pool().is_scarce(),
            Repr::Bytes(_) | Repr::Static(_) | Repr::Shared(_) => false,
        }
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Buffer(Repr::Static(&[]))
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Bytes(bytes) => bytes,
            Repr::Lease(lease) => lease,
            Repr::Static(bytes) => bytes,
            Repr::Shared(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.len())
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Buffer(Repr::Bytes(bytes))
    }
}

impl From<String> for Buffer {
    fn from(text: String) -> Self {
        Buffer(Repr::Bytes(text.into_bytes()))
    }
}

impl From<Lease> for Buffer {
    fn from(lease: Lease) -> Self {
        Buffer(Repr::Lease(lease))
    }
}

impl From<&'static [u8]> for Buffer {
    fn from(bytes: &'static [u8]) -> Self {
        Buffer(Repr::Static(bytes))
    }
}

impl From<&'static str> for Buffer {
    fn from(text: &'static str) -> Self {
        Buffer(Repr::Static(text.as_bytes()))
    }
}

impl<const N: usize> From<&'static [u8; N]> for Buffer {
    fn from(bytes: &'static [u8; N]) -> Self {
        Buffer(Repr::Static(bytes))
    }
}

impl From<Arc<[u8]>> for Buffer {
    fn from(bytes: Arc<[u8]>) -> Self {
        Buffer(Repr::Shared(bytes))
    }
}

/// Received bytes, lent by the port's pool until this value is dropped.
///
/// Any thread may keep it, send it on or drop it, on any port, also after its socket or its port is
/// gone. One stream has at most `leases_per_socket` leases out at a time. At that bound the port
/// stops reading this stream, and only this one, until a lease comes back. A lease is never empty.
///
/// ```
/// use wharf_port::Lease;
/// fn crosses_threads<T: Send + Sync + 'static>() {}
/// crosses_threads::<Lease>();
/// ```
pub struct Lease {
    core: Arc<Core>,
    bytes: Bytes,
    start: u32,
    count: u32,
    socket: SlotId,
}

/// Where the bytes of a lease are.
enum Bytes {
    Pool(PoolBuffer),
    /// Copied out of the pool, because other streams wait for the buffer.
    Heap(Box<[u8]>),
    /// Copied when it was received, because it is small. The pool counts it.
    Small(Box<[u8]>),
    /// Only while the lease is dropped.
    Returned,
}

impl Lease {
    /// Wraps a buffer whose first `count` bytes hold data. The caller has counted the lease against
    /// its socket. If the pool runs short, a few bytes are copied and do not hold a buffer, because
    /// it is unknown when the program reads the lease.
    pub(crate) fn new(core: &Arc<Core>, buffer: PoolBuffer, count: usize, socket: SlotId) -> Self {
        debug_assert!(count <= core.pool().buffer_bytes());
        let bytes = if core.pool().copies_out(count) {
            let copy = Box::from(&core.pool().bytes_of(&buffer)[..count]);
            core.buffer_returned(buffer);
            Bytes::Small(copy)
        } else {
            Bytes::Pool(buffer)
        };
        let count = u32::try_from(count).expect("a pool buffer is under 4 GiB");
        Lease {
            core: Arc::clone(core),
            bytes,
            start: 0,
            count,
            socket,
        }
    }

    /// Removes the first `count` bytes from view. The buffer stays lent.
    ///
    /// # Panics
    /// If `count` is more than the lease holds.
    ///
    /// ```
    /// fn after_header(mut lease: wharf_port::Lease) -> wharf_port::Lease {
    ///     lease.skip(4.min(lease.len()));
    ///     lease
    /// }
    /// ```
    pub fn skip(&mut self, count: usize) {
        assert!(
            count <= self.count as usize,
            "skips more bytes than the lease holds"
        );
        // The sum fits: both are parts of one buffer.
        self.start += count as u32;
        self.count -= count as u32;
    }

    /// Copies the bytes out of the pool and returns the buffer. The lease still counts against its
    /// stream.
    fn leave_pool(&mut self) {
        let copy = Bytes::Heap(Box::from(&**self));
        self.start = 0;
        if let Bytes::Pool(buffer) = mem::replace(&mut self.bytes, copy) {
            self.core.buffer_returned(buffer);
        }
    }

    fn range(&self) -> std::ops::Range<usize> {
        self.start as usize..(self.start + self.count) as usize
    }
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let bytes = match &self.bytes {
            Bytes::Pool(buffer) => self.core.pool().bytes_of(buffer),
            Bytes::Heap(bytes) | Bytes::Small(bytes) => bytes,
            Bytes::Returned => &[],
        };
        &bytes[self.range()]
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut [u8] {
        let range = self.range();
        let bytes = match &mut self.bytes {
            Bytes::Pool(buffer) => self.core.pool().bytes_of_mut(buffer),
            Bytes::Heap(bytes) | Bytes::Small(bytes) => bytes,
            Bytes::Returned => &mut [],
        };
        &mut bytes[range]
    }
}

impl AsRef<[u8]> for Lease {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({} bytes)", self.count)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let bytes = mem::replace(&mut self.bytes, Bytes::Returned);
        self.core.lease_returned(self.socket);
        match bytes {
            Bytes::Pool(buffer) => self.core.buffer_returned(buffer),
            Bytes::Small(copy) => self.core.pool().copy_is_gone(copy.len()),
            Bytes::Heap(_) | Bytes::Returned => {}
        }
    }
}
