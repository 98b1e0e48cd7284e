//! One seed from start to end: a storm, then calm, then nothing may be left.

use std::time::Duration;

use wharf_port::sim::{Faults, SimOptions};
use wharf_port::{Event, Key, Wait};

use super::crowd::Crowd;
use super::plan::{Dice, Plan};
use super::program::Program;

/// The virtual time without faults in which everything must end. The longest that the port itself
/// may take is a flush of 5 s.
const CALM_MAX: Duration = Duration::from_secs(120);
/// The waits in which it must end, whatever time they take.
const WAITS_MAX: usize = 100_000;

/// The counts of a seed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) digest: u64,
    pub(crate) operations: u64,
    pub(crate) packets: u64,
    pub(crate) connections: u64,
    pub(crate) bytes: u64,
    pub(crate) faults: Faults,
}

pub(crate) struct Run {
    plan: Plan,
    dice: Dice,
    crowd: Crowd,
    pub(crate) program: Program,
}

impl Run {
    pub(crate) fn new(seed: u64, logs: bool) -> Self {
        let mut dice = Dice::new(seed);
        let plan = Plan::new(seed, &mut dice);
        let crowd = Crowd::new(&plan);
        let program = Program::new(&plan, &mut dice, logs);
        Run {
            plan,
            dice,
            crowd,
            program,
        }
    }

    pub(crate) fn describe(&self) -> String {
        let log = self.program.log.as_deref().unwrap_or_default();
        let tail = log[log.len().saturating_sub(60)..].join("\n    ");
        format!(
            "{:#?}\n  open:\n    {}\n  {}\n  {:?}\n  {:?}\n  the last packets:\n    {tail}",
            self.plan,
            self.program.ledger.describe(),
            self.program.describe(),
            self.program.port.stats(),
            self.program.network.faults(),
        )
    }

    pub(crate) fn go(&mut self) -> Tally {
        for _ in 0..self.plan.ticks {
            self.tick();
        }
        let faults = self.program.network.faults();
        self.calm();
        self.crowd.check();
        self.end();
        self.probe_pool();
        self.shut();
        Tally {
            digest: self.program.digest,
            operations: self.program.ledger.operations,
            packets: self.program.ledger.packets,
            connections: self.program.connections.len() as u64,
            bytes: self.crowd.clients.iter().map(|it| it.said as u64).sum(),
            faults,
        }
    }

    fn tick(&mut self) {
        let address = self.program.address();
        let network = self.program.network.clone();
        self.crowd.act(&network, &address, &mut self.dice);
        self.program
            .act(&self.plan, &mut self.crowd, &mut self.dice);
        let at_most = super::some_time(&mut self.dice);
        self.program
            .wait(at_most, &self.plan, &mut self.crowd, &mut self.dice);
    }

    /// The faults stop. All operations in flight must end in bounded virtual time.
    fn calm(&mut self) {
        self.check_shortages();
        self.program.network.behave(self.plan.calm());
        self.crowd.close_the_door();
        let (plan, crowd, dice) = (&self.plan, &mut self.crowd, &mut self.dice);
        self.program.calm_down(plan, crowd, dice);
        self.until("the connections' ends", |run| {
            let done = run.crowd.settle();
            let (plan, crowd, dice) = (&run.plan, &mut run.crowd, &mut run.dice);
            run.program.go_on(plan, crowd, dice);
            done && run.program.is_idle() && run.program.is_accepting()
        });
    }

    /// A listener out of descriptors tries ten times as long each time, and when a socket closes.
    fn check_shortages(&self) {
        let faults = self.program.network.faults();
        let closed = self.program.connections.len() as u64 + self.program.ledger.operations;
        assert!(
            faults.descriptor_errors <= 8 * faults.descriptor_shortages + 2 * closed,
            "C12: {} accepts without descriptors in {} shortages",
            faults.descriptor_errors,
            faults.descriptor_shortages
        );
    }

