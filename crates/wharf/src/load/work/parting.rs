//! A barrier where threads wait before they close what they hold.
//!
//! The load must read how many connections the server holds while it still holds them. A moment
//! later both ends have none, and agree on that.

use std::sync::{Condvar, Mutex, PoisonError};

/// A door that opens once.
#[derive(Debug, Default)]
pub(crate) struct Parting {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Parting {
    pub(crate) fn wait(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = self.opened.wait_while(open, |open| !*open);
        drop(opened.unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn open(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.opened.notify_all();
    }
}
