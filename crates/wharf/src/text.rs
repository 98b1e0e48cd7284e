//! Output: what the program writes, and how numbers and lines look.
//!
//! This is part of the ground: it knows no command.

pub(crate) mod numbers;
pub(crate) mod output;
pub(crate) mod wrap;
