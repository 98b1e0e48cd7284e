//! The cases of the contract, by topic.
//!
//! Each module has a table of its cases. The list below gives their order in the generated page.

pub(crate) mod accept;
pub(crate) mod at_hand;
pub(crate) mod behind;
pub(crate) mod bounds;
pub(crate) mod cancel;
pub(crate) mod close;
pub(crate) mod connect;
pub(crate) mod descriptors;
pub(crate) mod direct;
pub(crate) mod driver_choice;
pub(crate) mod drops;
pub(crate) mod edges;
pub(crate) mod end;
pub(crate) mod errors;
pub(crate) mod exhaust;
pub(crate) mod foreign;
pub(crate) mod fork;
pub(crate) mod handles;
pub(crate) mod held;
pub(crate) mod leaders;
pub(crate) mod leaving;
pub(crate) mod orderly;
pub(crate) mod pool;
pub(crate) mod port;
pub(crate) mod prompt;
pub(crate) mod receive;
pub(crate) mod room;
pub(crate) mod scarce;
pub(crate) mod send;
pub(crate) mod shares;
pub(crate) mod shutdown;
pub(crate) mod spin;
pub(crate) mod storms;
pub(crate) mod surplus;
pub(crate) mod timers;
pub(crate) mod traced;
pub(crate) mod turnless;
pub(crate) mod turns;
pub(crate) mod untaken;
pub(crate) mod waiters;
pub(crate) mod watch;

use crate::rig::case::{Case, Inapplicable};

/// All cases, by topic.
pub(crate) const TOPICS: &[(&str, &[Case])] = &[
    ("port", port::CASES),
    ("timers", timers::CASES),
    ("accept", accept::CASES),
    ("connect", connect::CASES),
    ("receive", receive::CASES),
    ("watch", watch::CASES),
    ("edges", edges::CASES),
    ("pool", pool::CASES),
    ("a scarce pool", scarce::CASES),
    ("held", held::CASES),
    ("just after a message", behind::CASES),
    ("send", send::CASES),
    ("space for sends", room::CASES),
    ("promptness", prompt::CASES),
    ("cancel", cancel::CASES),
    ("shutdown", shutdown::CASES),
    ("close", close::CASES),
    ("drops", drops::CASES),
    ("waiters", waiters::CASES),
    ("waiters that leave", leaving::CASES),
    ("leaders", leaders::CASES),
    ("busy-polling", spin::CASES),
    ("turns", turns::CASES),
    ("without turns", turnless::CASES),
    ("shares", shares::CASES),
    ("bounds", bounds::CASES),
    ("untaken outcomes", untaken::CASES),
    ("exhaustion", exhaust::CASES),
    ("more connections than slots", surplus::CASES),
    ("the end of a port", end::CASES),
    ("graceful shutdown", orderly::CASES),
    ("in a batch at the end", at_hand::CASES),
    ("errors", errors::CASES),
    ("handles", handles::CASES),
    ("forks", fork::CASES),
    ("sockets of the caller", foreign::CASES),
    ("descriptors", descriptors::CASES),
    ("storms", storms::CASES),
    ("system calls", traced::CASES),
    ("seeds", crate::random::real::CASES),
    ("driver choice", driver_choice::CASES),
    ("direct descriptors", direct::CASES),
];

/// Behaviours that no case can show.
pub(crate) const INAPPLICABLE: &[&[Inapplicable]] = &[
    port::INAPPLICABLE,
    accept::INAPPLICABLE,
    connect::INAPPLICABLE,
    receive::INAPPLICABLE,
    close::INAPPLICABLE,
    driver_choice::INAPPLICABLE,
];

/// Every case, in that order.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    TOPICS.iter().flat_map(|(_, cases)| cases.iter())
}
