//! What a load does: its threads, what each of them drives, and who watches over them.

pub(crate) mod crew;
pub(crate) mod parting;
pub(crate) mod watch;
pub(crate) mod worker;
