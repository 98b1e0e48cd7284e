//! The batch: the packets of one wait, as an iterator.
//!
//! The batch checks each packet once more before it hands the packet out, because the owner of the
//! socket may have dropped it since the packet came (contract C11). Most often that happens in the
//! loop over the batch. Removing such packets from the batch at the drop was rejected: a batch
//! belongs to its thread, and any thread may drop a socket. A lock for each packet was rejected
//! too: the mark is an atomic.

use crate::packet::Packet;
use crate::waiter::Waiter;

/// Packets, as an iterator; made by [`Waiter::wait`].
///
/// Dropping it ends the turns of the packets that were taken from it. The next wait delivers the
/// other packets first. The batch skips a packet if its `Stream` or `Listener` was dropped after
/// the packet came, also if that happened in the loop over this batch.
///
/// ```
/// use wharf_port::{Port, Wait};
/// # fn main() -> wharf_port::Result<()> {
/// let port = Port::builder().build()?;
/// let mut waiter = port.waiter()?;
/// port.post(1.into(), 5).unwrap();
/// port.post(1.into(), 6).unwrap();
/// let Wait::Packets(batch) = waiter.wait(None)? else { unreachable!() };
/// assert_eq!(batch.count(), 2);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Batch<'a> {
    waiter: &'a mut Waiter,
}

impl<'a> Batch<'a> {
    pub(crate) fn of(waiter: &'a mut Waiter) -> Self {
        Batch { waiter }
    }
}

impl Iterator for Batch<'_> {
    type Item = Packet;

    fn next(&mut self) -> Option<Packet> {
        self.waiter.core.submit_if_late();
        loop {
            let packet = {
                let local = &mut self.waiter.seat.taking.borrow_mut().local;
                let packet = local.packets.pop_front()?;
                self.waiter.core.was_handed_out(local);
                packet
            };
            if self.waiter.core.hand_out(&packet) {
                return Some(packet);
            }
            self.waiter.core.discard(packet);
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.len()))
    }
}

impl Batch<'_> {
    /// Returns the number of packets left, including those that the batch will skip.
    ///
    /// ```
    /// use wharf_port::{Port, Wait};
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = Port::builder().build()?;
    /// let mut waiter = port.waiter()?;
    /// port.post(1.into(), 5).unwrap();
    /// let Wait::Packets(batch) = waiter.wait(None)? else { unreachable!() };
    /// assert_eq!(batch.len(), 1);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiter.seat.taking.borrow().local.packets.len()
    }

    /// Returns whether no packet is left.
    ///
    /// ```
    /// fn is_done(batch: &wharf_port::Batch<'_>) -> bool {
    ///     batch.is_empty()
    /// }
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        // On a single-waiter port no other waiter could have the turn. The next wait ends it.
        if self.waiter.core.options().shared && self.waiter.seat.is_taken() {
            let waiter = &self.waiter;
            waiter
                .core
                .end_turns(&mut waiter.seat.taking.borrow_mut().local);
        }
    }
}
