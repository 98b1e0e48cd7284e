//! Promptness: how soon a request leaves the process.
//!
//! A request is cheapest if it goes with the enter that its thread makes anyway, at its next wait.
//! Then an echo costs no system call of its own. But a thread that computes may go without calling
//! `wait` for a long time, and other threads never call it. So the rules are:
//!
//! - If a thread is not between two waits on this port, its send is a system call at once, as with
//!   the readiness driver.
//! - What a waiter's thread requests between two waits stays queued until its next wait, or until
//!   the first call it makes, or packet it takes, after a clock tick. From then on its sends go out at once as
//!   well. The same holds after a handler that ran long.
//! - `Port::submit` is for a thread that sends and then computes without a call.
//!
//! Rejected: an enter for each send (an echo took twice the system calls); a thread of our own that
//! enters; and ringing for the thread that sleeps in a shared ring, which costs that thread a
//! switch, while the send alone is one system call.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::Uring;
use super::request::{Kind, Name, SLICES_MAX};
use crate::core::locked::Locked;
use crate::core::send::PART_BYTES_MAX;
use crate::core::{Core, Out, registry};
use crate::sys;

/// If a handler takes longer than this, the next one sends at once. The limit is below the tick of
/// most clocks (1 to 10 ms), so with these it means "the clock has ticked".
const LONG_NS: i64 = 2_000_000;
/// The most enters that hand over what is queued when a port ends. Each takes 256 requests.
const ENTERS_MAX: usize = 4096;

/// What this thread does between two waits.
#[derive(Clone, Copy)]
struct Between {
    /// The driver whose port it waited on last, and the number of that port.
    driver: u64,
    port: u32,
    /// The tick of the clock in which it took the first packet or made the first call; 0 before
    /// that.
    since: i64,
    /// Whether its sends go out at once.
    hurried: bool,
}

const NOWHERE: Between = Between {
    driver: 0,
    port: 0,
    since: 0,
    hurried: false,
};

/// Returns a number for a new driver, from 1. The driver's address was used before: a thread that
/// had waited on a dropped port was taken for a waiter of the next port at the same address.
pub(super) fn next_number() -> u64 {
    static DRIVERS: AtomicU64 = AtomicU64::new(0);
    DRIVERS.fetch_add(1, Ordering::Relaxed) + 1
}

thread_local! {
    static BETWEEN: Cell<Between> = const { Cell::new(NOWHERE) };
}

/// Returns the last tick of the clock. This costs a quarter of what the exact time costs.
fn last_tick() -> i64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

impl Uring {
    fn between(&self) -> Option<Between> {
        // A thread whose thread-locals are destroyed does not wait any more.
        let between = BETWEEN.try_with(Cell::get).unwrap_or(NOWHERE);
        (between.driver == self.number).then_some(between)
    }

    /// The calling thread begins to wait.
    pub(super) fn note_wait(&self, core: &Core) {
        let before = BETWEEN.get();
        let own = before.driver == self.number;
        if !own && before.driver != 0 {
            // The thread may sleep in this port for long, and does not come back to the other one
            // until then.
            registry::with_core(before.port, Core::submit);
        }
        BETWEEN.set(Between {
            driver: self.number,
            port: core.id(),
            since: 0,
            hurried: own && before.since != 0 && last_tick() - before.since > LONG_NS,
        });
    }

    /// The calling thread stops waiting here: what it has requested goes out.
    pub(super) fn note_leave(&self, core: &Arc<Core>) {
        if self.between().is_some() {
            BETWEEN.set(NOWHERE);
            self.hand_over(core);
        }
    }

    /// Hands over what is queued if the calling thread has gone long without calling `wait`.
    pub(super) fn hand_over_if_late(&self, core: &Arc<Core>) {
        let Some(between) = self.between() else {
            return;
        };
        let (now, first) = (last_tick(), between.since == 0);
        if now != between.since {
            BETWEEN.set(Between {
                since: now,
                hurried: between.hurried || !first,
                ..between
            });
            if !first && self.ring.has_queued() {
                self.hand_over(core);
            }
        }
    }

