//! The simulated network: for tests of programs on a port, without traffic and without waiting.
//!
//! It needs the feature `sim`, which is off by default: a program that serves does not carry the
//! code. A test turns it on in its dev-dependencies.
//!
//! A port that is built with [`Builder::sim`](crate::Builder::sim) lives on a network in memory,
//! whose far ends are [`Peer`]s in the same process. Its clock is virtual: a wait that finds
//! nothing jumps to what comes next. Partial transfers, errors, late completions and lost races
//! come as often as [`SimOptions`] says, and all of them follow from its seed as long as one thread
//! does everything.

use crate::port::Port;

#[doc(hidden)]
pub use crate::driver::sim::Stage;
pub use crate::driver::sim::{Faults, Heard, Network, Peer, PeerListener, SimOptions};

impl Stage {
    /// Has the threads of a port on a simulated network take turns; `keeps` times in a thousand one
    /// that could hand over goes on.
    #[must_use]
    pub fn of(port: &Port, seed: u64, keeps: u16) -> Option<Stage> {
        Stage::of_core(&port.core, seed, keeps)
    }
}
