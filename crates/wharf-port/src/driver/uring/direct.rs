//! Direct descriptors: sockets that are in the ring's own table and take no descriptor of the
//! process.
//!
//! The limit on descriptors bounds a table, but each ring has its own table. So one process holds
//! as many connections as all of its rings have places. Accepts put their sockets into the table
//! directly. A socket that connects is first made, bound and configured as an ordinary socket, and
//! then taken into the table.
//!
//! A multishot accept was rejected here: it knows no bound, and when the table is full the kernel
//! closes the connection that it has just accepted (measured; by C12 no connection may be lost). So
//! each listener requests a burst of single accepts, each with a reserved place. Bursts have
//! another advantage if several rings accept from one listener: armed accepts are used up and never
//! cancelled, so a full ring leaves no connection to a request that will not take it.
//!
//! What needs a system call is done with a descriptor that the ring lends (`queue/table`), on the
//! ring's own thread. A close or a shutdown on another thread rings for that one.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::completion::Outcome;
use super::request::{Kind, Name};
use super::{CUT, Uring, request};
use crate::address::Address;
use crate::core::locked::Locked;
use crate::core::slot::{Receiving, SlotId};
use crate::core::{Core, Out};
use crate::driver::Unavailable;
use crate::error::{Error, ErrorKind, Operation};
use crate::lock;
use crate::packet::PauseReason;
use crate::sys::{self, AcceptFault, Handle};

/// The most accepts that one listener has with the kernel at a time.
const BURST_MAX: u32 = 128;

/// The table of a port, as the port counts its places.
#[derive(Debug)]
pub(super) struct Direct {
    places: u32,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Places with a socket, until the kernel has reported that they are free again.
    used: u32,
    /// How many of these the kernel was asked to free.
    leaving: u32,
    /// Places that armed accepts may need.
    reserved: u32,
    bursts: Vec<Burst>,
}

/// The accepts of one listener.
#[derive(Debug)]
struct Burst {
    listener: SlotId,
    armed: u32,
    /// Why it ended: a lack that the other accepts of the burst would meet as well.
    fault: Option<i32>,
}

/// What a new socket finds in the table.
#[derive(Clone, Copy, Debug)]
enum Taken {
    Place,
    /// Only places that will be free as soon as the ring's thread has entered the kernel.
    Later,
    Nothing,
}

const NEEDS: &str = "direct descriptors need Linux 6.8 or later: leave them out, or use a newer \
                     kernel";
const TOO_MANY: &str = "the table of direct descriptors may not be larger than the limit on open \
                        files: ask for fewer, or raise \"ulimit -n\" (RLIMIT_NOFILE)";
const ELSEWHERE: &str = "the addresses of a direct descriptor are available only on the thread \
                         that waits: ask there, or leave direct descriptors out";

impl Direct {
    /// Makes the table of a new ring, if the port has one.
    pub(super) fn open(
        ring: &mut super::queue::Ring,
        places: u32,
    ) -> Result<Option<Self>, Unavailable> {
        if places == 0 {
            return Ok(None);
        }
        if !ring.lends() {
            return Err((NEEDS, None));
        }
        let opened = ring.open_table(places);
        opened.map_err(|code| match code {
            libc::EMFILE => (TOO_MANY, Some(code)),
            code => super::probe::refused(code),
        })?;
        let table = Mutex::default();
        Ok(Some(Direct { places, table }))
    }

    /// Takes a place for a socket, if there is one that no accept may need.
    fn take(&self) -> Taken {
        let mut table = lock(&self.table);
        if table.used + table.reserved < self.places {
            table.used += 1;
            Taken::Place
        } else if table.leaving > 0 {
            Taken::Later
        } else {
            Taken::Nothing
        }
    }

    /// Returns a place that was taken but not used.
    fn gave_back(&self) {
        lock(&self.table).used -= 1;
    }

    fn leaves(&self) {
        lock(&self.table).leaving += 1;
    }

    fn has_left(&self) {
        let mut table = lock(&self.table);
        table.used -= 1;
        table.leaving -= 1;
    }

    /// Reserves places for the accepts of a listener, and returns how many. Half of the free places
    /// stay for other listeners and for connects, because a burst holds its places even if no peer
    /// connects.
    fn reserve(&self, listener: SlotId, at_most: u32) -> u32 {
        let mut table = lock(&self.table);
        let left = self.places - table.used - table.reserved;
        let armed = at_most.min(left.div_ceil(2));
        if armed > 0 {
            table.reserved += armed;
            table.bursts.push(Burst {
                listener,
                armed,
                fault: None,
            });
        }
        armed
    }

