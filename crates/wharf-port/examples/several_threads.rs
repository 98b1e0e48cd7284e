//! Several threads: one shared port, an echo server, and no lock.
//!
//! The series had one thread. A shared port gives each packet to one of its waiters. While a waiter
//! holds packets of a connection, no other waiter gets any of that connection. So its bytes go back
//! in order, whichever threads carry them.
//!
//! ```sh
//! cargo run --example several_threads
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, error::Error, net::SocketAddr, thread};

use wharf_port::{Close, Event, Key, Port, Wait};

const LISTENER: Key = Key(90);
const THREADS: usize = 4;
static NEXT_KEY: AtomicU64 = AtomicU64::new(100);

fn main() {
    if let Err(error) = serve() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn serve() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:10101".into());
    let address: SocketAddr = address.parse()?;
    let port = Arc::new(Port::builder().shared().build()?);
    let listener = port.listen(address, LISTENER)?.accept()?; // Dropping it closes it.

    // Closing the port wakes every waiter, whichever thread closes it.
    let weak = Arc::downgrade(&port);
    ctrlc::set_handler(move || {
        _ = weak.upgrade().map(|port| port.close());
    })?;
    println!("LISTENING ON {}", listener.local_addr()?);
    thread::scope(|scope| {
        for number in 1..=THREADS {
            let port = &port;
            scope.spawn(move || match work(port) {
                Ok(taken) => println!("THREAD {number} TOOK {taken} PACKETS"),
                Err(error) => eprintln!("thread {number}: {error}"),
            });
        }
    });
    println!("*** Keyboard interrupt.");
    Ok(())
}

/// Takes packets until the port is closed; returns their number.
fn work(port: &Port) -> wharf_port::Result<u64> {
    let mut waiter = port.waiter()?; // It belongs to the thread that makes it.
    let mut taken = 0;
    while let Wait::Packets(packets) = waiter.wait(None)? {
        for packet in packets {
            taken += 1;
            match packet.event {
                Event::Accepted(accepted) => {
                    let key = Key(NEXT_KEY.fetch_add(1, Ordering::Relaxed));
                    // No `?` on a call about one socket: one peer's fault is not the server's.
                    let Ok(stream) = port.associate(accepted, key) else {
                        continue;
                    };
                    if let Ok(stream) = stream.receive() {
                        stream.set_aside(); // The port owns it now: there is no table to share.
                    }
                }
                Event::Received(data) => _ = packet.socket.send(data),
                Event::Ended { .. } => _ = packet.socket.close(Close::Flush),
                _ => {}
            }
        }
    }
    Ok(taken)
}
