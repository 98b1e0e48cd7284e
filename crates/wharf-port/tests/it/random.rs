//! Programs made at random, on every driver (`real`) and on the simulated network (`sim`).

pub(crate) mod real;
pub(crate) mod sim;
