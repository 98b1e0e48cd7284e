//! The ring of provided buffers: a small hot set of the pool that the kernel receives into.
//!
//! The kernel takes a buffer when there is data and not before, so an idle connection holds none.
//! The set starts small, because all of it passes through the cache. It doubles after a burst that
//! found it empty: many small messages need many buffers but touch little of each. Bulk does not
//! grow it beyond what stays in the cache (a sink with a set of 16 MiB took 2.5 times the processor
//! time of one with 2 MiB). The set never has more than a quarter of the pool, so the rest can be
//! lent.
//!
//! Only the thread inside the driver touches it.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use crate::core::Core;
use crate::core::options::PoolOptions;
use crate::core::pool::PoolBuffer;
use crate::sys::Pages;

/// Bytes of the hot set at first: a quarter of a common second-level cache.
const HOT_BYTES: usize = 256 * 1024;
/// The most bytes that pass through the set in one round: a common second-level cache, or half of
/// one.
const WARM_BYTES: usize = 1024 * 1024;
/// How many messages the average of their sizes covers, as a power of two.
const AVERAGE_SHIFT: u32 = 5;
/// The most buffers that the kernel is given at a time.
const ENTRIES_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct Buffers {
    /// Made at the first receive.
    ring: Option<BufferRing>,
    /// How many buffers the kernel is to have, with the minimum and the maximum of this number.
    target: usize,
    target_min: usize,
    target_max: usize,
    /// How many bytes a returned buffer has on average, shifted.
    filled_average: usize,
    /// Data found no buffer since the last look.
    was_empty: bool,
    /// How many buffers the kernel has, including those in completions that no thread has looked at
    /// yet.
    stock: usize,
    /// The buffers that the kernel has, by number, and the numbers that are not in use.
    lent: Vec<Option<PoolBuffer>>,
    numbers: Vec<u16>,
    buffer_bytes: u32,
}

/// The memory from which the kernel reads buffers.
///
/// Invariant: `first` is the start of `entries` entries in `pages`, a power of two, initialised.
#[derive(Debug)]
struct BufferRing {
    pages: Pages,
    first: NonNull<BufRingEntry>,
    entries: u16,
    tail: u16,
}

// SAFETY: the pointer is to the value's own pages, which no thread is tied to.
unsafe impl Send for BufferRing {}

impl Buffers {
    pub(super) fn new(pool: PoolOptions) -> Self {
        let bytes = pool.buffer_bytes as usize;
        let quarter = (pool.pool_bytes_max / bytes / 4).clamp(1, ENTRIES_MAX);
        Buffers {
            ring: None,
            target: (HOT_BYTES / bytes).clamp(1, quarter),
            target_min: (HOT_BYTES / bytes).clamp(1, quarter),
            target_max: quarter,
            filled_average: 0,
            was_empty: false,
            stock: 0,
            lent: Vec::new(),
            numbers: Vec::new(),
            buffer_bytes: pool.buffer_bytes,
        }
    }

    /// Returns how many buffers the kernel has.
    pub(super) fn stock(&self) -> usize {
        self.stock
    }

    pub(super) fn is_open(&self) -> bool {
        self.ring.is_some()
    }

    /// Makes the ring on its first use. `register` passes its address and size to the kernel.
    pub(super) fn open(
        &mut self,
        register: impl FnOnce(u64, u16) -> Result<(), i32>,
    ) -> Result<(), i32> {
        if self.ring.is_some() {
            return Ok(());
        }
        // Space for the buffers of waiting streams in addition to the hot set.
        let entries = (2 * self.target_max).next_power_of_two();
        let pages = Pages::new(entries * size_of::<BufRingEntry>()).ok_or(libc::ENOMEM)?;
        let first = pages.at(0).cast();
        let entries = u16::try_from(entries).expect("at most twice ENTRIES_MAX");
        register(first.as_ptr() as u64, entries)?;
        self.lent.resize_with(usize::from(entries), || None);
        self.numbers = (0..entries).collect();
        self.ring = Some(BufferRing {
            pages,
            first,
            entries,
            tail: 0,
        });
        Ok(())
    }

    /// Fills the hot set up to its size, as far as the pool allows. After a burst that found it
    /// empty, the set becomes larger for the next one, once per entry into the kernel.
    pub(super) fn top_up(&mut self, core: &Core) {
        if std::mem::take(&mut self.was_empty) {
            self.target *= 2;
        }
        self.target = self.target.min(self.warm_max());
        if self.ring.is_none() || self.stock >= self.target {
            return;
        }
        let missing = self.target - self.stock;
        core.pool().take_many(missing, |buffer| self.put(buffer));
        self.publish();
    }

    /// Returns how many buffers may circulate, from how full they are on average.
    fn warm_max(&self) -> usize {
        let filled = (self.filled_average >> AVERAGE_SHIFT).max(1);
        (WARM_BYTES / filled).clamp(self.target_min, self.target_max)
    }

    /// Gives the kernel one more buffer, because data found none. Returns the buffer if the ring
    /// has no space for it.
    pub(super) fn provide(&mut self, buffer: PoolBuffer) -> Option<PoolBuffer> {
        self.was_empty = true;
        if self.numbers.is_empty() {
            return Some(buffer);
        }
        self.put(buffer);
        self.publish();
        None
    }

    /// Takes the buffer that a completion names, with `filled` bytes in it.
    pub(super) fn take(&mut self, number: u16, filled: usize) -> Option<PoolBuffer> {
        let buffer = self.lent.get_mut(usize::from(number))?.take()?;
        self.filled_average += filled;
        self.filled_average -= self.filled_average >> AVERAGE_SHIFT;
        self.numbers.push(number);
        self.stock -= 1;
        Some(buffer)
    }

    /// The kernel does not know the ring any more: returns the buffers that it had.
    pub(super) fn close(&mut self) -> Vec<PoolBuffer> {
        self.ring = None;
        self.stock = 0;
        self.numbers = Vec::new();
        std::mem::take(&mut self.lent)
            .into_iter()
            .flatten()
            .collect()
    }

    fn put(&mut self, buffer: PoolBuffer) {
        let (Some(ring), Some(number)) = (&mut self.ring, self.numbers.pop()) else {
            unreachable!("the callers looked for room in an open ring");
        };
        ring.write(buffer.pointer, self.buffer_bytes, number);
        self.lent[usize::from(number)] = Some(buffer);
        self.stock += 1;
    }

    fn publish(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.publish();
        }
    }
}

impl BufferRing {
    fn write(&mut self, buffer: NonNull<u8>, bytes: u32, number: u16) {
        let place = usize::from(self.tail & (self.entries - 1));
        // SAFETY: within the entries, by the mask, and not read by the kernel before `publish`: no
        // more numbers are in use than there are entries. The tail, which shares its place with the
        // first entry, is in a part of it that these setters leave alone.
        let entry = unsafe { &mut *self.first.as_ptr().add(place) };
        entry.set_addr(buffer.as_ptr() as u64);
        entry.set_len(bytes);
        entry.set_bid(number);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&mut self) {
        debug_assert!(self.pages.at(0) == self.first.cast(), "the pages stay put");
        // SAFETY: the tail is two aligned bytes inside the first entry, which lives in `pages`.
        let tail = unsafe {
            let tail = BufRingEntry::tail(self.first.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail)
        };
        // The entries must be visible before the tail that covers them.
        tail.store(self.tail, Ordering::Release);
    }
}
