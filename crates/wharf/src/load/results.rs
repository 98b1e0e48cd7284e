//! What a load reports: its account, its verdict, and the formats of other tools.

pub(crate) mod admin;
pub(crate) mod compat;
pub(crate) mod hdr;
pub(crate) mod period;
pub(crate) mod report;
pub(crate) mod verdict;
