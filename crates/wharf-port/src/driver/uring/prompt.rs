//! Promptness: how soon a request leaves the process.
//!
//! A request is cheapest when it goes with the enter that its thread makes anyway, at its next
//! wait: then an echo costs no system call of its own. But a thread that computes may be away from
//! `wait` for long, and other threads never come there. So a send of a thread that is not between
//! two waits on this port is a system call at once, as it is on readiness. What a waiter's thread
//! asks for between two waits stays queued until the next wait, or until its first call or packet
//! after the clock has ticked; from then on, and after a handler that ran long, its sends go out at
//! once as well. `Port::submit` is for who sends and then computes without a call.
//!
//! Rejected: an enter for each send (an echo took twice the system calls), a thread of our own that
//! enters, and ringing for the thread that sleeps in a shared ring, which costs that thread a
//! switch where the send alone is one system call.

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
use crate::core::slot::flag;
use crate::core::{Core, Out, registry};
use crate::sys;

/// A handler that takes longer makes the next one send at once. It is below the tick of most
/// clocks (1 to 10 ms), so that it says "the clock has ticked" there.
const LONG_NS: i64 = 2_000_000;
/// Bytes that one system call sends: the slot is locked meanwhile, and a peer that reads as fast as
/// this side sends lets a call go on for as long as there are bytes.
pub(super) const PART_BYTES_MAX: usize = 1 << 20;
/// Enters that hand over what is queued when a port ends; each takes 256 requests.
const ENTERS_MAX: usize = 4096;

/// What this thread does between two waits.
#[derive(Clone, Copy)]
struct Between {
    /// The driver whose port it waited on last, and that port's number.
    driver: u64,
    port: u32,
    /// The tick of the clock in which it took the first packet or made the first call; 0 before.
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

/// A number for a new driver, from 1. The address stood here once: a thread that had waited on a
/// port which was gone was taken for a waiter of the next one in the same place.
pub(super) fn next_number() -> u64 {
    static DRIVERS: AtomicU64 = AtomicU64::new(0);
    DRIVERS.fetch_add(1, Ordering::Relaxed) + 1
}

thread_local! {
    static BETWEEN: Cell<Between> = const { Cell::new(NOWHERE) };
}

/// The last tick of the clock: a quarter of what the exact time costs.
fn last_tick() -> i64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

impl Uring {
    fn between(&self) -> Option<Between> {
        // A thread that is past its own end waits no more.
        let between = BETWEEN.try_with(Cell::get).unwrap_or(NOWHERE);
        (between.driver == self.number).then_some(between)
    }

    /// The calling thread begins to wait.
    pub(super) fn note_wait(&self, core: &Core) {
        let before = BETWEEN.get();
        let own = before.driver == self.number;
        if !own && before.driver != 0 {
            // It may be away from that port for as long as it sleeps in this one.
            registry::with_core(before.port, Core::submit);
        }
        BETWEEN.set(Between {
            driver: self.number,
            port: core.id(),
            since: 0,
            hurried: own && before.since != 0 && last_tick() - before.since > LONG_NS,
        });
    }

    /// The calling thread waits here no more: what it has asked for goes out.
    pub(super) fn note_leave(&self, core: &Arc<Core>) {
        if self.between().is_some() {
            BETWEEN.set(NOWHERE);
            self.hand_over(core);
        }
    }

    /// Hands over what is queued if the calling thread has been away from `wait` for long.
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

    /// Hands over what is queued, and takes note of what has ended: by entering the kernel where
    /// this thread may and nobody is inside, else by sending what is queued for sending.
    pub(super) fn hand_over(&self, core: &Arc<Core>) {
        if self.ring.is_forked() {
            return; // What is queued is the parent's.
        }
        let may_enter = self.between().is_some() || self.ring.may_enter();
        let entered = may_enter.then(|| core.enter_aside());
        if let Some(entered) = entered.flatten() {
            // The next wait meets the same error and reports it.
            let _ = self.turn(core, Some(Duration::ZERO), &mut Out::queue());
            core.leave_aside(entered, self.ring.used_wakes());
        } else {
            self.send_queued(core);
        }
    }

    /// Sends by system calls what no thread has handed to the kernel yet; answers whether there may
    /// be more of a kind that the system takes at once.
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

    /// Sends the queue of a socket whose request was taken out of the ring's queue, as far as the
    /// system takes it and up to a bound; answers whether that ended it.
    fn send_by_calls(&self, socket: &mut Locked<'_>) -> bool {
        let mut left = PART_BYTES_MAX;
        loop {
            let work = socket.work.as_ref().expect("a send keeps its work");
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
            let goes_on = all && !socket.is_gone() && socket.has(flag::SENDING);
            if !goes_on || !sends_by_calls(socket) || !self.ring.take_send(socket.id) {
                return left == 0;
            }
        }
    }

    /// The port ends, and nobody waits on it any more: what it has taken for sending goes to the
    /// system, as far as that takes it without waiting, and what has gone is taken note of.
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

/// Whether what this socket sends may go out by system calls: it has a descriptor, and nothing was
/// asked to end it.
fn sends_by_calls(socket: &Locked<'_>) -> bool {
    let ends = flag::CANCEL_SEND | flag::CLOSE_RESET | flag::HUNG_UP;
    let handle = socket.handle.as_ref();
    socket.has(flag::SENDING) && !socket.has(ends) && handle.is_some_and(|it| it.place().is_none())
}
