//! Echoing: what a client sends comes back in brackets.
//!
//! Does what the series' `04 - Echoing.py` does, and prints the same lines; its count includes the
//! listener. In the series a reset ended the server, a disconnection leaked its socket, and the
//! server lost what followed a NUL byte. Here an error ends its own connection and nothing else.

use std::sync::Mutex;
use std::{collections::BTreeMap, env, error::Error, net::SocketAddr};

use wharf_port::{Event, Key, Port, Stream, Wait};

const LISTENER: Key = Key(90);
const INTERRUPT: Key = Key(91);
static PORT: Mutex<Option<Port>> = Mutex::new(None);

fn main() {
    let result = echo();
    *PORT.lock().unwrap() = None; // Not before the handler of Ctrl-C is done with it.
    if let Err(error) = result {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn echo() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:10101".into());
    let address: SocketAddr = address.parse()?;
    // The locals drop last made first: connections, listener, waiter, port; each handle once.
    let port = Port::builder().build()?;
    *PORT.lock().unwrap() = Some(port.clone());
    let mut waiter = port.waiter()?;
    let listener = port.listen(address, LISTENER)?.accept()?; // Dropping it closes it.
    let mut connections: BTreeMap<Key, Stream> = BTreeMap::new();

    ctrlc::set_handler(|| {
        let port = PORT.lock().unwrap();
        _ = port.as_ref().map(|port| port.post(INTERRUPT, 0));
    })?;
    println!("LISTENING ON {}", listener.local_addr()?);
    let mut key = Key(100);
    while let Wait::Packets(packets) = waiter.wait(None)? {
        for packet in packets {
            match packet.event {
                Event::Accepted(accepted) => {
                    // No `?` on a call about one socket: one peer's fault is not the server's.
                    let Ok(stream) = port.associate(accepted, key) else {
                        continue;
                    };
                    if let Ok(stream) = stream.receive() {
                        connections.insert(key, stream);
                        key = Key(key.0 + 1);
                        println!("CONNECTION; {} SOCKETS REGISTERED", connections.len() + 1);
                    }
                }
                // The lent buffer goes out as it is. While four of them wait to go out, the port
                // does not read this connection: a slow reader slows only itself.
                Event::Received(data) => {
                    _ = packet.socket.send("[");
                    _ = packet.socket.send(data);
                    _ = packet.socket.send("]");
                }
                Event::Ended { how, .. } if packet.key == LISTENER => Err(format!("{how:?}"))?,
                // It finished or it broke. Dropping it sends what is queued, then closes.
                Event::Ended { .. } if connections.remove(&packet.key).is_some() => {
                    let count = connections.len() + 1;
                    println!("DISCONNECTION; {count} SOCKETS REGISTERED");
                }
                Event::Posted(_) => {
                    println!("*** Keyboard interrupt.");
                    return Ok(());
                }
                _ => {} // Out of descriptors, and back again.
            }
        }
    }
    Ok(())
}
