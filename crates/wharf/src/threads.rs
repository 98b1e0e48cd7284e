//! Starting threads, which a system may refuse.
//!
//! `thread::spawn` and `Scope::spawn` panic then. A limit of processes (`ulimit -u`, `pids.max`) or
//! of memory (`ulimit -v`) is no defect of this program: it reports the limit in one line with a
//! hint.

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

/// Memory for a stack, and for what the thread allocates before it can report that there is none.
const ROOM_BYTES: usize = (2 + 6) << 20;

/// Whether there is memory for another thread. If a stack takes the last of it, the next small
/// allocation of any thread fails and aborts the process. The allocator may keep what is given back
/// here for such allocations. If there is memory for the stack only, and not for the runtime's own
/// data, the runtime still aborts the process.
fn room() -> io::Result<()> {
    let mut room: Vec<u8> = Vec::new();
    // The memory is not touched, so it is not really used.
    let reserved = black_box(&mut room).try_reserve_exact(black_box(ROOM_BYTES));
    reserved.map_err(|_| io::ErrorKind::OutOfMemory.into())
}

/// The error of a thread that could not start.
fn refused(error: &io::Error) -> String {
    format!(
        "cannot start a thread: {error}: take fewer --threads, or raise the limit of processes or \
         memory (ulimit -u and -v, pids.max and memory.max of the cgroup)"
    )
}

/// A barrier where ready threads wait until all are ready, so that none begins if another could not
/// start.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    open: Mutex<Option<bool>>,
    changed: Condvar,
}

impl Gate {
    /// Lets them begin, or return.
    pub(crate) fn decide(&self, open: bool) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(open);
        self.changed.notify_all();
    }

    /// Waits for the decision; returns whether to begin.
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
