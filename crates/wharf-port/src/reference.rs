//! The reference: a socket's number with a generation.
//!
//! A packet carries one, so a handler needs no dictionary to respond. A reference that outlived its
//! socket finds nothing. The data is here, and the operations are in `socket`, because packets
//! carry a reference and the core makes it.

use std::fmt;

use crate::core::slot::SlotId;

/// A reference to an associated socket: 12 bytes, copyable, harmless when stale.
///
/// ```
/// use wharf_port::SocketRef;
/// assert_eq!(std::mem::size_of::<SocketRef>(), 12);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SocketRef {
    pub(crate) port: u32,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl SocketRef {
    pub(crate) fn none(port: u32) -> Self {
        SocketRef {
            port,
            slot: u32::MAX,
            generation: 0,
        }
    }

    /// Whether it refers to no socket: the packet is about a timer or a post.
    pub(crate) fn is_none(self) -> bool {
        self.slot == u32::MAX
    }

    pub(crate) fn slot_id(self) -> SlotId {
        SlotId {
            index: self.slot,
            generation: self.generation,
        }
    }

    pub(crate) fn is(self, id: SlotId) -> bool {
        self.slot_id() == id
    }
}

impl fmt::Debug for SocketRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Socket({}#{} of port {})",
            self.slot, self.generation, self.port
        )
    }
}
