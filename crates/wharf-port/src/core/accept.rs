//! Accepting: a stream of connections that the error of one connection cannot end.
//!
//! An accept that failed because of its own connection is skipped. If descriptors, memory or places
//! in the table run out, the listener pauses. Connections wait in its backlog and nothing spins.
//! The listener tries again after 10 ms, doubling up to a second, or at once when a socket of the
//! port closes (contract C12). Other libraries had both bugs: re-arming at once made 352,218
//! failures in 200 ms, and many servers stopped accepting after one client that reset early
//! (cpython #93821).

use std::sync::Arc;
use std::time::Duration;

use crate::accepted::Accepted;
use crate::core::deadlines::TimerTarget;
use crate::core::locked::Locked;
use crate::core::place::Place;
use crate::core::slot::{Pause, Receiving, SlotId, flag};
use crate::core::timer::TimerId;
use crate::core::{Core, Out};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::lock;
use crate::op::Op;
use crate::packet::{End, Event, PauseReason, Side};
use crate::sys::{self, AcceptFault};

const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_LAST: Duration = Duration::from_secs(1);

/// A paused listener, and how long it waits before it tries again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PausedListener {
    pub(crate) id: SlotId,
    retry: Duration,
    /// The timer of its next attempt. It has one timer, however often it tries and fails before
    /// that.
    timer: Option<TimerId>,
    /// It is in the ready queue, because a socket of the port closed.
    called: bool,
}

impl Core {
    pub(crate) fn accept(self: &Arc<Self>, id: SlotId) -> Result<Op> {
        let closed = Error::new(Operation::Accept, ErrorKind::Closed);
        let mut socket = self.lock(id, Out::queue()).ok_or(closed)?;
        if socket.is_closing() {
            return Err(closed);
        }
        if !socket.has(flag::LISTENER) {
            return Err(Error::new(Operation::Accept, ErrorKind::InvalidInput));
        }
        if socket.receiving.is_some() {
            return Err(Error::new(Operation::Accept, ErrorKind::Busy));
        }
        if socket.has_many_outcomes(Side::Reading) {
            return Err(Error::new(Operation::Accept, ErrorKind::Full));
        }
        socket.receiving = Some(Receiving::Accept);
        socket.receive_sequence = socket.next_sequence();
        let op = Op::of(self.id, id, socket.receive_sequence, Operation::Accept);
        self.driver.arm(&mut socket);
        Ok(op)
    }

    fn with_pause(&self, id: SlotId, change: impl FnOnce(&mut PausedListener)) {
        let mut paused = lock(&self.paused);
        if let Some(paused) = paused.iter_mut().find(|paused| paused.id == id) {
            change(paused);
        }
    }

    /// The retry of a paused listener is due.
    pub(crate) fn retry_accept(self: &Arc<Self>, id: SlotId, out: Out<'_>) {
        if let Some(state) = self.slots.lock(id) {
            self.with_pause(id, |paused| paused.timer = None);
            drop(state);
        }
        self.rearm(id, out);
    }

    /// A listener was queued because a socket closed. From here on the next socket that closes
    /// queues it again.
    pub(crate) fn heard_the_call(&self, id: SlotId) {
        self.with_pause(id, |paused| paused.called = false);
    }

    /// A socket of the port closed: each listener that waits for a descriptor or a place tries at
    /// once.
    pub(crate) fn socket_gone(&self) {
        let called: Vec<SlotId> = {
            let mut paused = lock(&self.paused);
            let others = paused.iter_mut().filter(|paused| !paused.called);
            let call = |paused: &mut PausedListener| {
                paused.called = true;
                paused.id
            };
            others.map(call).collect()
        };
        for id in called {
            self.wake(self.ready.push_rearm(id));
        }
    }
}