    /// Records the end of one accept of a burst: it got a socket, or met a lack, or neither.
    /// Returns whether to cancel the rest, and if this was the last accept, what had gone wrong.
    fn one_ended(
        &self,
        listener: SlotId,
        brought: bool,
        lack: Option<i32>,
    ) -> (bool, Option<Option<i32>>) {
        let mut table = lock(&self.table);
        table.reserved -= 1;
        table.used += u32::from(brought);
        let bursts = table.bursts.iter_mut();
        let (place, burst) = bursts
            .enumerate()
            .find(|(_, burst)| burst.listener == listener)
            .expect("an accept that is armed belongs to a burst");
        burst.armed -= 1;
        let first_lack = lack.is_some() && burst.fault.is_none();
        burst.fault = burst.fault.or(lack);
        if burst.armed > 0 {
            return (first_lack, None);
        }
        let fault = burst.fault;
        table.bursts.swap_remove(place);
        (false, Some(fault))
    }
}

/// The value of the option that makes a close a reset. It lives as long as the process, and so
/// longer than every ring.
static RESET: libc::linger = libc::linger {
    l_onoff: 1,
    l_linger: 0,
};

impl Uring {
    /// Requests a burst of connections: no more than there are places for.
    pub(super) fn arm_burst(&self, socket: &mut Locked<'_>, direct: &Direct) {
        let free = socket.core.places_left();
        let pending = socket.packets_pending();
        let left = socket
            .core
            .options()
            .operations_per_socket_max
            .saturating_sub(pending);
        let left = u32::try_from(left).unwrap_or(BURST_MAX);
        let armed = direct.reserve(socket.id, free.min(left).clamp(1, BURST_MAX));
        if armed == 0 {
            return socket.pause_accept(PauseReason::SocketsMax);
        }
        socket.accept_begun_there();
        for _ in 0..armed {
            let entry = request::accept_direct(socket.open_handle());
            self.ask_reading(socket, Kind::Accept, entry);
        }
    }

    /// One accept of a burst has ended.
    pub(super) fn one_accept_completed(
        &self,
        socket: &mut Locked<'_>,
        direct: &Direct,
        outcome: &Outcome,
    ) {
        let lack = outcome.result.err().filter(|code| is_lack(*code));
        let (cut, over) = direct.one_ended(socket.id, outcome.result.is_ok(), lack);
        if over.is_some() {
            socket.end_reading();
            socket.accept_ended_there();
        }
        match outcome.result {
            Ok(place) if socket.is_closing() => self.free_place(place),
            Ok(place) => self.deliver_accepted(socket, Handle::direct(place)),
            Err(_) if cut => self.cancel_reading(socket),
            Err(_) => {}
        }
        let Some(fault) = over else { return };
        socket.clear(CUT);
        if socket.stops_reading() {
            return socket.receive_stopped(Some(libc::ECANCELED));
        }
        if fault.is_none_or(|code| socket.accept_failed(code)) {
            socket.go_on_receiving();
        }
    }

    /// Frees a place. The kernel closes the socket in it.
    pub(super) fn free_place(&self, place: u32) {
        self.leaves();
        self.ask_to_free(place);
    }

    fn leaves(&self) {
        if let Some(direct) = &self.direct {
            direct.leaves();
        }
    }

    fn ask_to_free(&self, place: u32) {
        let name = Name::of_place(Kind::Free, place);
        let entry = request::close_direct(place);
        self.ring.push(entry.user_data(name.encode()));
    }

    /// A place is free again: a socket that waits for one tries at once.
    pub(super) fn place_is_free(&self, core: &Core) {
        if let Some(direct) = &self.direct {
            direct.has_left();
        }
        core.socket_gone();
    }

    /// A connection that no request expects came into this place.
    pub(super) fn turn_away(&self, place: u32) {
        if let Some(direct) = &self.direct {
            lock(&direct.table).used += 1;
        }
        self.free_place(place);
    }

    /// Closes the socket in this place, of which the driver holds nothing. On the ring's thread the
    /// peer learns of it at once. The place is free when that thread has entered the kernel again.
    pub(super) fn release_place(&self, socket: &Locked<'_>, place: u32) {
        self.leaves();
        if socket.is_resetting() {
            let lent = self.ring.lend(place);
            if lent.and_then(|lent| sys::disconnect(&lent)).is_err() {
                self.ring.push(request::reset_at_close(place, &RESET));
            }
            self.ask_to_free(place);
        } else if socket.is_connecting() {
            self.ask_to_free(place);
        } else if self.ring.is_bound_here() {
            self.leave_gracefully(place);
        } else {
            let name = Name::of_place(Kind::Leave, place);
            self.ring.push(request::nothing().user_data(name.encode()));
        }
    }

