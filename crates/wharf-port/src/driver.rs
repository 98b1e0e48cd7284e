//! The driver: the seam between the port and an operating system.
//!
//! A driver carries out what the state of a socket says
//! ([`Receiving`](crate::core::slot::Receiving) for the reading side, the head of the queue of sends
//! for the writing side), and reports to the core. What comes next is the core's to decide: it goes
//! through the queue, and `transmit` says how far one attempt came. A driver asks the core for what
//! has a bound (a place, a lease, a buffer) when it needs one. It must keep this contract:
//!
//! 1. Each side of a socket has at most one request with the system at a time. `is_armed` and
//!    `is_sending` are true exactly while the driver will report the end of that request: a driver
//!    calls `begin_reading` when it makes one, and of the writing side it returns that it has
//!    submitted one. A readiness driver leaves nothing with the system, so neither is ever true.
//! 2. Every such request is reported once, under the slot's lock: `receive_stopped`,
//!    `send_stopped`, `accepted`, `received`, `received_into`, `connected`. Memory that the system
//!    may still write to is never freed before that report.
//! 3. Calls with a slot locked never block and never take another slot's lock.
//! 4. `wake(n)` makes `n` present or future calls of `poll` return. Each call counts the wake-ups
//!    that it used, even if it fails.
//! 5. A report may come on another thread before the call that made the request has returned. The
//!    slot's lock, which the caller holds, orders the two.
//!
//! This is a trait and not conditional code, because one build holds several drivers (io_uring
//! falls back to readiness where it is forbidden), and tests add one that injects faults.
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
    /// Requests of the core wait until a thread enters the driver.
    pub(crate) defers: bool,
    /// A second look without a sleep may find something, because time passes by itself.
    pub(crate) may_spin: bool,
    /// The features that the driver has found here and uses, where systems differ.
    pub(crate) features: Vec<&'static str>,
}

/// One of the two requests that a socket may have with the system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    Reading,
    Writing,
}

/// How far one attempt to send came.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transmitted {
    /// The system has taken this many bytes. With 0 the core tries again.
    Sent(usize),
    /// The system takes nothing now. The driver calls `go_on_sending` when it does.
    #[allow(dead_code, reason = "only a readiness driver waits for space")]
    Blocked,
    /// A request is with the system. It covers this many entries of the queue, which stay there and
    /// keep their bytes until `send_stopped` reports its end.
    Submitted { sends: usize },
    /// The system has refused, with this code: the write side is over.
    Failed(i32),
}

/// Why the core submits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Submit {
    /// The caller has requested it, or the core needs to know what has ended.
    Now,
    /// The send queue of this socket is full. Something may have gone out since.
    ForRoom(SlotId),
    /// The port ends and no thread waits any more. The driver hands what is queued for sending to
    /// the system, as far as the system takes it at once. The core cuts the rest short.
    AtEnd,
}

/// What every driver does. The numbered contract is above.
pub(crate) trait Driver: Sockets + Threads + Send + Sync + fmt::Debug {
    /// Returns what stays true of this driver.
    fn abilities(&self) -> Abilities;

