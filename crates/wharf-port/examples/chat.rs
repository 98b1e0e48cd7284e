//! A chat: each connection receives what the others send.
//!
//! One allocation holds the bytes for all who receive them. A client that does not read fills its
//! own queue: the send is refused, and the client loses its connection. It holds up none of the
//! others.
//!
//! ```sh
//! cargo run --example chat
//! nc 127.0.0.1 10101
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::{env, error::Error, net::SocketAddr};

use wharf_port::{Close, Event, Key, Port, SocketRef, Wait};

const LISTENER: Key = Key(90);

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
    let listener = port.listen(address, LISTENER)?.accept()?; // Dropping it closes it.

    let closer = port.clone();
    ctrlc::set_handler(move || closer.close())?;
    println!("LISTENING ON {}", listener.local_addr()?);
    let mut members: HashMap<Key, SocketRef> = HashMap::new();
    let mut next = Key(100);
    while let Wait::Packets(packets) = waiter.wait(None)? {
        for packet in packets {
            match packet.event {
                Event::Accepted(accepted) => {
                    // No `?` on a call about one socket: one peer's fault is not the server's.
                    let Ok(stream) = port.associate(accepted, next) else {
                        continue;
                    };
                    if let Ok(stream) = stream.receive() {
                        members.insert(next, stream.set_aside());
                        println!("{next} CAME");
                        next = Key(next.0 + 1);
                    }
                }
                Event::Received(data) => say(&mut members, packet.key, &data),
                Event::Ended { .. } => {
                    _ = packet.socket.close(Close::Flush);
                    if members.remove(&packet.key).is_some() {
                        println!("{} LEFT", packet.key);
                    }
                }
                _ => {}
            }
        }
    }
    println!("*** Keyboard interrupt.");
    Ok(())
}

/// Sends to all but one; those whose queue is full are out.
fn say(members: &mut HashMap<Key, SocketRef>, speaker: Key, data: &[u8]) {
    let bytes: Arc<[u8]> = data.into();
    members.retain(|key, member| {
        if *key == speaker || member.send(Arc::clone(&bytes)).is_ok() {
            return true;
        }
        println!("{key} DOES NOT READ");
        _ = member.close(Close::Reset);
        false
    });
}
