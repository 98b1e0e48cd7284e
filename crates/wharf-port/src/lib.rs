//! One completion port on Windows IOCP, Linux io_uring and readiness (epoll, kqueue).
//!
//! A [`Port`] takes operations on sockets and hands out packets that tell how they ended. You
//! choose a [`Key`] for each socket; each packet brings it back, with a [`SocketRef`] to answer by.
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
//! - Every accepted operation has **one outcome**. Accept and receive stream: packets, then one
//!   `Ended`. A plain `send` is silent on success. [`Event`] has the table.
//! - Operations **own** their buffers; these come back in packets, also on failure. Received bytes
//!   are **lent**: drop the [`Lease`] and the stream goes on; an idle connection holds none.
//! - A **shared** port has many waiters. While a waiter holds packets of a socket nobody else gets
//!   any of that socket: a [`Table`] keeps state per connection without a lock of your own.
//! - Every queue and table has a **bound** that the [`Builder`] sets. At a bound a request is
//!   [`Refused`] with what it brought; a listener without descriptors or room pauses and resumes.
//! - No error of one socket is an error of [`Waiter::wait`]: it is a packet of that socket, with the
//!   operation, the kind and the cure.
//! - Nothing here logs, sleeps or spawns a thread.
//!
//! The [driver](Port::driver) is the best that works here, and the port says which it passed over
//! and why. The examples start at `01_listening`; `docs/library/threads.md` helps to choose between a shared
//! port and one single-waiter port per thread.
//!
//! # Portability
//!
//! The same program behaves the same on every driver, but for these:
//!
//! - Unix sockets exist on Unix only.
//! - A connection that its peer resets before it is accepted is delivered and then ends on Linux;
//!   elsewhere it may never show.
//! - Which sends share one request, and so where one packet of bytes ends and the next begins, is
//!   the driver's affair; so is how long after its deadline a timer comes, but never before it.
//! - What a peer sent before it reset the connection, and nobody had received yet, is delivered on
//!   Linux and lost on Windows. Either way the receive ends as reset.
//! - A send that is cancelled after its first byte tells how many went out, except on Windows. There
//!   Microsoft leaves undefined what the connection does afterwards: close it.
//! - A clone of an associated socket may be associated as well, except on Windows, which gives a
//!   socket to one port, whichever of its handles asks: share its [`SocketRef`] instead.
//! - `reuse_port` deals connections out evenly on Linux only, and is refused on Windows.
//! - `congestion_control` is an option of Linux and FreeBSD, and refused elsewhere.
//! - Direct descriptors ([`Builder::direct_descriptors`]) exist on `uring` only, and change what is
//!   said there.
//! - [`Builder::spin_max`] has a waiter look for a while before it sleeps on every driver but the
//!   simulated network, whose clock jumps to what comes next.
//! - On `uring` requests go to the kernel with the next wait of a waiter's thread. A send of another
//!   thread leaves at once, and so does one of a handler that runs long or follows one that did;
//!   otherwise a send leaves at the latest with the thread's next send or packet after the clock has
//!   ticked (1 to 10 ms). Call [`Port::submit`] before computing for longer without either. A connect
//!   begins, and a receive or an accept goes on, when a thread waits or calls that. Sends on direct
//!   descriptors leave when the thread of their ring waits or submits.
//! - What [`Port::close`] still sends is what the system takes without waiting, which is more where
//!   its buffers are larger. [`Port::shutdown`] sends the rest.
//! - On a shared port on `uring`, what comes for a connection may wait while the thread that had
//!   asked for it computes: until it enters the kernel, at the latest until the next tick of the
//!   clock (1 to 10 ms). A thread that the kernel holds up where nothing interrupts it (a disk, the
//!   start of a process) keeps it until it is let go. Elsewhere another waiter has it at once.
//!
//! What a peer sends beside the bytes of a stream is delivered nowhere, on any driver: an urgent
//! byte (`MSG_OOB`) is left out, unless the socket had `SO_OOBINLINE` set when it was associated, and
//! descriptors that are passed over a Unix socket (`SCM_RIGHTS`) are closed.

// Each public type is open for more, or says why it is not.
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

// The core decides, a driver carries out, and sys is what drivers of one system share.
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

/// What the README shows compiles, and what ends is run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Locks. A panic of another thread while it held the lock has lost its packet, not the port.
#[inline]
pub(crate) fn lock<T>(mutex: &parking_lot::Mutex<T>) -> parking_lot::MutexGuard<'_, T> {
    mutex.lock()
}
