//! The simulated network: tests of programs on a port, without traffic and without waiting.
//!
//! It needs the feature `sim`, which is off by default, so a server does not carry the code. A test
//! turns it on in its dev-dependencies.
//!
//! A port that is built with [`Builder::sim`](crate::Builder::sim) uses a network in memory. The
//! far ends are [`Peer`]s in the same process. The clock is virtual: a wait that finds nothing
//! jumps to the next event. [`SimOptions`] sets how often partial transfers, errors, late
//! completions and lost races occur. All of them follow from its seed as long as one thread does
//! everything.

use crate::port::Port;

#[doc(hidden)]
pub use crate::driver::sim::Stage;
pub use crate::driver::sim::{Faults, Heard, Network, Peer, PeerListener, SimOptions};

impl Stage {
    /// Makes the threads of a port on a simulated network run one at a time. At a point where a
    /// thread could hand over, it continues in `keeps` of a thousand cases.
    #[must_use]
    pub fn of(port: &Port, seed: u64, keeps: u16) -> Option<Stage> {
        Stage::of_core(&port.core, seed, keeps)
    }
}
