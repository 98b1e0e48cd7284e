//! epoll, called directly: `polling` adds a timer descriptor and two `epoll_ctl` to every wait.
//!
//! Registrations are edge-triggered and never removed: closing the descriptor does it. Wake-ups
//! are an eventfd that counts (`EFD_SEMAPHORE`), level-triggered, so that n of them wake n threads
//! (epoll(7), eventfd(2)).

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use socket2::Domain;

use crate::core::slot::SlotId;
use crate::sys::Handle;

/// What a socket is registered for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Interest {
    /// The peer's leaving only, so that data wakes nobody.
    Watch,
    All,
}

/// What an event tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) peer_ended: bool,
    pub(super) broken: bool,
    pub(super) urgent: bool,
}

#[derive(Debug)]
pub(super) struct Poller {
    epoll: OwnedFd,
    wakes: OwnedFd,
}

/// The name of the wake-up descriptor; no slot has it.
const WAKE: u64 = u64::MAX;
const EVENTS_MAX: usize = 256;

impl Poller {
    /// Several threads may wait: each edge wakes one of them.
    pub(super) const CONCURRENT: bool = true;
    /// An event tells that the peer left.
    pub(super) const TELLS_LEAVING: bool = true;

    /// Whether a read may stop before the socket is empty without an event that says so: a Unix
    /// socket's stops behind each message that brought a descriptor (unix(7), `SCM_RIGHTS`). One
    /// of TCP stops before an urgent byte alone, and of that an event tells (tcp(7)).
    pub(super) fn stops_short(handle: &Handle) -> bool {
        let domain = socket2::SockRef::from(handle).domain();
        !domain.is_ok_and(|domain| domain == Domain::IPV4 || domain == Domain::IPV6)
    }

    pub(super) fn new() -> Result<Self, i32> {
        Self::open().map_err(Errno::raw_os_error)
    }

    fn open() -> rustix::io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK | EventfdFlags::SEMAPHORE;
        let wakes = eventfd(0, flags)?;
        epoll::add(&epoll, &wakes, EventData::new_u64(WAKE), EventFlags::IN)?;
        Ok(Poller { epoll, wakes })
    }

    pub(super) fn add(&self, handle: &Handle, id: SlotId, interest: Interest) -> Result<(), i32> {
        match epoll::add(&self.epoll, handle, data_of(id), flags_of(interest)) {
            // The same socket was here before under the same number, and the caller kept a
            // duplicate of it: a registration goes with the last descriptor (epoll(7), Q6).
            Err(Errno::EXIST) => self.change(handle, id, interest),
            added => added.map_err(Errno::raw_os_error),
        }
    }

    pub(super) fn change(
        &self,
        handle: &Handle,
        id: SlotId,
        interest: Interest,
    ) -> Result<(), i32> {
        epoll::modify(&self.epoll, handle, data_of(id), flags_of(interest))
            .map_err(Errno::raw_os_error)
    }

    /// The descriptor is about to be closed, which ends its registration, unless another port or
    /// the caller has a descriptor of the same socket.
    pub(super) fn forget(&self, handle: &Handle, is_shared: bool) {
        if is_shared {
            // A socket that was never registered is not found, and that is well.
            let _ = epoll::delete(&self.epoll, handle);
        }
    }

    /// Waits for events, at most so long and so many, and tells each, with how many there still
    /// are; answers the wake-ups used.
    pub(super) fn wait(
        &self,
        at_most: Option<Duration>,
        events_max: usize,
        mut tell: impl FnMut(usize, SlotId, Seen),
    ) -> Result<u32, i32> {
        let mut space = [MaybeUninit::<Event>::uninit(); EVENTS_MAX];
        let space = &mut space[..events_max.clamp(1, EVENTS_MAX)];
        // Half a million years is as good as for ever, and the kernel can add it to its clock.
        let timeout = at_most.map(|limit| Timespec {
            tv_sec: i64::try_from(limit.as_secs())
                .unwrap_or(i64::MAX)
                .min(1 << 44),
            tv_nsec: i64::from(limit.subsec_nanos()),
        });
        let (events, _) = match epoll::wait(&self.epoll, space, timeout.as_ref()) {
            Ok(events) => events,
            Err(Errno::INTR) => return Ok(0),
            Err(errno) => return Err(errno.raw_os_error()),
        };
        let mut wakes = 0;
        let found = events.len();
        for (place, event) in events.iter().enumerate() {
            let data = event.data.u64();
            if data == WAKE {
                wakes += u32::from(rustix::io::read(&self.wakes, &mut [0; 8]).is_ok());
                continue;
            }
            let id = SlotId {
                index: data as u32,
                generation: (data >> 32) as u32,
            };
            let flags = event.flags;
            let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
            tell(
                found - place,
                id,
                Seen {
                    readable: flags.contains(EventFlags::IN),
                    writable: flags.contains(EventFlags::OUT),
                    peer_ended: flags.contains(EventFlags::RDHUP),
                    broken,
                    urgent: flags.contains(EventFlags::PRI),
                },
            );
        }
        Ok(wakes)
    }

    pub(super) fn wake(&self, threads: u32) {
        // It fails only when 2^64 wake-ups wait already.
        let _ = rustix::io::write(&self.wakes, &u64::from(threads).to_ne_bytes());
    }
}

fn data_of(id: SlotId) -> EventData {
    EventData::new_u64((u64::from(id.generation) << 32) | u64::from(id.index))
}

fn flags_of(interest: Interest) -> EventFlags {
    let watch = EventFlags::RDHUP | EventFlags::ET;
    match interest {
        Interest::Watch => watch,
        Interest::All => watch | EventFlags::IN | EventFlags::PRI | EventFlags::OUT,
    }
}
