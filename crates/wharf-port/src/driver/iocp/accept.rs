//! Accepts kept posted: several `AcceptEx` per listener, each refilled when it is taken.
//!
//! A connection that finds none posted waits in the backlog, so that their number is speed and not
//! capacity. Whatever a posted accept ends with concerns that accept only: the next one is posted
//! (cpython #93821 and twisted #10956 are listeners that went deaf). When posting fails and none is
//! left, the listener pauses with a retry, as on every driver; while one is left, its packet is the
//! retry.
//!
//! No more are posted than the port has room for, and than may wait for those who take them. Others may take that room meanwhile; then what
//! the system has accepted waits here, unseen like a connection in the backlog, until there is
//! room, and the listener pauses. What is posted then stays, and what it brings waits as well: no
//! more than were posted. The same goes for a listener whose accept was cancelled, because a
//! listener on which an `AcceptEx` was cancelled may only be closed.

use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use socket2::{Domain, Protocol, SockRef};
use windows_sys::Win32::System::IO::OVERLAPPED;

use super::Iocp;
use super::block::{Lent, Overlapped};
use super::request::{self, Addresses, Extensions};
use crate::accepted::Accepted;
use crate::address::Address;
use crate::core::slot::{Receiving, SlotId, SocketState, flag};
use crate::core::{Core, Out};
use crate::keepalive::Keepalive;
use crate::listen::ListenOptions;
use crate::lock;
use crate::packet::PauseReason;
use crate::sys::{self, AcceptFault, Handle};

/// Accepts that fail at once, for a connection's own sake, before the listener pauses instead.
const TRIES_MAX: u32 = 64;

/// One posted accept: what the system writes to, and the socket it accepts into.
#[derive(Debug)]
struct Posted {
    overlapped: Overlapped,
    addresses: AddressCell,
    socket: Handle,
}

/// Where the system writes the addresses.
struct AddressCell(UnsafeCell<Addresses>);

// SAFETY: read only by the thread that took the packet of the accept, under the slot's lock.
unsafe impl Send for AddressCell {}
// SAFETY: as above.
unsafe impl Sync for AddressCell {}

impl std::fmt::Debug for AddressCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad("AddressCell")
    }
}

/// What one listener has posted, and what came and found no room.
#[derive(Debug)]
struct Accepting {
    domain: Domain,
    extensions: Extensions,
    no_delay: bool,
    /// Set on each connection: Windows does not promise that its times are inherited.
    keepalive: Option<Keepalive>,
    posted: Vec<Lent<Posted>>,
    unplaced: Vec<(Handle, Option<Address>)>,
}

/// All listeners that accept or have accepted, by slot. Its lock is held for look-ups only; who
/// works on an entry takes it out, under the lock of the listener's slot.
#[derive(Debug, Default)]
pub(super) struct Listeners(Mutex<BTreeMap<u32, Accepting>>);

impl Listeners {
    fn take(&self, id: SlotId) -> Option<Accepting> {
        lock(&self.0).remove(&id.index)
    }

    fn put(&self, id: SlotId, accepting: Accepting) {
        lock(&self.0).insert(id.index, accepting);
    }

    /// Whether this is the address of an accept the listener has posted.
    pub(super) fn has_posted(&self, id: SlotId, address: *mut OVERLAPPED) -> bool {
        let listeners = lock(&self.0);
        let posted = listeners.get(&id.index).map(|accepting| &accepting.posted);
        posted.is_some_and(|posted| place_of(posted, address).is_some())
    }

    /// How many connections of the listener wait for room.
    pub(super) fn unplaced(&self, id: SlotId) -> usize {
        let listeners = lock(&self.0);
        let accepting = listeners.get(&id.index);
        accepting.map_or(0, |accepting| accepting.unplaced.len())
    }

    /// The listener closes: connections that never found room close with it.
    pub(super) fn forget(&self, id: SlotId) {
        let accepting = self.take(id);
        debug_assert!(
            accepting.is_none_or(|accepting| accepting.posted.is_empty()),
            "a listener closes once nothing is posted"
        );
    }
}

