//! Waiting: the right to take packets, and the batch they come in.
//!
//! A waiter belongs to the thread that made it, because some rings may only be entered by their
//! own thread and because turns (contract C18) are counted per waiter. Its batch stays with it, so
//! that a packet nobody took is still there at the next wait. How it takes packets is in `taking`,
//! and what becomes of its place when it goes in `seat`.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::batch::Batch;
use crate::core::Core;
use crate::core::seat::Seat;
use crate::core::taking::Found;
use crate::error::Result;

/// The right to wait on a port; made by [`Port::waiter`](crate::Port::waiter).
///
/// It stays on its thread. Dropping it gives back what it had not handed out. It may be kept in a
/// thread-local: at the end of the thread it is given up like one that is dropped. One that is
/// forgotten is given up there too, and counted in
/// [`waiters_leaked`](crate::Stats::waiters_leaked). A single-waiter port closes with its waiter's
/// thread unless the waiter was dropped before.
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
    /// The time was up; never before it was.
    TimedOut,
    /// The port is closed; nothing more will come.
    Closed,
}

impl Waiter {
    pub(crate) fn new(core: &Arc<Core>) -> Result<Self> {
        let seat = Seat::take(core)?;
        let core = Arc::clone(core);
        Ok(Waiter { core, seat })
    }

    /// Waits until there are packets, at most for `timeout`; without a limit when it is `None`.
    ///
    /// Ends the turns of the packets handed out before. Packets that were not taken from the last
    /// batch come first.
    ///
    /// A waiter that a thread-local has kept until the end of its thread may be asked to wait by
    /// another destructor: then it may find [`Wait::Closed`] though the port is not.
    ///
    /// # Errors
    /// Only when the port itself is broken; a failed operation is a packet.
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
