//! The simulated network: for tests of programs on a port, without traffic and without waiting.
//!
//! A port that is built with [`Builder::sim`](crate::Builder::sim) lives on a network in memory,
//! whose far ends are [`Peer`]s in the same process. Its clock is virtual: a wait that finds
//! nothing jumps to what comes next. Partial transfers, errors, late completions and lost races
//! come as often as [`SimOptions`] says, and all of them follow from its seed as long as one thread
//! does everything.

#[doc(hidden)]
pub use crate::driver::sim::Stage;
pub use crate::driver::sim::{Faults, Heard, Network, Peer, PeerListener, SimOptions};
