//! Dequeuing: the cost of a packet that is already queued, by the number of packets in a wait.
//!
//! It uses posts, because they involve no socket, no kernel and no turn. The figure includes the
//! check of the kernel that a waiter with packets at hand makes at every eighth wait.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use wharf_port::{Key, Port, Wait, Waiter};

use crate::kind::{Kind, PATIENCE};

/// The most posts that wait, as a port allows by default.
const POSTS: usize = 1 << 16;

pub(crate) fn all(criterion: &mut Criterion) {
    for packets in [1, 8, 64, 256] {
        let mut group = criterion.benchmark_group(format!("dequeue {packets}"));
        group.throughput(Throughput::Elements(packets as u64));
        for kind in Kind::everywhere() {
            let builder = kind
                .builder()
                .batch_max(packets as u32)
                .posts_max(POSTS as u32);
            let port = builder.build().expect("the driver is present");
            let mut waiter = port.waiter().expect("the first waiter");
            group.bench_function(kind.to_string(), |bencher| {
                bencher.iter_custom(|waits| measure(&port, &mut waiter, packets, waits));
            });
        }
        group.finish();
    }
}

fn measure(port: &Port, waiter: &mut Waiter, packets: usize, waits: u64) -> Duration {
    let mut spent = Duration::ZERO;
    let mut left = waits;
    while left > 0 {
        let round = left.min((POSTS / packets) as u64);
        for value in 0..round * packets as u64 {
            port.post(Key(1), value).expect("there is room for posts");
        }
        let start = Instant::now();
        for _ in 0..round {
            match waiter.wait(Some(PATIENCE)).expect("the port works") {
                Wait::Packets(batch) => assert_eq!(batch.count(), packets),
                other => panic!("posts wait, and the answer was {other:?}"),
            }
        }
        spent += start.elapsed();
        left -= round;
    }
    spent
}
