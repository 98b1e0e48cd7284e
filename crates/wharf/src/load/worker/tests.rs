//! What a thread does by itself, without anybody to connect to.

use super::*;
use crate::load::schedule::Pace;

/// A thread that has ten connections to hold, and the port that it waits on.
fn with_worker(arrivals: Option<Schedule>, work: impl FnOnce(&Port, Worker<'_>)) {
    let port = Port::builder().single_waiter().build().expect("a port");
    let orders = Orders {
        mode: Mode::Hold,
        connect: ConnectOptions::new(std::net::SocketAddr::from(([127, 0, 0, 1], 9))),
        sources: &[],
        connections: 10,
        open_at_once_max: u32::MAX,
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
    work(
        &port,
        Worker::new(&port, orders, &noise, &ledger, &latencies),
    );
}

#[test]
fn one_timer_is_set_for_the_next_connect_whoever_asks() {
    let pace = Pace {
        per_second: 0.001,
        ramp: Duration::ZERO,
    };
    let later = Instant::now() + Duration::from_secs(3_600);
    with_worker(
        Some(Schedule::new(later, pace, 0, 1)),
        |port, mut worker| {
            for _ in 0..5 {
                // As every connection does that has connected.
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
            worker.connections[0] = Connection::Connecting(Instant::now());
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
