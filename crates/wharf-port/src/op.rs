//! Operations as plain data: what was requested, and the name until the outcome.
//!
//! Slot, generation and a sequence number of the socket name an operation. So a late cancel can
//! never hit a newer operation in the same place (contract C11, libxev #233). A table of operation
//! objects was rejected: streaming operations would cost an entry per idle socket.

use crate::core::slot::SlotId;
use crate::error::Operation;

/// The name of an accepted operation: what [`Port::cancel`](crate::Port::cancel) takes and what
/// its packets carry.
///
/// It is a value of 24 bytes. It stays harmless when the operation is long over.
///
/// ```
/// use wharf_port::Op;
/// fn is_copy<T: Copy + Send + Sync>() {}
/// is_copy::<Op>();
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Op {
    pub(crate) port: u32,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
    pub(crate) sequence: u32,
    /// One that a program can start; never one like [`Operation::Build`].
    pub(crate) operation: Operation,
}

impl Op {
    /// Returns the operation, for example to distinguish the end of an accept from the end of a
    /// receive.
    ///
    /// ```
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().build()?;
    /// let listener = port.listen(([127, 0, 0, 1], 0), 90.into())?;
    /// let op = listener.socket().accept()?;
    /// assert_eq!(op.operation(), wharf_port::Operation::Accept);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn operation(self) -> Operation {
        self.operation
    }

    pub(crate) fn of(port: u32, id: SlotId, sequence: u32, operation: Operation) -> Self {
        Op {
            port,
            slot: id.index,
            generation: id.generation,
            sequence,
            operation,
        }
    }

    pub(crate) fn post(port: u32) -> Self {
        Op {
            port,
            slot: u32::MAX,
            generation: 0,
            sequence: 0,
            operation: Operation::Post,
        }
    }

    pub(crate) fn timer(port: u32, index: u32, generation: u32) -> Self {
        Op {
            port,
            slot: index,
            generation,
            sequence: 0,
            operation: Operation::Timer,
        }
    }

    pub(crate) fn slot_id(self) -> SlotId {
        SlotId {
            index: self.slot,
            generation: self.generation,
        }
    }
}

/// What [`Port::cancel`](crate::Port::cancel) found. A cancel is a request: the outcome is in the
/// operation's own last packet.
///
/// ```
/// use wharf_port::{Cancel, Port};
/// # fn main() -> wharf_port::Result<()> {
/// let port = Port::builder().build()?;
/// let op = port.timer(std::time::Instant::now() + std::time::Duration::from_secs(60), 1.into())?;
/// assert_eq!(port.cancel(op), Cancel::Requested);
/// assert_eq!(port.cancel(op), Cancel::NotFound);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Cancel {
    /// The operation was in progress. Its last packet reports how it ended.
    Requested,
    /// There is nothing to cancel: the operation is over, is cancelled already, or its last packet
    /// is on the way.
    NotFound,
}

/// How to close.
///
/// ```
/// use wharf_port::Close;
/// assert_ne!(Close::Flush, Close::Reset);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Close {
    /// Send what is queued, then FIN; bounded by [`flush_max`](crate::Builder::flush_max).
    Flush,
    /// Abort at once: RST, and no FIN first.
    Reset,
}
