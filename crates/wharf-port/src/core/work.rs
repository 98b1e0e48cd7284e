//! What a socket needs while it has work: its queues. The socket borrows them, and returns them
//! when it is idle.
//!
//! They are not in the slot, so an idle connection pays only one pointer for them. They are
//! recycled, so a busy connection allocates nothing per operation (tests check both). Each thread
//! also caches a few spare blocks, of any port. Taking every block from the port-wide list cost two
//! lock operations per echo.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Duration;

use socket2::SockAddr;

use crate::buffer::Buffer;
use crate::core::locked::Locked;
use crate::core::pool::PoolBuffer;
use crate::core::timer::TimerId;
use crate::driver::WorkBlock;
use crate::error::Operation;
use crate::lock;
use crate::packet::{End, Event, Packet};

/// Spare work blocks that a port keeps. If more sockets than this are busy, they allocate theirs.
const SPARE_WORK_MAX: usize = 1024;
/// Spare blocks that a thread keeps before that. They are few, because no other thread can take
/// blocks from an idle thread.
const SPARE_OF_THREAD_MAX: usize = 32;
/// A queue with more capacity than this frees its memory when its socket is idle.
const KEEP_ENTRIES: usize = 64;

thread_local! {
    #[allow(
        clippy::vec_box,
        reason = "a work block keeps its address while the system uses it"
    )]
    static SPARE: RefCell<Vec<Box<Work>>> = const { RefCell::new(Vec::new()) };
}

/// The queues of one busy socket.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// Packets that no waiter has taken yet, in order.
    pub(crate) pending: VecDeque<Packet>,
    /// Sends and shutdowns in submission order; the head may be partly sent.
    pub(crate) sends: VecDeque<Queued>,
    /// Bytes in `sends` that are not sent yet.
    pub(crate) queued_bytes: usize,
    /// Bytes of the head of `sends` that are sent.
    pub(crate) head_sent: usize,
    /// Receives into callers' buffers, in submission order.
    pub(crate) intos: VecDeque<Into>,
    /// Received beyond the bound of leases. They are delivered in order as soon as a lease is free.
    pub(crate) held: VecDeque<Held>,
    /// The system's code that ended the receiving after `held`.
    pub(crate) held_end: Option<i32>,
    /// How many of `sends` the request in the kernel covers, and which of them is being cancelled.
    pub(crate) sends_in_request: usize,
    pub(crate) cancelled_send: Option<u32>,
    /// The timer that ends a connect, or the flush of a close, that takes too long.
    pub(crate) limit: Option<TimerId>,
    /// The address of a connect, at a stable place in memory.
    pub(crate) connect_to: Option<SockAddr>,
    /// The timer of the next attempt of a connect that found the backlog full, and how long it
    /// waits.
    pub(crate) connect_retry: Option<(TimerId, Duration)>,
    /// What the driver keeps per busy socket at a stable address: message headers, addresses.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) driver: WorkBlock,
}

/// What the writing side has queued. Code that decides about an entry names every variant, so that
/// a new one fails to compile there.
#[derive(Debug)]
pub(crate) enum Queued {
    /// A send.
    Bytes {
        sequence: u32,
        buffer: Buffer,
        /// Whether its success has a packet.
        reported: bool,
    },
    /// The end of the write side, after the sends before it.
    Shutdown { sequence: u32 },
}

impl Queued {
    pub(crate) fn sequence(&self) -> u32 {
        match self {
            Queued::Bytes { sequence, .. } | Queued::Shutdown { sequence } => *sequence,
        }
    }

    /// What a request lends to the system; nothing if no request of bytes can cover this entry.
    #[inline]
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Queued::Bytes { buffer, .. } => Some(buffer),
            Queued::Shutdown { .. } => None,
        }
    }

    /// How many bytes it sends.
    pub(crate) fn count(&self) -> usize {
        self.bytes().map_or(0, <[u8]>::len)
    }

    /// Copies a lease out of a pool that runs short.
    pub(crate) fn leave_scarce_pool(&mut self) {
        match self {
            Queued::Bytes { buffer, .. } => buffer.leave_scarce_pool(),
            Queued::Shutdown { .. } => {}
        }
    }

    /// Whether it is a lease of a pool that runs short.
    pub(crate) fn comes_from_scarce_pool(&self) -> bool {
        match self {
            Queued::Bytes { buffer, .. } => buffer.comes_from_scarce_pool(),
            Queued::Shutdown { .. } => false,
        }
    }

    /// The name and the packet of its end; `count` bytes of it went out, if that is known.
    pub(crate) fn ended(self, how: End, count: Option<usize>) -> ((u32, Operation), Event) {
        match self {
            Queued::Bytes {
                sequence, buffer, ..
            } => {
                let event = Event::SendFailed { how, buffer, count };
                ((sequence, Operation::Send), event)
            }
            Queued::Shutdown { sequence } => {
                ((sequence, Operation::Shutdown), Event::ShutDown { how })
            }
        }
    }
}

