//! One seed from start to end: the port, the threads on it, and what must hold in the end.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use wharf_port::sim::{Network, Stage};
use wharf_port::{Address, Listener, Port};

use super::books::Books;
use super::cast;
use super::plan::Plan;
use super::waiter;
use super::{SAID, Tally};
use crate::random::sim::plan::Dice;
use crate::rig::{LISTENER, lock};

/// A scene and everything on it.
pub(crate) struct Scene {
    seed: u64,
    pub(crate) plan: Plan,
    pub(crate) port: Port,
    pub(crate) network: Network,
    pub(crate) stage: Stage,
    pub(crate) address: Address,
    listener: Mutex<Option<Listener>>,
    books: Mutex<Books>,
    threads: Mutex<HashMap<usize, JoinHandle<()>>>,
}

impl Scene {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        let plan = Plan::new(seed, &mut Dice::new(seed));
        let port = plan.builder().build().expect("a simulated port");
        let network = port.sim().expect("a simulated port");
        let stage = Stage::of(&port, seed, plan.keeps).expect("a simulated port");
        let listener = port.listen(([127, 0, 0, 1], 0), LISTENER);
        let listener = listener.expect("nobody listens yet");
        let listener = listener.accept().expect("a fresh listener accepts");
        Arc::new(Scene {
            seed,
            address: listener.local_addr().expect("it listens"),
            listener: Mutex::new(Some(listener)),
            plan,
            port,
            network,
            stage,
            books: Mutex::default(),
            threads: Mutex::default(),
        })
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        lock(&self.books)
    }

    /// Puts another thread on the scene.
    pub(crate) fn cast(self: &Arc<Self>, play: fn(&Arc<Scene>, usize, &mut Dice)) {
        let actor = self.stage.actor();
        let scene = Arc::clone(self);
        let thread = std::thread::spawn(move || {
            scene.stage.begin(actor);
            SAID.set(Some(String::new()));
            let mut dice = Dice::new(scene.seed + (actor as u64 + 1) * 1_000_003);
            let played = catch_unwind(AssertUnwindSafe(|| play(&scene, actor, &mut dice)));
            if played.is_err() {
                scene.stage.fail(SAID.take().unwrap_or_default());
            }
            SAID.set(None);
            scene.stage.end();
        });
        lock(&self.threads).insert(actor, thread);
    }

    pub(crate) fn play(self: &Arc<Self>) -> Result<Tally, String> {
        for _ in 0..self.plan.waiters {
            self.cast(waiter::waits);
        }
        let others = 1 + self.plan.posters + 1;
        self.books().busy = others;
        self.cast(cast::talks);
        for _ in 0..self.plan.posters {
            self.cast(cast::posts);
        }
        self.cast(cast::sets_timers);
        self.cast(cast::gives_back);
        self.cast(cast::closes);
        self.stage.direct(|actor| {
            let thread = lock(&self.threads).remove(&actor);
            let ended: Result<(), Box<dyn Any + Send>> = thread.expect("it was cast").join();
            ended.expect("what an actor says is caught");
            // The packets of a forgotten waiter went back with its thread.
            self.books().end_turns(actor);
        })?;
        Ok(self.check())
    }

    /// All have ended: the port holds nothing.
    fn check(&self) -> Tally {
        self.books().connections.clear();
        lock(&self.listener).take();
        let stats = self.port.stats();
        assert_eq!(stats.operations_leaked, 0, "C14: operations leaked");
        assert_eq!(stats.sockets, 0, "C14: sockets are left");
        assert_eq!(stats.leases, 0, "C8: leases are missing");
        assert_eq!(stats.foreign_packets, 0, "foreign packets came");
        let (digest, turns) = self.stage.digest();
        let mut books = self.books();
        assert_eq!(stats.waiters_leaked, books.tally.forgotten, "C4");
        books.check_the_end();
        books.note(0, digest);
        books.tally.turns = turns;
        books.tally.one_leads = u64::from(self.plan.network.one_leads);
        books.tally
    }

    /// A time to sleep, mostly the same: many expire at one moment.
    pub(crate) fn time(&self, dice: &mut Dice) -> Duration {
        let beat = self.plan.beat_us;
        Duration::from_micros(match dice.below(8) {
            0 => dice.below(beat as usize + 1) as u64,
            1 => 20 * beat,
            2 => 2 * beat,
            _ => beat,
        })
    }

    /// Sleeps for such a time.
    pub(crate) fn rest(&self, dice: &mut Dice) {
        self.stage.sleep(self.time(dice));
    }

    /// Sometimes lets others go on.
    pub(crate) fn step(&self, dice: &mut Dice) {
        if dice.chance(700) {
            self.stage.step();
        }
    }
}