    /// The listener closes. Then nothing is owed, and the port holds nothing.
    fn end(&mut self) {
        self.program.close_listener();
        self.until("the end of all operations", |run| {
            run.program.ledger.owed() == 0
        });
        self.until("the end of all sockets and timers", |run| {
            let stats = run.program.port.stats();
            stats.sockets == 0 && stats.timers == 0
        });
        let stats = self.program.port.stats();
        assert_eq!(stats.leases, 0, "C8: leases are missing");
        assert_eq!(stats.posts, 0, "C16: posts are left");
        assert_eq!(stats.listeners_paused, 0, "C12: a listener is left");
        assert_eq!(stats.accepts_posted, 0, "an accept is left");
        assert_eq!(stats.foreign_packets, 0, "foreign packets came");
    }

    /// Every buffer of the pool can be lent again: none leaked.
    fn probe_pool(&mut self) {
        let program = &mut self.program;
        let address = ([127, 0, 0, 1], 7).into();
        let listener = program.port.listen(([127, 0, 0, 1], 7), Key(7));
        let listener = listener.expect("nobody listens there");
        listener.socket().accept().expect("a fresh listener");
        let each = self.plan.bounds.leases_per_socket as usize;
        // A lease that fills its buffer stays in the pool, and small ones may leave it.
        let calm = self.plan.calm();
        let message = vec![1; self.plan.bounds.buffer_bytes as usize];
        program.network.behave(SimOptions {
            buffer_bytes: calm.buffer_bytes.max(self.plan.bounds.buffer_bytes),
            ..calm
        });
        let mut peers = Vec::new();
        for _ in 0..self.plan.bounds.buffers.div_ceil(each) {
            let mut peer = program.network.connect(&address).expect("it listens");
            peer.send(&message).expect("it is connected");
            peers.push(peer);
        }
        let mut leases = Vec::new();
        let waiters = program.waiters.as_mut().expect("it waits until the end");
        let waiter = waiters.only_one();
        for _ in 0..10_000 {
            if leases.len() == self.plan.bounds.buffers {
                break;
            }
            for peer in &mut peers {
                peer.send(&message).expect("it is connected");
            }
            let wait = waiter.wait(Some(Duration::from_millis(50)));
            let Wait::Packets(batch) = wait.expect("C5: no error") else {
                continue;
            };
            for packet in batch {
                match packet.event {
                    Event::Accepted(accepted) => {
                        let stream = program.port.associate(accepted, Key(8));
                        let held = stream.expect("there is room").set_aside();
                        held.receive().expect("nothing reads");
                    }
                    Event::Received(lease) if lease.len() < message.len() => {}
                    Event::Received(lease) => leases.push(lease),
                    other => panic!("the probe of the pool knows nothing of {other:?}"),
                }
            }
        }
        let count = leases.len();
        assert_eq!(
            count, self.plan.bounds.buffers,
            "C8: buffers of the pool are lost"
        );
    }

    /// The port closes, with connections and leases still there, and leaves nothing behind.
    fn shut(&mut self) {
        self.program.port.close();
        self.program.waiters = None;
        let stats = self.program.port.stats();
        assert_eq!(stats.operations_leaked, 0, "C14: operations leaked");
        assert_eq!(stats.sockets, 0, "C14: sockets are left");
        assert_eq!(stats.leases, 0, "C8: leases are missing");
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Run) -> bool) {
        let deadline = self.program.network.now() + CALM_MAX;
        for _ in 0..WAITS_MAX {
            if done(self) {
                return;
            }
            let now = self.program.network.now();
            assert!(now < deadline, "liveness: {what} did not come");
            let step = Duration::from_millis(20);
            self.program
                .wait(step, &self.plan, &mut self.crowd, &mut self.dice);
        }
        panic!("liveness: {what} took {WAITS_MAX} waits");
    }
}
