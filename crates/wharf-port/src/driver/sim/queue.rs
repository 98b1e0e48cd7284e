//! The network as its driver, its peers and its handle share it: which threads sleep on it, and
//! when its clock moves.
//!
//! A waiter sleeps inside the driver, or is parked while another one leads. Both sleep on this
//! clock, which jumps to the earliest time that any of them waits for. If a parked thread slept by
//! the system's clock, it and the leader would be in different times.

use std::collections::HashSet;
use std::thread::{self, Thread, ThreadId};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::options::SimOptions;
use super::stage::{Doing, is_actor};
use super::world::{Event, World};
use crate::{lock, sys};

#[derive(Debug)]
pub(super) struct Shared {
    world: Mutex<World>,
    /// Something was scheduled, or a thread is to wake.
    changed: Condvar,
}

/// The threads that sleep, and those that are to wake.
#[derive(Debug, Default)]
pub(super) struct Sleepers {
    /// Wake-ups that no thread inside the driver has taken yet.
    wakes: u32,
    /// Threads inside the driver.
    inside: u32,
    /// Threads that wait for a change.
    sleeping: u32,
    /// Until when threads are parked, for those with a limit.
    parked_until_ns: Vec<(ThreadId, u64)>,
    /// Threads whose park, or whose next one, is to end.
    called: HashSet<ThreadId>,
}

impl Sleepers {
    pub(super) fn has_wakes(&self) -> bool {
        self.wakes > 0
    }

    pub(super) fn is_called(&self, thread: Option<ThreadId>) -> bool {
        thread.is_some_and(|thread| self.called.contains(&thread))
    }
}

impl Shared {
    pub(super) fn new(options: SimOptions, token: sys::Handle) -> Self {
        Shared {
            world: Mutex::new(World::new(options, token)),
            changed: Condvar::new(),
        }
    }

    pub(super) fn world(&self) -> &Mutex<World> {
        &self.world
    }

    /// Changes the world, and wakes the threads that sleep if the change has scheduled events.
    pub(super) fn with<R>(&self, action: impl FnOnce(&mut World) -> R) -> R {
        let mut world = lock(&self.world);
        let scheduled = world.scheduled;
        let result = action(&mut world);
        if world.sleepers.sleeping > 0 && world.scheduled != scheduled {
            self.changed.notify_all();
        }
        result
    }

    /// The calling thread enters the driver, where it may be the only one.
    pub(super) fn enter(&self, one_leads: bool) {
        let mut world = lock(&self.world);
        world.sleepers.inside += 1;
        assert!(
            !one_leads || world.sleepers.inside == 1,
            "two threads lead at a time"
        );
    }

    /// The calling thread leaves the driver.
    pub(super) fn leave(&self) {
        let mut world = lock(&self.world);
        world.sleepers.inside -= 1;
        if !world.sleepers.parked_until_ns.is_empty() {
            self.changed.notify_all();
        }
    }

    pub(super) fn wake(&self, threads: u32) {
        lock(&self.world).sleepers.wakes += threads;
        self.changed.notify_all();
    }

    /// Returns the next event that is due. If none is due and `sleepy` is set, sleeps until one is.
    /// Returns `None` if virtual `deadline_ns` or a wake-up comes first, or if nothing is due and
    /// `sleepy` is not set. Counts the wake-up that it takes in `wakes`.
    pub(super) fn next(
        &self,
        deadline_ns: Option<u64>,
        sleepy: bool,
        wakes: &mut u32,
    ) -> Option<Event> {
        let mut world = lock(&self.world);
        loop {
            if *wakes == 0 && world.sleepers.wakes > 0 {
                world.sleepers.wakes -= 1;
                *wakes = 1;
            }
            if let Some(event) = world.take_due() {
                return Some(event);
            }
            if *wakes > 0 || !sleepy {
                return None;
            }
            if is_actor() {
                if deadline_ns.is_some_and(|deadline| deadline <= world.now_ns) {
                    return None;
                }
                world = self.act(world, Doing::InDriver(deadline_ns));
                continue;
            }
            let next = world.next_event_ns();
            let mine = [next, deadline_ns].into_iter().flatten().min();
            let parked = world.next_parked_ns();
            if let Some(parked) = parked.filter(|parked| mine.is_none_or(|mine| *parked < mine)) {
                world.now_ns = parked;
                self.changed.notify_all();
                continue;
            }
            match (next, deadline_ns) {
                (Some(next), deadline) if deadline.is_none_or(|deadline| next <= deadline) => {
                    world.now_ns = next;
                }
                (_, Some(deadline)) => {
                    world.now_ns = world.now_ns.max(deadline);
                    return None;
                }
                (_, None) => self.sleep(&mut world),
            }
        }
    }

    /// Parks the calling thread, at most this long, until it is called.
    pub(super) fn park(&self, at_most: Option<Duration>) {
        let me = thread::current().id();
        let mut world = lock(&self.world);
        let deadline_ns = at_most.map(|limit| world.after(limit));
        if is_actor() {
            world = self.act(world, Doing::Parked(deadline_ns));
            world.sleepers.called.remove(&me);
            return;
        }
        if let Some(deadline_ns) = deadline_ns {
            world.sleepers.parked_until_ns.push((me, deadline_ns));
            self.changed.notify_all();
        }
        while !world.sleepers.called.remove(&me) {
            if let Some(deadline_ns) = deadline_ns {
                // If no thread leads and none is called to lead, no other thread moves the clock.
                if world.sleepers.inside == 0 && world.sleepers.called.is_empty() {
                    world.now_ns = world.now_ns.max(deadline_ns);
                }
                if world.now_ns >= deadline_ns {
                    break;
                }
            }
            self.sleep(&mut world);
        }
        let parked = &mut world.sleepers.parked_until_ns;
        parked.retain(|(thread, _)| *thread != me);
    }

    /// Ends the park of this thread, or its next one.
    pub(super) fn unpark(&self, thread: &Thread) {
        lock(&self.world).sleepers.called.insert(thread.id());
        self.changed.notify_all();
    }

    /// The calling thread has no waiter any more, so no thread will call it.
    pub(super) fn forget_call(&self) {
        let me = thread::current().id();
        lock(&self.world).sleepers.called.remove(&me);
    }

    fn sleep(&self, world: &mut MutexGuard<'_, World>) {
        world.sleepers.sleeping += 1;
        self.changed.wait(world);
        world.sleepers.sleeping -= 1;
    }
}

impl World {
    /// Returns when the time of a parked thread is up next.
    fn next_parked_ns(&self) -> Option<u64> {
        let until = self
            .sleepers
            .parked_until_ns
            .iter()
            .map(|(_, until)| *until);
        until.filter(|until| *until > self.now_ns).min()
    }
}
