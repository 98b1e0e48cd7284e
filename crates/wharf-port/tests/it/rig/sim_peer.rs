//! The far end of the simulated network, for the cases that run on every driver.
//!
//! It adds nothing: if the simulated network's far end cannot do something, the case has a named
//! skip.

use std::any::Any;

use wharf_port::sim::{self, Network as SimNetwork, PeerListener};
use wharf_port::{Address, Port};

use crate::rig::peer::{Heard, Host, Network, Peer};

/// The network inside of a port on the simulated driver.
pub(crate) struct Simulated(SimNetwork);

struct SimulatedPeer(sim::Peer);

struct SimulatedHost(PeerListener);

/// The backlog of a listener of the far side.
const BACKLOG: usize = 128;

impl Simulated {
    pub(crate) fn of(port: &Port) -> Option<Self> {
        port.sim().map(Simulated)
    }
}

fn anywhere() -> Address {
    ([127, 0, 0, 1], 0).into()
}

impl Network for Simulated {
    fn connect(&self, to: &Address) -> Box<dyn Peer> {
        Box::new(SimulatedPeer(self.0.connect(to).expect("the port listens")))
    }

    fn listen(&self) -> Box<dyn Host> {
        let listener = self.0.listen(&anywhere(), BACKLOG);
        Box::new(SimulatedHost(listener.expect("a number of its own")))
    }

    fn refusing(&self) -> (Address, Box<dyn Any>) {
        // The listener is gone, and its number is not used again.
        let gone = self.0.listen(&anywhere(), BACKLOG);
        (gone.expect("a number of its own").address(), Box::new(()))
    }

    fn silent(&self) -> (Address, Box<dyn Any>) {
        let listener = self.0.listen(&anywhere(), 0).expect("a number of its own");
        (listener.address(), Box::new(listener))
    }
}

impl Peer for SimulatedPeer {
    fn try_send(&mut self, bytes: &[u8]) -> Option<usize> {
        self.0.send(bytes).ok()
    }

    fn try_receive(&mut self, bytes_max: usize) -> Heard {
        match self.0.try_receive(bytes_max) {
            sim::Heard::Bytes(bytes) => Heard::Bytes(bytes),
            sim::Heard::Nothing => Heard::Nothing,
            sim::Heard::Finished => Heard::Finished,
            sim::Heard::Reset => Heard::Reset,
        }
    }

    fn finish(&mut self) {
        self.0.finish();
    }

    fn reset(self: Box<Self>) {
        self.0.reset();
    }

    fn address(&self) -> Address {
        self.0.address()
    }
}

impl Host for SimulatedHost {
    fn address(&self) -> Address {
        self.0.address()
    }

    fn try_accept(&mut self) -> Option<Box<dyn Peer>> {
        let peer = self.0.try_accept()?;
        Some(Box::new(SimulatedPeer(peer)))
    }
}
