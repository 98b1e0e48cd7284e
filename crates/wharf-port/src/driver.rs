//! The driver: the only seam between the port and an operating system.
//!
//! A driver carries out what a socket's state asks for: [`Receiving`](crate::core::slot::Receiving)
//! on the reading side, the queue of sends on the writing side. It reports back through the methods
//! of the core. The contract that it must keep:
//!
//! 1. The system has one request of each side of a socket at a time: the flags `ARMED` and
//!    `SENDING` are set exactly while the driver will report its end. A readiness driver leaves
//!    nothing with the system, so it never sets them.
//! 2. Every such request is reported once, under the slot's lock: `receive_stopped`,
//!    `send_stopped`, `accepted`, `received`, `received_into`, `connected`. Memory that the system
//!    may still write to is never freed before that report.
//! 3. Calls with a slot locked never block and never take another slot's lock.
//! 4. `wake(n)` makes n present or future calls of `poll` return. Each call counts the wake-ups it
//!    used, also when it fails.
//! 5. Reports may come on another thread before the call that made the request has returned. The
//!    caller holds the slot's lock, and that orders them.
//!
//! A trait rather than conditional code, because one build holds several drivers (io_uring falls
//! back to readiness where it is forbidden) and tests add one that injects faults.
//!
//! It is three traits, so that a reader sees which parts a driver takes over from the system:
//!
//! - [`Driver`] carries out requests and reports their ends: what each driver is for.
//! - [`Sockets`] opens sockets and asks about them, by handle. The defaults are the system calls of
//!   `sys`. A driver whose handles are not the system's own (direct descriptors, the simulated
//!   network) replaces those calls.
//! - [`Threads`] is the life of the threads that use a port, and their clock. The defaults are the
//!   standard library's. A ring needs to know its thread, and the simulated network decides which
//!   thread runs.
//!
//! [`Abilities`] has what never changes in a driver's life. A port asks for it once, when it is
//! built. Every `impl` has the verbs in the order of the trait; `cargo xtask tidy` checks that, and
//! the number of verbs. `docs/decisions/0015-three-traits-at-the-seam.md` has what was rejected.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::connect::ConnectOptions;
use crate::core::Core;
use crate::core::local::Local;
use crate::core::locked::Locked;
use crate::core::slot::SlotId;
use crate::listen::ListenOptions;
use crate::sys::{self, Handle};

pub(crate) mod choice;
#[cfg(windows)]
mod iocp;
pub(crate) mod kind;
#[cfg(unix)]
mod poll;
mod reading;
#[cfg(any(windows, target_os = "linux"))]
mod silence;
#[cfg(feature = "sim")]
pub(crate) mod sim;
#[cfg(target_os = "linux")]
mod uring;

#[cfg(windows)]
pub(crate) use iocp::{SlotBlock, WorkBlock};
#[cfg(target_os = "linux")]
pub(crate) use uring::WorkBlock;

/// What a driver keeps in each slot: nothing, because the kernel gets slots by number.
#[cfg(unix)]
#[derive(Debug, Default)]
pub(crate) struct SlotBlock;

/// What the drivers of Unix keep in each work block: nothing, except io_uring.
#[cfg(all(unix, not(target_os = "linux")))]
#[derive(Debug, Default)]
pub(crate) struct WorkBlock;

/// What a driver is able to do, for all of its life.
#[derive(Debug)]
pub(crate) struct Abilities {
    /// Several threads may be inside `poll` at a time.
    pub(crate) concurrent: bool,
    /// What the core asks for waits until a thread enters the driver.
    pub(crate) defers: bool,
    /// A second look without a sleep may find something, because time passes by itself.
    pub(crate) may_spin: bool,
    /// What the driver found on this system and uses, where systems differ.
    pub(crate) features: Vec<&'static str>,
}

/// One of the two requests that a socket may have with the system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Reading,
    Writing,
}

/// Why the core submits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Submit {
    /// The caller asked for it, or the core needs what has ended.
    Now,
    /// The send queue of this socket is full: something may have gone out since.
    ForRoom(SlotId),
    /// The port ends and no thread waits any more. What is queued for sending goes to the system,
    /// as far as that takes it at once. The core cuts the rest short.
    AtEnd,
}

/// What every driver does; the numbered contract is above.
pub(crate) trait Driver: Sockets + Threads + Send + Sync + fmt::Debug {
    /// Returns what stays true of this driver.
    fn abilities(&self) -> Abilities;

