//! The simulated network: a driver that leaves requests with a kernel that exists only in memory.
//!
//! It drives the completion side of the core, the half that io_uring and IOCP share, on every
//! system and without traffic. Requests end later, in another order, in part, with errors, after a
//! cancel that came too late, or as cancelled although the port has not cancelled them. One seed
//! determines all of it, so a failure is a number that can be kept as a test.
//!
//! The clock is virtual. When nothing is ready, it jumps to the next event, the next timer or the
//! limit of the wait, so hours pass in no time. Simulating the system calls of a real driver was
//! rejected: their failures are tested with the real drivers. Which side owns what until when is
//! hard to get right, and that is decided on this side of the system calls.

use std::sync::Arc;
use std::thread::Thread;
use std::time::{Duration, Instant};

use super::{Abilities, Direction, Driver, Sockets, Threads, Transmitted, Unavailable};
use crate::address::Address;
use crate::connect::ConnectOptions;
use crate::core::local::Local;
use crate::core::locked::Locked;
use crate::core::slot::{Receiving, SocketState};
use crate::core::work::Queued;
use crate::core::{Core, Out};
use crate::listen::{ListenAt, ListenOptions};
use crate::sys;
use queue::Shared;
use request::{Asked, Memory};
use socket::{Listener, Owner, Role, SocketId};
use world::{Event, World};

pub use options::{Faults, SimOptions};
pub use peer::{Heard, Network, Peer, PeerListener};
pub use stage::Stage;

mod code;
mod completion;
mod options;
mod peer;
mod queue;
mod random;
mod request;
mod socket;
mod stage;
mod step;
mod world;

/// The most sends that one request takes.
const SENDS_MAX: u64 = 16;
/// How many events the end of a port waits for before it gives up on the remaining requests.
const END_EVENTS_MAX: u32 = 10_000_000;

/// The driver of a simulated network.
#[derive(Debug)]
pub(crate) struct Sim {
    shared: Arc<Shared>,
    one_leads: bool,
}

impl Sim {
    pub(crate) fn new(options: &SimOptions) -> Result<Self, Unavailable> {
        let token = sys::new_socket(socket2::Domain::IPV4, None).map_err(|error| {
            let reason = "the system cannot create the placeholder socket of the simulated network";
            (reason, error.raw_os_error())
        })?;
        let shared = Shared::new(*options, token.into());
        Ok(Sim {
            shared: Arc::new(shared),
            one_leads: options.one_leads,
        })
    }

    fn carry_out(&self, core: &Arc<Core>, event: Event, out: &mut Out<'_>) {
        match event {
            Event::Step(socket, direction, number) => {
                let id = self.shared.with(|world| world.slot_of(socket));
                // A socket that is gone meanwhile had no request left, and its steps are void.
                let locked = id.and_then(|id| core.lock(id, Out::queue()));
                if let Some(locked) = locked {
                    self.shared
                        .with(|world| world.step(&locked, (socket, direction, number)));
                }
            }
            Event::Cancel(socket, direction, number) => {
                self.shared
                    .with(|world| world.cancel(socket, direction, number));
            }
            Event::Report(socket, direction, outcome) => {
                self.report(core, (socket, direction), outcome, out);
            }
        }
    }

    fn ask(&self, state: &SocketState, asked: Asked, memory: Memory) {
        self.shared
            .with(|world| world.ask(state.open_handle(), asked, memory));
    }

    fn cancel_request(world: &mut World, handle: &sys::Handle, direction: Direction) {
        let late = world.random.chance(world.options.late_cancels);
        world.faults.late_cancels += u64::from(late);
        world.ask_end(handle, direction, if late { 10 } else { 1 });
    }

    fn hang_up_request(world: &mut World, handle: &sys::Handle, direction: Direction) {
        let late = world.random.chance(world.options.late_ends);
        if world.ask_end(handle, direction, if late { 100 } else { 1 }) {
            world.faults.late_ends += u64::from(late);
        }
    }
}

fn in_use() -> std::io::Error {
    std::io::Error::from_raw_os_error(code::ADDRESS_IN_USE)
}

