//! A proxy: passes on what comes, both ways, and ends each side as the other one ended.
//!
//! The lent buffer that brought the bytes takes them out on the other side: nothing is copied. While
//! the buffers of a connection wait to go out, the port does not read that connection, so a slow
//! reader slows the sender and costs no memory.
//!
//! ```sh
//! cargo run --example proxy 127.0.0.1:10102 127.0.0.1:10101
//! ```

use std::collections::HashMap;
use std::{env, error::Error, net::SocketAddr};

use wharf_port::{Accepted, Close, End, Event, Key, Packet, Port, SocketRef, Stream, Wait};

const LISTENER: Key = Key(90);

fn main() {
    if let Err(error) = serve() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn serve() -> Result<(), Box<dyn Error>> {
    let argument = |at, or: &str| env::args().nth(at).unwrap_or(or.into()).parse();
    let address: SocketAddr = argument(1, "127.0.0.1:10102")?;
    let server: SocketAddr = argument(2, "127.0.0.1:10101")?;
    let port = Port::builder().build()?;
    let mut waiter = port.waiter()?;
    let listener = port.listen(address, LISTENER)?.accept()?; // Dropping it closes it.

    let closer = port.clone();
    ctrlc::set_handler(move || closer.close())?;
    println!("LISTENING ON {}", listener.local_addr()?);
    let mut proxy = Proxy {
        port,
        server,
        next: 100,
        waiting: HashMap::new(),
        others: HashMap::new(),
    };
    while let Wait::Packets(packets) = waiter.wait(None)? {
        for packet in packets {
            proxy.handle(packet);
        }
    }
    println!("*** Keyboard interrupt.");
    Ok(())
}

struct Proxy {
    port: Port,
    server: SocketAddr,
    /// The key of the next client. It is even; the key of its server is the odd one behind it.
    next: u64,
    /// Clients whose server is not connected yet; nothing is read from them.
    waiting: HashMap<Key, Stream>,
    /// The other side of each side, and whether this side has ended.
    others: HashMap<Key, (SocketRef, bool)>,
}

/// The other side of a client or of a server.
fn other(key: Key) -> Key {
    Key(key.0 ^ 1)
}

impl Proxy {
    fn handle(&mut self, packet: Packet) {
        let key = packet.key;
        match packet.event {
            Event::Accepted(client) => self.accepted(client),
            Event::Connected(server) => self.connected(key, server),
            // Dropping the client closes its connection.
            Event::ConnectFailed { .. } => drop(self.waiting.remove(&other(key))),
            Event::Received(data) => {
                if let Some((far, _)) = self.others.get(&key) {
                    if far.send(data).is_err() {
                        self.end(key, Close::Reset);
                    }
                }
            }
            Event::Ended {
                how: End::Finished, ..
            } => self.finished(key),
            Event::Ended { .. } | Event::SendFailed { .. } => self.end(key, Close::Reset),
            _ => {}
        }
    }

    fn accepted(&mut self, client: Accepted) {
        let key = Key(self.next);
        // No `?` on a call about one socket: one peer's fault is not the proxy's.
        let Ok(client) = self.port.associate(client, key) else {
            return;
        };
        if self.port.connect(self.server, other(key)).is_ok() {
            self.next += 2;
            self.waiting.insert(key, client);
        }
    }

    fn connected(&mut self, key: Key, server: Stream) {
        let Some(client) = self.waiting.remove(&other(key)) else {
            return;
        };
        let (Ok(client), Ok(server)) = (client.receive(), server.receive()) else {
            return;
        };
        // The port keeps both from here on.
        self.others.insert(other(key), (server.set_aside(), false));
        self.others.insert(key, (client.set_aside(), false));
    }

    /// One side sends no more: the other side hears that, and may go on sending.
    fn finished(&mut self, key: Key) {
        let Some((far, ended)) = self.others.get_mut(&key) else {
            return;
        };
        *ended = true;
        if far.shutdown().is_err() {
            return self.end(key, Close::Reset);
        }
        if self
            .others
            .get(&other(key))
            .is_some_and(|(_, ended)| *ended)
        {
            self.end(key, Close::Flush);
        }
    }

    /// Closes both sides.
    fn end(&mut self, key: Key, how: Close) {
        for side in [key, other(key)] {
            if let Some((far, _)) = self.others.remove(&side) {
                _ = far.close(how);
            }
        }
    }
}