    /// Prepares a socket's handle for the driver. With `accepted`, this port accepted the socket,
    /// so the driver knows how it was made.
    fn associate(&self, socket: &mut Locked<'_>, accepted: bool) -> Result<(), i32>;

    /// Starts or continues `state.receiving`. It is called while the driver holds nothing of it.
    fn arm(&self, socket: &mut Locked<'_>);

    /// Sends what goes out at once, before anything is queued, if that needs no request. Returns
    /// how many bytes went out, or the system's code; `None` if sends need requests.
    fn send_at_once(&self, socket: &mut Locked<'_>, bytes: &[u8]) -> Option<Result<usize, i32>> {
        let _ = (socket, bytes);
        None
    }

    /// Starts or goes on with the queue of sends; called while the driver holds nothing of it.
    fn transmit(&self, socket: &mut Locked<'_>);

    /// Asks for the request of this side to end (`ARMED` or `SENDING`); its report follows.
    fn cancel(&self, socket: &mut Locked<'_>, side: Side);

    /// Ends everything that the driver holds of a closing socket. The reports follow.
    fn hang_up(&self, socket: &mut Locked<'_>);

    /// Closes the handle of a socket of which the driver holds nothing.
    fn release(&self, socket: &mut Locked<'_>);

    /// A waiter has the socket's turn: a readiness driver does its input and output now.
    fn advance(&self, socket: &mut Locked<'_>) {
        let _ = socket;
    }

    /// Whether `advance` would deliver something.
    fn has_more(&self, socket: &Locked<'_>) -> bool {
        let _ = socket;
        false
    }

    /// Hands over what is queued, and takes note of what has ended, without waiting.
    fn submit(&self, core: &Arc<Core>, why: Submit) {
        let _ = (core, why);
    }

    /// Sleeps until something happens, at most this long, and reports it. Adds the wake-ups it used
    /// to `wakes`, whatever the outcome; returns the system's code when the port itself is broken.
    fn poll(
        &self,
        core: &Arc<Core>,
        at_most: Option<Duration>,
        local: &mut Local,
        wakes: &mut u32,
    ) -> Result<(), i32>;

    /// Makes `threads` calls of `poll` return.
    fn wake(&self, threads: u32);

    /// The port ends: collects, for a bounded time, what the system still holds of sockets that
    /// were all aborted. Returns how many requests did not come back; their memory is leaked.
    fn end(&self, core: &Arc<Core>) -> u64;
}

/// Opens sockets, asks about them, and closes those that have no slot.
pub(crate) trait Sockets {
    /// Opens a listening socket.
    fn open_listener(&self, at: &ListenOptions) -> io::Result<Handle> {
        sys::open::listener(at)
    }

    /// A listener has its slot: the driver keeps what its accepted sockets do not inherit here.
    fn listening(&self, socket: &Locked<'_>, at: &ListenOptions) {
        let _ = (socket, at);
    }

    /// Returns another handle to a listener, for another port.
    fn share_listener(&self, listener: &Handle) -> io::Result<Handle> {
        sys::duplicate(listener)
    }

    /// Returns how many connections of a listener the system has accepted and the driver has not
    /// delivered. The listener closes: its release closes them.
    fn undelivered(&self, listener: SlotId) -> usize {
        let _ = listener;
        0
    }

    /// Opens a socket that will connect.
    fn open_connector(&self, to: &ConnectOptions) -> io::Result<Handle> {
        sys::open::connector(to)
    }

    /// Returns the address on this side.
    fn local_address(&self, handle: &Handle) -> io::Result<Address> {
        sys::local_address(handle)
    }

    /// Returns the peer's address. The socket may have no slot yet.
    fn peer_address(&self, handle: &Handle) -> io::Result<Address> {
        sys::peer_address(handle)
    }

    /// Ends the write side of a connected socket with a FIN.
    fn shutdown_write(&self, handle: &Handle) -> Result<(), i32> {
        sys::shutdown_write(handle)
    }

    /// Closes a handle that this driver has opened and that no slot took.
    fn abandon(&self, handle: Handle) {
        drop(handle);
    }

    /// The caller dropped an accepted socket and did not associate it; `token` is what the driver
    /// marked its place with.
    fn abandon_accepted(&self, token: u64) {
        let _ = token;
    }

    /// Returns the simulated network behind these sockets, if they are on one.
    #[cfg(feature = "sim")]
    fn network(&self) -> Option<sim::Network> {
        None
    }
}

/// The threads that use a port: how they come, wait, sleep and go, and what their clock shows.
pub(crate) trait Threads {
    /// Returns the time of timers and deadlines: monotonic.
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// Binds the driver to the thread of a new waiter, where it cares.
    fn enter_thread(&self) -> crate::Result<()> {
        Ok(())
    }

    /// The calling thread begins to wait. Only drivers that defer are called.
    fn wait_begins(&self, core: &Core) {
        let _ = core;
    }

    /// The calling thread uses the port: hands over what is queued if the thread has been away from
    /// `wait` for long. Only drivers that defer are called.
    fn submit_if_late(&self, core: &Arc<Core>) {
        let _ = core;
    }

    /// Whether requests wait for a thread to enter the driver.
    fn wants_entry(&self) -> bool {
        false
    }

    /// A waiter found nothing and is about to sleep, with no lock held: where threads take turns,
    /// another one may go on here.
    fn step(&self) {}

    /// Sleeps until the leader calls this thread, at most this long.
    fn park(&self, at_most: Option<Duration>) {
        match at_most {
            Some(at_most) => thread::park_timeout(at_most),
            None => thread::park(),
        }
    }

    /// Ends the `park` of this thread, or its next one.
    fn unpark(&self, thread: &Thread) {
        thread.unpark();
    }

    /// A waiter goes, on its thread, while the port stays open: a driver that no other thread may
    /// enter takes back what the system holds, so that the port can be ended from anywhere. Or
    /// `ends`: the thread goes itself, if the driver asked to be called.
    fn leave_thread(&self, core: &Arc<Core>, ends: bool) {
        let _ = (core, ends);
    }
}

/// Why a driver does not work here, with the fix, and the system's code.
pub(crate) type Unavailable = (&'static str, Option<i32>);
