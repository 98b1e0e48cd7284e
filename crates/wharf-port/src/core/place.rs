//! A place in the table of sockets, reserved for a socket that is not associated yet.
//!
//! A connection gets a place when it is accepted. That makes `sockets_max` exact. The connection
//! frees the place when it is dropped.

use std::sync::Arc;

use crate::address::Address;
use crate::core::Core;
use crate::driver::kind::DriverKind;
use crate::sys;

/// A reserved place in a port's table for a socket that is accepted and not associated yet.
#[derive(Debug)]
pub(crate) struct Place {
    core: Arc<Core>,
    spent: bool,
    /// The driver's name of the socket, if the driver must be notified of a drop.
    token: Option<u64>,
}

impl Place {
    /// Reserves a place of this port's table, if one is free.
    pub(crate) fn keep(core: &Arc<Core>) -> Option<Self> {
        core.slots.reserve().then(|| Place {
            core: Arc::clone(core),
            spent: false,
            token: None,
        })
    }

    /// Marks the place with the driver's name of its socket.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn mark(&mut self, token: u64) {
        self.token = Some(token);
    }

    /// Whether it is a place in this port's table.
    pub(crate) fn is_of(&self, core: &Core) -> bool {
        self.core.id == core.id
    }

    /// Whether the sockets of its port are real sockets of the system.
    pub(crate) fn is_real(&self) -> bool {
        self.core.report.kind != DriverKind::Sim
    }

    /// A slot has taken the place.
    pub(crate) fn spend(mut self) {
        self.spent = true;
    }

    /// No socket came. No listener and no driver needs to know.
    pub(crate) fn give_up(mut self) {
        self.spent = true;
        self.core.slots.unreserve();
    }

    /// Returns the peer of a socket that was accepted into this place.
    pub(crate) fn peer_of(&self, handle: &sys::Handle) -> std::io::Result<Address> {
        self.core.driver.peer_address(handle)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.spent && !self.core.is_forked() {
            if let Some(token) = self.token {
                self.core.driver.abandon_accepted(token);
            }
            self.core.slots.unreserve();
            self.core.socket_gone();
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::core::Out;
    use crate::core::place::Place;
    use crate::packet::PauseReason;
    use crate::{Key, Port};

    /// A case can tell this call from that of the listener's own timer only by time.
    #[test]
    fn a_connection_that_is_dropped_calls_the_listener_that_waits() {
        let port = Port::builder().sockets_max(2).build();
        let port = port.expect("a driver of this system");
        let core = &port.core;
        let listener = port.listen(([127, 0, 0, 1], 0), Key(1)).expect("a place");
        let place = Place::keep(core).expect("the second place");
        let id = listener.socket().slot_id();
        let mut socket = core.lock(id, Out::queue()).expect("it is open");
        socket.pause_accept(PauseReason::SocketsMax);
        drop(socket);
        drop(core.ready.drain());
        assert!(core.ready.is_empty());
        drop(place);
        assert!(!core.ready.is_empty(), "it was called");
    }
}
