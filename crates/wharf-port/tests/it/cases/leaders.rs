//! A waiter that leaves the driver leaves the sleepers to another waiter. If one waiter at a time
//! is inside, it calls the next; if all are, one of them still knows the deadline. So no waiter
//! sleeps through a packet.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use wharf_port::{Key, Wait};

use crate::rig::Rig;
use crate::rig::case::{Case, Where, case, real_time, several_waiters};
use crate::rig::system::patience;

pub(crate) const CASES: &[Case] = &[
    case!(
        a_waiter_called_to_lead_without_time_calls_another,
        [C4, C5],
        "found in review: sleepers missed data until somebody waited again"
    )
    .skip(sleepers),
    case!(
        a_short_wait_leaves_a_sleeper_that_knows_the_deadline,
        [C4, C17],
        "the seeds of threads: a wake-up for a nearer timer went to a thread that did not sleep"
    )
    .skip(sleepers),
];

/// No waiter sleeps on the simulated network: its time has passed already.
fn sleepers(at: &Where) -> Option<&'static str> {
    several_waiters(at).or_else(|| real_time(at))
}

/// One waiter sleeps without a limit, while others come and leave for a moment, all at once: the
/// leader also calls one whose time is up. When they are gone, the one that stays must get what
/// comes.
fn a_waiter_called_to_lead_without_time_calls_another(at: &Where) {
    const OTHERS: usize = 3;
    const ROUNDS: usize = 500;
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    rig.drop_waiter();
    let (port, socket) = (&rig.port, stream.socket());
    let (begin, end) = (Barrier::new(OTHERS + 1), Barrier::new(OTHERS + 1));
    let over = AtomicBool::new(false);
    let (tell, told) = channel();
    let (go, may_go) = channel::<()>();
    thread::scope(|scope| {
        for _ in 0..OTHERS {
            scope.spawn(|| {
                let mut waiter = port.waiter().expect("a shared port has many");
                loop {
                    begin.wait();
                    if over.load(Ordering::Acquire) {
                        return;
                    }
                    drop(waiter.wait(Some(Duration::from_millis(1))));
                    end.wait();
                }
            });
        }
        scope.spawn(move || {
            let mut waiter = port.waiter().expect("a shared port has many");
            while may_go.recv().is_ok() {
                let mut has_it = false;
                while !has_it {
                    match waiter.wait(None).expect("waits") {
                        Wait::Packets(mut batch) => has_it = batch.any(|it| it.socket == socket),
                        Wait::TimedOut => panic!("no limit"),
                        Wait::Closed => return,
                    }
                }
                tell.send(()).expect("the case listens");
            }
        });
        for round in 0..ROUNDS {
            begin.wait();
            // Some are inside by now, or not: most of the time it sleeps behind them.
            (0..round % 8).for_each(|_| thread::yield_now());
            go.send(()).expect("it listens");
            end.wait();
            // Only this one is left, and it does not wait for the others.
            assert_eq!(peer.try_send(b"x"), Some(1), "a byte always fits");
            let got = told.recv_timeout(patience(20));
            if got.is_err() {
                over.store(true, Ordering::Release);
                port.close();
                begin.wait();
                drop(go);
                panic!("in round {round} it slept through a byte");
            }
        }
        over.store(true, Ordering::Release);
        begin.wait();
        drop(go);
    });
}

/// One waiter sleeps without a limit, and another one waits for a moment, over and over, while a
/// timer is set: it takes wake-ups for the first. When it has left, the one that stays must get the
/// timer.
fn a_short_wait_leaves_a_sleeper_that_knows_the_deadline(at: &Where) {
    const ROUNDS: u64 = 150;
    const LOOKS_MORE: usize = 10;
    let mut rig = Rig::new(at);
    rig.drop_waiter();
    let port = &rig.port;
    let (begin, end) = (Barrier::new(2), Barrier::new(2));
    let (over, set) = (AtomicBool::new(false), AtomicU64::new(0));
    let (tell, told) = channel();
    thread::scope(|scope| {
        let looked_in = tell.clone();
        let (begin, end, over, set) = (&begin, &end, &over, &set);
        scope.spawn(move || {
            let mut waiter = port.waiter().expect("a shared port has many");
            let mut look = || {
                let wait = waiter.wait(Some(Duration::ZERO)).expect("waits");
                if let Wait::Packets(batch) = wait {
                    batch.for_each(|it| looked_in.send(it.key).expect("the case listens"));
                }
            };
            for round in 0.. {
                begin.wait();
                if over.load(Ordering::Acquire) {
                    return;
                }
                while set.load(Ordering::Acquire) == round {
                    look();
                }
                (0..LOOKS_MORE).for_each(|_| look());
                end.wait();
            }
        });
        scope.spawn(move || {
            let mut waiter = port.waiter().expect("a shared port has many");
            while let Wait::Packets(batch) = waiter.wait(None).expect("waits") {
                batch.for_each(|it| tell.send(it.key).expect("the case listens"));
            }
        });
        for round in 0..ROUNDS {
            begin.wait();
            (0..round % 8).for_each(|_| thread::yield_now());
            let due = Instant::now() + Duration::from_millis(1);
            port.timer(due, Key(round)).expect("room");
            set.store(round + 1, Ordering::Release);
            let got = told.recv_timeout(patience(20));
            end.wait();
            if got != Ok(Key(round)) {
                over.store(true, Ordering::Release);
                port.close();
                begin.wait();
                panic!("in round {round} the timer was slept through: {got:?}");
            }
        }
        over.store(true, Ordering::Release);
        port.close();
        begin.wait();
    });
}