    /// Prepares a socket's handle for the driver. With `accepted`, this port accepted the socket,
    /// so the driver knows how it was made.
    fn associate(&self, socket: &mut Locked<'_>, accepted: bool) -> Result<(), i32>;

    /// Starts or continues what `receiving` says. It is called while the driver holds nothing of it.
    fn arm(&self, socket: &mut Locked<'_>);

    /// Sends what goes out at once, before anything is queued, if that needs no request. Returns
    /// how many bytes went out, or the system's code; `None` if sends need requests.
    fn send_at_once(&self, socket: &mut Locked<'_>, bytes: &[u8]) -> Option<Result<usize, i32>> {
        let _ = (socket, bytes);
        None
    }

    /// Sends from the head of the queue, which has bytes. The core calls it while the driver holds
    /// no request of the writing side, again after each `Sent`. A driver that sends by system calls
    /// sends at most `bytes_max`; with 0 this socket has had its part, and the driver calls
    /// `go_on_sending` after other sockets. For a request the bound means nothing: it does not keep
    /// the slot locked.
    fn transmit(&self, socket: &mut Locked<'_>, bytes_max: usize) -> Transmitted;

    /// Asks for the end of the request of this direction (`is_armed` or `is_sending`). Its report
    /// follows.
    fn cancel(&self, socket: &mut Locked<'_>, direction: Direction);

    /// Ends everything that the driver holds of a closing socket. The reports follow.
    fn hang_up(&self, socket: &mut Locked<'_>);

    /// Closes the handle of a socket of which the driver holds nothing.
    fn release(&self, socket: &mut Locked<'_>);

    /// A waiter has the socket's turn: a readiness driver makes one read or accept now, or reports
    /// one end. The core calls it again while `has_more`, as far as the turn goes.
    fn advance(&self, socket: &mut Locked<'_>) {
        let _ = socket;
    }

    /// Whether `advance` would deliver something.
    fn has_more(&self, socket: &Locked<'_>) -> bool {
        let _ = socket;
        false
    }

    /// Hands over what is queued, and processes what has ended, without waiting.
    fn submit(&self, core: &Arc<Core>, why: Submit) {
        let _ = (core, why);
    }

    /// Sleeps until something happens, at most this long, and reports it. Adds the wake-ups that it
    /// used to `local.wakes`, whatever the outcome. Returns the system's code if the port itself is
    /// broken.
    fn poll(
        &self,
        core: &Arc<Core>,
        at_most: Option<Duration>,
        local: &mut Local,
    ) -> Result<(), i32>;

    /// Makes `threads` calls of `poll` return.
    fn wake(&self, threads: u32);

    /// The port ends. Collects, for a bounded time, what the system still holds of sockets that
    /// were all aborted. Returns how many requests did not come back; their memory is leaked.
    fn end(&self, core: &Arc<Core>) -> u64;
}

/// Opens sockets, asks about them, and closes those that have no slot.
pub(crate) trait Sockets {
    /// Opens a listening socket.
    fn open_listener(&self, at: &ListenOptions) -> io::Result<Handle> {
        sys::open::listener(at)
    }

    /// A listener has its slot. The driver keeps the options that its accepted sockets do not
    /// inherit on this system.
    fn listening(&self, socket: &Locked<'_>, at: &ListenOptions) {
        let _ = (socket, at);
    }

    /// Returns another handle to a listener, for another port.
    fn share_listener(&self, listener: &Handle) -> io::Result<Handle> {
        sys::duplicate(listener)
    }

    /// Returns how many connections of a closing listener the system has accepted and the driver
    /// has not delivered. The listener's release closes them.
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

    /// Ends the write side of a connected socket with a FIN. Returns `None` if this thread cannot:
    /// then a request is with the system whose end, `send_stopped`, comes on a thread that can.
    fn shutdown_write(&self, socket: &Locked<'_>) -> Option<Result<(), i32>> {
        Some(sys::shutdown_write(socket.open_handle()))
    }

    /// Closes a handle that this driver has opened and that no slot took.
    fn abandon(&self, handle: Handle) {
        drop(handle);
    }

    /// The caller dropped an accepted socket without associating it. `token` is the driver's mark
    /// on its reservation.
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
    /// Returns the time of timers and deadlines. The clock is monotonic.
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// Binds the driver to the thread of a new waiter, if the driver needs that.
    fn enter_thread(&self) -> crate::Result<()> {
        Ok(())
    }

    /// The calling thread begins to wait. Only drivers that defer get this call.
    fn wait_begins(&self, core: &Core) {
        let _ = core;
    }

    /// The calling thread uses the port. Hands over what is queued if the thread has gone long
    /// without calling `wait`. Only drivers that defer get this call.
    fn submit_if_late(&self, core: &Arc<Core>) {
        let _ = core;
    }

    /// Whether requests wait for a thread to enter the driver.
    fn wants_entry(&self) -> bool {
        false
    }

    /// A waiter found nothing and is about to sleep. It holds no lock. On a simulated network with
    /// actors, another one may run here.
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

    /// A waiter goes, on its thread, while the port stays open. A driver that no other thread may
    /// enter takes its requests back from the system, so that any thread can end the port. With
    /// `ends` the thread itself ends; a driver gets this call only if it has asked for it.
    fn leave_thread(&self, core: &Arc<Core>, ends: bool) {
        let _ = (core, ends);
    }
}

/// Why a driver does not work here, with the fix, and the system's code.
pub(crate) type Unavailable = (&'static str, Option<i32>);
