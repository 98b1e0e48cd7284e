//! The servers on Wharf, at the level of the port.
//!
//! `bench-wharf WORK DRIVER SHARING [SPIN]`: the driver is `uring` or `poll`. The sharing is
//! `single` or `shared1`, `shared2`, ...: a shared port with this number of waiting threads. A
//! waiter busy-polls for SPIN microseconds before it sleeps, by default 0.

#![forbid(unsafe_code)]

use std::error::Error;
use std::sync::Arc;

use bench_common::{Pattern, Work};
use wharf_port::{Close, DriverKind, Event, Key, PoolOptions, Port, SocketRef, Wait, Waiter};

const LISTENER: Key = Key(90);
const CONNECTION: Key = Key(100);

fn main() -> Result<(), Box<dyn Error>> {
    let work = bench_common::start();
    let mut arguments = std::env::args().skip(2);
    let driver = match arguments.next().as_deref() {
        Some("uring") => DriverKind::Uring,
        Some("poll") => DriverKind::Poll,
        other => return Err(format!("expected uring or poll, got {other:?}").into()),
    };
    let sharing = arguments.next().unwrap_or_else(|| "single".into());
    let spin_us = arguments.next().map_or(Ok(0), |spin| spin.parse())?;
    let spin = std::time::Duration::from_micros(spin_us);
    let builder = Port::builder().driver(driver.into()).spin_max(spin);
    let pool = PoolOptions::new().buffer_bytes(u32::try_from(work.read_bytes())?);
    // Large reads of bulk keep its sender's window open: 4 MiB at most.
    let leases = if work == Work::Sink { 64 } else { 4 };
    let builder = builder.pool(pool).leases_per_socket(leases);
    let threads: usize = match sharing.strip_prefix("shared") {
        Some(threads) => threads.parse()?,
        None => 1,
    };
    let port = if sharing == "single" {
        builder.single_waiter().build()?
    } else {
        builder.shared().build()?
    };
    let listener = port.listen(([127, 0, 0, 1], 0), LISTENER)?;
    let socket = listener.socket();
    socket.with_descriptor(|descriptor| bench_common::set_options(descriptor))?;
    listener.socket().accept()?;
    let address = listener.local_addr()?;
    bench_common::announce(address.as_socket_addr().ok_or("no port")?.port());
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| {
                let waiter = port.waiter().expect("a shared port has waiters");
                serve(&port, waiter, work).expect("the port works");
            });
        }
        serve(&port, port.waiter()?, work)
    })
}

fn serve(port: &Port, mut waiter: Waiter, work: Work) -> Result<(), Box<dyn Error>> {
    let block: Arc<[u8]> = Pattern::default().of_source(0).into();
    while let Wait::Packets(packets) = waiter.wait(None)? {
        for packet in packets {
            match packet.event {
                Event::Accepted(accepted) if work == Work::Accept => drop(accepted),
                Event::Accepted(accepted) => {
                    if let Ok(stream) = port.associate(accepted, CONNECTION) {
                        let socket = stream.set_aside();
                        let started = match work {
                            Work::Source => source(socket, &block),
                            _ => socket.receive().is_ok(),
                        };
                        if !started {
                            let _ = socket.close(Close::Flush);
                        }
                    }
                }
                Event::Received(data) if work == Work::Echo => {
                    let _ = packet.socket.send(data);
                }
                Event::Received(data) => drop(data),
                // All blocks of a source are the same: the buffer goes out as it came back.
                Event::Sent { buffer, .. } => {
                    let _ = packet.socket.send_reported(buffer);
                }
                Event::Ended { .. } | Event::SendFailed { .. } if packet.key == CONNECTION => {
                    let _ = packet.socket.close(Close::Flush);
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Sends the first block; it goes out again each time it comes back. All sockets have the same, as
/// with the servers that lend a block to each write.
fn source(socket: SocketRef, block: &Arc<[u8]>) -> bool {
    socket.send_reported(Arc::clone(block)).is_ok()
}
