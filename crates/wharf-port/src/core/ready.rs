//! What is ready to be taken, and who sleeps until something is.
//!
//! One queue for the whole port, in the order in which things became ready. Sockets stand in it by
//! number, at most once each but for those that closed there, so that the table bounds it. Sockets
//! whose bulk filled most of a batch stand behind all others, and the first of them is read until it
//! is empty, or until it has had `RUN_BYTES_MAX`: read by turns, none of them was ever emptied,
//! megabytes stood in each, and came from memory instead of the cache at twice the price. The ends
//! of cancelled timers, which have no socket, stand in it themselves. Posts have a lane beside it and
//! every second place in a batch: in one line with them, sockets stood behind as many posts as
//! there may be. Lanes and the count of sleepers share one lock, so "nobody is ready, I go to
//! sleep" and "something is ready, wake somebody" cannot pass each other unseen.
//!
//! A waiter sleeps inside the driver where the driver lets several in at once (IOCP, epoll).
//! Elsewhere one of them, the leader, sleeps there and the others are parked, last in first out,
//! so that the thread whose stack is warm runs next. One condition variable for all was rejected:
//! the kernel's events would need a thread of their own.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::AtomicU32;
use std::thread::Thread;

use parking_lot::Mutex;

use crate::core::local::Local;
use crate::core::slot::SlotId;
use crate::lock;
use crate::packet::Packet;
use numbers::Numbers;
pub(crate) use waking::Entered;

/// A queue longer than this gives its memory back once it is empty.
const KEEP_ENTRIES: usize = 64;

/// Bytes that a socket is read before the next one with as much has its turn. With 2 MiB the gain was
/// three quarters of that with 4 MiB, and 8 MiB brought no more.
const RUN_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Entries taken before one of those behind them is, if there are any.
const TAKEN_BEFORE_BULK_MAX: u32 = 16;

/// What stands in the queue.
#[derive(Debug)]
enum Entry {
    Socket(u32),
    Loose,
    Rearm(SlotId),
}

/// What a waiter takes from the queue.
#[derive(Debug)]
pub(crate) enum Taken {
    /// A socket with something to deliver.
    Socket(u32),
    /// A packet that needs no turn.
    Loose(Packet),
    /// A socket that may go on receiving or accepting.
    Rearm(SlotId),
}

/// Whom to wake after a change; done by the caller once the lock is released.
#[derive(Debug)]
#[must_use]
pub(crate) enum Wake {
    Nobody,
    /// So many threads that sleep in the driver.
    Driver(u32),
    Parked(Thread),
    /// So many in the driver, and these.
    Many(u32, Vec<Thread>),
}

/// What a waiter that found nothing does next.
#[derive(Debug)]
pub(crate) enum Rest {
    /// Something became ready meanwhile.
    Ready,
    /// Sleep in the driver; `Ready::woke` must follow, with this.
    Poll(Entered),
    /// Sleep until unparked; `Ready::unparked` must follow.
    Park,
}

#[derive(Debug)]
pub(crate) struct Ready {
    state: Mutex<State>,
    /// Waiters whose batches have packets that stood in no socket's queue.
    at_hand: AtomicU32,
    /// Whether the driver lets only one thread in at a time.
    leader_only: bool,
}

#[derive(Debug, Default)]
struct State {
    order: VecDeque<Entry>,
    /// Sockets whose bulk filled a batch, behind all of `order`.
    behind: VecDeque<u32>,
    /// With so many of them, doubles are looked for.
    behind_max: usize,
    /// Sockets taken from there that stay at its head, one for each waiter, with the bytes that they
    /// have had of their run.
    runs: VecDeque<(u32, usize)>,
    /// Entries taken from `order` since one was taken from behind it.
    taken_before_bulk: u32,
    loose: VecDeque<Packet>,
    posts: VecDeque<Packet>,
    /// Whether the last entry taken was a post.
    took_post: bool,
    /// Threads asleep in the driver, and how many of them are being woken.
    polling: u32,
    waking: u32,
    /// How often those in the driver were woken for a nearer deadline, and how many of them have
    /// been there since before the last of these times.
    news: Entered,
    behind_news: u32,
    /// Threads parked until the leader leaves or there is work.
    parked: Vec<(u16, Thread)>,
    numbers: Numbers,
    /// Threads in the driver that are no waiters, or are not waiting.
    aside: u16,
    closed: bool,
}

