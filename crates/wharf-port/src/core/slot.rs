//! The table of sockets: one small entry each, at an address that never moves.
//!
//! Entries are in chunks that are allocated once and stay (contract C13). An index with a
//! generation names an entry. So a late completion or a stale handle finds that its socket is gone,
//! and does not hit the next socket in the same place (C11). Everything else that a busy socket
//! needs, mostly queues, is in a [`Work`](crate::core::work::Work). The socket gets one when it has
//! work, and returns it when it is idle. So an idle connection costs less than 64 bytes.
//!
//! A `HashMap` by descriptor was rejected: the system reuses descriptors at once, and while the map
//! grows all threads wait. One lock for the whole table was rejected because system calls are made
//! under it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::driver::SlotBlock;
use crate::lock;

mod state;
mod word;

pub(crate) use state::{Receiving, SocketState};
pub(crate) use word::Own;
pub(in crate::core) use word::{Closing, Connection, Pause, Writing, flag};

/// Sockets in one chunk.
const CHUNK_SLOTS: u32 = 1024;
/// Marks the end of the list of free slots.
const NONE: u32 = u32::MAX;

/// A place in the table, and the generation of its socket.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct SlotId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// One entry of the table.
#[derive(Debug)]
pub(crate) struct Slot {
    /// The generation is in the high half. The low half has [`LEASES_PAUSED`], [`SILENCED`] and the
    /// count of leases of the stream. It is outside the lock for two reasons: a lease may be
    /// dropped under the lock, and each packet is checked against this word when it is handed out.
    /// While the slot is free, the low half links the list of free slots.
    leases: AtomicU64,
    state: Mutex<SocketState>,
    /// What the driver keeps at a stable address for each socket; nothing on Unix.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) driver: SlotBlock,
}

/// Set in the low half of `leases` while the stream waits for a lease to return.
const LEASES_PAUSED: u32 = 1 << 31;
/// Set there once the owner has dropped the socket: no packet about it is handed out any more.
const SILENCED: u32 = 1 << 30;
/// The rest of the low half: how many leases are out.
const LEASES: u32 = SILENCED - 1;

fn join(generation: u32, low: u32) -> u64 {
    (u64::from(generation) << 32) | u64::from(low)
}

