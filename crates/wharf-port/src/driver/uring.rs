//! io_uring: the kernel carries the operations out and puts their ends into a ring.
//!
//! On a single-waiter port, only its thread may enter the ring, and the kernel processes
//! completions in batches when that thread asks for them. On a shared port, the core lets one
//! thread at a time sleep in the ring; other threads queue their requests and ring for that one.
//!
//! Each socket has one request of each side with the kernel, because concurrent receives fill in
//! any order and concurrent sends interleave. Linked requests were rejected because they have a
//! history of races. Zero-copy sends were rejected because below 64 KiB they cost more than they
//! save. Direct descriptors are an experiment that a port may ask for (`direct`).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use io_uring::squeue::Entry;
use parking_lot::Mutex;

use crate::address::Address;
use crate::core::local::Local;
use crate::core::locked::Locked;
use crate::core::options::Options;
use crate::core::slot::{Own, Receiving, SlotId};
use crate::core::{Core, Out};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::lock;
use crate::sys::{self, Handle};

use super::{Abilities, Direction, Driver, Sockets, Submit, Threads, Transmitted, Unavailable};
use buffers::Buffers;
use direct::Direct;
use queue::{Purpose, Ring, Size};
use request::{Kind, Name};

mod abilities;
mod accept;
mod buffers;
mod completion;
mod direct;
mod end;
mod probe;
mod prompt;
mod queue;
mod receive;
mod request;
#[cfg(test)]
mod tests;
mod watch;

pub(crate) use request::WorkBlock;

/// There was more data when the last receive ended: the next one need not wait for data.
const DATA_AT_HAND: Own<Uring> = Own::bit(0);
/// The driver itself has ended the multishot request: there are no places left, or no leases.
const CUT: Own<Uring> = Own::bit(1);
/// Accepted connections of this listener wait in `undelivered` for a place.
const HAS_UNDELIVERED: Own<Uring> = Own::bit(2);
/// The thread that submitted the connect has ended. A second request waits for the connect.
const CONNECT_CONTINUED: Own<Uring> = Own::bit(3);
/// A lease is counted for what the stream receives next.
const LEASE_RESERVED: Own<Uring> = Own::bit(4);
/// The stream's request continues after a message.
const MANY: Own<Uring> = Own::bit(5);
/// The stream has received something: more may follow.
const TALKS: Own<Uring> = Own::bit(6);
/// The peer has finished or is gone. There may be data before its end.
const PEER_ENDED: Own<Uring> = Own::bit(7);

/// The io_uring driver.
#[derive(Debug)]
pub(crate) struct Uring {
    /// No other driver has or ever had this number. An address was rejected: the next port may get
    /// it when this one is gone.
    number: u64,
    ring: Ring,
    buffers: Mutex<Buffers>,
    /// A stream receives: the kernel needs buffers before it gets that request.
    buffers_wanted: AtomicBool,
    /// Connections that the kernel accepted when no place was left, with their listeners. They are
    /// delivered as soon as there is a place, like those in the backlog.
    undelivered: Mutex<Vec<(SlotId, Handle)>>,
    /// The kernel ends a multishot receive after the number of bytes that the request gives.
    caps_streams: bool,
    /// The table of sockets without descriptors, if the port has one.
    direct: Option<Direct>,
}

impl Uring {
    pub(crate) fn new(options: &Options) -> Result<Self, Unavailable> {
        let abilities = probe::try_once()?;
        let mut ring = Ring::new(!options.shared, Size::default()).map_err(probe::refused)?;
        let direct = Direct::open(&mut ring, options.direct_descriptors)?;
        Ok(Uring {
            number: prompt::next_number(),
            ring,
            buffers: Mutex::new(Buffers::new(options.pool)),
            buffers_wanted: AtomicBool::new(false),
            undelivered: Mutex::default(),
            caps_streams: abilities.caps_streams,
            direct,
        })
    }

    /// Queues a request for a socket. Its end will be reported.
    fn ask(&self, kind: Kind, id: SlotId, entry: Entry) {
        let name = Name::of(kind, id).encode();
        self.ring.push(entry.user_data(name));
    }

