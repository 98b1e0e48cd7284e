//! An orderly shutdown: Ctrl-C lets replies go out, for a bounded time, and then ends the server.
//!
//! `Port::close` ends a port at once. `Port::shutdown` accepts and reads nothing more, sends what is
//! queued, ends each stream with a FIN, and then closes the port. A peer that does not read cannot
//! hold it up for longer than the grace.
//!
//! ```sh
//! cargo run --example orderly_shutdown
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{env, error::Error, net::SocketAddr};

use wharf_port::{Close, Event, Key, Packet, Port, Wait};

const LISTENER: Key = Key(90);
const GRACE: Duration = Duration::from_secs(5);
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
    let port = Port::builder().build()?;
    let mut waiter = port.waiter()?;
    let listener = port.listen(address, LISTENER)?.accept()?;

    let ending = port.clone();
    ctrlc::set_handler(move || ending.shutdown(GRACE))?;
    println!("LISTENING ON {}", listener.local_addr()?);
    // The waiter goes on until the port is closed: its waits send what is queued.
    while let Wait::Packets(packets) = waiter.wait(None)? {
        for packet in packets {
            handle(&port, packet);
        }
    }
    let stats = port.stats();
    println!(
        "ENDED; {} STREAMS WERE CUT, {} BYTES DID NOT GO OUT",
        stats.streams_cut, stats.bytes_unsent
    );
    Ok(())
}

fn handle(port: &Port, packet: Packet) {
    match packet.event {
        Event::Accepted(accepted) => {
            let key = Key(NEXT_KEY.fetch_add(1, Ordering::Relaxed));
            // No `?` on a call about one socket: one peer's fault is not the server's.
            let Ok(stream) = port.associate(accepted, key) else {
                return;
            };
            if let Ok(stream) = stream.receive() {
                stream.set_aside();
            }
        }
        Event::Received(data) => _ = packet.socket.send(data),
        Event::Ended { .. } => _ = packet.socket.close(Close::Flush),
        _ => {}
    }
}
