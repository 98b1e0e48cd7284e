//! Several threads and state for each connection: a server that numbers the lines it receives.
//!
//! `several_threads` echoes and needs no state. Most servers have some: here it is the rest of a
//! line that has not ended yet, and the number of lines. A `Table` keeps it. While a thread has
//! packets of a connection no other thread has any, so no other thread uses that state.
//!
//! ```sh
//! cargo run --example threads_with_state
//! printf 'one\ntwo\n' | nc -N 127.0.0.1 10101
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, error::Error, net::SocketAddr, thread};

use wharf_port::{Close, Event, Key, Packet, Port, Table, Wait};

const LISTENER: Key = Key(90);
const THREADS: usize = 4;
/// A client that sends more than this without a line's end loses its connection.
const LINE_BYTES_MAX: usize = 64 * 1024;
static NEXT_KEY: AtomicU64 = AtomicU64::new(100);

/// What the server keeps for one connection.
#[derive(Default)]
struct Session {
    lines: u64,
    rest: Vec<u8>,
}

impl Session {
    /// Returns the numbered lines that these bytes complete, or nothing if a line is too long.
    fn take(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut numbered = Vec::new();
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            self.lines += 1;
            numbered.extend_from_slice(format!("{} ", self.lines).as_bytes());
            numbered.extend(self.rest.drain(..=end));
        }
        (self.rest.len() <= LINE_BYTES_MAX).then_some(numbered)
    }
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
    let port = Arc::new(Port::builder().shared().build()?);
    let listener = port.listen(address, LISTENER)?.accept()?; // Dropping it closes it.

    let weak = Arc::downgrade(&port);
    ctrlc::set_handler(move || {
        _ = weak.upgrade().map(|port| port.close());
    })?;
    println!("LISTENING ON {}", listener.local_addr()?);
    let sessions = Table::new(&port);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                if let Err(error) = work(&port, &sessions) {
                    eprintln!("{error}");
                }
            });
        }
    });
    println!("*** Keyboard interrupt.");
    Ok(())
}

fn work(port: &Port, sessions: &Table<Session>) -> wharf_port::Result<()> {
    let mut waiter = port.waiter()?;
    while let Wait::Packets(packets) = waiter.wait(None)? {
        for packet in packets {
            handle(port, sessions, packet);
        }
    }
    Ok(())
}

fn handle(port: &Port, sessions: &Table<Session>, packet: Packet) {
    let socket = packet.socket;
    match packet.event {
        Event::Accepted(accepted) => {
            let key = Key(NEXT_KEY.fetch_add(1, Ordering::Relaxed));
            // The state goes in first: after `receive` another thread may have the first line.
            let Ok(stream) = port.associate(accepted, key) else {
                return;
            };
            if sessions.insert(&stream, Session::default()).is_err() {
                return;
            }
            if let Ok(stream) = stream.receive() {
                stream.set_aside();
            }
        }
        Event::Received(ref data) => {
            let lines = sessions.with(&packet, |session| session.take(data));
            // A client that does not read what it requested loses its connection.
            let sent = lines.flatten().map(|lines| socket.send(lines));
            if sent.is_none_or(|sent| sent.is_err()) {
                end(sessions, &packet, Close::Reset);
            }
        }
        Event::Ended { .. } => end(sessions, &packet, Close::Flush),
        _ => {}
    }
}

/// Takes the state out, then closes, in this order: the next socket may use the index of a closed
/// one.
fn end(sessions: &Table<Session>, packet: &Packet, how: Close) {
    if let Some(session) = sessions.remove(packet) {
        println!("{} NUMBERED {} LINES", packet.key, session.lines);
        _ = packet.socket.close(how);
    }
}
