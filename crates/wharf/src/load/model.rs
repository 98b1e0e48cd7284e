//! What a load counts and computes: plain values that know no socket, and that tests need no socket
//! for.

pub(crate) mod gates;
pub(crate) mod ledger;
pub(crate) mod percentiles;
pub(crate) mod schedule;
pub(crate) mod standing;
pub(crate) mod touch;
pub(crate) mod traffic;
