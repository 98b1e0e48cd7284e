//! What single operations of a port cost: submit, dequeue, post across threads, timers.
//!
//! Each runs on every driver that is here, shared and with a single waiter, and where no socket
//! takes part on the simulated network too: that is the core alone, without a kernel below. Where
//! an operation has to be cleaned up after, such as a send whose bytes have to be read, the clock
//! runs for many operations and stands for the cleaning, so nothing is measured but what is named.
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