impl Ready {
    pub(crate) fn new(leader_only: bool) -> Self {
        Ready {
            state: Mutex::new(State::default()),
            at_hand: AtomicU32::new(0),
            leader_only,
        }
    }

    pub(crate) fn push_socket(&self, index: u32) -> Wake {
        self.push(|state| state.order.push_back(Entry::Socket(index)))
    }

    /// A socket has filled a batch with so many `bytes`, and has more.
    pub(crate) fn push_bulk(&self, index: u32, bytes: usize) -> Wake {
        self.push(|state| state.push_bulk(index, bytes))
    }

    pub(crate) fn push_rearm(&self, id: SlotId) -> Wake {
        self.push(|state| state.order.push_back(Entry::Rearm(id)))
    }

    /// Queues a packet that belongs to no socket, unless the port is closed.
    pub(crate) fn push_loose(&self, packet: Packet) -> Option<Wake> {
        let mut state = lock(&self.state);
        if state.closed {
            return None;
        }
        state.order.push_back(Entry::Loose);
        state.loose.push_back(packet);
        Some(state.wake_one())
    }

    /// Queues a posted packet, unless `posts_max` wait already or the port is closed.
    pub(crate) fn push_post(&self, packet: Packet, posts_max: usize) -> Result<Wake, Unposted> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(Unposted::Closed);
        }
        if state.posts.len() >= posts_max {
            return Err(Unposted::Full);
        }
        state.posts.push_back(packet);
        Ok(state.wake_one())
    }

    /// Puts packets back at the head, in their order: a waiter went without having taken them.
    pub(crate) fn push_loose_front(&self, packets: Vec<Packet>) -> Wake {
        let mut state = lock(&self.state);
        let count = packets.len();
        for packet in packets.into_iter().rev() {
            if matches!(packet.event, crate::Event::Posted(_)) {
                state.posts.push_front(packet);
            } else {
                state.order.push_front(Entry::Loose);
                state.loose.push_front(packet);
            }
        }
        state.wake_many(count)
    }

    fn push(&self, change: impl FnOnce(&mut State)) -> Wake {
        let mut state = lock(&self.state);
        change(&mut state);
        state.wake_one()
    }

    /// Takes posts, as many as come next and the batch has room for, and then the next entry that
    /// is none, if there still is room.
    pub(crate) fn take(&self, local: &mut Local) -> Option<Taken> {
        let mut state = lock(&self.state);
        while local.room() > 0 {
            match state.take_post() {
                Some(post) => {
                    self.note_at_hand(local);
                    local.push(post);
                }
                None => {
                    let taken = state.take_other();
                    if matches!(taken, Some(Taken::Loose(_))) {
                        self.note_at_hand(local);
                    }
                    return taken;
                }
            }
        }
        None
    }

    /// How many packets a waiter outside the driver may take of `extra` new things and all that is
    /// queued, so that those who wait get theirs: an equal share, rounded up.
    pub(crate) fn share(&self, extra: usize) -> usize {
        lock(&self.state).share(extra, 0)
    }

    /// The same for a waiter that is inside the driver, and does not wait for its own packets.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn share_inside(&self, extra: usize) -> usize {
        lock(&self.state).share(extra, 1)
    }

    /// Registers the calling waiter as asleep, unless there is something to do.
    pub(crate) fn rest(&self, number: u16) -> Rest {
        let mut state = lock(&self.state);
        if state.len() > 0 || state.closed {
            return Rest::Ready;
        }
        if self.leader_only && state.polling > 0 {
            state.parked.push((number, std::thread::current()));
            return Rest::Park;
        }
        Rest::Poll(state.enter())
    }

    /// Enters the driver without sleeping, as `rest` does, when nobody else is in there.
    pub(crate) fn try_enter(&self) -> Option<Entered> {
        let mut state = lock(&self.state);
        let led = self.leader_only && state.polling > 0;
        (!led).then(|| state.enter())
    }

    /// Enters the driver without sleeping and without being a waiter, when nobody else is in there
    /// and the port is open; it does not end before `leave_aside`, which must follow.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn enter_aside(&self) -> Option<Entered> {
        let mut state = lock(&self.state);
        if state.closed || state.polling > 0 {
            return None;
        }
        state.aside += 1;
        Some(state.enter())
    }

    /// Who entered aside left the driver, and has told that by `woke`; answers as `dismiss` does.
    pub(crate) fn leave_aside(&self) -> (u16, bool) {
        let mut state = lock(&self.state);
        state.aside -= 1;
        (state.users(), state.closed)
    }

    /// The calling waiter left the driver; `wakes` are the wake-ups it consumed there.
    pub(crate) fn woke(&self, entered: Entered, wakes: u32) -> Wake {
        let mut state = lock(&self.state);
        state.leave(entered, wakes);
        if self.leader_only {
            // The driver must not stay empty while this thread handles its packets.
            return state.wake_parked();
        }
        if state.len() == 0 && !state.closed && !state.nobody_knows_the_news() {
            Wake::Nobody
        } else {
            state.wake_one()
        }
    }

    /// The calling waiter is no longer parked; answers whether somebody woke it.
    pub(crate) fn unparked(&self, number: u16) -> bool {
        let mut state = lock(&self.state);
        let place = state.parked.iter().position(|parked| parked.0 == number);
        place.map(|place| state.parked.remove(place)).is_none()
    }

    /// The calling waiter was woken while it was parked, and does not go to sleep again now. If it
    /// was called to lead, another one leads.
    pub(crate) fn hand_over(&self) -> Wake {
        let mut state = lock(&self.state);
        if self.leader_only && state.polling == 0 {
            state.wake_parked()
        } else {
            Wake::Nobody
        }
    }

    /// Wakes every sleeper, because all of them have to look again.
    pub(crate) fn wake_all(&self) -> Wake {
        lock(&self.state).wake_all()
    }

    /// Wakes all who sleep in the driver, because a deadline was set before they look at the timers
    /// again. Those who are parked look at none.
    pub(crate) fn wake_drivers(&self) -> Wake {
        lock(&self.state).wake_drivers()
    }

    /// Wakes whoever sleeps in the driver, because it has requests to submit.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn wake_driver(&self) -> Wake {
        let mut state = lock(&self.state);
        if state.polling > state.waking {
            state.waking += 1;
            Wake::Driver(1)
        } else {
            Wake::Nobody
        }
    }

    /// Whether nothing is queued.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.state).len() == 0
    }

    pub(crate) fn has_waiters(&self) -> bool {
        lock(&self.state).numbers.given() > 0
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.state).closed
    }

    /// Closes the queue; answers whether this call did it, whom to wake, and how many waiters
    /// there are.
    pub(crate) fn close(&self) -> (bool, Wake, u16) {
        let mut state = lock(&self.state);
        let first = !state.closed;
        state.closed = true;
        (first, state.wake_all(), state.users())
    }

    /// Counts a new waiter, unless there are `waiters_max`; answers its number from 1.
    pub(crate) fn enlist(&self, waiters_max: u16) -> Option<u16> {
        lock(&self.state).numbers.give(waiters_max)
    }

    /// The waiter of this number went; answers how many are left, and whether the port is closed.
    pub(crate) fn dismiss(&self, number: u16) -> (u16, bool) {
        let mut state = lock(&self.state);
        state.numbers.take_back(number);
        (state.users(), state.closed)
    }

    /// Counts a thread that has no waiter and enters the driver all the same, so that the port does
    /// not end meanwhile; answers whether it has not ended already.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn enlist_again(&self) -> Option<u16> {
        let mut state = lock(&self.state);
        if state.closed && state.users() == 0 {
            return None;
        }
        state.numbers.give(u16::MAX)
    }

    pub(crate) fn posts(&self) -> usize {
        lock(&self.state).posts.len()
    }

    /// Empties the queue for good and hands back what it held.
    pub(crate) fn drain(&self) -> VecDeque<Packet> {
        let mut state = lock(&self.state);
        state.order = VecDeque::new();
        state.behind = VecDeque::new();
        let mut packets = std::mem::take(&mut state.loose);
        packets.extend(std::mem::take(&mut state.posts));
        packets
    }
}