fn place_of(posted: &[Lent<Posted>], address: *mut OVERLAPPED) -> Option<usize> {
    let is_this = |posted: &Lent<Posted>| posted.get().overlapped.address() == address;
    posted.iter().position(is_this)
}

impl Accepting {
    fn of(driver: &Iocp, listener: &Handle) -> Result<Self, i32> {
        let socket = SockRef::from(listener);
        let address = socket.local_addr().map_err(|error| sys::code_of(&error))?;
        Ok(Accepting {
            domain: address.domain(),
            extensions: driver.extensions(address.domain())?,
            no_delay: socket.tcp_nodelay().unwrap_or(false),
            keepalive: None,
            posted: Vec::new(),
            unplaced: Vec::new(),
        })
    }
}

impl Iocp {
    /// Keeps the options of a listener that its connections get from us.
    pub(super) fn keep_options(&self, id: SlotId, state: &SocketState, at: &ListenOptions) {
        // Without them it is only longer until a peer is found to be gone: the first accept
        // reports what is wrong with the listener.
        if at.keepalive.is_some() {
            if let Ok(mut accepting) = Accepting::of(self, state.open_handle()) {
                accepting.keepalive = at.keepalive;
                self.listeners.put(id, accepting);
            }
        }
    }

    /// Starts to accept, or goes on after a pause.
    pub(super) fn arm_accept(&self, core: &Arc<Core>, id: SlotId, state: &mut SocketState) {
        let out = &mut in_order();
        let accepting = match self.listeners.take(id) {
            Some(accepting) => Ok(accepting),
            None => Accepting::of(self, state.open_handle()),
        };
        let mut accepting = match accepting {
            Ok(accepting) => accepting,
            Err(code) => return core.receive_stopped(id, state, Some(code), out),
        };
        self.go_on(core, id, state, &mut accepting, out);
        self.listeners.put(id, accepting);
    }

    fn go_on(
        &self,
        core: &Arc<Core>,
        id: SlotId,
        state: &mut SocketState,
        accepting: &mut Accepting,
        out: &mut Out<'_>,
    ) {
        self.place_those_that_wait(core, id, state, accepting, out);
        if accepting.unplaced.is_empty() {
            self.refill(core, id, state, accepting, out);
        }
    }

    fn place_those_that_wait(
        &self,
        core: &Arc<Core>,
        id: SlotId,
        state: &mut SocketState,
        accepting: &mut Accepting,
        out: &mut Out<'_>,
    ) {
        while !accepting.unplaced.is_empty() {
            let Some(place) = core.place(id, state, out) else {
                return;
            };
            let (handle, peer) = accepting.unplaced.remove(0);
            let place = Some(place);
            let accepted = Accepted {
                handle,
                peer,
                place,
            };
            core.accepted(id, state, accepted, out);
        }
    }

    /// Posts accepts up to the number wished for and to the room in the port. Pauses when none
    /// could be posted.
    fn refill(
        &self,
        core: &Arc<Core>,
        id: SlotId,
        state: &mut SocketState,
        accepting: &mut Accepting,
        out: &mut Out<'_>,
    ) {
        if core.has_many_untaken_accepts(state) {
            return;
        }
        let room = core.options.sockets_max.saturating_sub(core.slots.live());
        // Each may bring a connection before anybody takes one.
        let untaken = state.work.as_ref().map_or(0, |work| work.pending.len());
        let most = core
            .options
            .operations_per_socket_max
            .saturating_sub(untaken);
        let wished = (u32::from(core.options.accepts_posted).min(room) as usize).min(most);
        if wished == 0 && accepting.posted.is_empty() {
            // Either this pauses, or there is room after all and the next accept goes on.
            match core.place(id, state, out) {
                Some(place) => place.give_up(),
                None => return,
            }
        }
        let mut tries = 0;
        while accepting.posted.len() < wished.max(1) {
            let Err(code) = self.post_accept(core, state, accepting) else {
                continue;
            };
            tries += 1;
            let passing = sys::accept_fault(code) == AcceptFault::ThisConnection;
            if passing && tries < TRIES_MAX {
                continue;
            }
            if accepting.posted.is_empty() {
                if passing {
                    core.pause_accept(id, state, PauseReason::OutOfMemory, out);
                } else {
                    core.accept_failed(id, state, code, out);
                }
            }
            return;
        }
    }

