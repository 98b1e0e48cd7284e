//! A line server with an idle time-out: returns each line, and closes a connection that is silent.
//!
//! Each connection has one timer. Data does not move it: the timer's packet looks when the last
//! data came, and sets the timer again for the rest. So a busy connection costs one timer for each
//! time-out, not one for each message.
//!
//! ```sh
//! cargo run --example idle_timeout 127.0.0.1:10101 5000
//! ```

use std::collections::HashMap;
use std::time::{Duration, Instant};
use std::{env, error::Error, net::SocketAddr};

use wharf_port::{Accepted, Close, Event, Key, Op, Packet, Port, SocketRef, Wait};

const LISTENER: Key = Key(90);
/// A client that sends more than this without a line's end loses its connection.
const LINE_BYTES_MAX: usize = 64 * 1024;

struct Session {
    socket: SocketRef,
    rest: Vec<u8>,
    heard: Instant,
    timer: Op,
}

struct Server {
    port: Port,
    idle: Duration,
    next: Key,
    sessions: HashMap<Key, Session>,
}

fn main() {
    if let Err(error) = serve() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn serve() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:10101".into());
    let address: SocketAddr = address.parse()?;
    let idle: u64 = env::args().nth(2).unwrap_or("60000".into()).parse()?;
    let port = Port::builder().build()?;
    let mut waiter = port.waiter()?;
    let listener = port.listen(address, LISTENER)?.accept()?; // Dropping it closes it.

    let closer = port.clone();
    ctrlc::set_handler(move || closer.close())?;
    println!("LISTENING ON {}", listener.local_addr()?);
    let mut server = Server {
        port,
        idle: Duration::from_millis(idle),
        next: Key(100),
        sessions: HashMap::new(),
    };
    while let Wait::Packets(packets) = waiter.wait(None)? {
        for packet in packets {
            server.handle(packet);
        }
    }
    println!("*** Keyboard interrupt.");
    Ok(())
}

impl Server {
    fn handle(&mut self, packet: Packet) {
        match packet.event {
            Event::Accepted(accepted) => self.accepted(accepted),
            Event::Received(data) => self.received(packet.key, &data),
            Event::Timer => self.look(packet.key),
            Event::Ended { .. } => self.end(packet.key, Close::Flush),
            _ => {}
        }
    }

    fn accepted(&mut self, accepted: Accepted) {
        let (key, now) = (self.next, Instant::now());
        // No `?` on a call about one socket: one peer's fault is not the server's.
        let Ok(stream) = self.port.associate(accepted, key) else {
            return;
        };
        let Ok(stream) = stream.receive() else {
            return;
        };
        let Ok(timer) = self.port.timer(now + self.idle, key) else {
            return;
        };
        let session = Session {
            socket: stream.set_aside(),
            rest: Vec::new(),
            heard: now,
            timer,
        };
        self.sessions.insert(key, session);
        self.next = Key(key.0 + 1);
    }

    fn received(&mut self, key: Key, data: &[u8]) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        session.heard = Instant::now();
        session.rest.extend_from_slice(data);
        let whole = session.rest.iter().rposition(|byte| *byte == b'\n');
        let whole = whole.map_or(0, |end| end + 1);
        let lines: Vec<u8> = session.rest.drain(..whole).collect();
        let is_sent = lines.is_empty() || session.socket.send(lines).is_ok();
        if !is_sent || session.rest.len() > LINE_BYTES_MAX {
            self.end(key, Close::Reset);
        }
    }

    /// The timer of a connection is over.
    fn look(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        let due = session.heard + self.idle;
        if due > Instant::now() {
            if let Ok(timer) = self.port.timer(due, key) {
                session.timer = timer;
                return;
            }
        }
        println!("{key} WAS SILENT");
        self.end(key, Close::Flush);
    }

    fn end(&mut self, key: Key, how: Close) {
        if let Some(session) = self.sessions.remove(&key) {
            self.port.cancel(session.timer);
            _ = session.socket.close(how);
        }
    }
}