/// Returns the address with a port number at which no socket listens, if it has none.
fn with_number(world: &mut World, address: &Address) -> Address {
    let Some(mut internet) = address.as_socket_addr() else {
        return address.clone();
    };
    while internet.port() == 0 {
        let number = world.fresh_number();
        internet.set_port(number);
        if world.sockets.listening_at(&internet.into()).is_some() {
            internet.set_port(0);
        }
    }
    internet.into()
}

impl Driver for Sim {
    fn abilities(&self) -> Abilities {
        Abilities {
            concurrent: !self.one_leads,
            defers: false,
            // Its clock does not move before a waiter sleeps.
            may_spin: false,
            features: Vec::new(),
        }
    }

    fn associate(&self, socket: &mut Locked<'_>, _accepted: bool) -> Result<(), i32> {
        self.shared.with(|world| {
            let own = world.find(socket.open_handle());
            let own = own.and_then(|own| world.sockets.at_mut(own));
            match own.map(|own| &mut own.owner) {
                Some(Owner::Port { slot, .. }) => {
                    *slot = Some(socket.id);
                    Ok(())
                }
                Some(Owner::Peer) | None => Err(code::FOREIGN),
            }
        })
    }

    fn arm(&self, socket: &mut Locked<'_>) {
        let Some(receiving) = socket.receiving() else {
            return;
        };
        let mut memory = Memory::default();
        match receiving {
            Receiving::Accept => {
                let Some(place) = socket.place() else {
                    return;
                };
                place.give_up();
                socket.accept_begun_there();
            }
            Receiving::Stream => {
                if !socket.reserve_lease() {
                    return;
                }
            }
            Receiving::Into => {
                let work = socket.queues().expect("receives are queued");
                memory = Memory::of_into(work);
            }
            Receiving::Connect | Receiving::Watch => {}
        }
        socket.begin_reading();
        self.ask(socket, Asked::Read(receiving), memory);
    }

    fn transmit(&self, socket: &mut Locked<'_>, _bytes_max: usize) -> Transmitted {
        let most = self.shared.with(|world| world.random.below(SENDS_MAX)) as usize + 1;
        let work = socket.queues_mut().expect("there are bytes to send");
        Core::spare_the_pool_of_request(work, most);
        let sends = work.sends.iter().take(most).map_while(Queued::bytes);
        let sends = sends.count();
        let memory = Memory::of_sends(work, sends);
        self.ask(socket, Asked::Send, memory);
        Transmitted::Submitted { sends }
    }

    fn cancel(&self, socket: &mut Locked<'_>, direction: Direction) {
        self.shared
            .with(|world| Self::cancel_request(world, socket.open_handle(), direction));
    }

    fn hang_up(&self, socket: &mut Locked<'_>) {
        self.shared.with(|world| {
            Self::hang_up_request(world, socket.open_handle(), Direction::Reading);
            Self::hang_up_request(world, socket.open_handle(), Direction::Writing);
        });
    }

    fn release(&self, socket: &mut Locked<'_>) {
        let Some(handle) = socket.take_handle() else {
            return;
        };
        self.shared.with(|world| {
            if let Some(id) = world.find(&handle) {
                world.close(id, socket.is_resetting());
            }
            // A descriptor is free again.
            world.shortage_until_ns = world.now_ns;
        });
        drop(handle);
    }

    fn poll(
        &self,
        core: &Arc<Core>,
        at_most: Option<Duration>,
        local: &mut Local,
    ) -> Result<(), i32> {
        self.shared.enter(self.one_leads);
        self.shared.step();
        let (deadline, due) = self.shared.with(|world| {
            let deadline = at_most.map(|limit| world.after(limit));
            (deadline, world.due())
        });
        if local.packets.is_empty() {
            local.limit(core.share_inside(due));
        }
        while local.room() > 0 {
            let sleepy = local.packets.is_empty();
            match self.shared.next(deadline, sleepy, &mut local.wakes) {
                Some(event) => self.carry_out(core, event, &mut Out(Some(local))),
                None => break,
            }
            self.shared.step();
        }
        let fails = self.shared.with(World::wait_fails);
        self.shared.leave();
        self.shared.step();
        if fails {
            return Err(code::OUT_OF_MEMORY);
        }
        Ok(())
    }