    /// Queues a request of the reading side.
    fn ask_reading(&self, socket: &mut Locked<'_>, kind: Kind, entry: Entry) {
        socket.begin_reading();
        self.ask(kind, socket.id, request::aimed(socket.open_handle(), entry));
    }

    fn arm_into(&self, socket: &mut Locked<'_>) {
        self.fill_from_held(socket);
        if socket.receiving() != Some(Receiving::Into) || socket.is_armed() {
            return;
        }
        if let Some(code) = receive::take_held_end(socket) {
            return socket.receive_stopped(Some(code));
        }
        let changes = watch::has_errors_queued(socket);
        let (work, handle) = socket.queues_and_handle();
        let into = work.intos.front_mut();
        let into = into.expect("a receive into a buffer is queued");
        let (kind, entry) = if into.buffer.is_empty() {
            let events = libc::POLLIN | libc::POLLRDHUP;
            (Kind::IntoNothing, watch::wait(handle, changes, events))
        } else {
            let entry = request::receive_into(handle, &mut into.buffer);
            (Kind::Into, entry)
        };
        self.ask_reading(socket, kind, entry);
    }

    fn arm_connect(&self, socket: &mut Locked<'_>) {
        if !self.starts_elsewhere(socket) {
            self.ask_to_connect(socket);
        }
    }

    fn ask_to_connect(&self, socket: &mut Locked<'_>) {
        let work = socket.queues();
        let address = work.and_then(|work| work.connect_to.as_ref());
        let address = address.expect("a connect has its address");
        if address.is_unix() {
            // Such a connect is never in progress: the kernel would block a worker thread in it.
            let try_it = |handle: &Handle| sys::connect_at_once(handle, address);
            let tried = self.with_descriptor(socket.open_handle(), try_it);
            return socket.connect_tried(tried.and_then(|tried| tried));
        }
        let entry = request::connect(socket.open_handle(), address);
        self.ask_reading(socket, Kind::Connect, entry);
    }

    /// Returns the name of the reading side's request with the kernel.
    fn armed(&self, socket: &Locked<'_>) -> Name {
        let into_nothing = || {
            let work = socket.queues();
            let head = work.and_then(|work| work.intos.front());
            head.is_some_and(|into| into.buffer.is_empty())
        };
        let kind = match socket.receiving() {
            Some(Receiving::Accept) => Kind::Accept,
            Some(Receiving::Connect) if socket.has(CONNECT_CONTINUED) => Kind::Connecting,
            Some(Receiving::Connect) => Kind::Connect,
            Some(Receiving::Into) if into_nothing() => Kind::IntoNothing,
            Some(Receiving::Into) => Kind::Into,
            Some(Receiving::Watch) => Kind::Watch,
            Some(Receiving::Stream) | None => Kind::Stream,
        };
        Name::of(kind, socket.id)
    }

    /// Enters the kernel and processes what has completed. Only the thread inside the driver calls
    /// it, and `bind` let it.
    fn turn(
        &self,
        core: &Arc<Core>,
        at_most: Option<Duration>,
        out: &mut Out<'_>,
    ) -> Result<(), i32> {
        self.offer_buffers(core)?;
        // SAFETY: the core lets one thread at a time into a driver that is not `concurrent`.
        unsafe { self.ring.enter(at_most, Purpose::Serve) }?;
        self.reap(core, out);
        Ok(())
    }

    /// Makes sure that the kernel has buffers, if any stream ever received.
    fn offer_buffers(&self, core: &Core) -> Result<(), i32> {
        // It was set before the request was queued, so the thread that takes the request from the
        // queue sees it.
        if self.buffers_wanted.load(Ordering::Relaxed) {
            let mut buffers = lock(&self.buffers);
            if !buffers.is_open() && core.waits_for_memory() {
                return Ok(());
            }
            let open = |address, entries| self.ring.register_buffers(address, entries);
            match buffers.open(open) {
                Ok(()) => buffers.top_up(core),
                // Streams that receive find no buffer, and wait for one (`find_buffer`).
                Err(libc::ENOMEM | libc::ENOBUFS | libc::EAGAIN) => {}
                Err(code) => return Err(code),
            }
        }
        Ok(())
    }

