//! The registry of ports: it finds the port of a number.
//!
//! Handles such as [`SocketRef`](crate::SocketRef) are numbers. They find the core here, so a stale
//! handle gets `Closed`. A pointer in each handle was rejected. It would either keep the port alive
//! from a forgotten dictionary, or dangle.
//!
//! A thread that waits on a port finds it without touching a reference count, because its waiter
//! keeps the port alive. Other threads cache their last port as a weak reference. With a strong
//! reference, any thread that had once sent something kept the ring and the eventfd of an ended
//! port open.
//!
//! In a fork no number finds a port of the parent. The fork has its own registry and never uses
//! that of its parent: a thread that does not exist in the fork may have locked the parent's
//! registry for ever, and then the fork could not build a port. Handlers of `pthread_atfork` that
//! take the lock before each fork were rejected, because every fork of the program would wait for
//! the ports.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, RwLock, Weak};

use crate::core::Core;
use crate::sys;

/// The ports of one process.
struct Ports {
    /// How many forks led to this process, counted from the first one.
    forks: u32,
    by_number: RwLock<Option<HashMap<u32, Weak<Core>>>>,
    /// The registry of a fork of it, in that fork.
    of_child: OnceLock<Box<Ports>>,
}

static FIRST: Ports = Ports::after(0);
static NEXT_PORT: AtomicU32 = AtomicU32::new(1);

thread_local! {
    /// A port that this thread has a waiter of.
    static KEPT: RefCell<Option<Arc<Core>>> = const { RefCell::new(None) };
    static RECENT: RefCell<Option<(u32, Weak<Core>)>> = const { RefCell::new(None) };
}

impl Ports {
    const fn after(forks: u32) -> Self {
        Ports {
            forks,
            by_number: RwLock::new(None),
            of_child: OnceLock::new(),
        }
    }

    /// Returns the registry of this process. The chain has one entry for each ancestor that had a
    /// registry, usually none.
    fn of_this_process() -> &'static Self {
        let forks = sys::forks();
        let mut ports = &FIRST;
        while ports.forks != forks {
            let of_child = || Box::new(Ports::after(forks));
            ports = ports.of_child.get_or_init(of_child);
        }
        ports
    }
}

/// Returns a number for a new port. No number is used twice.
pub(crate) fn next_port() -> u32 {
    NEXT_PORT.fetch_add(1, Ordering::Relaxed)
}

pub(crate) fn insert(core: &Arc<Core>) {
    let ports = Ports::of_this_process();
    let mut by_number = ports
        .by_number
        .write()
        .expect("the registry is never poisoned");
    by_number
        .get_or_insert_with(HashMap::new)
        .insert(core.id, Arc::downgrade(core));
}

/// Forgets a port that has ended.
pub(crate) fn remove(port: u32) {
    let ports = Ports::of_this_process();
    let mut by_number = ports
        .by_number
        .write()
        .expect("the registry is never poisoned");
    if let Some(by_number) = by_number.as_mut() {
        by_number.remove(&port);
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

/// Runs `action` with the core of this number. Returns `None` if the port is gone or belongs to the
/// parent.
pub(crate) fn with_core<R>(port: u32, action: impl FnOnce(&Arc<Core>) -> R) -> Option<R> {
    let mut action = Some(action);
    let mut run = |core: &Arc<Core>| {
        // This check comes before any lock of the port: a thread that does not exist in this
        // process may hold the lock.
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
    let core = Ports::of_this_process()
        .by_number
        .read()
        .expect("the registry is never poisoned")
        .as_ref()?
        .get(&port)?
        .upgrade()?;
    let _ = RECENT.try_with(|recent| recent.replace(Some((port, Arc::downgrade(&core)))));
    Some(core)
}

#[cfg(test)]
mod tests {
    use super::Ports;
    use crate::Port;

    /// An entry that stays holds the memory of the port's core for ever.
    #[test]
    fn a_port_that_has_ended_is_not_in_the_registry() {
        let is_there = |number: u32| {
            let ports = Ports::of_this_process();
            let by_number = ports.by_number.read().expect("no thread panicked there");
            by_number
                .as_ref()
                .is_some_and(|it| it.contains_key(&number))
        };
        let port = Port::builder().build().expect("some driver works here");
        let number = port.core.id();
        assert!(is_there(number));
        drop(port);
        assert!(!is_there(number));
    }
}