fn split(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

/// The table.
#[derive(Debug)]
pub(crate) struct Slots {
    /// Each chunk is behind a thin pointer: with few sockets the table itself is a large part of
    /// the cost.
    chunks: Box<[OnceLock<Box<[Slot; CHUNK_SLOTS as usize]>>]>,
    free: Mutex<Free>,
    slots_max: u32,
}

#[derive(Debug)]
struct Free {
    head: u32,
    /// Slots ever used; the slots after them are fresh.
    fresh: u32,
    live: u32,
    /// Of the live ones, places reserved for sockets that come later.
    kept: u32,
}

impl Slots {
    pub(crate) fn new(slots_max: u32) -> Self {
        let chunks = slots_max.div_ceil(CHUNK_SLOTS);
        Slots {
            chunks: (0..chunks).map(|_| OnceLock::new()).collect(),
            free: Mutex::new(Free {
                head: NONE,
                fresh: 0,
                live: 0,
                kept: 0,
            }),
            slots_max,
        }
    }

    /// Returns how many sockets are live.
    pub(crate) fn live(&self) -> u32 {
        lock(&self.free).live
    }

    /// Returns how many sockets are in the table, without reserved places.
    pub(crate) fn open(&self) -> u32 {
        let free = lock(&self.free);
        free.live - free.kept
    }

    /// Returns the bytes of the chunks that exist. A chunk is allocated when the first socket needs
    /// it, in order.
    pub(crate) fn bytes(&self) -> usize {
        let chunks = self.used().div_ceil(CHUNK_SLOTS) as usize;
        chunks * CHUNK_SLOTS as usize * size_of::<Slot>()
    }

    /// Reserves a place for a socket that comes later. Returns false if none is left.
    pub(crate) fn reserve(&self) -> bool {
        let mut free = lock(&self.free);
        let room = free.live < self.slots_max;
        free.live += u32::from(room);
        free.kept += u32::from(room);
        room
    }

    /// Frees a reserved place.
    pub(crate) fn unreserve(&self) {
        let mut free = lock(&self.free);
        free.live -= 1;
        free.kept -= 1;
    }

    /// Returns a slot for a new socket, locked; `None` if all are in use. With `kept` it uses a
    /// place that was reserved for the socket.
    pub(crate) fn allocate(&self, kept: bool) -> Option<(SlotId, MutexGuard<'_, SocketState>)> {
        let index = {
            let mut free = lock(&self.free);
            if !kept && free.live >= self.slots_max {
                return None;
            }
            free.live += u32::from(!kept);
            free.kept -= u32::from(kept);
            if free.head == NONE {
                free.fresh += 1;
                free.fresh - 1
            } else {
                let index = free.head;
                // The thread that freed the slot wrote the link before it took this lock.
                free.head = split(self.slot(index).leases.load(Ordering::Relaxed)).1;
                index
            }
        };
        let slot = self.slot(index);
        let state = lock(&slot.state);
        let generation = state.generation;
        slot.leases.store(join(generation, 0), Ordering::Release);
        Some((SlotId { index, generation }, state))
    }

    /// Frees a slot. The caller has emptied `state` and still holds its lock.
    pub(crate) fn free(&self, id: SlotId, state: &mut SocketState) {
        self.unallocate(id, state, false);
    }

    /// Frees the slot of a socket that did not come in. With `kept`, its place is reserved again.
    pub(crate) fn unallocate(&self, id: SlotId, state: &mut SocketState, kept: bool) {
        debug_assert_eq!(state.generation, id.generation, "a slot is freed once");
        debug_assert!(
            state.handle.is_none(),
            "the handle is closed before its slot is freed"
        );
        let generation = id.generation.wrapping_add(1);
        let sequence = state.sequence;
        *state = SocketState {
            generation,
            sequence,
            ..SocketState::unused()
        };
        let mut free = lock(&self.free);
        self.slot(id.index)
            .leases
            .store(join(generation, free.head), Ordering::Relaxed);
        free.head = id.index;
        free.live -= u32::from(!kept);
        free.kept += u32::from(kept);
    }

    /// Locks the socket, unless it is gone.
    pub(crate) fn lock(&self, id: SlotId) -> Option<MutexGuard<'_, SocketState>> {
        let chunk = self.chunks.get((id.index / CHUNK_SLOTS) as usize)?.get()?;
        let state = lock(&chunk[(id.index % CHUNK_SLOTS) as usize].state);
        // A free slot has the generation of its next socket, which has no handle yet.
        (state.generation == id.generation && state.is_used()).then_some(state)
    }

    /// Locks the socket in this place, if there is one, and returns its name too.
    pub(crate) fn lock_index(&self, index: u32) -> Option<(SlotId, MutexGuard<'_, SocketState>)> {
        let chunk = self.chunks.get((index / CHUNK_SLOTS) as usize)?.get()?;
        let state = lock(&chunk[(index % CHUNK_SLOTS) as usize].state);
        state.is_used().then(|| {
            (
                SlotId {
                    index,
                    generation: state.generation,
                },
                state,
            )
        })
    }

    /// Drops the handles of all sockets, and nothing else. For a fork, where some sockets may be
    /// locked for ever.
    pub(crate) fn let_handles_go(&self) {
        let chunks = self.chunks.iter().filter_map(OnceLock::get);
        for slot in chunks.flat_map(|chunk| chunk.iter()) {
            if let Some(mut state) = slot.state.try_lock() {
                drop(state.handle.take());
            }
        }
    }

    /// Returns how many slots were ever used. Only indices below this may hold sockets.
    pub(crate) fn used(&self) -> u32 {
        lock(&self.free).fresh
    }

    /// Returns the entry itself, at its stable address.
    pub(crate) fn slot(&self, index: u32) -> &Slot {
        let chunk = self.chunks[(index / CHUNK_SLOTS) as usize].get_or_init(|| {
            let unused = || Slot {
                leases: AtomicU64::new(0),
                state: Mutex::new(SocketState::unused()),
                driver: Default::default(),
            };
            let chunk: Box<[Slot]> = (0..CHUNK_SLOTS).map(|_| unused()).collect();
            chunk.try_into().expect("as many as a chunk has")
        });
        &chunk[(index % CHUNK_SLOTS) as usize]
    }

    /// Counts one more lease, unless the stream has `leases_max` out. Then the stream is marked as
    /// waiting, and the lease that returns next reports that.
    pub(crate) fn reserve_lease(&self, id: SlotId, leases_max: u16) -> bool {
        self.change_leases(id, |low| {
            if low & LEASES >= u32::from(leases_max) {
                (low | LEASES_PAUSED, false)
            } else {
                (low + 1, true)
            }
        })
    }

    /// Returns how many more leases the stream may have out.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn leases_free(&self, id: SlotId, leases_max: u16) -> u32 {
        let (_, low) = split(self.slot(id.index).leases.load(Ordering::Relaxed));
        u32::from(leases_max).saturating_sub(low & LEASES)
    }

    /// Counts a lease that came back. Returns whether its stream waited for that.
    pub(crate) fn return_lease(&self, id: SlotId, leases_max: u16) -> bool {
        self.change_leases(id, |low| {
            let count = (low & LEASES).saturating_sub(1);
            if low & LEASES_PAUSED != 0 && count < u32::from(leases_max) {
                ((low & SILENCED) | count, true)
            } else {
                ((low & !LEASES) | count, false)
            }
        })
    }

    /// From now on no packet about this socket is handed out, from whichever queue or batch.
    pub(crate) fn silence(&self, id: SlotId) {
        self.change_leases(id, |low| (low | SILENCED, true));
    }

    /// Whether packets about this socket are handed out: it exists, and its owner has not dropped
    /// it. It takes no lock, because it is checked for each packet.
    #[inline]
    pub(crate) fn delivers_about(&self, id: SlotId) -> bool {
        let word = self.slot(id.index).leases.load(Ordering::Acquire);
        let (generation, low) = split(word);
        generation == id.generation && low & SILENCED == 0
    }

    /// Changes the low half of the word, unless the socket is gone. Returns the second value of
    /// `change`.
    fn change_leases(&self, id: SlotId, change: impl Fn(u32) -> (u32, bool)) -> bool {
        let word = &self.slot(id.index).leases;
        let mut current = word.load(Ordering::Acquire);
        loop {
            let (generation, low) = split(current);
            if generation != id.generation {
                return false;
            }
            let (next, answer) = change(low);
            let next = join(generation, next);
            match word.compare_exchange_weak(current, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return answer,
                Err(now) => current = now,
            }
        }
    }
}
