//! A refusal: an error, and the value that the call passed.

use std::fmt;

use super::{Error, ErrorKind, Operation};

/// A request that was not accepted, with the value that the call passed. A refusal loses nothing.
///
/// ```
/// use wharf_port::{Error, ErrorKind, Operation, Refused};
/// let refused = Refused { error: Error::new(Operation::Post, ErrorKind::Full), value: 7u64 };
/// assert_eq!(refused.value, 7);
/// ```
#[derive(Debug)]
#[allow(
    clippy::exhaustive_structs,
    reason = "a pair, which callers take apart; what else there is to say belongs to the error"
)]
pub struct Refused<T> {
    /// Why the request was refused.
    pub error: Error,
    /// The value that the caller passed.
    pub value: T,
}

impl<T> Refused<T> {
    pub(crate) fn new(operation: Operation, kind: ErrorKind, value: T) -> Self {
        Refused {
            error: Error::new(operation, kind),
            value,
        }
    }
}

impl<T> fmt::Display for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<T: fmt::Debug> std::error::Error for Refused<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // Not the error itself: its text is the same as this one's, so a chain of causes would
        // print it twice.
        std::error::Error::source(&self.error)
    }
}

impl<T> From<Refused<T>> for Error {
    fn from(refused: Refused<T>) -> Self {
        refused.error
    }
}
