//! State of connections: one value per socket, found without a map and changed without waiting.
//!
//! Turns (contract C18) give the packets of a socket to one thread at a time, but a type cannot
//! express that. So in safe Rust every program had to lock its own map, for state that no second
//! thread touches. A [`Table`] has an entry for each place in the port's own table, so a packet
//! finds its state by an index. Each entry has its own lock. The turn keeps that lock free: taking
//! it is one atomic exchange on memory that only this connection uses.
//!
//! A cell without a lock was rejected: a packet may be kept, or sent to another thread, after its
//! turn, and then two threads would have the same state. One map behind one lock was rejected
//! because all connections would wait for that lock.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::error::{ErrorKind, Operation, Refused, Result};
use crate::packet::Packet;
use crate::port::Port;
use crate::reference::SocketRef;

/// Entries in one chunk. A chunk is allocated when the first socket in it gets its state.
const CHUNK_ENTRIES: u32 = 1024;

/// The state of each connection of a port: a value that belongs to a socket.
///
/// The turn of a packet makes it cheap: while a waiter holds packets of a connection no other
/// thread has any of them, so [`Table::with`] finds the state unlocked. A packet that was kept
/// beyond its turn is safe: then the call waits until the other thread is done.
///
/// Insert the state of a connection before its first operation. Remove it with [`Table::remove`]
/// before the connection is closed, because a closed socket leaves its place to the next one, at
/// the latest when its `Closed` is taken. State that was not removed is dropped when the next
/// socket in that place gets its own. So a table never holds more than `sockets_max` values.
///
/// ```
/// use wharf_port::{Close, Event, Packet, Port, Table};
///
/// struct Session { lines: u64 }
///
/// fn handle(port: &Port, sessions: &Table<Session>, packet: Packet) {
///     match packet.event {
///         Event::Accepted(accepted) => {
///             if let Ok(stream) = port.associate(accepted, 100.into()) {
///                 // First the state, then the first receive: its packets find the state there.
///                 if sessions.insert(&stream, Session { lines: 0 }).is_ok() {
///                     let _ = stream.set_aside().receive();
///                 }
///             }
///         }
///         Event::Received(ref data) => {
///             let lines = data.iter().filter(|byte| **byte == b'\n').count();
///             sessions.with(&packet, |session| session.lines += lines as u64);
///         }
///         Event::Ended { .. } => {
///             let session = sessions.remove(&packet);
///             let _ = packet.socket.close(Close::Flush);
///             println!("{} lines", session.map_or(0, |session| session.lines));
///         }
///         _ => {}
///     }
/// }
/// ```
pub struct Table<T> {
    port: u32,
    chunks: Box<[OnceLock<Chunk<T>>]>,
    length: AtomicUsize,
}

type Chunk<T> = Box<[Entry<T>]>;

/// The state of the socket in one place of the port's table.
struct Entry<T> {
    /// The thread that uses the state now; 0 for none. A second use on that thread is a bug.
    user: AtomicU32,
    value: Mutex<Option<Owned<T>>>,
}

/// A value, and the generation of the socket in its place that it belongs to.
struct Owned<T> {
    generation: u32,
    value: T,
}

impl<T> Owned<T> {
    /// Whether it belongs to a later socket in the same place than the one of this generation.
    fn is_after(&self, generation: u32) -> bool {
        let later = self.generation.wrapping_sub(generation);
        later != 0 && later < u32::MAX / 2 // Generations wrap.
    }
}

/// An entry in use. Marks its thread as the user until it is dropped.
struct Use<'a, T> {
    user: &'a AtomicU32,
    value: MutexGuard<'a, Option<Owned<T>>>,
}

