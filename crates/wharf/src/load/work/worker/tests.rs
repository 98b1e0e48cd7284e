//! What a thread does by itself, without a peer.

use std::net::{SocketAddr, TcpListener};

use wharf_port::ConnectOptions;

use super::*;
use crate::load::model::schedule::Pace;

/// A thread with ten connections to hold, and the port that it waits on.
fn with_worker(arrivals: Option<Schedule>, work: impl FnOnce(&Port, Worker<'_>)) {
    let port = Port::builder().single_waiter().build().expect("a port");
    with_worker_on(
        &port,
        &[SocketAddr::from(([127, 0, 0, 1], 9))],
        arrivals,
        work,
    );
}

fn with_worker_on(
    port: &Port,
    targets: &[SocketAddr],
    arrivals: Option<Schedule>,
    work: impl FnOnce(&Port, Worker<'_>),
) {
    let aim = |target: &SocketAddr| Aim {
        address: (*target).into(),
        to: ConnectOptions::new(*target),
        sources: Vec::new(),
    };
    let aims: Vec<Aim> = targets.iter().map(aim).collect();
    let orders = Orders {
        mode: Mode::Hold,
        aims: &aims,
        connections: 10,
        open_at_once_max: u32::MAX,
        connecting_max: CONNECTING_MAX,
        size: 64,
        pipeline: 1,
        arrivals,
        requests: None,
        touch: None,
        seed: 1,
        reset: false,
        leave_memory_bytes: None,
        time_up_at: None,
        thread: 0,
        threads: 1,
    };
    let (noise, ledger) = (Noise::new(1), Ledger::new(Instant::now()));
    let latencies = Mutex::new(Latencies::new());
    work(port, Worker::new(port, orders, &noise, &ledger, &latencies));
}

#[test]
fn one_timer_is_set_for_the_next_connect() {
    let pace = Pace {
        per_second: 0.001,
        ramp: Duration::ZERO,
    };
    let later = Instant::now() + Duration::from_secs(3_600);
    with_worker(
        Some(Schedule::new(later, pace, 0, 1)),
        |port, mut worker| {
            for _ in 0..5 {
                // As every connection does once it has connected.
                worker.connect_more().expect("a timer");
            }
            assert_eq!(port.stats().timers, 1);
        },
    );
}

#[test]
fn what_is_silent_is_given_up_and_what_drips_too() {
    for (drips, steps) in [(false, 10), (true, 120)] {
        with_worker(None, |_, mut worker| {
            worker.connections[0] = Connection::Connecting(Instant::now(), Attempt::default());
            worker.connecting = 1;
            for step in 1..=steps {
                assert_eq!(worker.connecting, 1, "before step {step}");
                worker.heard += u64::from(drips);
                worker.drain().expect("a timer");
            }
            assert_eq!(worker.connecting, 0, "dripping: {drips}");
        });
    }
}

/// After a process exits, the kernel closes its io_uring connections a moment later. A server that
/// was stopped in that moment once had to close up to 8,000 of them itself, and counted them as its
/// own closes.
#[test]
fn a_thread_that_is_done_has_left_nothing_open() {
    for driver in wharf_port::drivers_present() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let target = listener.local_addr().expect("it listens");
        let builder = Port::builder().driver(driver.into()).single_waiter();
        let port = builder.build().expect("a driver that is present");
        with_worker_on(&port, &[target], None, |port, mut worker| {
            worker.orders.time_up_at = Some(Instant::now() + Duration::from_millis(50));
            let ledger = worker.ledger;
            worker.run(|| ()).expect("a port that works");
            // How far it came depends on its time; here it comes far.
            assert_eq!(ledger.counts().connected, 10, "{driver}");
            assert_eq!(port.stats().sockets, 0, "{driver}");
        });
    }
}

/// A host may list an address without a listener before one with a listener.
#[test]
fn each_address_is_tried_until_one_answers() {
    for driver in wharf_port::drivers_present() {
        let dead = || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            listener.local_addr().expect("it listens")
        };
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let lives = listener.local_addr().expect("it listens");
        let answers = |targets: &[SocketAddr]| {
            let builder = Port::builder().driver(driver.into()).single_waiter();
            let port = builder.build().expect("a driver that is present");
            let mut found = None;
            with_worker_on(&port, targets, None, |_, mut worker| {
                worker.orders.time_up_at = Some(Instant::now() + Duration::from_millis(200));
                let ledger = worker.ledger;
                worker.run(|| ()).expect("a port that works");
                found = Some(ledger.counts());
            });
            let counts = found.expect("it ran");
            (counts.connected, counts.failed, counts.connected_to)
        };
        let to = Some(lives.to_string());
        assert_eq!(answers(&[lives, dead()]), (10, 0, to.clone()), "{driver}");
        assert_eq!(answers(&[dead(), dead(), lives]), (10, 0, to), "{driver}");
        // Each has failed once, however many it has tried.
        assert_eq!(answers(&[dead(), dead()]), (0, 10, None), "{driver}");
    }
}
