//! What single operations of a port cost: submit, dequeue, post across threads, timers.
//!
//! Each runs on every driver that is present, shared and with a single waiter. Measurements without
//! sockets also run on the simulated network: that is the core alone, without a kernel. Some
//! operations need a cleanup, such as a send whose bytes must be read. There the clock runs for
//! many operations and stops for the cleanup, so only the named operation is measured.
//!
//! `cargo xtask bench --micro` runs this and writes what it found into `docs/measured/benchmarks.md`.

#![forbid(unsafe_code)]

mod dequeue;
mod kind;
mod post;
mod submit;
mod timer;

use criterion::{Criterion, criterion_group, criterion_main};

fn all(criterion: &mut Criterion) {
    bench_common::pin(bench_common::SERVER_PROCESSOR);
    submit::all(criterion);
    dequeue::all(criterion);
    post::all(criterion);
    timer::all(criterion);
}

criterion_group!(benches, all);
criterion_main!(benches);
