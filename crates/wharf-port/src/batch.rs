//! The batch: the packets of one wait, as an iterator.
//!
//! Each packet is looked at once more when it is handed out, because the owner of its socket may
//! have dropped it since it came (contract C11): in the loop over the batch, most often. To take
//! such packets out of the batch at the drop was rejected, because a batch belongs to its thread and
//! a drop may come from any; so was a lock for each packet: the mark is in an atomic.

use crate::packet::Packet;
use crate::waiter::Waiter;

/// Packets, as an iterator; made by [`Waiter::wait`].
///
/// Dropping it ends the turns of the packets taken from it; packets not taken come first at the
/// next wait. A packet is passed over if its `Stream` or `Listener` was dropped after it came, also
/// in the loop over this very batch.
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
    /// How many packets are left in it, those included that will be passed over.
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

    /// Whether no packet is left in it.
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
        // On a single-waiter port nobody else could have the turn: the next wait ends it.
        if self.waiter.core.options().shared && self.waiter.seat.is_taken() {
            let waiter = &self.waiter;
            waiter
                .core
                .end_turns(&mut waiter.seat.taking.borrow_mut().local);
        }
    }
}