    fn post_accept(
        &self,
        core: &Core,
        state: &mut SocketState,
        accepting: &mut Accepting,
    ) -> Result<(), i32> {
        let posted = Lent::new(Posted {
            overlapped: Overlapped::default(),
            addresses: AddressCell(UnsafeCell::new([0; size_of::<Addresses>()])),
            socket: fresh_socket(accepting.domain)?,
        });
        let (listener, block) = (state.open_handle(), posted.get());
        // SAFETY: the block is the system's until its packet: it stays in `posted`, where only
        // `accept_ended_with` takes it out; a port that ends without the packet is leaked.
        let issued = unsafe {
            let addresses = block.addresses.0.get();
            let overlapped = block.overlapped.lend();
            let accept = &accepting.extensions;
            accept.accept(listener, &block.socket, addresses, overlapped)
        };
        issued?;
        self.request_made();
        state.set(flag::GUARDED);
        accepting.posted.push(posted);
        core.counters.accepts_posted.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// One posted accept is over.
    pub(super) fn accept_ended_with(
        &self,
        core: &Arc<Core>,
        id: SlotId,
        state: &mut SocketState,
        address: *mut OVERLAPPED,
    ) {
        let out = &mut in_order();
        let accepting = self.listeners.take(id);
        let mut accepting = accepting.expect("the caller found the accept in it");
        let place = place_of(&accepting.posted, address);
        let place = place.expect("the caller found the accept there");
        let posted = accepting.posted.swap_remove(place).into_inner();
        core.counters.accepts_posted.fetch_sub(1, Ordering::Relaxed);
        if accepting.posted.is_empty() {
            state.clear(flag::GUARDED);
        }
        let waiting = !accepting.unplaced.is_empty();
        accepting
            .unplaced
            .extend(self.finish(state, &accepting, posted));
        // Behind others that wait for room it waits for the same retry.
        if state.receiving == Receiving::Accept && !state.has(flag::CLOSING) && !waiting {
            self.go_on(core, id, state, &mut accepting, out);
        }
        self.listeners.put(id, accepting);
        core.settle(id, state, out);
    }

    /// The connection that an accept brought, made fit for use; nothing when it failed or its peer
    /// is gone, which is that connection's own affair.
    fn finish(
        &self,
        state: &SocketState,
        accepting: &Accepting,
        posted: Posted,
    ) -> Option<(Handle, Option<Address>)> {
        // A listener that closes has no handle any more: what comes now closes with it.
        let listener = state.handle.as_ref()?;
        posted.overlapped.result().ok()?;
        request::finish_accept(listener, &posted.socket).ok()?;
        if accepting.no_delay {
            // Windows does not promise that this one is inherited. Without it, it is only slower.
            let _ = SockRef::from(&posted.socket).set_tcp_nodelay(true);
        }
        if let Some(keepalive) = &accepting.keepalive {
            let _ = keepalive.set_on(&SockRef::from(&posted.socket));
        }
        let addresses = posted.addresses.0.into_inner();
        let peer = accepting.extensions.peer(&addresses);
        Some((posted.socket, peer.map(|peer| Address::from_system(&peer))))
    }
}

/// Where everything about a listener goes: what its caller's thread brings about, such as a pause, is
/// in the queue, and what comes later must not overtake it.
fn in_order() -> Out<'static> {
    Out::queue()
}

fn fresh_socket(domain: Domain) -> Result<Handle, i32> {
    #[cfg(test)]
    if let Some(code) = tests::injected_fault() {
        return Err(code);
    }
    let socket = sys::new_socket(domain, Some(Protocol::TCP));
    socket
        .map(Handle::from)
        .map_err(|error| sys::code_of(&error))
}

#[cfg(test)]
mod tests;
