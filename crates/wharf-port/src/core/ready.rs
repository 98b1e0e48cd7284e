//! What is ready to be taken, and which threads sleep until something is.
//!
//! There is one queue for the whole port, in the order in which things became ready. It holds
//! socket indices, each at most once (a socket that closes while queued may appear twice), so the
//! slot table bounds its length. Sockets whose bulk filled most of a batch are in a second queue,
//! after all others. We read the first of them until it is empty, or until `RUN_BYTES_MAX` bytes
//! have been read. Round-robin is slower: with many bulk senders no socket ever drains. Each then
//! has megabytes to read, and these come from memory instead of the cache, at twice the cost. The
//! ends of cancelled timers have no socket and are queued directly. Posts have a lane of their own
//! and every second place in a batch. In one queue with them, sockets waited for all posts before
//! them. The lanes and the count of sleepers share one lock. So "nothing is ready, I go to sleep"
//! and "something is ready, wake a waiter" cannot miss each other.
//!
//! If the driver lets several waiters in at once (IOCP, epoll), a waiter sleeps inside the driver.
//! Otherwise one of them, the leader, sleeps there and the others are parked, last in first out, so
//! the thread whose stack is in the cache runs next. One condition variable for all was rejected,
//! because the kernel's events would need a thread of their own.

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

/// A queue longer than this frees its memory once it is empty.
const KEEP_ENTRIES: usize = 64;

/// Bytes that are read from one bulk socket before the next one gets its turn. 2 MiB gave three
/// quarters of the gain of 4 MiB, and 8 MiB gave no more.
const RUN_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Entries taken before one of the bulk queue is, if it has any.
const TAKEN_BEFORE_BULK_MAX: u32 = 16;

/// An entry of the queue.
#[derive(Debug)]
enum Entry {
    Socket(u32),
    Turnless,
    Rearm(SlotId),
}

/// What a waiter takes from the queue.
#[derive(Debug)]
pub(crate) enum Taken {
    /// A socket with something to deliver.
    Socket(u32),
    /// A packet that needs no turn.
    Turnless(Packet),
    /// A socket that may continue to receive or accept.
    Rearm(SlotId),
}

/// Which threads to wake after a change. The caller wakes them once the lock is released.
#[derive(Debug)]
#[must_use]
pub(crate) enum Wake {
    NoThread,
    /// This many threads that sleep in the driver.
    Driver(u32),
    Parked(Thread),
    /// This many in the driver, and these parked threads.
    Many(u32, Vec<Thread>),
}

/// What a waiter that found nothing does next.
#[derive(Debug)]
pub(crate) enum Rest {
    /// Something became ready in the meantime.
    Ready,
    /// Sleep in the driver. `Ready::woke` must follow, with this value.
    Poll(Entered),
    /// Sleep until unparked. `Ready::unparked` must follow.
    Park,
}

#[derive(Debug)]
pub(crate) struct Ready {
    state: Mutex<State>,
    /// The number of waiters whose batches have packets that were in no socket's queue.
    at_hand: AtomicU32,
    /// Whether the driver lets only one thread in at a time.
    leader_only: bool,
}

#[derive(Debug, Default)]
struct State {
    order: VecDeque<Entry>,
    /// Sockets whose bulk filled a batch: the queue after all of `order`.
    behind: VecDeque<u32>,
    /// At this length of `behind`, duplicates are removed.
    behind_max: usize,
    /// Sockets taken from `behind` that return to its head, at most one per waiter, with the bytes
    /// read in their run.
    runs: VecDeque<(u32, usize)>,
    /// Entries taken from `order` since the last one was taken from `behind`.
    taken_before_bulk: u32,
    turnless: VecDeque<Packet>,
    posts: VecDeque<Packet>,
    /// Whether the last entry taken was a post.
    took_post: bool,
    /// Threads asleep in the driver, and how many of them are being woken.
    polling: u32,
    waking: u32,
    /// How often the threads in the driver were woken for a nearer deadline, and how many of them
    /// were there before the last of these times.
    news: Entered,
    behind_news: u32,
    /// Threads parked until the leader leaves or there is work.
    parked: Vec<(u16, Thread)>,
    numbers: Numbers,
    /// Threads in the driver that only submit: they have no waiter, or are not waiting.
    submitting: u16,
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

    /// A socket has filled a batch with `bytes` bytes and has more.
    pub(crate) fn push_bulk(&self, index: u32, bytes: usize) -> Wake {
        self.push(|state| state.push_bulk(index, bytes))
    }

    pub(crate) fn push_rearm(&self, id: SlotId) -> Wake {
        self.push(|state| state.order.push_back(Entry::Rearm(id)))
    }

    /// Queues a packet that belongs to no socket, unless the port is closed.
    pub(crate) fn push_turnless(&self, packet: Packet) -> Option<Wake> {
        let mut state = lock(&self.state);
        if state.closed {
            return None;
        }
        state.order.push_back(Entry::Turnless);
        state.turnless.push_back(packet);
        Some(state.wake_one())
    }

    /// Queues a posted packet, unless `posts_max` posts wait already or the port is closed.
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

    /// Puts packets back at the head, in their order, because a waiter went and had not taken them.
    pub(crate) fn push_turnless_front(&self, packets: Vec<Packet>) -> Wake {
        let mut state = lock(&self.state);
        let count = packets.len();
        for packet in packets.into_iter().rev() {
            if matches!(packet.event, crate::Event::Posted(_)) {
                state.posts.push_front(packet);
            } else {
                state.order.push_front(Entry::Turnless);
                state.turnless.push_front(packet);
            }
        }
        state.wake_many(count)
    }

