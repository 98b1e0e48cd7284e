//! The single load for all servers of the benchmark, lean so that it is not what is measured.
//!
//! `bench-client WORK PORT PROCESS SECONDS CONNECTIONS DEPTH BYTES IDLE` drives the server,
//! verifies every byte that comes back, and prints one line of `name=value`. It reads the server's
//! processor time from the server's own clock, to the nanosecond, at both ends of the measured
//! time; ticks would be too coarse. It is one thread on epoll: io_uring would favour servers that
//! reply in batches.

#![forbid(unsafe_code)]

mod accept;
mod measure;
mod stream;

use std::error::Error;
use std::time::Duration;

use bench_common::Work;

/// What to do, from the command line.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) work: Work,
    pub(crate) port: u16,
    pub(crate) server: i32,
    pub(crate) time: Duration,
    pub(crate) connections: usize,
    /// Messages in flight on a connection.
    pub(crate) depth: usize,
    /// Bytes of a message.
    pub(crate) bytes: usize,
    /// Connections that are open and silent.
    pub(crate) idle: usize,
}

/// Time before the measurement: connecting is over, and caches and estimates have settled.
pub(crate) const WARM_UP: Duration = Duration::from_millis(300);

fn main() -> Result<(), Box<dyn Error>> {
    let load = read_arguments()?;
    bench_common::pin(bench_common::CLIENT_PROCESSOR);
    let report = match load.work {
        Work::Accept => accept::run(&load)?,
        Work::Echo | Work::Sink | Work::Source => stream::run(&load)?,
    };
    println!("{report}");
    Ok(())
}

fn read_arguments() -> Result<Load, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let work = arguments.next().unwrap_or_default();
    let work = Work::named(&work).ok_or_else(|| format!("{work:?} is no work"))?;
    let numbers: Vec<f64> = arguments
        .map(|word| word.parse())
        .collect::<Result<_, _>>()?;
    let &[port, server, seconds, connections, depth, bytes, idle] = numbers.as_slice() else {
        return Err("expected WORK PORT PROCESS SECONDS CONNECTIONS DEPTH BYTES IDLE".into());
    };
    Ok(Load {
        work,
        port: port as u16,
        server: server as i32,
        time: Duration::from_secs_f64(seconds),
        connections: connections as usize,
        depth: depth as usize,
        bytes: bytes as usize,
        idle: idle as usize,
    })
}