/// Why a post was refused.
#[derive(Debug)]
pub(crate) enum Unposted {
    Closed,
    Full,
}

impl State {
    /// Waiters, and others who keep the port from ending.
    fn users(&self) -> u16 {
        self.numbers.given() + self.aside
    }

    fn len(&self) -> usize {
        self.order.len() + self.behind.len() + self.posts.len()
    }

    /// The next post, unless the last entry was one and others wait.
    fn take_post(&mut self) -> Option<Packet> {
        if self.took_post && self.order.len() + self.behind.len() > 0 {
            return None;
        }
        let post = self.posts.pop_front()?;
        self.took_post = true;
        give_back_room(&mut self.posts);
        Some(post)
    }

    fn take_other(&mut self) -> Option<Taken> {
        self.took_post = false;
        let bulk_is_due = self.order.is_empty() || self.taken_before_bulk >= TAKEN_BEFORE_BULK_MAX;
        if bulk_is_due {
            if let Some(index) = self.take_bulk() {
                return Some(Taken::Socket(index));
            }
        }
        self.taken_before_bulk += 1;
        let taken = match self.order.pop_front()? {
            Entry::Socket(index) => Taken::Socket(index),
            Entry::Rearm(id) => Taken::Rearm(id),
            Entry::Loose => {
                let packet = self.loose.pop_front();
                Taken::Loose(packet.expect("each loose entry has its packet"))
            }
        };
        give_back_room(&mut self.order);
        give_back_room(&mut self.loose);
        Some(taken)
    }

