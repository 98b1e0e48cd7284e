//! Waiting: the right to take packets, and their batch.
//!
//! A waiter belongs to the thread that made it: only their own thread may enter some rings, and
//! turns (contract C18) are counted per waiter. The batch stays with the waiter, so a packet that
//! was not taken is still there at the next wait. `taking` has how it takes packets, `seat` what
//! happens to its place when it goes.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::batch::Batch;
use crate::core::Core;
use crate::core::seat::Seat;
use crate::core::taking::Found;
use crate::error::Result;

/// The right to wait on a port; [`Port::waiter`](crate::Port::waiter) returns it.
///
/// It stays on its thread. Dropping it returns the packets that it had not handed out. It may be
/// kept in a thread-local: the end of the thread gives it up like a drop. The end of the thread
/// also gives up a waiter that was forgotten, and counts it in
/// [`waiters_leaked`](crate::Stats::waiters_leaked). A single-waiter port closes with the thread of
/// its waiter, unless the waiter was dropped before.
///
/// ```
/// use wharf_port::{Port, Wait};
/// # fn main() -> wharf_port::Result<()> {
/// let port = Port::builder().build()?;
/// let mut waiter = port.waiter()?;
/// assert!(matches!(waiter.wait(Some(std::time::Duration::ZERO))?, Wait::TimedOut));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Waiter {
    pub(crate) core: Arc<Core>,
    /// `Rc`, so not `Send`: turns and some rings belong to a thread.
    pub(crate) seat: Rc<Seat>,
}

/// What a wait found.
///
/// ```
/// use wharf_port::{Port, Wait};
/// # fn main() -> wharf_port::Result<()> {
/// let port = Port::builder().build()?;
/// let mut waiter = port.waiter()?;
/// port.close();
/// assert!(matches!(waiter.wait(None)?, Wait::Closed));
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[allow(
    clippy::exhaustive_enums,
    reason = "the contract has these three, and the loop of a program has to handle each"
)]
pub enum Wait<'a> {
    /// At least one packet, unless another thread drops its socket before it is taken.
    Packets(Batch<'a>),
    /// The time is up. It never returns early.
    TimedOut,
    /// The port is closed. No more packets come.
    Closed,
}

impl Waiter {
    pub(crate) fn new(core: &Arc<Core>) -> Result<Self> {
        let seat = Seat::take(core)?;
        let core = Arc::clone(core);
        Ok(Waiter { core, seat })
    }

    /// Waits until there are packets, at most for `timeout`; without a limit if `timeout` is
    /// `None`.
    ///
    /// It ends the turns of the packets handed out before. Packets that were not taken from the
    /// last batch come first.
    ///
    /// If a thread-local kept the waiter until the end of its thread, another destructor may call
    /// `wait`. Then the call may return [`Wait::Closed`] though the port is open.
    ///
    /// # Errors
    /// Only if the port itself is broken. A failed operation is a packet.
    ///
    /// ```
    /// # use wharf_port::{Port, Wait};
    /// # fn main() -> wharf_port::Result<()> {
    /// # let port = Port::builder().build()?;
    /// let mut waiter = port.waiter()?;
    /// port.post(1.into(), 2).unwrap();
    /// assert!(matches!(waiter.wait(None)?, Wait::Packets(_)));
    /// # Ok(()) }
    /// ```
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<Wait<'_>> {
        if !self.seat.is_taken() {
            return Ok(Wait::Closed);
        }
        self.core.wait_begins();
        let found = self.seat.taking.borrow_mut().wait(&self.core, timeout)?;
        Ok(match found {
            Found::Packets => Wait::Packets(Batch::of(self)),
            Found::Nothing => Wait::TimedOut,
            Found::Closed => Wait::Closed,
        })
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.seat.leave(&self.core);
    }
}
