//! The key: a value that the caller chooses for a socket. Every packet about the socket carries it.
//!
//! It is a plain number that is never dereferenced (contract C1). The first mistake of the article
//! series was to use it as a pointer. It is a newtype and not a bare `u64`, so a call cannot swap a
//! key and the value of a posted packet.

use std::fmt;

/// The value chosen at association; every packet about the socket carries it.
///
/// Any value is legal on every target. Several sockets may share one.
///
/// ```
/// use wharf_port::Key;
/// assert_eq!(Key::from(90), Key(90));
/// assert_eq!(Key(90).to_string(), "90");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[allow(
    clippy::exhaustive_structs,
    reason = "a key is a number and nothing else, which callers write as `Key(90)`"
)]
pub struct Key(pub u64);

impl From<u64> for Key {
    fn from(value: u64) -> Self {
        Key(value)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
