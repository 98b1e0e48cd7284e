//! Threads that run one at a time on a simulated network, so that a seed decides their order as
//! well.
//!
//! Each thread is an actor, and only one actor runs at a time. An actor hands over where it would
//! sleep (in the driver, parked, or for a time of its own), and between two steps of a wait, where
//! it holds no lock. So no thread ever waits for a lock of a port, and only the seed decides which
//! actor is next. The clock moves when all actors sleep. At that moment the port must be quiet:
//! while a waiter sleeps, nothing may be queued or due, and one waiter must lead. So a lost wake-up
//! is detected when it is lost, and does not just look like a delay.
//!
//! This is for the suite of this crate. A program whose threads also wait for each other in other
//! ways would deadlock. `docs/decisions` says why this is not loom or shuttle.

use std::cell::Cell;
use std::fmt;
use std::sync::{Arc, Weak};
use std::thread::{self, ThreadId};
use std::time::Duration;

use parking_lot::{Condvar, MutexGuard};

use super::queue::Shared;
use super::random::Random;
use super::world::World;
use crate::core::Core;
use crate::lock;

thread_local! {
    /// Which actor this thread is. `None` after the thread has ended, while its thread-locals are
    /// destroyed.
    static ACTOR: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Runs the threads of a port one at a time.
#[derive(Clone)]
pub struct Stage {
    shared: Arc<Shared>,
}

/// What an actor does while it does not run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Doing {
    /// It may run.
    Ready,
    /// It sleeps in the driver, until a wake-up, an event or this time.
    InDriver(Option<u64>),
    /// It is parked, until it is called or this time.
    Parked(Option<u64>),
    /// It sleeps until this time for a reason of its own.
    Away(u64),
    Gone,
}

#[derive(Debug)]
struct Actor {
    doing: Doing,
    thread: Option<ThreadId>,
    turn: Arc<Condvar>,
}

/// The actors of a world, and which one runs.
#[derive(Debug)]
pub(super) struct Acting {
    core: Weak<Core>,
    random: Random,
    /// How many times in a thousand steps an actor continues itself.
    keeps: u16,
    actors: Vec<Actor>,
    /// Which actor runs. `None` while the director decides.
    on: Option<usize>,
    director: Arc<Condvar>,
    /// The actor whose thread is ending.
    ended: Option<usize>,
    failed: Option<String>,
    digest: u64,
    turns: u64,
}

impl Stage {
    /// Returns the stage of the port of `core`.
    pub(crate) fn of_core(core: &Arc<Core>, seed: u64, keeps: u16) -> Option<Stage> {
        let shared = core.driver().network()?.shared;
        let core = Arc::downgrade(core);
        shared.with(|world| {
            world.acting = Some(Acting {
                core,
                random: Random::new(seed),
                keeps,
                actors: Vec::new(),
                on: None,
                director: Arc::default(),
                ended: None,
                failed: None,
                digest: seed,
                turns: 0,
            });
        });
        Some(Stage { shared })
    }

    /// Makes a new actor. Its thread starts with `begin`.
    #[must_use]
    pub fn actor(&self) -> usize {
        self.shared.with(|world| {
            let actors = &mut world.acting_mut().actors;
            actors.push(Actor {
                doing: Doing::Ready,
                thread: None,
                turn: Arc::default(),
            });
            actors.len() - 1
        })
    }

    /// Makes the calling thread this actor, and waits until the actor runs.
    pub fn begin(&self, actor: usize) {
        ACTOR.set(Some(actor));
        let mut world = lock(self.shared.world());
        world.acting_mut().actors[actor].thread = Some(thread::current().id());
        wait_for_turn(&mut world, actor);
    }

    /// Ends the calling thread's actor. The director waits for that before another actor runs.
    pub fn end(&self) {
        let Some(actor) = ACTOR.take() else { return };
        let mut world = lock(self.shared.world());
        let acting = world.acting_mut();
        acting.actors[actor].doing = Doing::Gone;
        acting.ended = Some(actor);
        acting.call_director();
    }

    /// The calling thread found something wrong: no actor continues.
    pub fn fail(&self, why: String) -> ! {
        let mut world = lock(self.shared.world());
        let acting = world.acting_mut();
        acting.failed.get_or_insert(why);
        acting.call_director();
        drop(world);
        loop {
            thread::park();
        }
    }

    /// Another actor may run here.
    pub fn step(&self) {
        self.shared.step();
    }

    /// Sleeps for this long on the network's clock.
    pub fn sleep(&self, time: Duration) {
        let world = lock(self.shared.world());
        let until = world.after(time);
        drop(self.shared.act(world, Doing::Away(until)));
    }

    /// Directs until all actors have ended. `ended` waits for the end of an actor's thread.
    ///
    /// # Errors
    /// What an actor or the stage found wrong.
    pub fn direct(&self, mut ended: impl FnMut(usize)) -> Result<(), String> {
        loop {
            let mut world = lock(self.shared.world());
            if let Some(actor) = world.acting_mut().ended.take() {
                drop(world);
                ended(actor);
                continue;
            }
            if let Some(why) = world.acting_mut().failed.take() {
                return Err(why);
            }
            let Some(next) = world.next_actor()? else {
                return Ok(());
            };
            world.acting_mut().hand_to(next);
            let called = Arc::clone(&world.acting_mut().director);
            while world.acting_mut().on.is_some() {
                called.wait(&mut world);
            }
        }
    }

