//! `--admin ADDRESS`: each client that connects receives the current account, one line of JSON.
//!
//! It has its own port and thread, so that it replies even if the server is full or busy. It reads
//! and drops what a client sends, such as the request of a browser: closing with unread bytes would
//! send a reset, which discards the reply. HTTP was rejected: the clients are `nc`, scripts and
//! `wharf load`, and all of them can read a line.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use wharf_port::{
    Accepted, Address, Close, End, Error, Event, Key, ListenOptions, Listener, Op, Operation,
    Packet, Port, SocketRef, Wait, Waiter,
};

use super::listening::SocketFiles;
use crate::account::Account;
use crate::signals::CONTROL;
use crate::{signals, threads};

/// The key of its listener, and of its first client; the timer of a client has the client's key.
const LISTENER: Key = Key(90);
const CLIENT_FIRST: u64 = 100;
/// Clients that have their reply and stay. One more disconnects the oldest, which has its line. So
/// a client that stays does not keep others waiting.
const CLIENTS_AT_ONCE: u32 = 64;
/// Clients that are closing or just connecting.
const CLIENTS_BETWEEN: u32 = 64;
/// How long a client may take to read its line and leave.
const PATIENCE: Duration = Duration::from_secs(5);

/// The listener for the account, while the server runs.
#[derive(Debug)]
pub(super) struct Admin {
    pub(super) port: Port,
    pub(super) address: Address,
    files: SocketFiles,
    listener: Listener,
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.files.remove();
    }
}

impl Admin {
    /// Listens, before the server itself does.
    pub(super) fn open(address: &Address) -> Result<Self, String> {
        let told = |error: Error| format!("{address}: {error}");
        let builder = Port::builder().single_waiter();
        let port = builder
            .sockets_max(CLIENTS_AT_ONCE + CLIENTS_BETWEEN + 1)
            .build();
        let port = port.map_err(told)?;
        let at = ListenOptions::new(address.clone());
        let files = SocketFiles::default();
        let listener = match address {
            Address::Unix(path) => files.listen_at(path, || port.listen(at.clone(), LISTENER)),
            _ => port.listen(at, LISTENER),
        };
        let listener = listener.map_err(told)?;
        let address = listener.local_addr().map_err(told)?;
        Ok(Admin {
            port,
            address,
            files,
            listener,
        })
    }

    /// Replies until it is stopped, on its own thread, which runs when this returns.
    pub(super) fn start_in<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        standing: impl Fn() -> Account + Send + 'scope,
    ) -> Result<Answering<'scope>, String> {
        let (ready, readies) = mpsc::channel();
        let thread = threads::start_in(scope, "admin", move || {
            let told = |error: Error| format!("{}: {error}", self.address);
            let waiter = self.port.waiter().map_err(told);
            let begun =
                waiter.and_then(|it| self.listener.socket().accept().map(|_| it).map_err(told));
            match begun {
                Ok(waiter) => {
                    // The other side waits for it.
                    let _ = ready.send(Ok(()));
                    self.answer(waiter, &standing)
                }
                Err(text) => {
                    let _ = ready.send(Err(text));
                    Ok(())
                }
            }
        })?;
        let panicked = |_| Err("the thread of --admin panicked".into());
        readies.recv().unwrap_or_else(panicked)?;
        Ok(Answering {
            port: &self.port,
            thread,
        })
    }

    fn answer(&self, mut waiter: Waiter, standing: &dyn Fn() -> Account) -> Result<(), String> {
        let told = |error: Error| error.to_string();
        let mut clients = Clients {
            port: &self.port,
            standing,
            open: BTreeMap::new(),
            next_key: CLIENT_FIRST,
        };
        loop {
            let Wait::Packets(packets) = waiter.wait(None).map_err(told)? else {
                return Ok(());
            };
            for packet in packets {
                if packet.key == CONTROL {
                    return Ok(());
                }
                clients.handle(packet);
            }
        }
    }
}

/// The thread of an open `--admin`.
#[derive(Debug)]
pub(super) struct Answering<'scope> {
    port: &'scope Port,
    thread: ScopedJoinHandle<'scope, Result<(), String>>,
}

impl Answering<'_> {
    /// Stops it; returns why it ended before, if it did.
    pub(super) fn end(self) -> Result<(), String> {
        signals::stop(std::slice::from_ref(self.port));
        let panicked = |_| Err("the thread of --admin panicked".into());
        self.thread.join().unwrap_or_else(panicked)
    }
}

/// Clients that have their reply and have not left.
struct Clients<'a> {
    port: &'a Port,
    standing: &'a dyn Fn() -> Account,
    /// By key, the oldest first.
    open: BTreeMap<u64, Client>,
    next_key: u64,
}

/// A client that has its reply, and when it has to leave.
struct Client {
    socket: SocketRef,
    timer: Op,
}

impl Clients<'_> {
    fn handle(&mut self, packet: Packet) {
        match (packet.op.operation(), packet.event) {
            // One client's fault is not the server's.
            (_, Event::Accepted(accepted)) => drop(self.answer(accepted)),
            // It has read its line, and left.
            (
                Operation::Receive,
                Event::Ended {
                    how: End::Finished, ..
                },
            ) => self.end(packet.key, Close::Flush),
            (Operation::Shutdown, _) => {}
            (Operation::Timer, _) | (_, Event::Ended { .. } | Event::SendFailed { .. }) => {
                self.end(packet.key, Close::Reset);
            }
            _ => {}
        }
    }

    fn answer(&mut self, accepted: Accepted) -> wharf_port::Result<()> {
        if self.open.len() >= CLIENTS_AT_ONCE as usize
            && let Some((&oldest, _)) = self.open.first_key_value()
        {
            self.end(Key(oldest), Close::Reset);
        }
        let key = Key(self.next_key);
        self.next_key += 1;
        let client = self.port.associate(accepted, key);
        let client = client.map_err(|refused| refused.error)?;
        let mut line = serde_json::to_vec(&(self.standing)()).unwrap_or_default();
        line.push(b'\n');
        client.send(line).map_err(|refused| refused.error)?;
        client.shutdown()?;
        client.socket().receive()?;
        let timer = self.port.timer(Instant::now() + PATIENCE, key)?;
        let socket = client.set_aside();
        self.open.insert(key.0, Client { socket, timer });
        Ok(())
    }

    fn end(&mut self, key: Key, how: Close) {
        if let Some(client) = self.open.remove(&key.0) {
            // The socket may have ended already, and the timer too.
            let _ = client.socket.close(how);
            let _ = self.port.cancel(client.timer);
        }
    }
}
