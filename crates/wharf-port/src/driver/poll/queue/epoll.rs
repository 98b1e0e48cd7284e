//! epoll, called directly. The crate `polling` was rejected here: it adds a timer descriptor and
//! two `epoll_ctl` to every wait.
//!
//! Registrations are edge-triggered and never removed; closing the descriptor removes them.
//! Wake-ups are an eventfd that counts (`EFD_SEMAPHORE`), level-triggered, so that `n` wake-ups
//! wake `n` threads (epoll(7), eventfd(2)).

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
    /// Only that the peer leaves. Data wakes no thread.
    Watch,
    All,
}

/// What an event reports.
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

/// The data of the wake-up descriptor in its events. No slot has this number.
const WAKE: u64 = u64::MAX;
const EVENTS_MAX: usize = 256;

impl Poller {
    /// Several threads may wait: each edge wakes one of them.
    pub(super) const CONCURRENT: bool = true;
    /// An event reports that the peer has left.
    pub(super) const REPORTS_LEAVING: bool = true;

    /// Whether a read may stop before the socket is empty although no event reports the rest. A
    /// read of a Unix socket stops after each message that carries a descriptor (unix(7),
    /// `SCM_RIGHTS`). A read of a TCP socket stops early only before an urgent byte, and an event
    /// reports that byte (tcp(7)).
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
            // The same socket was registered under the same number before, and the caller has kept
            // a duplicate of it: a registration ends with the last descriptor (epoll(7), Q6).
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

    /// The descriptor is about to be closed. That ends its registration, unless another port or the
    /// caller has a descriptor of the same socket.
    pub(super) fn forget(&self, handle: &Handle, is_shared: bool) {
        if is_shared {
            // A socket that was never registered is not found. That is fine.
            let _ = epoll::delete(&self.epoll, handle);
        }
    }

    /// Waits for at most `events_max` events, at most this long. Calls `report` with each event and
    /// with the number of events left, including this one. Returns the number of wake-ups used.
    pub(super) fn wait(
        &self,
        at_most: Option<Duration>,
        events_max: usize,
        mut report: impl FnMut(usize, SlotId, Seen),
    ) -> Result<u32, i32> {
        let mut space = [MaybeUninit::<Event>::uninit(); EVENTS_MAX];
        let space = &mut space[..events_max.clamp(1, EVENTS_MAX)];
        // Half a million years is as good as forever, and the kernel can add it to its clock
        // without overflow.
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
            report(
                found - place,
                id,
                Seen {
                    readable: flags.contains(EventFlags::IN),
                    writable: flags.contains(EventFlags::OUT),
                    peer_ended: flags.intersects(EventFlags::RDHUP | EventFlags::HUP),
                    broken,
                    urgent: flags.contains(EventFlags::PRI),
                },
            );
        }
        Ok(wakes)
    }

    pub(super) fn wake(&self, threads: u32) {
        // It fails only if 2^64 wake-ups are already pending.
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