    /// Processes what has completed, without entering the kernel.
    fn reap(&self, core: &Arc<Core>, out: &mut Out<'_>) {
        // SAFETY: as in `turn`.
        unsafe {
            self.ring
                .completions(|completed| self.complete(core, completed, out));
        }
        self.serve_waiting_streams(core);
    }

    /// If streams wait for a buffer while the kernel has some left, they try again. A buffer that
    /// was meant for one of them may have come back unused.
    fn serve_waiting_streams(&self, core: &Arc<Core>) {
        let stock = lock(&self.buffers).stock();
        core.call_waiting(stock);
    }

    /// Ends the socket's connection at once, as far as the system allows: the peer learns of it
    /// now, and the kernel's requests come back. Each socket takes constant time. A cancel walks a
    /// list that grows with the number of armed requests, and a cancel by descriptor walks all of
    /// it.
    fn disconnect(&self, socket: &Locked<'_>) {
        if socket.is_shared_listener() {
            // A shutdown would also end the accepts of other ports.
            return self.cancel_all(socket);
        }
        let shut = self.with_descriptor(socket.open_handle(), |handle| {
            if socket.is_resetting() && sys::disconnect(handle).is_ok() {
                return None;
            }
            Some(sys::shutdown_both(handle).is_ok())
        });
        let Some(shut) = shut.unwrap_or(Some(false)) else {
            return;
        };
        // A shutdown does not end a connect, nor the accept of a Unix listener.
        if !shut || !socket.is_stream() {
            self.cancel_all(socket);
        }
    }

    /// Asks for the end of the reading side's request with the kernel.
    fn cancel_reading(&self, socket: &Locked<'_>) {
        let name = self.armed(socket);
        let bursts = self.direct.is_some() && name.kind == Kind::Accept;
        self.ring.push(match bursts {
            true => request::cancel_all(name),
            false => request::cancel(name),
        });
    }

    /// Asks for the end of what the writing side has with the kernel.
    fn cancel_sending(&self, socket: &Locked<'_>) {
        let name = Name::of(Kind::Send, socket.id);
        self.ring.push(request::cancel(name));
    }

    /// Asks for the end of everything that the kernel has of this socket.
    fn cancel_all(&self, socket: &Locked<'_>) {
        if socket.is_armed() {
            self.cancel_reading(socket);
        }
        if socket.is_sending() {
            self.cancel_sending(socket);
        }
        if socket.is_guarded() {
            let name = Name::of(Kind::Guard, socket.id);
            self.ring.push(request::cancel(name));
        }
    }
}

impl Driver for Uring {
    fn abilities(&self) -> Abilities {
        let mut features = vec!["accepts that stream", "receives into provided buffers"];
        features.push(abilities::CAPS_STREAMS.in_use(self.caps_streams));
        features.extend(self.ring.features());
        if self.direct.is_some() {
            features.push("direct descriptors");
        }
        Abilities {
            concurrent: false,
            defers: true,
            may_spin: true,
            features,
        }
    }

    fn associate(&self, socket: &mut Locked<'_>, accepted: bool) -> Result<(), i32> {
        if accepted {
            return Ok(());
        }
        // The kernel polls for sends and receives on a socket with O_NONBLOCK too. But under load
        // it passes some requests to a worker thread. On a blocking socket such a request waits
        // there; on a non-blocking one it fails with EAGAIN (liburing issue 364, pull request
        // 1601). A duplicate may set the mode back: then the driver repeats a request that ends
        // with EAGAIN (`sent`, `go_on`).
        sys::set_nonblocking(socket.open_handle(), false)?;
        if socket.is_connecting() {
            self.take_in(socket)?;
        }
        Ok(())
    }

    fn arm(&self, socket: &mut Locked<'_>) {
        match socket.receiving() {
            None => {}
            Some(Receiving::Accept) => self.arm_accept(socket),
            Some(Receiving::Connect) => self.arm_connect(socket),
            Some(Receiving::Stream) => self.arm_stream(socket),
            Some(Receiving::Into) => self.arm_into(socket),
            Some(Receiving::Watch) => self.arm_watch(socket),
        }
    }