    fn wake(&self, threads: u32) {
        self.shared.wake(threads);
    }

    fn end(&self, core: &Arc<Core>) -> u64 {
        for _ in 0..END_EVENTS_MAX {
            let Some(event) = self.shared.with(World::take_next) else {
                break;
            };
            self.carry_out(core, event, &mut Out::queue());
        }
        self.shared.with(|world| world.requests)
    }
}

impl Sockets for Sim {
    fn open_listener(&self, at: &ListenOptions) -> std::io::Result<sys::Handle> {
        let (ListenAt::Address(address), None) = (&at.at, &at.congestion_control) else {
            return Err(std::io::ErrorKind::Unsupported.into());
        };
        self.shared.with(|world| {
            let address = with_number(world, address);
            if world.sockets.listening_at(&address).is_some() {
                return Err(in_use());
            }
            let listener = Listener {
                backlog_max: usize::try_from(at.backlog).unwrap_or(usize::MAX).max(1),
                ..Listener::default()
            };
            world.open(address, Role::Listener(listener))
        })
    }

    fn share_listener(&self, _listener: &sys::Handle) -> std::io::Result<sys::Handle> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    fn open_connector(&self, to: &ConnectOptions) -> std::io::Result<sys::Handle> {
        if to.congestion_control.is_some() {
            return Err(std::io::ErrorKind::Unsupported.into());
        }
        self.shared.with(|world| {
            let local = match (to.source, to.address.as_socket_addr()) {
                (Some(source), _) => source.into(),
                (None, Some(address)) => peer::unspecified_like(address).into(),
                (None, None) => Address::unix(""),
            };
            let local = with_number(world, &local);
            world.open(local, Role::Connector)
        })
    }

    fn local_address(&self, handle: &sys::Handle) -> std::io::Result<Address> {
        self.shared.with(|world| {
            let socket = world.socket_of(handle);
            Ok(socket.expect("an open socket is known").local.clone())
        })
    }

    fn peer_address(&self, handle: &sys::Handle) -> std::io::Result<Address> {
        self.shared.with(|world| {
            let socket = world.socket_of(handle);
            let socket = socket.expect("an open socket is known");
            match (&socket.role, &socket.peer) {
                (Role::Stream(stream), Some(peer)) if !stream.broken => Ok(peer.clone()),
                _ => Err(std::io::Error::from_raw_os_error(code::NOT_CONNECTED)),
            }
        })
    }

    fn shutdown_write(&self, socket: &Locked<'_>) -> Option<Result<(), i32>> {
        let finished = self.shared.with(|world| {
            let id = world.find(socket.open_handle());
            id.is_some_and(|id| world.finish(id))
        });
        Some(finished.then_some(()).ok_or(code::NOT_CONNECTED))
    }

    fn abandon(&self, handle: sys::Handle) {
        self.shared.with(|world| {
            if let Some(id) = world.find(&handle) {
                world.leave(id);
            }
        });
        drop(handle);
    }

    fn abandon_accepted(&self, token: u64) {
        self.shared.with(|world| {
            let id = SocketId::decode(token);
            let socket = world.sockets.at(id);
            if let Some(Owner::Port { slot: None, .. }) = socket.map(|socket| socket.owner) {
                world.leave(id);
            }
        });
    }

    fn network(&self) -> Option<Network> {
        Some(Network::new(&self.shared))
    }
}

impl Threads for Sim {
    fn now(&self) -> Instant {
        self.shared.with(|world| world.now())
    }

    fn enter_thread(&self) -> Result<(), crate::Error> {
        self.shared.step();
        Ok(())
    }

    fn step(&self) {
        self.shared.step();
    }

    fn park(&self, at_most: Option<Duration>) {
        self.shared.step();
        self.shared.park(at_most);
        self.shared.step();
    }

    fn unpark(&self, thread: &Thread) {
        self.shared.unpark(thread);
    }

    fn leave_thread(&self, _core: &Arc<Core>, _ends: bool) {
        self.shared.forget_call();
        self.shared.step();
    }
}
