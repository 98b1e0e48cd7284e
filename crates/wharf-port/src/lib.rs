//! One completion port on Windows IOCP, Linux io_uring and readiness (epoll, kqueue).
//!
//! A [`Port`] takes operations on sockets and delivers packets that report how they ended. You
//! choose a [`Key`] for each socket. Each packet carries that key, and a [`SocketRef`] for the next
//! operation.
//!
//! ```
//! use wharf_port::{Event, Key, Port, Wait};
//!
//! # fn main() -> wharf_port::Result<()> {
//! let port = Port::builder().build()?;
//! let mut waiter = port.waiter()?;
//! let listener = port.listen(([127, 0, 0, 1], 0), Key(90))?;
//! let listener = listener.accept()?;
//! # let address = listener.local_addr()?.as_socket_addr().unwrap();
//! # let client = std::thread::spawn(move || {
//! #     use std::io::{Read, Write};
//! #     let mut client = std::net::TcpStream::connect(address).unwrap();
//! #     client.write_all(b"hello").unwrap();
//! #     client.shutdown(std::net::Shutdown::Write).unwrap();
//! #     let mut back = String::new();
//! #     client.read_to_string(&mut back).unwrap();
//! #     back
//! # });
//! let mut next_key = 100;
//! 'serving: loop {
//!     let Wait::Packets(packets) = waiter.wait(None)? else { break };
//!     for packet in packets {
//!         match packet.event {
//!             Event::Accepted(accepted) => {
//!                 // No `?` on a call about one socket: one peer's fault is not the server's.
//!                 if let Ok(stream) = port.associate(accepted, Key(next_key)) {
//!                     next_key += 1;
//!                     let _ = stream.set_aside().receive();
//!                 }
//!             }
//!             Event::Received(lease) => {
//!                 let _ = packet.socket.send(lease); // without a copy
//!             }
//!             Event::Ended { .. } => {
//!                 let _ = packet.socket.close(wharf_port::Close::Flush);
//!             }
//!             Event::Closed => {
//! #               break 'serving;
//!             }
//!             _ => {}
//!         }
//!     }
//! }
//! # assert_eq!(client.join().unwrap(), "hello");
//! # Ok(()) }
//! ```
//!
//! # The model in one screen
//!
//! - **Associate** a socket with a key. **Submit** operations on it: accept, connect, receive,
//!   send, watch, shutdown, close. **Wait** for packets. **Post** packets of your own, set
//!   **timers**, **cancel** what takes too long.
//! - Every accepted operation has **one outcome**. Accept and receive stream: they deliver packets,
//!   then one `Ended`. A plain `send` is silent on success. [`Event`] has the table.
//! - Operations **own** their buffers. The buffers come back in packets, also on failure. Received
//!   bytes are **lent**: drop the [`Lease`] and the stream continues. An idle connection holds no
//!   buffer.
//! - A **shared** port has many waiters. While a waiter holds packets of a socket, no other waiter
//!   gets packets of that socket. So a [`Table`] keeps state per connection without a lock of your
//!   own.
//! - Every queue and table has a **bound** that the [`Builder`] sets. At a bound the port returns
//!   [`Refused`] with the value that the call passed. A listener that lacks descriptors or space
//!   pauses, and resumes later.
//! - No error of one socket is an error of [`Waiter::wait`]. It is a packet of that socket, with
//!   the operation, the kind and the fix.
//! - The library logs nothing, sleeps nowhere and spawns no thread.
//!
//! The port uses the best [driver](Port::driver) that works on this system, and reports which
//! drivers it passed over and why. The examples start at `01_listening`. `docs/library/threads.md`
//! helps to choose between a shared port and one single-waiter port per thread (thread-per-core).
//!
//! # Portability
//!
//! The same program behaves the same on every driver, with these exceptions:
//!
//! - Unix sockets exist on Unix only.
//! - If a peer resets a connection before it is accepted, Linux delivers the connection and then
//!   its end. Other systems may never deliver it.
//! - The driver decides which sends share one request, and so where one packet of bytes ends and
//!   the next begins. The driver also decides how long after its deadline a timer fires. A timer
//!   never fires before its deadline.
//! - A peer may send bytes and then reset the connection before the program receives them. Linux
//!   delivers these bytes, Windows loses them. On both the receive ends as reset.
//! - A send that is cancelled after its first byte reports how many bytes went out, except on
//!   Windows. There Microsoft leaves undefined what the connection does afterwards: close it.
//! - A clone of an associated socket may be associated as well, except on Windows. Windows lets
//!   only one port have a socket, through whichever handle. Share the [`SocketRef`] instead.
//! - `reuse_port` distributes connections evenly on Linux only. Windows refuses it.
//! - `congestion_control` is an option of Linux and FreeBSD. Other systems refuse it.
//! - Direct descriptors ([`Builder::direct_descriptors`]) exist on `uring` only, and change what is
//!   said there.
//! - [`Builder::spin_max`] makes a waiter busy-poll before it sleeps. The simulated network ignores
//!   it, because its clock jumps to the next event.
//! - On `uring` the waiter's thread submits its requests to the kernel at its next wait. A send
//!   leaves earlier in three cases. A send of another thread leaves at once. A send of a handler
//!   that runs long, or that follows one that did, leaves at once too. Any other send leaves at the
//!   latest with the thread's next send or packet after the clock has ticked (1 to 10 ms). Call
//!   [`Port::submit`] before the handler computes for longer without either. A connect begins, and
//!   a receive or an accept continues, when a thread waits or calls `submit`. Sends on direct
//!   descriptors leave when the thread of their ring waits or submits.
//! - [`Port::close`] sends only what the system takes without waiting. That is more where the
//!   system's buffers are larger. [`Port::shutdown`] sends the rest.
//! - On a shared port on `uring`, data for a connection is processed on the thread that submitted
//!   its receive. While that thread computes, other waiters do not get the data until the thread
//!   enters the kernel, at the latest at the next tick of the clock (1 to 10 ms). If the kernel
//!   blocks the thread where nothing interrupts it (disk access, the start of a process), the data
//!   waits until the thread runs again. On other drivers another waiter gets the data at once.
//!
//! No driver delivers what a peer sends outside the bytes of a stream. An urgent byte (`MSG_OOB`)
//! is left out, unless the socket had `SO_OOBINLINE` set when it was associated. Descriptors that
//! arrive over a Unix socket (`SCM_RIGHTS`) are closed.

