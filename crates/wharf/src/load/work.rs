//! The work of a load: its threads, what each of them drives, and how the main thread watches them.

pub(crate) mod crew;
pub(crate) mod parting;
pub(crate) mod watch;
pub(crate) mod worker;