impl Locked<'_> {
    /// Reserves a place for one more accepted socket, or pauses if the table is full.
    pub(crate) fn place(&mut self) -> Option<Place> {
        let place = Place::keep(self.core);
        if place.is_none() {
            self.pause_accept(PauseReason::SocketsMax);
        }
        place
    }

    /// The driver reports an accepted socket.
    pub(crate) fn accepted(&mut self, accepted: Accepted) {
        self.accept_works();
        let name = (self.receive_sequence, Operation::Accept);
        self.deliver(name, Event::Accepted(accepted));
    }

    /// An attempt to accept found enough descriptors, memory and places. A pause is over, and the
    /// listener reports that.
    pub(crate) fn accept_works(&mut self) {
        if self.has(flag::PAUSED_ACCEPT) {
            self.resumed();
        }
    }

    /// The driver reports the error of one accept. Returns whether to continue to accept.
    pub(crate) fn accept_failed(&mut self, code: i32) -> bool {
        match sys::accept_fault(code) {
            AcceptFault::ThisConnection => true,
            AcceptFault::Descriptors => {
                self.pause_accept(PauseReason::TooManyOpenFiles);
                false
            }
            AcceptFault::Memory => {
                self.pause_accept(PauseReason::OutOfMemory);
                false
            }
            AcceptFault::Listener => {
                let how = End::Failed(Error::from_os(Operation::Accept, code));
                self.accept_ended(how);
                false
            }
        }
    }

    /// The streaming accept is over.
    pub(crate) fn accept_ended(&mut self, how: End) {
        self.forget_pause();
        let name = (self.receive_sequence, Operation::Accept);
        self.receiving = None;
        self.clear(flag::CANCEL_RECEIVE);
        self.end_pause();
        let event = Event::Ended { how, buffer: None };
        self.deliver(name, event);
    }

    /// Stops accepting for now. Reports that only the first time since the last success.
    pub(crate) fn pause_accept(&mut self, reason: PauseReason) {
        let (retry_in, has_timer) = {
            let mut paused = lock(&self.core.paused);
            match paused.iter_mut().find(|paused| paused.id == self.id) {
                // A closed socket made it try in vain: the timer of the next attempt stays as it
                // was.
                Some(paused) if paused.timer.is_some() => (paused.retry, true),
                Some(paused) => {
                    paused.retry = (paused.retry * 2).min(RETRY_LAST);
                    (paused.retry, false)
                }
                None => {
                    paused.push(PausedListener {
                        id: self.id,
                        retry: RETRY_FIRST,
                        timer: None,
                        called: false,
                    });
                    (RETRY_FIRST, false)
                }
            }
        };
        if !self.has(flag::PAUSED_ACCEPT) {
            self.set(flag::PAUSED_ACCEPT);
            let name = (self.receive_sequence, Operation::Accept);
            self.deliver(name, Event::Paused { reason, retry_in });
        }
        if has_timer {
            return;
        }
        if let Some(retry_at) = self.core.driver.now().checked_add(retry_in) {
            // A thread that finds the timer due waits for this slot's lock before it clears
            // `timer`.
            let timer = self.core.set_timer(retry_at, TimerTarget::Accept(self.id));
            self.core.with_pause(self.id, |paused| paused.timer = timer);
        }
    }

    /// Whether as many of the listener's connections wait to be taken as it may have operations.
    /// Then it leaves the others in its backlog until half of these are taken.
    pub(crate) fn has_many_pending_accepts(&mut self) -> bool {
        let pending = self.packets_pending();
        let full = pending >= self.core.options.operations_per_socket_max;
        if full {
            self.set_pause(Pause::Untaken);
        }
        full
    }

    /// Connections of a listener were taken. It continues if it had stopped because of them.
    pub(crate) fn accepts_were_taken(&mut self) {
        let pending = self.packets_pending();
        if self.is_in(Pause::Untaken) && pending <= self.core.options.operations_per_socket_max / 2
        {
            self.end_pause();
            self.go_on_receiving();
        }
    }

    fn resumed(&mut self) {
        self.forget_pause();
        let name = (self.receive_sequence, Operation::Accept);
        self.deliver(name, Event::Resumed);
    }

    fn forget_pause(&mut self) {
        if self.has(flag::PAUSED_ACCEPT) {
            self.clear(flag::PAUSED_ACCEPT);
            let mut paused = lock(&self.core.paused);
            let place = paused.iter().position(|paused| paused.id == self.id);
            let timer = place.and_then(|place| paused.swap_remove(place).timer);
            drop(paused);
            if let Some(timer) = timer {
                lock(&self.core.timers).cancel(timer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::core::Out;
    use crate::packet::PauseReason;
    use crate::{Key, Port, lock};

    /// A case sees when a listener accepts again, and not how often it has tried before.
    #[test]
    fn a_paused_listener_waits_twice_as_long_each_time_up_to_a_second() {
        let port = Port::builder().build().expect("a driver of this system");
        let core = &port.core;
        let listener = port.listen(([127, 0, 0, 1], 0), Key(1));
        let listener = listener.expect("loopback listens");
        let id = listener.socket().slot_id();
        for _ in 0..2 {
            let mut socket = core.lock(id, Out::queue()).expect("it is open");
            let mut waits = Vec::new();
            for _ in 0..9 {
                socket.pause_accept(PauseReason::OutOfMemory);
                waits.push(lock(&core.paused)[0].retry.as_millis());
                // As if the timer of the next attempt were due.
                core.with_pause(id, |paused| paused.timer = None);
            }
            assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
            socket.accept_works();
        }
    }
}
