//! How kernels with io_uring differ: each ability by name, and what replaces it where it is
//! missing.
//!
//! For each ability a driver reports one of the two (`DriverReport::features`). So `doctor` shows
//! what this kernel does, and not what a version number promises: distributions backport some
//! changes to old kernels and switch others off. README.md has the same words in a table, with the
//! version that introduced each ability, and the contract suite compares the two.

/// Something that not every kernel with io_uring does.
#[derive(Debug)]
pub(super) struct Ability {
    name: &'static str,
    before: &'static str,
}

impl Ability {
    /// Returns what is in use: the ability, or its replacement.
    pub(super) fn in_use(&self, here: bool) -> &'static str {
        if here { self.name } else { self.before }
    }
}

/// `IORING_SETUP_DEFER_TASKRUN`, on the ring of one waiter.
pub(super) const DEFERS: Ability = Ability {
    name: "completions deferred until the waiter asks",
    before: "completions at any entry to the kernel",
};

/// A message that comes from no ring ends the sleep in a shared one
/// (`IORING_REGISTER_SEND_MSG_RING`).
pub(super) const TAKES_MESSAGES: Ability = Ability {
    name: "wake-ups by message",
    before: "wake-ups by eventfd",
};

/// `IORING_SETUP_NO_SQARRAY`.
pub(super) const NEEDS_NO_INDEX: Ability = Ability {
    name: "requests without an index",
    before: "requests with an index",
};

/// `IORING_ENTER_NO_IOWAIT`.
pub(super) const IDLES: Ability = Ability {
    name: "sleeps shown as idle",
    before: "sleeps shown as waiting for a disk",
};

/// A multishot receive that ends after a number of bytes that the request gives.
pub(super) const CAPS_STREAMS: Ability = Ability {
    name: "receives that stream, capped",
    before: "receives of one message each",
};