    /// Returns a digest, which is equal if two runs chose the same actors in the same order, and
    /// the number of choices.
    #[must_use]
    pub fn digest(&self) -> (u64, u64) {
        self.shared.with(|world| {
            let acting = world.acting_mut();
            (acting.digest, acting.turns)
        })
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.with(|world| {
            let mut list = f.debug_list();
            for (number, actor) in world.acting_mut().actors.iter().enumerate() {
                list.entry(&(number, actor.doing));
            }
            list.finish()
        })
    }
}

impl Shared {
    /// A step of an actor is over, and it holds no lock. Does nothing on a thread that is no actor.
    pub(super) fn step(&self) {
        if ACTOR.get().is_none() {
            return;
        }
        let mut world = lock(self.world());
        let acting = world.acting_mut();
        let keeps = acting.keeps;
        if !acting.random.chance(keeps) {
            drop(self.act(world, Doing::Ready));
        }
    }

    /// Hands over to another actor, and returns when this one runs again.
    pub(super) fn act<'a>(
        &'a self,
        mut world: MutexGuard<'a, World>,
        doing: Doing,
    ) -> MutexGuard<'a, World> {
        let me = ACTOR.get().expect("the thread is an actor");
        world.acting_mut().actors[me].doing = doing;
        match world.next_actor() {
            Ok(next) => world
                .acting_mut()
                .hand_to(next.expect("this actor has not ended")),
            Err(why) => {
                let acting = world.acting_mut();
                acting.failed.get_or_insert(why);
                acting.call_director();
            }
        }
        wait_for_turn(&mut world, me);
        world.acting_mut().actors[me].doing = Doing::Ready;
        world
    }
}

/// Whether the calling thread is an actor.
pub(super) fn is_actor() -> bool {
    ACTOR.get().is_some()
}

fn wait_for_turn(world: &mut MutexGuard<'_, World>, me: usize) {
    let turn = Arc::clone(&world.acting_mut().actors[me].turn);
    while world.acting_mut().on != Some(me) {
        turn.wait(world);
    }
}

impl Acting {
    fn hand_to(&mut self, actor: usize) {
        self.turns += 1;
        self.digest = (self.digest ^ actor as u64).wrapping_mul(0x0000_0100_0000_01B3);
        self.on = Some(actor);
        self.actors[actor].turn.notify_one();
    }

    fn call_director(&mut self) {
        self.on = None;
        self.director.notify_one();
    }
}

impl World {
    fn acting_mut(&mut self) -> &mut Acting {
        self.acting.as_mut().expect("threads take turns")
    }

    /// Chooses the next actor, and moves the clock as far as that needs. Returns `None` if all have
    /// ended.
    fn next_actor(&mut self) -> Result<Option<usize>, String> {
        loop {
            let acting = self.acting.as_ref().expect("threads take turns");
            let may = |actor: &Actor| self.may_go_on(actor);
            let ready: Vec<usize> = (0..acting.actors.len())
                .filter(|actor| may(&acting.actors[*actor]))
                .collect();
            if !ready.is_empty() {
                let random = &mut self.acting_mut().random;
                let chosen = random.below(ready.len() as u64) as usize;
                return Ok(Some(ready[chosen]));
            }
            if acting.actors.iter().all(|it| it.doing == Doing::Gone) {
                return Ok(None);
            }
            acting.check_quiet(self.now_ns, self.start)?;
            let next = acting.actors.iter().filter_map(|actor| self.ends_at(actor));
            self.now_ns = next
                .min()
                .ok_or("all actors sleep, and no event is left that could wake one")?;
        }
    }

    fn may_go_on(&self, actor: &Actor) -> bool {
        let is_over = self.ends_at(actor).is_some_and(|at| at <= self.now_ns);
        match actor.doing {
            Doing::Ready => true,
            Doing::Gone => false,
            Doing::Away(_) => is_over,
            Doing::InDriver(_) => is_over || self.sleepers.has_wakes(),
            Doing::Parked(_) => is_over || self.sleepers.is_called(actor.thread),
        }
    }

    /// Returns when a sleep ends by itself.
    fn ends_at(&self, actor: &Actor) -> Option<u64> {
        match actor.doing {
            Doing::Ready | Doing::Gone => None,
            Doing::Away(until) => Some(until),
            Doing::Parked(until) => until,
            Doing::InDriver(until) => [until, self.next_event_ns()].into_iter().flatten().min(),
        }
    }
}

impl Acting {
    /// No actor may run before the clock moves. Checks that no waiter sleeps through anything.
    fn check_quiet(&self, now_ns: u64, start: std::time::Instant) -> Result<(), String> {
        let is = |which: fn(&Doing) -> bool| self.actors.iter().any(|it| which(&it.doing));
        let leads = is(|doing| matches!(doing, Doing::InDriver(_)));
        let waits = leads || is(|doing| matches!(doing, Doing::Parked(_)));
        let Some(core) = self.core.upgrade().filter(|_| waits) else {
            return Ok(());
        };
        let due = core.next_deadline();
        let due = due.is_some_and(|at| at <= start + Duration::from_nanos(now_ns));
        let slept_through = match () {
            () if core.is_closed() => "the close of the port",
            () if core.has_ready() => "what is queued",
            () if !leads => "everything, because no waiter leads",
            () if due => "a timer",
            () if core.nothing_is_left() => "the end of the port",
            () => return Ok(()),
        };
        let doing: Vec<Doing> = self.actors.iter().map(|actor| actor.doing).collect();
        Err(format!("waiters sleep through {slept_through}: {doing:?}"))
    }
}