// Each public type is `non_exhaustive`, or gives the reason why it is not.
#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

// The words of the API: values that operations take and packets carry.
mod accepted;
mod address;
mod buffer;
mod connect;
mod error;
mod keepalive;
mod key;
mod listen;
mod op;
mod packet;
mod reference;
mod stats;
mod stream;

// The face: each method is one call of the core.
mod batch;
mod builder;
mod listener;
mod port;
#[cfg(feature = "sim")]
pub mod sim;
mod socket;
mod table;
mod waiter;

// The core decides, a driver carries out. `sys` has what the drivers of one system share.
mod core;
mod driver;
mod sys;

pub use accepted::{Accepted, Unassociated};
pub use address::Address;
pub use batch::Batch;
pub use buffer::{Buffer, Lease};
pub use builder::Builder;
pub use builder::drivers_present;
pub use connect::ConnectOptions;
pub use core::options::PoolOptions;
pub use driver::kind::{DriverChoice, DriverKind, DriverReport, PassedOver};
pub use error::{Error, ErrorKind, Operation, Refused, Result};
pub use keepalive::Keepalive;
pub use key::Key;
pub use listen::ListenOptions;
pub use listener::Listener;
pub use op::Close;
pub use op::{Cancel, Op};
pub use packet::{End, Event, Leave, Packet, PauseReason};
pub use port::Port;
pub use reference::SocketRef;
pub use stats::Stats;
pub use stream::Stream;
#[doc(hidden)]
pub use sys::program;
pub use sys::{BorrowedDescriptor, OwnedDescriptor};
pub use table::Table;
pub use waiter::{Wait, Waiter};

/// The code in the README compiles. Examples that end are run as well.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Locks. If another thread panics while it holds the lock, only the packet at hand is lost. The
/// port stays usable.
#[inline]
pub(crate) fn lock<T>(mutex: &parking_lot::Mutex<T>) -> parking_lot::MutexGuard<'_, T> {
    mutex.lock()
}