    /// A socket that is read until it is empty stays at the head, unless its run is over.
    fn push_bulk(&mut self, index: u32, bytes: usize) {
        let run = self.runs.iter().position(|run| run.0 == index);
        if let Some(run) = run {
            self.runs[run].1 += bytes;
            if self.runs[run].1 < RUN_BYTES_MAX {
                return self.behind.push_front(index);
            }
            self.runs.remove(run);
        }
        if self.behind.len() >= self.behind_max {
            self.forget_doubles();
        }
        self.behind.push_back(index);
    }

    /// A socket that closed here left its entry, and the next in its place may bring another. Once
    /// there are twice as many as there were, each is looked at.
    fn forget_doubles(&mut self) {
        let mut seen = HashSet::new();
        self.behind.retain(|index| seen.insert(*index));
        self.behind_max = KEEP_ENTRIES.max(2 * self.behind.len());
    }

    fn take_bulk(&mut self) -> Option<u32> {
        self.taken_before_bulk = 0;
        let index = self.behind.pop_front()?;
        give_back_room(&mut self.behind);
        if self.runs.iter().all(|run| run.0 != index) {
            // One that was in a run and does not stand here was emptied, or is gone.
            self.runs
                .truncate(usize::from(self.numbers.given()).saturating_sub(1));
            self.runs.push_front((index, 0));
        }
        Some(index)
    }

    /// Without anybody idle there is nothing to share.
    fn share(&self, extra: usize, polling_self: u32) -> usize {
        let asleep = self.polling.saturating_sub(polling_self.max(self.waking));
        let idle = asleep as usize + self.parked.len();
        if idle == 0 {
            usize::MAX
        } else {
            (self.len() + extra).div_ceil(1 + idle).max(1)
        }
    }
}

/// Frees the memory of a queue that was long and is empty.
fn give_back_room<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() && queue.capacity() > KEEP_ENTRIES {
        *queue = VecDeque::new();
    }
}

mod at_hand;
mod numbers;
#[cfg(test)]
mod tests;
mod waking;
