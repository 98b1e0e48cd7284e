//! A socket under its lock: drivers see a socket only through this type, and report to it.
//!
//! Every step of a socket needs the port, the socket's name, its locked state, and the destination
//! of its packets. These were four parameters of 120 functions. Here they are one value, and the
//! steps are its methods. Each method is in the module named after what it does.
//!
//! The value holds the lock as long as it lives. `Deref` gives access to the state. Its fields are
//! private to `core/`, where every step reads them. A driver asks and reports by methods of the
//! state. Methods for the core as well were rejected: it would have two for each field.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use parking_lot::MutexGuard;

use crate::core::local::Local;
use crate::core::slot::{SlotId, SocketState, flag};
use crate::core::{Core, Out};
use crate::driver::SlotBlock;

/// One socket of a port, locked.
pub(crate) struct Locked<'a> {
    pub(crate) core: &'a Arc<Core>,
    pub(crate) id: SlotId,
    pub(in crate::core) state: MutexGuard<'a, SocketState>,
    pub(in crate::core) out: Out<'a>,
}

impl Core {
    /// Locks a socket, unless it is gone. Its packets go to `out`.
    #[inline]
    pub(crate) fn lock<'a>(self: &'a Arc<Self>, id: SlotId, out: Out<'a>) -> Option<Locked<'a>> {
        let state = self.slots.lock(id)?;
        Some(self.locked(id, state, out))
    }

    /// Locks the socket in this place of the table, if there is one.
    #[inline]
    pub(crate) fn lock_index<'a>(
        self: &'a Arc<Self>,
        index: u32,
        out: Out<'a>,
    ) -> Option<Locked<'a>> {
        let (id, state) = self.slots.lock_index(index)?;
        Some(self.locked(id, state, out))
    }

    /// Wraps a socket that is locked already.
    #[inline]
    pub(in crate::core) fn locked<'a>(
        self: &'a Arc<Self>,
        id: SlotId,
        state: MutexGuard<'a, SocketState>,
        out: Out<'a>,
    ) -> Locked<'a> {
        Locked {
            core: self,
            id,
            state,
            out,
        }
    }
}

impl<'a> Locked<'a> {
    /// Returns what the driver keeps for this socket at a stable address.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn block(&self) -> &'a SlotBlock {
        &self.core.slots.slot(self.id.index).driver
    }
}

impl Locked<'_> {
    /// Whether a step has ended this socket: the slot is free again, or belongs to another socket.
    pub(crate) fn is_gone(&self) -> bool {
        self.state.generation != self.id.generation
    }

    /// Returns the batch of the waiter that takes this step, if the caller is a waiter.
    #[inline]
    pub(crate) fn local(&mut self) -> Option<&mut Local> {
        self.out.0.as_deref_mut()
    }

    /// Whether the batch takes another packet of this socket.
    #[inline]
    pub(in crate::core) fn may_take(&self) -> bool {
        let packets_max = self.core.options.turn_packets_max;
        let local = self.out.0.as_ref();
        local.is_some_and(|local| local.may_take(&self.state, packets_max))
    }

    /// Whether the batch takes another packet of this listener.
    pub(in crate::core) fn may_take_of_listener(&self) -> bool {
        let packets_max = self.core.options.turn_packets_max;
        let local = self.out.0.as_ref();
        local.is_some_and(|local| local.may_take_of_listener(self.id, packets_max))
    }

    /// Whether this waiter found other sockets ready before this one.
    pub(in crate::core) fn waits_behind_others(&self) -> bool {
        let local = self.out.0.as_ref();
        local.is_some_and(|local| !local.ready.is_empty())
    }

    /// Adds the socket to those that this waiter found ready, unless it is queued already or a
    /// waiter has its turn. Queues it if the caller is no waiter.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn join_ready(&mut self) {
        let passes = self.turn_is_free() && !self.has(flag::QUEUED);
        match &mut self.out.0 {
            Some(_) if !passes => {}
            Some(local) => {
                local.ready.push_back(self.id.index);
                self.set(flag::QUEUED);
            }
            None => self.enqueue(),
        }
    }

    /// From here on all packets go to the queue.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn queue_only(&mut self) {
        self.out = Out::queue();
    }

    /// `bytes` bytes were read into the batch.
    #[allow(
        dead_code,
        reason = "not every system has a driver that reads at a turn"
    )]
    pub(crate) fn note_read(&mut self, bytes: usize) {
        if let Some(local) = self.local() {
            local.note_read(bytes);
        }
    }
}

impl fmt::Debug for Locked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {:?}", self.id, self.core)
    }
}

impl Deref for Locked<'_> {
    type Target = SocketState;

    #[inline]
    fn deref(&self) -> &SocketState {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut SocketState {
        &mut self.state
    }
}
