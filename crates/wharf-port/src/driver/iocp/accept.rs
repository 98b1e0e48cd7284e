//! Posted accepts: each listener has several `AcceptEx` with the system, and posts a new one for
//! each that is taken.
//!
//! A connection that finds none posted waits in the backlog. So their number determines speed and
//! not capacity. The error of a posted accept concerns that accept only: the next one is posted
//! (cpython #93821 and twisted #10956 are listeners that went deaf). If posting fails and none is
//! left, the listener pauses with a retry, as on every driver. While one is left, its packet is the
//! retry.
//!
//! A listener posts no more accepts than the port has free slots, and no more than the number of
//! connections that may wait for the caller. Other sockets may take the free slots meanwhile. An
//! accepted connection is then kept in this module, invisible to the caller like one in the
//! backlog, until a slot is free; the listener pauses. Accepts that are posted stay posted. Their
//! connections are kept here as well, at most as many as were posted. The same holds for a listener
//! whose accept the caller has cancelled, because a listener with a cancelled `AcceptEx` may only
//! be closed.

use std::cell::UnsafeCell;
use std::collections::BTreeMap;

use parking_lot::Mutex;
use socket2::{Domain, Protocol, SockRef};
use windows_sys::Win32::System::IO::OVERLAPPED;

use super::Iocp;
use super::block::{Lent, Overlapped};
use super::request::{self, Addresses, Extensions};
use crate::accepted::Accepted;
use crate::address::Address;
use crate::core::locked::Locked;
use crate::core::slot::{Receiving, SlotId};
use crate::keepalive::Keepalive;
use crate::listen::ListenOptions;
use crate::lock;
use crate::packet::PauseReason;
use crate::sys::{self, AcceptFault, Handle};

/// How many accepts may fail at once because of their connections before the listener pauses.
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

// SAFETY: only the thread that took the packet of the accept reads it, under the slot's lock.
unsafe impl Send for AddressCell {}
// SAFETY: as above.
unsafe impl Sync for AddressCell {}

impl std::fmt::Debug for AddressCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad("AddressCell")
    }
}

/// What one listener has posted, and the connections that found no free slot.
#[derive(Debug)]
struct Accepting {
    domain: Domain,
    extensions: Extensions,
    no_delay: bool,
    /// Set on each connection, because Windows does not promise that its times are inherited.
    keepalive: Option<Keepalive>,
    posted: Vec<Lent<Posted>>,
    unplaced: Vec<(Handle, Option<Address>)>,
}

/// All listeners that accept or have accepted, by slot. Its lock is held for look-ups only. A
/// thread that works on an entry takes it out, under the lock of the listener's slot.
#[derive(Debug, Default)]
pub(super) struct Listeners(Mutex<BTreeMap<u32, Accepting>>);

impl Listeners {
    fn take(&self, id: SlotId) -> Option<Accepting> {
        lock(&self.0).remove(&id.index)
    }

    fn put(&self, id: SlotId, accepting: Accepting) {
        lock(&self.0).insert(id.index, accepting);
    }

    /// Whether this is the address of an accept that the listener has posted.
    pub(super) fn has_posted(&self, id: SlotId, address: *mut OVERLAPPED) -> bool {
        let listeners = lock(&self.0);
        let posted = listeners.get(&id.index).map(|accepting| &accepting.posted);
        posted.is_some_and(|posted| place_of(posted, address).is_some())
    }

    /// Returns how many connections of the listener wait for a free slot.
    pub(super) fn unplaced(&self, id: SlotId) -> usize {
        let listeners = lock(&self.0);
        let accepting = listeners.get(&id.index);
        accepting.map_or(0, |accepting| accepting.unplaced.len())
    }

    /// The listener closes: connections that never got a slot close with it.
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
    /// Keeps the options that connections of a listener get from us.
    pub(super) fn keep_options(&self, socket: &Locked<'_>, at: &ListenOptions) {
        // Without these options it only takes longer until a dead peer is noticed. The first accept
        // reports what is wrong with the listener.
        if at.keepalive.is_some() {
            if let Ok(mut accepting) = Accepting::of(self, socket.open_handle()) {
                accepting.keepalive = at.keepalive;
                self.listeners.put(socket.id, accepting);
            }
        }
    }

