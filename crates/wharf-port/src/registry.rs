//! Which ports there are: how a plain number finds its port.
//!
//! Handles such as [`SocketRef`](crate::SocketRef) are numbers; they find the core here, so that a
//! stale handle is answered `Closed`. A pointer in each handle was rejected: either it keeps the port
//! alive from a dictionary somebody forgot, or it dangles.
//!
//! A thread that waits on a port finds it without counting anything: its waiter keeps the port alive.
//! Other threads remember the port they asked for last without keeping it: as long as they did, a
//! thread that had once sent something kept the ring and the eventfd of an ended port open.
//!
//! In a fork no number finds a port of the parent.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, RwLock, Weak};

use crate::core::Core;

static PORTS: RwLock<Option<HashMap<u32, Weak<Core>>>> = RwLock::new(None);
static NEXT_PORT: AtomicU32 = AtomicU32::new(1);

thread_local! {
    /// A port that this thread has a waiter of.
    static KEPT: RefCell<Option<Arc<Core>>> = const { RefCell::new(None) };
    static RECENT: RefCell<Option<(u32, Weak<Core>)>> = const { RefCell::new(None) };
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
}

/// This thread has a waiter of the port.
pub(crate) fn keep(core: &Arc<Core>) {
    let kept = KEPT.try_with(|kept| {
        let mut kept = kept.try_borrow_mut().ok()?;
        kept.replace(Arc::clone(core))
    });
    drop(kept);
}

/// A waiter of the port goes, on its thread.
pub(crate) fn let_go(core: &Arc<Core>) {
    let kept = KEPT.try_with(|kept| {
        let mut kept = kept.try_borrow_mut().ok()?;
        kept.take_if(|kept| kept.id == core.id)
    });
    drop(kept);
}

/// Runs `action` with the core of this number, unless the port is gone, or the parent's.
pub(crate) fn with_core<R>(port: u32, action: impl FnOnce(&Arc<Core>) -> R) -> Option<R> {
    let mut action = Some(action);
    let mut run = |core: &Arc<Core>| {
        // Before any lock of the port: a thread that is none of this process may hold it.
        action
            .take()
            .filter(|_| !core.is_forked())
            .map(|action| action(core))
    };
    let kept = KEPT.try_with(|kept| {
        let kept = kept.try_borrow().ok()?;
        kept.as_ref().filter(|core| core.id == port).map(&mut run)
    });
    if let Ok(Some(answer)) = kept {
        return answer;
    }
    let core = recent(port).or_else(|| look_up(port))?;
    run(&core)
}

fn recent(port: u32) -> Option<Arc<Core>> {
    let recent = RECENT.try_with(|recent| {
        let recent = recent.borrow();
        let (_, core) = recent.as_ref().filter(|recent| recent.0 == port)?;
        core.upgrade()
    });
    recent.ok().flatten()
}

fn look_up(port: u32) -> Option<Arc<Core>> {
    let core = PORTS
        .read()
        .expect("the registry is never poisoned")
        .as_ref()?
        .get(&port)?
        .upgrade()?;
    let _ = RECENT.try_with(|recent| recent.replace(Some((port, Arc::downgrade(&core)))));
    Some(core)
}
