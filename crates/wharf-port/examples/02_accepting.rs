//! Accepting: one connection, one message, and the end.
//!
//! Does what the series' `02 - Accepting.py` does. It sends the 19 bytes `Disconnecting you..` to a
//! client that connects within ten seconds. Once they are out, it prints `SUCCESS` and ends. In the
//! series a client that reset its connection too early ended the program; this one serves the next
//! client.
//!
//! ```sh
//! cargo run --example 02_accepting
//! ```

use std::env;
use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use wharf_port::{Event, Key, Port, Wait};

const LISTENER: Key = Key(90);
const CONNECTION: Key = Key(100);
const PATIENCE: Duration = Duration::from_secs(10);

fn main() {
    if let Err(error) = accept_one() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn accept_one() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:10101".into());
    let address: SocketAddr = address.parse()?;

    // The locals drop last made first: the connection, the listener, the waiter, the port.
    let port = Port::builder().build()?;
    let mut waiter = port.waiter()?;
    let listener = port.listen(address, LISTENER)?.accept()?; // Dropping it closes it.
    let mut connection = None;

    println!("LISTENING ON {}", listener.local_addr()?);
    let mut deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let packets = match waiter.wait(Some(left))? {
            Wait::Packets(packets) => packets,
            Wait::TimedOut if connection.is_none() => return Err("accept: timed out".into()),
            Wait::TimedOut => return Err("send: timed out".into()),
            Wait::Closed => return Err("the port was closed".into()),
        };
        for packet in packets {
            match packet.event {
                // An accept is a packet of the listener, so it has the listener's key.
                Event::Accepted(accepted) if packet.key == LISTENER && connection.is_none() => {
                    // No `?`: one peer's fault is not the server's. The program serves the next
                    // one.
                    let Ok(stream) = port.associate(accepted, CONNECTION) else {
                        continue;
                    };
                    if let Ok(op) = stream.send_reported("Disconnecting you..") {
                        connection = Some((stream, op));
                        deadline = Instant::now() + PATIENCE;
                    }
                }
                Event::Sent { .. } if packet.key == CONNECTION => {
                    println!("SUCCESS");
                    return Ok(());
                }
                Event::SendFailed { .. } => connection = None,
                _ => {} // One connection is enough: dropping the packet closes the others.
            }
        }
    }
}
