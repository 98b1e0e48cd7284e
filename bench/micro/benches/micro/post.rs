//! Posting to another thread: the cost of one of many posts, and the time of one round trip.
//!
//! Not on the simulated network: its clock jumps when there is nothing to do, so a thread that
//! waits for another there only times out.

use std::sync::Barrier;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use wharf_port::{ErrorKind, Event, Key, Port, Wait, Waiter};

use crate::kind::{Kind, take};

pub(crate) fn all(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("post to another thread");
    group.throughput(Throughput::Elements(1));
    for kind in Kind::on_systems() {
        let (port, mut waiter) = kind.build();
        group.bench_function(kind.to_string(), |bencher| {
            bencher.iter_custom(|posts| one_way(&port, &mut waiter, posts));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("post there and back");
    group.throughput(Throughput::Elements(1));
    for kind in Kind::on_systems() {
        let (near, mut waiter) = kind.build();
        let far = far_end(kind, near.clone());
        group.bench_function(kind.to_string(), |bencher| {
            bencher.iter(|| {
                far.post(Key(1), 7).expect("nothing else waits there");
                take(&mut waiter, 1, |_| true);
            });
        });
        far.close();
    }
    group.finish();
}

fn one_way(port: &Port, waiter: &mut Waiter, posts: u64) -> Duration {
    let begin = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            bench_common::pin_thread(bench_common::CLIENT_PROCESSOR);
            begin.wait();
            (0..posts).for_each(|value| post_when_there_is_room(port, value));
        });
        begin.wait();
        let start = Instant::now();
        let posts = usize::try_from(posts).expect("no more than an address counts");
        take(waiter, posts, |packet| {
            matches!(packet.event, Event::Posted(_))
        });
        start.elapsed()
    })
}

fn post_when_there_is_room(port: &Port, value: u64) {
    while let Err(refused) = port.post(Key(1), value) {
        assert_eq!(refused.error.kind(), ErrorKind::Full);
        thread::yield_now();
    }
}

/// A port on another thread that posts back what it gets, until it is closed.
fn far_end(kind: Kind, near: Port) -> Port {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        bench_common::pin_thread(bench_common::CLIENT_PROCESSOR);
        let (far, mut waiter) = kind.build();
        tell.send(far).expect("the port is waited for");
        while let Wait::Packets(packets) = waiter.wait(None).expect("the port works") {
            for packet in packets {
                if let Event::Posted(value) = packet.event {
                    near.post(packet.key, value)
                        .expect("nothing else waits here");
                }
            }
        }
    });
    told.recv().expect("the thread has made its port")
}