/// A queued receive into a caller's buffer.
#[derive(Debug)]
pub(crate) struct Into {
    pub(crate) buffer: Vec<u8>,
    pub(crate) sequence: u32,
}

/// A filled buffer that waits for a lease.
#[derive(Debug)]
#[allow(
    dead_code,
    reason = "only a driver whose receives stream has such buffers"
)]
pub(crate) struct Held {
    pub(crate) buffer: PoolBuffer,
    /// The bytes in it, and how many of them were already read.
    pub(crate) count: usize,
    pub(crate) read: usize,
}

impl Work {
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
            && self.held.is_empty()
            && self.held_end.is_none()
            && self.sends.is_empty()
            && self.intos.is_empty()
            && self.connect_to.is_none()
            && self.connect_retry.is_none()
            && self.limit.is_none()
    }

    /// Frees the memory of queues that were long, so a spare block keeps none of it.
    fn give_back_room(&mut self) {
        fn give_back<T>(queue: &mut VecDeque<T>) {
            if queue.capacity() > KEEP_ENTRIES {
                *queue = VecDeque::new();
            }
        }
        give_back(&mut self.pending);
        give_back(&mut self.sends);
        give_back(&mut self.intos);
        give_back(&mut self.held);
    }

    /// Fills `slices` with queued bytes that are not sent, up to a shutdown or `bytes_max` bytes.
    /// Returns the number of slices.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn unsent<'a>(&'a self, slices: &mut [IoSlice<'a>], bytes_max: usize) -> usize {
        let (mut count, mut room) = (0, bytes_max);
        let sends = self.sends.iter().map_while(Queued::bytes);
        for (place, bytes) in sends.enumerate().take(slices.len()) {
            if room == 0 {
                break;
            }
            let sent = if place == 0 { self.head_sent } else { 0 };
            let unsent = &bytes[sent..];
            let unsent = &unsent[..unsent.len().min(room)];
            room -= unsent.len();
            slices[place] = IoSlice::new(unsent);
            count = place + 1;
        }
        count
    }
}

impl Locked<'_> {
    /// Returns the work block of a busy socket. It comes from the spare ones if there is one.
    pub(crate) fn work(&mut self) -> &mut Work {
        if self.work.is_none() {
            let spare = SPARE.try_with(|spare| spare.borrow_mut().pop());
            let spare = spare
                .ok()
                .flatten()
                .or_else(|| lock(&self.core.spare).pop());
            self.work = Some(spare.unwrap_or_default());
        }
        self.work.as_mut().expect("set above")
    }

    /// Returns the buffers that a socket has received and will not deliver.
    pub(crate) fn give_held_back(&mut self) {
        let Some(work) = &mut self.state.work else {
            return;
        };
        work.held_end = None;
        for held in work.held.drain(..) {
            self.core.buffer_returned(held.buffer);
        }
    }

    /// Takes the work block of a socket that has become idle. The reading side may still have a
    /// request with the system: such a request points only into the slot, or into a queue that is
    /// not empty.
    pub(crate) fn recycle(&mut self) {
        // The most frequent case, and the cheapest to detect, is first.
        let idle = !self.is_sending() && self.work.as_ref().is_some_and(|work| work.is_empty());
        if !idle {
            return;
        }
        let mut work = self.work.take();
        if let Some(work) = &mut work {
            work.give_back_room();
        }
        // A thread whose thread-locals are destroyed has no spare blocks.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE_OF_THREAD_MAX {
                spare.extend(work.take());
            }
        });
        if work.is_some() {
            let mut spare = lock(&self.core.spare);
            if spare.len() < SPARE_WORK_MAX {
                spare.extend(work);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spare_block_keeps_no_long_queue() {
        let mut work = Work::default();
        work.intos.reserve(100_000);
        work.sends.reserve(10);
        let sends = work.sends.capacity();
        work.give_back_room();
        assert_eq!((work.intos.capacity(), work.sends.capacity()), (0, sends));
    }
}