impl<T: Send> Table<T> {
    /// Makes a table for the sockets of this port, with space for its `sockets_max`.
    ///
    /// ```
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().build()?;
    /// let sessions: wharf_port::Table<String> = wharf_port::Table::new(&port);
    /// assert!(sessions.is_empty());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn new(port: &Port) -> Self {
        let chunks = port.core.options().sockets_max.div_ceil(CHUNK_ENTRIES);
        Table {
            port: port.core.id(),
            chunks: (0..chunks).map(|_| OnceLock::new()).collect(),
            length: AtomicUsize::new(0),
        }
    }

    /// Gives a socket its state, and returns the state that the socket had before. Call it before
    /// the first operation of the socket, because another thread may get the packets of that
    /// operation at once.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a socket of another port, [`ErrorKind::Closed`] for a stale
    /// reference to a place where a later socket has its state. The state comes back.
    ///
    /// # Panics
    /// Inside [`Table::with`] of the same socket.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let socket = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// # let port = wharf_port::Port::builder().build()?;
    /// let sessions = wharf_port::Table::new(&port);
    /// let stream = port.associate(socket, 100.into())?;
    /// assert_eq!(sessions.insert(&stream, "new").unwrap(), None);
    /// assert_eq!(sessions.insert(&stream, "newer").unwrap(), Some("new"));
    /// # Ok(()) }
    /// ```
    pub fn insert(&self, socket: impl Into<SocketRef>, state: T) -> Result<Option<T>, Refused<T>> {
        let socket = socket.into();
        let chunk = self.chunks.get((socket.slot / CHUNK_ENTRIES) as usize);
        let chunk = chunk.filter(|_| socket.port == self.port);
        let Some(chunk) = chunk else {
            let kind = ErrorKind::InvalidInput;
            return Err(Refused::new(Operation::Associate, kind, state));
        };
        let chunk = chunk.get_or_init(|| (0..CHUNK_ENTRIES).map(|_| Entry::new()).collect());
        let new = Owned {
            generation: socket.generation,
            value: state,
        };
        // The old value is dropped, or returned, after its entry is unlocked.
        let old = {
            let mut used = chunk[(socket.slot % CHUNK_ENTRIES) as usize].take();
            let present = used.value.as_ref();
            if present.is_some_and(|it| it.is_after(socket.generation)) {
                // The place belongs to another socket, which must not lose its state.
                drop(used);
                let kind = ErrorKind::Closed;
                return Err(Refused::new(Operation::Associate, kind, new.value));
            }
            used.value.replace(new)
        };
        if old.is_none() {
            self.length.fetch_add(1, Ordering::Relaxed);
        }
        Ok(old
            .filter(|old| old.generation == socket.generation)
            .map(|old| old.value))
    }

    /// Runs `action` with the state of the packet's socket. Returns `None` if the socket has no
    /// state.
    ///
    /// # Panics
    /// Inside another call for the same socket on the same thread.
    ///
    /// ```
    /// fn count(table: &wharf_port::Table<u64>, packet: &wharf_port::Packet) -> Option<u64> {
    ///     table.with(packet, |packets| {
    ///         *packets += 1;
    ///         *packets
    ///     })
    /// }
    /// ```
    pub fn with<R>(&self, packet: &Packet, action: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut used = self.entry(packet.socket)?.take();
        let owned = used.value.as_mut();
        let owned = owned.filter(|it| it.generation == packet.socket.generation)?;
        Some(action(&mut owned.value))
    }

    /// Takes the state of the packet's socket out of the table.
    ///
    /// # Panics
    /// Inside [`Table::with`] of the same socket.
    ///
    /// ```
    /// fn forget(table: &wharf_port::Table<String>, packet: &wharf_port::Packet) {
    ///     if let Some(name) = table.remove(packet) {
    ///         println!("{name} left");
    ///     }
    /// }
    /// ```
    pub fn remove(&self, packet: &Packet) -> Option<T> {
        let mut used = self.entry(packet.socket)?.take();
        let owned = used
            .value
            .take_if(|it| it.generation == packet.socket.generation)?;
        self.length.fetch_sub(1, Ordering::Relaxed);
        Some(owned.value)
    }

    /// Returns the number of values in the table, including those of sockets that are gone.
    ///
    /// ```
    /// # fn main() -> wharf_port::Result<()> {
    /// # let port = wharf_port::Port::builder().build()?;
    /// let table: wharf_port::Table<u64> = wharf_port::Table::new(&port);
    /// assert_eq!(table.len(), 0);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.length.load(Ordering::Relaxed)
    }

    /// Returns whether the table holds no value.
    ///
    /// ```
    /// # fn main() -> wharf_port::Result<()> {
    /// # let port = wharf_port::Port::builder().build()?;
    /// assert!(wharf_port::Table::<u64>::new(&port).is_empty());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn entry(&self, socket: SocketRef) -> Option<&Entry<T>> {
        if socket.port != self.port {
            return None;
        }
        let chunk = self.chunks.get((socket.slot / CHUNK_ENTRIES) as usize)?;
        Some(&chunk.get()?[(socket.slot % CHUNK_ENTRIES) as usize])
    }
}

impl<T> Entry<T> {
    fn new() -> Self {
        Entry {
            user: AtomicU32::new(0),
            value: Mutex::new(None),
        }
    }

    /// Locks the entry for this thread. The turn keeps it free; a packet kept beyond its turn waits
    /// here.
    fn take(&self) -> Use<'_, T> {
        let thread = this_thread();
        let value = self.value.try_lock().unwrap_or_else(|| {
            // Only this thread writes its own number here, and clears it before it unlocks.
            let again = self.user.load(Ordering::Relaxed) == thread;
            assert!(!again, "the state of this socket is in use on this thread");
            self.value.lock()
        });
        self.user.store(thread, Ordering::Relaxed);
        Use {
            user: &self.user,
            value,
        }
    }
}

impl<T> Drop for Use<'_, T> {
    fn drop(&mut self) {
        self.user.store(0, Ordering::Relaxed);
    }
}

impl<T> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.length.load(Ordering::Relaxed);
        write!(f, "Table({length} values of port {})", self.port)
    }
}

/// Returns the number of this thread, from 1.
fn this_thread() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    thread_local! {
        static NUMBER: u32 = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    // Without native thread-locals a thread that has destroyed its own has no number. Such threads
    // share this one. So if two of them use one entry at a time, the second panics as if it were
    // the first; waiting could be for itself.
    NUMBER.try_with(|number| *number).unwrap_or(u32::MAX)
}