    /// Starts to accept, or continues after a pause. All packets of a listener go to the queue:
    /// packets that the caller's own thread causes, such as a pause, are there, and no packet may
    /// overtake them.
    pub(super) fn arm_accept(&self, socket: &mut Locked<'_>) {
        socket.queue_only();
        let accepting = match self.listeners.take(socket.id) {
            Some(accepting) => Ok(accepting),
            None => Accepting::of(self, socket.open_handle()),
        };
        let mut accepting = match accepting {
            Ok(accepting) => accepting,
            Err(code) => return socket.receive_stopped(Some(code)),
        };
        self.go_on(socket, &mut accepting);
        self.listeners.put(socket.id, accepting);
    }

    fn go_on(&self, socket: &mut Locked<'_>, accepting: &mut Accepting) {
        self.deliver_unplaced(socket, accepting);
        if accepting.unplaced.is_empty() {
            self.refill(socket, accepting);
        }
    }

    fn deliver_unplaced(&self, socket: &mut Locked<'_>, accepting: &mut Accepting) {
        while !accepting.unplaced.is_empty() {
            let Some(place) = socket.place() else {
                return;
            };
            let (handle, peer) = accepting.unplaced.remove(0);
            let place = Some(place);
            let accepted = Accepted {
                handle,
                peer,
                place,
            };
            socket.accepted(accepted);
        }
    }

    /// Posts accepts up to the wanted number and to the free slots of the port. Pauses if none
    /// could be posted.
    fn refill(&self, socket: &mut Locked<'_>, accepting: &mut Accepting) {
        if socket.has_many_pending_accepts() {
            return;
        }
        let room = socket.core.places_left();
        // Each may deliver a connection before the caller takes one.
        let pending = socket.packets_pending();
        let most = socket
            .core
            .options()
            .operations_per_socket_max
            .saturating_sub(pending);
        let wished = (u32::from(socket.core.options().accepts_posted).min(room) as usize).min(most);
        if wished == 0 && accepting.posted.is_empty() {
            // Either this pauses, or a slot is free after all and the next accept continues.
            match socket.place() {
                Some(place) => place.give_up(),
                None => return,
            }
        }
        let mut tries = 0;
        while accepting.posted.len() < wished.max(1) {
            let Err(code) = self.post_accept(socket, accepting) else {
                continue;
            };
            tries += 1;
            let passing = sys::accept_fault(code) == AcceptFault::ThisConnection;
            if passing && tries < TRIES_MAX {
                continue;
            }
            if accepting.posted.is_empty() {
                if passing {
                    socket.pause_accept(PauseReason::OutOfMemory);
                } else {
                    socket.accept_failed(code);
                }
            }
            return;
        }
    }

    fn post_accept(&self, socket: &mut Locked<'_>, accepting: &mut Accepting) -> Result<(), i32> {
        let posted = Lent::new(Posted {
            overlapped: Overlapped::default(),
            addresses: AddressCell(UnsafeCell::new([0; size_of::<Addresses>()])),
            socket: fresh_socket(accepting.domain)?,
        });
        let (listener, block) = (socket.open_handle(), posted.get());
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
        socket.begin_guard();
        accepting.posted.push(posted);
        socket.accept_begun_there();
        Ok(())
    }

    /// One posted accept is over.
    pub(super) fn accept_ended_with(&self, socket: &mut Locked<'_>, address: *mut OVERLAPPED) {
        socket.queue_only();
        let accepting = self.listeners.take(socket.id);
        let mut accepting = accepting.expect("the caller found the accept in it");
        let place = place_of(&accepting.posted, address);
        let place = place.expect("the caller found the accept there");
        let posted = accepting.posted.swap_remove(place).into_inner();
        socket.accept_ended_there();
        if accepting.posted.is_empty() {
            socket.end_guard();
        }
        let waiting = !accepting.unplaced.is_empty();
        accepting
            .unplaced
            .extend(self.finish(socket, &accepting, posted));
        // If others wait for a free slot, it waits after them, for the same retry.
        if socket.receiving() == Some(Receiving::Accept) && !socket.is_closing() && !waiting {
            self.go_on(socket, &mut accepting);
        }
        self.listeners.put(socket.id, accepting);
        socket.settle();
    }

    /// Returns the connection of an accept, ready for use. Returns `None` if the accept failed or
    /// the peer is gone: that concerns this connection only.
    fn finish(
        &self,
        socket: &Locked<'_>,
        accepting: &Accepting,
        posted: Posted,
    ) -> Option<(Handle, Option<Address>)> {
        // A closing listener has no handle any more, so a new connection closes with it.
        let listener = socket.handle()?;
        posted.overlapped.result().ok()?;
        request::finish_accept(listener, &posted.socket).ok()?;
        if accepting.no_delay {
            // Windows does not promise that it is inherited. Without it the connection is only
            // slower.
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
