//! The machine: its drivers, its congestion control, and the memory that this process has taken.
//!
//! It is part of the ground: the commands ask, nothing here knows one of them.

pub(crate) mod congestion;
pub(crate) mod memory;