    /// Closes gracefully. If there is no descriptor to lend, unread bytes make the close a reset.
    pub(super) fn leave_gracefully(&self, place: u32) {
        if let Ok(lent) = self.ring.lend(place) {
            sys::prepare_graceful_close(&lent);
            // It fails if the peer has already closed the connection.
            let _ = sys::shutdown_write(&lent);
        }
        self.ask_to_free(place);
    }

    /// Ends the write side. A socket without a descriptor needs the ring's thread: on another thread
    /// this asks for a request that does nothing, whose end brings the core back on that thread.
    pub(super) fn shut_down_here(&self, socket: &Locked<'_>) -> Option<Result<(), i32>> {
        let handle = socket.open_handle();
        if handle.place().is_some() && !self.ring.is_bound_here() {
            self.ask(Kind::Send, socket.id, request::nothing());
            return None;
        }
        let shut = self.with_descriptor(handle, sys::shutdown_write);
        Some(shut.and_then(|shut| shut))
    }

    /// Puts a socket that is to connect into the table. On another thread the socket waits for the
    /// ring's thread. If places will be free soon, the socket waits for one of these.
    pub(super) fn take_in(&self, socket: &mut Locked<'_>) -> Result<(), i32> {
        let Some(direct) = &self.direct else {
            return Ok(());
        };
        if socket.open_handle().place().is_some() || !self.ring.is_bound_here() {
            return Ok(());
        }
        match direct.take() {
            Taken::Place => {}
            Taken::Later => return Ok(()),
            Taken::Nothing => return Err(libc::ENOSPC),
        }
        match self.ring.take_in(socket.open_handle()) {
            Ok(place) => {
                // The descriptor is closed. The socket stays open by its place.
                socket.replace_handle(Handle::direct(place));
                Ok(())
            }
            Err(code) => {
                direct.gave_back();
                Err(code)
            }
        }
    }

    /// Whether a connect must wait for the ring's thread, or for a place that this thread is about
    /// to free. If so, asks that thread to start the connect.
    pub(super) fn starts_elsewhere(&self, socket: &Locked<'_>) -> bool {
        let elsewhere = self.direct.is_some() && socket.open_handle().place().is_none();
        if elsewhere {
            self.ask(Kind::Start, socket.id, request::nothing());
        }
        elsewhere
    }

    /// The ring's thread starts a connect that has waited for this thread.
    pub(super) fn start_connect(&self, core: &Arc<Core>, id: SlotId, out: &mut Out<'_>) {
        let Some(mut socket) = core.lock(id, out.reborrow()) else {
            return; // The connect was cancelled or closed meanwhile.
        };
        if socket.receiving() != Some(Receiving::Connect) || socket.is_armed() {
            return;
        }
        match self.take_in(&mut socket) {
            Ok(()) => self.arm_connect(&mut socket),
            Err(code) => socket.connected(Err(code)),
        }
    }

    /// Calls `action`, which needs a descriptor, with an open socket.
    pub(super) fn with_descriptor<R>(
        &self,
        handle: &Handle,
        action: impl FnOnce(&Handle) -> R,
    ) -> Result<R, i32> {
        match handle.place() {
            None => Ok(action(handle)),
            Some(place) => self.ring.lend(place).map(|lent| action(&lent)),
        }
    }

    /// Asks for an address of an open socket.
    pub(super) fn ask_address(
        &self,
        handle: &Handle,
        ask: impl FnOnce(&Handle) -> io::Result<Address>,
    ) -> io::Result<Address> {
        match self.with_descriptor(handle, ask) {
            Ok(address) => address,
            Err(libc::EXDEV) => Err(io::Error::other(Error::advised(
                Operation::Address,
                ErrorKind::Unsupported,
                ELSEWHERE,
            ))),
            Err(code) => Err(io::Error::from_raw_os_error(code)),
        }
    }

    /// Returns the error behind these events of poll(2).
    pub(super) fn error_behind(&self, handle: &Handle, events: u32) -> Option<i32> {
        // A peer that closed gracefully left no error, so no descriptor has to be lent to ask for
        // it.
        let graceful = events & u32::from(libc::POLLERR.unsigned_abs()) == 0;
        if graceful && handle.place().is_some() {
            return None;
        }
        self.take_error(handle)
    }

    /// Returns the pending error of a socket and clears it.
    pub(super) fn take_error(&self, handle: &Handle) -> Option<i32> {
        // The system knows an error, but there is no descriptor to ask with, so this returns the
        // most frequent error.
        let asked = self.with_descriptor(handle, sys::take_error);
        asked.unwrap_or(Some(libc::ECONNRESET))
    }
}

/// Whether an accept failed because of a lack that the next accept would meet as well.
fn is_lack(code: i32) -> bool {
    match sys::accept_fault(code) {
        AcceptFault::ThisConnection => false,
        AcceptFault::Descriptors | AcceptFault::Memory | AcceptFault::Listener => true,
    }
}
