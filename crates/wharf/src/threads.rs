//! Starting threads, which a system may refuse.
//!
//! `thread::spawn` and `Scope::spawn` panic then. A limit of processes (`ulimit -u`, `pids.max`) or
//! of memory (`ulimit -v`) is no defect of this program: it is told in one line with the cure.

use std::hint::black_box;
use std::io;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

/// Starts a thread that ends by itself, or with the process.
pub(crate) fn start<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, String> {
    let thread = room().and_then(|()| Builder::new().name(name.into()).spawn(work));
    thread.map_err(|error| refused(&error))
}

/// Starts a thread of a scope.
pub(crate) fn start_in<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, String> {
    let thread = room().and_then(|()| Builder::new().name(name.into()).spawn_scoped(scope, work));
    thread.map_err(|error| refused(&error))
}

/// Room for a stack, and for what the thread allocates before it can say that there is none.
const ROOM_BYTES: usize = (2 + 6) << 20;

/// Whether there is room for another thread. Where a stack takes the last of it, it is the next small
/// allocation that fails, in whichever thread, and that one ends the process. The allocator may keep
/// what is given back here for these. A runtime that finds no room for what belongs to a stack still
/// ends the process, in the narrow case that there was room for the stack itself and for no more.
fn room() -> io::Result<()> {
    let mut room: Vec<u8> = Vec::new();
    // It is not touched, and so it takes no memory.
    let reserved = black_box(&mut room).try_reserve_exact(black_box(ROOM_BYTES));
    reserved.map_err(|_| io::ErrorKind::OutOfMemory.into())
}

/// What to say about a thread that could not be had.
fn refused(error: &io::Error) -> String {
    format!(
        "cannot start a thread: {error}: take fewer --threads, or raise the limit of processes or \
         memory (ulimit -u and -v, pids.max and memory.max of the cgroup)"
    )
}

/// Where threads that are ready wait until all are, so that none begins where another was refused.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    open: Mutex<Option<bool>>,
    changed: Condvar,
}

impl Gate {
    /// Lets them begin, or go home.
    pub(crate) fn decide(&self, open: bool) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(open);
        self.changed.notify_all();
    }

    /// Waits for the decision; whether to begin.
    pub(crate) fn pass(&self) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match *open {
                Some(decided) => return decided,
                None => {
                    let waited = self.changed.wait(open);
                    open = waited.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}
