//! What the program writes, and how numbers and lines look.
//!
//! It is part of the ground: nothing here knows a command.

pub(crate) mod numbers;
pub(crate) mod output;
pub(crate) mod wrap;