    fn push(&self, change: impl FnOnce(&mut State)) -> Wake {
        let mut state = lock(&self.state);
        change(&mut state);
        state.wake_one()
    }

    /// Takes the posts that come next, as far as the batch has space. Then returns the next other
    /// entry, if there is still space.
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
                    if matches!(taken, Some(Taken::Turnless(_))) {
                        self.note_at_hand(local);
                    }
                    return taken;
                }
            }
        }
        None
    }

    /// Returns how many packets a waiter outside the driver may take of `extra` new things and all
    /// queued ones. It is an equal share, rounded up, so other waiters get theirs.
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

    /// Enters the driver without sleeping, as `rest` does, if no other thread is inside.
    pub(crate) fn try_enter(&self) -> Option<Entered> {
        let mut state = lock(&self.state);
        let led = self.leader_only && state.polling > 0;
        (!led).then(|| state.enter())
    }

    /// Enters the driver without sleeping and without being a waiter, if no other thread is inside
    /// and the port is open. The port does not end before `leave_after_submit`, which must follow.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn enter_to_submit(&self) -> Option<Entered> {
        let mut state = lock(&self.state);
        if state.closed || state.polling > 0 {
            return None;
        }
        state.submitting += 1;
        Some(state.enter())
    }

    /// The thread that called `enter_to_submit` left the driver, and has called `woke`. Returns what
    /// `dismiss` returns.
    pub(crate) fn leave_after_submit(&self) -> (u16, bool) {
        let mut state = lock(&self.state);
        state.submitting -= 1;
        (state.users(), state.closed)
    }

    /// The calling waiter left the driver. `wakes` is the number of wake-ups it consumed there.
    pub(crate) fn woke(&self, entered: Entered, wakes: u32) -> Wake {
        let mut state = lock(&self.state);
        state.leave(entered, wakes);
        if self.leader_only {
            // The driver must not stay empty while this thread handles its packets.
            return state.wake_parked();
        }
        if state.len() == 0 && !state.closed && !state.no_sleeper_knows_the_news() {
            Wake::NoThread
        } else {
            state.wake_one()
        }
    }

    /// The calling waiter is no longer parked. Returns whether a thread woke it.
    pub(crate) fn unparked(&self, number: u16) -> bool {
        let mut state = lock(&self.state);
        let place = state.parked.iter().position(|parked| parked.0 == number);
        place.map(|place| state.parked.remove(place)).is_none()
    }

    /// The calling waiter was woken while it was parked, and does not go to sleep again now. If it
    /// was called to lead, another waiter leads.
    pub(crate) fn hand_over(&self) -> Wake {
        let mut state = lock(&self.state);
        if self.leader_only && state.polling == 0 {
            state.wake_parked()
        } else {
            Wake::NoThread
        }
    }

    /// Wakes every sleeper, because all of them have to look again.
    pub(crate) fn wake_all(&self) -> Wake {
        lock(&self.state).wake_all()
    }

    /// Wakes all waiters that sleep in the driver, because a deadline was set before their next
    /// look at the timers. Parked waiters do not look at timers.
    pub(crate) fn wake_drivers(&self) -> Wake {
        lock(&self.state).wake_drivers()
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

    /// Closes the queue. Returns whether this call did it, which threads to wake, and the number of
    /// waiters.
    pub(crate) fn close(&self) -> (bool, Wake, u16) {
        let mut state = lock(&self.state);
        let first = !state.closed;
        state.closed = true;
        (first, state.wake_all(), state.users())
    }

    /// Counts a new waiter, unless there are `waiters_max`. Returns its number, from 1.
    pub(crate) fn enlist(&self, waiters_max: u16) -> Option<u16> {
        lock(&self.state).numbers.give(waiters_max)
    }

    /// The waiter of this number went. Returns the number of waiters left, and whether the port is
    /// closed.
    pub(crate) fn dismiss(&self, number: u16) -> (u16, bool) {
        let mut state = lock(&self.state);
        state.numbers.take_back(number);
        (state.users(), state.closed)
    }

    /// Counts a thread that has no waiter and enters the driver anyway, so the port does not end
    /// meanwhile. Returns `None` if the port has already ended.
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

    /// Empties the queue for good and returns its packets.
    pub(crate) fn drain(&self) -> VecDeque<Packet> {
        let mut state = lock(&self.state);
        state.order = VecDeque::new();
        state.behind = VecDeque::new();
        let mut packets = std::mem::take(&mut state.turnless);
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
    /// Returns the number of waiters, and of other threads that keep the port from ending.
    fn users(&self) -> u16 {
        self.numbers.given() + self.submitting
    }

    fn len(&self) -> usize {
        self.order.len() + self.behind.len() + self.posts.len()
    }

    /// Returns the next post, unless the last entry was a post and other entries wait.
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
            Entry::Turnless => {
                let packet = self.turnless.pop_front();
                Taken::Turnless(packet.expect("each turnless entry has its packet"))
            }
        };
        give_back_room(&mut self.order);
        give_back_room(&mut self.turnless);
        Some(taken)
    }

    /// A socket in a run returns to the head, unless its run is over.
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

    /// A socket that closed while it was queued left its entry, and the next socket in its place
    /// may add another. Once the queue has doubled, each entry is checked.
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
            // A socket that was in a run and is not in `behind` was emptied, or is gone.
            self.runs
                .truncate(usize::from(self.numbers.given()).saturating_sub(1));
            self.runs.push_front((index, 0));
        }
        Some(index)
    }

    /// With no idle waiter there is nothing to share.
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