    fn send_at_once(&self, socket: &mut Locked<'_>, bytes: &[u8]) -> Option<Result<usize, i32>> {
        let handle = socket.open_handle();
        if handle.place().is_some() || self.may_queue() {
            return None;
        }
        Some(match sys::send_one(handle, bytes) {
            Err(code) if sys::interrupted(code) || sys::would_block(code) => Ok(0),
            result => result,
        })
    }

    fn transmit(&self, socket: &mut Locked<'_>, _bytes_max: usize) -> Transmitted {
        let (work, handle) = socket.queues_and_handle();
        Core::spare_the_pool_of_request(work, request::SLICES_MAX);
        let (entry, sends) = request::send(handle.number(), work);
        let entry = request::aimed(handle, entry);
        self.ask(Kind::Send, socket.id, entry);
        Transmitted::Submitted { sends }
    }

    fn cancel(&self, socket: &mut Locked<'_>, direction: Direction) {
        match direction {
            Direction::Reading => self.cancel_reading(socket),
            Direction::Writing => self.cancel_sending(socket),
        }
    }

    fn hang_up(&self, socket: &mut Locked<'_>) {
        self.disconnect(socket);
    }

    fn release(&self, socket: &mut Locked<'_>) {
        let Some(handle) = socket.take_handle() else {
            return;
        };
        if socket.has(HAS_UNDELIVERED) {
            self.close_undelivered(socket.id);
        }
        if let Some(place) = handle.place() {
            return self.release_place(socket, place);
        }
        if socket.is_resetting() {
            sys::close_with_reset(handle);
        } else if !socket.is_stream() {
            drop(handle);
        } else {
            sys::close_gracefully(handle);
        }
    }

    fn submit(&self, core: &Arc<Core>, why: Submit) {
        match why {
            Submit::Now | Submit::ForRoom(_) => self.hand_over(core),
            Submit::AtEnd => self.hand_over_at_end(core),
        }
    }

    fn poll(
        &self,
        core: &Arc<Core>,
        at_most: Option<Duration>,
        local: &mut Local,
    ) -> Result<(), i32> {
        let turned = self.turn(core, at_most, &mut Out(Some(local)));
        // The wake-ups are used up, even if the turn failed.
        local.wakes += self.ring.used_wakes();
        turned
    }

    fn wake(&self, threads: u32) {
        self.ring.wake(threads);
    }

    fn end(&self, core: &Arc<Core>) -> u64 {
        self.finish(core)
    }
}

impl Sockets for Uring {
    fn undelivered(&self, listener: SlotId) -> usize {
        let undelivered = lock(&self.undelivered);
        undelivered.iter().filter(|(of, _)| *of == listener).count()
    }

    fn local_address(&self, handle: &Handle) -> io::Result<Address> {
        self.ask_address(handle, sys::local_address)
    }

    fn peer_address(&self, handle: &Handle) -> io::Result<Address> {
        self.ask_address(handle, sys::peer_address)
    }

    fn shutdown_write(&self, socket: &Locked<'_>) -> Option<Result<(), i32>> {
        self.shut_down_here(socket)
    }

    fn abandon(&self, handle: Handle) {
        if let Some(place) = handle.place() {
            self.free_place(place);
        }
    }

    fn abandon_accepted(&self, token: u64) {
        self.free_place(u32::try_from(token).expect("a token is a place in the table"));
    }
}

impl Threads for Uring {
    fn enter_thread(&self) -> Result<()> {
        match self.ring.bind() {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::advised(
                Operation::Waiter,
                ErrorKind::Unsupported,
                "io_uring binds a single-waiter port to the thread of its first waiter: wait on \
                 that thread, or build a shared port",
            )),
            Err(code) => Err(Error::from_os(Operation::Waiter, code)),
        }
    }

    fn wait_begins(&self, core: &Core) {
        self.note_wait(core);
    }

    fn submit_if_late(&self, core: &Arc<Core>) {
        self.hand_over_if_late(core);
    }

    fn wants_entry(&self) -> bool {
        self.ring.has_queued()
    }

    fn leave_thread(&self, core: &Arc<Core>, ends: bool) {
        self.note_leave(core);
        if ends {
            self.thread_ends(core);
        } else {
            self.recall(core);
        }
    }
}