    /// Whether a send of the calling thread stays queued until its next wait.
    pub(super) fn may_queue(&self) -> bool {
        self.between().is_some_and(|between| !between.hurried) && !self.ring.has_sleeper()
    }

    /// Hands over what is queued, and processes what has completed. If this thread may enter the
    /// kernel and no other thread is inside, it enters. Otherwise it sends what is queued for
    /// sending.
    pub(super) fn hand_over(&self, core: &Arc<Core>) {
        if self.ring.is_forked() {
            return; // The queue is the parent's.
        }
        let may_enter = self.between().is_some() || self.ring.may_enter();
        let entered = may_enter.then(|| core.enter_to_submit());
        if let Some(entered) = entered.flatten() {
            // The next wait gets the same error and reports it.
            let _ = self.turn(core, Some(Duration::ZERO), &mut Out::queue());
            core.leave_after_submit(entered, self.ring.used_wakes());
        } else {
            self.send_queued(core);
        }
    }

    /// Sends with system calls what no thread has handed to the kernel yet. Returns whether more of
    /// it may be such that the system takes it at once.
    pub(super) fn send_queued(&self, core: &Arc<Core>) -> bool {
        let (mut left, mut more) = (VecDeque::new(), false);
        for entry in self.ring.take_queued(|kind| kind == Kind::Send) {
            let name = Name::decode(entry.get_user_data()).expect("it was chosen by its name");
            match core.lock(name.id, Out::queue()) {
                Some(mut socket) if sends_by_calls(&socket) => {
                    more |= self.send_by_calls(&mut socket);
                }
                _ => left.push_back(entry),
            }
        }
        self.ring.put_back(left);
        more
    }

    /// Sends the queue of a socket whose request was taken out of the ring's queue, as much as the
    /// system takes and up to a bound. Returns whether the bound ended it.
    fn send_by_calls(&self, socket: &mut Locked<'_>) -> bool {
        let mut left = PART_BYTES_MAX;
        loop {
            let work = socket.queues().expect("a send keeps its work");
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = work.unsent(&mut slices, left);
            let bytes: usize = slices[..count].iter().map(|slice| slice.len()).sum();
            let result = match sys::send(socket.open_handle(), &slices[..count]) {
                Err(code) if sys::interrupted(code) || sys::would_block(code) => Ok(0),
                result => result,
            };
            socket.send_stopped(result);
            // What is left is a request again, which waits for the peer. The report may have freed
            // the slot.
            left -= result.unwrap_or(0);
            let all = result == Ok(bytes) && left > 0;
            let goes_on = all && !socket.is_gone() && socket.is_sending();
            if !goes_on || !sends_by_calls(socket) || !self.ring.take_send(socket.id) {
                return left == 0;
            }
        }
    }

    /// The port ends, and no thread waits on it any more. Hands over what the port has taken for
    /// sending, as far as the system takes it without waiting, and processes what has been sent.
    pub(super) fn hand_over_at_end(&self, core: &Arc<Core>) {
        while self.send_queued(core) {}
        let out = &mut Out::queue();
        if !self.ring.may_enter() {
            return self.reap(core, out);
        }
        let others = self.ring.take_queued(|kind| kind != Kind::Send);
        for _ in 0..ENTERS_MAX {
            if self.enter_to_end(Duration::ZERO, 0).is_err() {
                break;
            }
            self.reap(core, out);
            if !self.ring.has_queued_send() {
                break;
            }
        }
        self.ring.put_back(others);
    }
}

/// Whether this socket's queue may be sent with system calls: it has a descriptor, and nothing has
/// requested its end.
fn sends_by_calls(socket: &Locked<'_>) -> bool {
    let handle = socket.handle();
    socket.is_sending() && !socket.stops_sending() && handle.is_some_and(|it| it.place().is_none())
}
