//! Which ports there are: how a plain number finds its port.
//!
//! Handles such as [`SocketRef`](crate::SocketRef) are numbers; they find the core here, with a
//! one-entry cache per thread, so that a stale handle is answered `Closed` and nothing has to be
//! counted per packet. A pointer in each handle was rejected: either it keeps the port alive from
//! a dictionary somebody forgot, or it dangles.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, RwLock, Weak};

use crate::core::Core;

static PORTS: RwLock<Option<HashMap<u32, Weak<Core>>>> = RwLock::new(None);
static NEXT_PORT: AtomicU32 = AtomicU32::new(1);

thread_local! {
    static RECENT: RefCell<Option<Arc<Core>>> = const { RefCell::new(None) };
}

/// A number for a new port; none is used twice.
pub(crate) fn next_port() -> u32 {
    NEXT_PORT.fetch_add(1, Ordering::Relaxed)
}

pub(crate) fn insert(core: &Arc<Core>) {
    let mut ports = PORTS.write().expect("the registry is never poisoned");
    ports
        .get_or_insert_with(HashMap::new)
        .insert(core.id, Arc::downgrade(core));
}

/// Forgets a port that has ended.
pub(crate) fn remove(port: u32) {
    if let Some(ports) = PORTS
        .write()
        .expect("the registry is never poisoned")
        .as_mut()
    {
        ports.remove(&port);
    }
    // The cache of this thread must not be what keeps the tables in memory.
    let recent = RECENT.try_with(|recent| {
        recent
            .try_borrow_mut()
            .ok()?
            .take_if(|core| core.id == port)
    });
    drop(recent);
}

/// Runs `action` with the core of this number, unless the port is gone.
pub(crate) fn with_core<R>(port: u32, action: impl FnOnce(&Arc<Core>) -> R) -> Option<R> {
    let mut action = Some(action);
    let cached = RECENT.try_with(|recent| {
        let recent = recent.try_borrow().ok()?;
        let core = recent.as_ref().filter(|core| core.id == port)?;
        action.take().map(|action| action(core))
    });
    if let Ok(Some(answer)) = cached {
        return Some(answer);
    }
    let core = PORTS
        .read()
        .expect("the registry is never poisoned")
        .as_ref()?
        .get(&port)?
        .upgrade()?;
    // Nested calls find the cache in use and leave it alone.
    let _ = RECENT.try_with(|recent| {
        if let Ok(mut recent) = recent.try_borrow_mut() {
            return recent.replace(Arc::clone(&core));
        }
        None
    });
    action.take().map(|action| action(&core))
}
