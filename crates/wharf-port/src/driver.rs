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

use std::fmt;
use std::sync::Arc;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::connect::ConnectOptions;
use crate::core::Core;
use crate::core::local::Local;
use crate::core::locked::Locked;
use crate::core::slot::SlotId;
use crate::error::Result;
use crate::listen::ListenOptions;
use crate::sys;

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

/// What every driver does; the numbered contract is above.
pub(crate) trait Driver: Send + Sync + fmt::Debug {
    /// Whether several threads may be inside `poll` at a time.
    fn concurrent(&self) -> bool;

    /// What it found here and uses, where that differs between systems.
    fn features(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// The clock of timers and deadlines: monotonic.
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// Whether looking again without sleeping may bring something: time passes by itself.
    fn may_spin(&self) -> bool {
        true
    }

    /// Binds the driver to the thread of a new waiter, where it cares.
    fn enter_thread(&self) -> Result<()> {
        Ok(())
    }

    /// A waiter goes, on its thread, while the port stays open: a driver that no other thread may
    /// enter takes back what the system holds, so that the port can be ended from anywhere. Or
    /// `ends`: the thread goes itself, if the driver asked to be told.
    fn leave_thread(&self, core: &Arc<Core>, ends: bool) {
        let _ = (core, ends);
    }

    /// Whether what is asked for waits until a thread enters the driver.
    fn defers(&self) -> bool {
        false
    }

    /// The calling thread begins to wait.
    fn wait_begins(&self, core: &Core) {
        let _ = core;
    }

    /// Hands over what is queued if the calling thread has been away from `wait` for long.
    fn submit_if_late(&self, core: &Arc<Core>) {
        let _ = core;
    }

    /// Hands over what is queued, and takes note of what has ended, without waiting.
    fn submit(&self, core: &Arc<Core>) {
        let _ = core;
    }

    /// The queue of a socket's sends is full: looks whether it still is.
    fn make_room(&self, core: &Arc<Core>, id: SlotId) {
        let _ = id;
        self.submit(core);
    }

    /// The port ends and nobody waits any more: what is queued for sending goes to the system, as
    /// far as it takes that at once. What is left will be cut short.
    fn flush_at_end(&self, core: &Arc<Core>) {
        self.submit(core);
    }

    /// Opens a listening socket.
    fn open_listener(&self, at: &ListenOptions) -> std::io::Result<sys::Handle> {
        sys::open::listener(at)
    }

    /// A listener has its slot: the driver keeps what its accepted sockets do not inherit here.
    fn listening(&self, socket: &Locked<'_>, at: &ListenOptions) {
        let _ = (socket, at);
    }

    /// Opens a socket that will connect.
    fn open_connector(&self, to: &ConnectOptions) -> std::io::Result<sys::Handle> {
        sys::open::connector(to)
    }

    /// The simulated network behind this driver, if it is one.
    #[cfg(feature = "sim")]
    fn network(&self) -> Option<sim::Network> {
        None
    }

    /// The address on this side of an open socket.
    fn local_address(&self, socket: &Locked<'_>) -> std::io::Result<Address> {
        sys::local_address(socket.open_handle())
    }

    /// The address of an open socket's peer.
    fn peer_address(&self, socket: &Locked<'_>) -> std::io::Result<Address> {
        self.peer_of(socket.open_handle())
    }

    /// The address of the peer of a socket that has no slot yet.
    fn peer_of(&self, handle: &sys::Handle) -> std::io::Result<Address> {
        sys::peer_address(handle)
    }

    /// Another handle to a listener, for another port.
    fn share_listener(&self, socket: &Locked<'_>) -> std::io::Result<sys::Handle> {
        sys::duplicate(socket.open_handle())
    }

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

    /// Asks for the armed request to end; its report follows.
    fn cancel_receive(&self, socket: &mut Locked<'_>);

    /// Asks for the send request to end; its report follows.
    fn cancel_send(&self, socket: &mut Locked<'_>);

    /// Ends everything that the driver holds of a closing socket. The reports follow.
    fn hang_up(&self, socket: &mut Locked<'_>);

    /// Ends the write side of a connected socket with a FIN.
    fn shutdown_write(&self, socket: &Locked<'_>) -> Result<(), i32> {
        sys::shutdown_write(socket.open_handle())
    }

    /// Closes the handle of a socket of which the driver holds nothing.
    fn release(&self, socket: &mut Locked<'_>);

    /// How many connections of a listener that closes the system has accepted and nobody was told
    /// of; its release closes them.
    fn untold(&self, id: SlotId) -> usize {
        let _ = id;
        0
    }

    /// Closes a handle that this driver has opened and that no slot took.
    fn abandon(&self, handle: sys::Handle) {
        drop(handle);
    }

    /// An accepted socket was closed by a drop before anybody associated it; `token` is what the
    /// driver marked its place with.
    fn untaken(&self, token: u64) {
        let _ = token;
    }

    /// A waiter has the socket's turn: a readiness driver does its input and output now.
    fn advance(&self, socket: &mut Locked<'_>) {
        let _ = socket;
    }

    /// Whether `advance` would deliver something.
    fn has_more(&self, socket: &Locked<'_>) -> bool {
        let _ = socket;
        false
    }

    /// Whether requests wait for a thread to enter the driver.
    fn wants_entry(&self) -> bool {
        false
    }

    /// Sleeps until something happens, at most so long, and reports it. Adds the wake-ups it used
    /// to `wakes`, whatever the outcome; answers the system's code when the port itself is broken.
    fn poll(
        &self,
        core: &Arc<Core>,
        at_most: Option<Duration>,
        local: &mut Local,
        wakes: &mut u32,
    ) -> Result<(), i32>;

    /// Makes `threads` calls of `poll` return.
    fn wake(&self, threads: u32);

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

    /// The port ends: collects, for a bounded time, what the system still holds of sockets that
    /// were all aborted. Answers how many requests did not come back; their memory is leaked.
    fn end(&self, core: &Arc<Core>) -> u64;
}

/// Why a driver does not work here, with the fix, and the system's code.
pub(crate) type Unavailable = (&'static str, Option<i32>);
