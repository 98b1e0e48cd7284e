//! Steps: how a request continues, fails at random, or waits for something to change.
//!
//! A step decides and moves bytes, as a kernel would. Its result reaches the port in a report that
//! may come much later. Between the two a cancel or a close is too late. Drivers and their callers
//! often get this race wrong.

use std::io::Read;
use std::sync::Arc;

use super::code;
use super::request::{Asked, Outcome};
use super::socket::{Knock, Owner, SocketId};
use super::world::World;
use crate::accepted::Accepted;
use crate::address::Address;
use crate::core::Core;
use crate::core::locked::Locked;
use crate::core::place::Place;
use crate::core::slot::{Receiving, SocketState};
use crate::core::work::{Queued, Work};
use crate::driver::Direction;
use crate::sys;

/// The longest time for which descriptors are short.
const SHORTAGE_NS_MAX: u64 = 300_000_000;

impl World {
    /// Performs one step of a request, unless it is over. The slot of the socket is locked.
    pub(super) fn step(
        &mut self,
        socket: &Locked<'_>,
        (id, direction, number): (SocketId, Direction, u64),
    ) {
        let Some(request) = self.request(id, direction, number) else {
            return;
        };
        request.stepping = false;
        if request.over {
            return;
        }
        request.check(socket);
        if std::mem::take(&mut request.doomed) {
            self.faults.unasked_cancels += 1;
            return self.end_cancelled(id, direction);
        }
        match request.asked {
            Asked::Read(Receiving::Accept) => self.step_accept(socket.core, id),
            Asked::Read(Receiving::Connect) => {
                let to = socket.queues().and_then(|work| work.connect_to.as_ref());
                let address = Address::from_system(to.expect("a connect has its address"));
                if let Some(result) = self.try_connect(id, &address) {
                    self.decide(id, direction, Outcome::Connected(result));
                }
            }
            Asked::Read(Receiving::Stream | Receiving::Into) => {
                if let Some(outcome) = self.try_receive(id, socket) {
                    self.decide(id, direction, outcome);
                }
            }
            Asked::Read(Receiving::Watch) => {
                let stream = self.sockets.stream(id).expect("a watched socket");
                if let Some(code) = stream.error.take() {
                    self.decide(id, direction, Outcome::Stopped(Some(code)));
                } else if stream.finished || stream.broken {
                    self.decide(id, direction, Outcome::Stopped(None));
                }
            }
            Asked::Send => {
                if let Some(result) = self.try_send(id, socket) {
                    self.decide(id, direction, Outcome::Sent(result));
                }
            }
        }
    }

    /// Ends a request because of a cancel, if it is not over yet.
    pub(super) fn cancel(&mut self, id: SocketId, direction: Direction, number: u64) {
        match self.request(id, direction, number) {
            Some(request) if !request.over => self.end_cancelled(id, direction),
            _ => self.faults.lost_cancels += 1,
        }
    }

    fn request(
        &mut self,
        id: SocketId,
        direction: Direction,
        number: u64,
    ) -> Option<&mut super::request::Request> {
        let request = self.sockets.at_mut(id)?.request_of(direction)?;
        (request.number == number).then_some(request)
    }

    fn end_cancelled(&mut self, id: SocketId, direction: Direction) {
        let socket = self.sockets.at_mut(id).expect("it has a request");
        let request = socket.request_of(direction).expect("the caller found it");
        let outcome = match request.asked {
            Asked::Read(Receiving::Accept) => Outcome::AcceptEnded(Some(code::CANCELLED)),
            Asked::Read(Receiving::Connect) => Outcome::Connected(Err(code::CANCELLED)),
            Asked::Read(Receiving::Stream | Receiving::Into | Receiving::Watch) => {
                Outcome::Stopped(Some(code::CANCELLED))
            }
            Asked::Send if request.progress > 0 => Outcome::Sent(Ok(request.progress)),
            Asked::Send => Outcome::Sent(Err(code::CANCELLED)),
        };
        self.decide(id, direction, outcome);
    }

    fn decide(&mut self, id: SocketId, direction: Direction, outcome: Outcome) {
        let delay = self.delay_ns(1);
        self.report(id, direction, outcome, delay);
    }

    fn step_accept(&mut self, core: &Arc<Core>, id: SocketId) {
        let delay = self.delay_ns(1);
        let burst = self.random.chance(self.options.accept_bursts);
        let mut taken = 0;
        loop {
            let listener = self.sockets.listener(id).expect("an accepting socket");
            if listener.backlog.is_empty() {
                break;
            }
            match self.try_accept(core, id) {
                Ok(accepted) => {
                    let outcome = Outcome::Accepted(Box::new(accepted));
                    self.report(id, Direction::Reading, outcome, delay);
                    taken += 1;
                }
                Err(code) => {
                    self.decide(id, Direction::Reading, Outcome::AcceptEnded(code));
                    break;
                }
            }
            if !burst {
                self.look_again(id, Direction::Reading);
                break;
            }
        }
        self.faults.accept_bursts += u64::from(taken > 1);
    }

    /// Accepts the first connection of the backlog. Fails with a code, or without one if there is
    /// no free slot.
    fn try_accept(&mut self, core: &Arc<Core>, id: SocketId) -> Result<Accepted, Option<i32>> {
        if self.now_ns >= self.shortage_until_ns
            && self.random.chance(self.options.descriptor_shortages)
        {
            self.faults.descriptor_shortages += 1;
            self.shortage_until_ns = self.now_ns + 1 + self.random.below(SHORTAGE_NS_MAX);
        }
        if self.now_ns < self.shortage_until_ns {
            self.faults.descriptor_errors += 1;
            return Err(Some(code::TOO_MANY_FILES));
        }
        if self.random.chance(self.options.accept_errors) {
            self.faults.accept_errors += 1;
            if let Some(gone) = self.take_from_backlog(id, 0) {
                self.close(gone, true);
            }
            return Err(Some(code::CONNECTION_GONE));
        }
        let mut place = Place::keep(core).ok_or(None)?;
        let Ok(handle) = self.token() else {
            place.give_up();
            return Err(Some(code::TOO_MANY_FILES));
        };
        let near = self.take_from_backlog(id, 0).expect("the caller looked");
        let raw = sys::raw_number(&handle);
        let socket = self.sockets.at_mut(near).expect("the backlog has it");
        socket.owner = Owner::Port { raw, slot: None };
        let peer = socket.peer.clone();
        self.by_raw.insert(raw, near);
        place.mark(near.encode());
        let place = Some(place);
        Ok(Accepted {
            handle,
            peer,
            place,
        })
    }

    fn try_connect(&mut self, id: SocketId, address: &Address) -> Option<Result<(), i32>> {
        if self.random.chance(self.options.connect_errors) {
            self.faults.connect_errors += 1;
            let codes = [code::REFUSED, code::TIMED_OUT, code::UNREACHABLE];
            return Some(Err(codes[self.random.below(3) as usize]));
        }
        match self.knock(id, address) {
            Knock::Connected => Some(Ok(())),
            Knock::Refused => Some(Err(code::REFUSED)),
            Knock::Unanswered => None,
        }
    }

    fn breaking_code(&mut self) -> i32 {
        let codes = [code::RESET, code::TIMED_OUT, code::UNREACHABLE];
        codes[self.random.below(3) as usize]
    }

    /// Returns what a receive gets now, if anything.
    fn try_receive(&mut self, id: SocketId, socket: &Locked<'_>) -> Option<Outcome> {
        if self.random.chance(self.options.receive_errors) {
            self.faults.receive_errors += 1;
            let code = self.breaking_code();
            self.break_connection(id, code);
        }
        let stream = self.sockets.stream(id).expect("a receiving socket");
        if stream.incoming.is_empty() {
            return if stream.finished {
                Some(Outcome::Stopped(None))
            } else if let Some(code) = stream.error.take() {
                Some(Outcome::Stopped(Some(code)))
            } else {
                stream.broken.then_some(Outcome::Stopped(None))
            };
        }
        let into = socket.queues().and_then(|work| work.intos.front());
        let outcome = match into {
            Some(into) => {
                let mut bytes = vec![0; into.buffer.len()];
                let count = self.read_some(id, &mut bytes);
                bytes.truncate(count);
                Outcome::ReceivedInto(bytes)
            }
            None => match socket.core.pool().take() {
                Some(mut buffer) => {
                    let count = self.read_some(id, socket.core.pool().bytes_of_mut(&mut buffer));
                    Outcome::Received(buffer, count)
                }
                None => {
                    self.faults.buffer_shortages += 1;
                    Outcome::NoBuffer
                }
            },
        };
        Some(outcome)
    }

    /// Moves bytes that have arrived. There is at least one.
    fn read_some(&mut self, id: SocketId, space: &mut [u8]) -> usize {
        let stream = self.sockets.stream(id).expect("the caller's");
        let mut most = stream.incoming.len().min(space.len());
        if most > 1 && self.random.chance(self.options.short_receives) {
            self.faults.short_receives += 1;
            most = self.random.at_least_one(most - 1);
        }
        let count = stream.incoming.read(&mut space[..most]);
        let count = count.expect("memory can be read");
        if let Some(other) = stream.other {
            self.look_again(other, Direction::Writing);
        }
        count
    }

    /// Returns the result of a send now, if there is one. A send ends when the system has all of
    /// it.
    fn try_send(&mut self, id: SocketId, state: &SocketState) -> Option<Result<usize, i32>> {
        if self.random.chance(self.options.send_errors) {
            self.faults.send_errors += 1;
            let code = self.breaking_code();
            self.break_connection(id, code);
        }
        let socket = self.sockets.at_mut(id).expect("the caller's");
        let request = socket.request_of(Direction::Writing).expect("the caller's");
        let (sends, progress) = (request.memory.count(), request.progress);
        let stream = self.sockets.stream(id).expect("a sending socket");
        if stream.broken || stream.write_ended {
            // Bytes that went out before are reported first. The next request reports the error.
            return Some(if progress > 0 {
                Ok(progress)
            } else {
                Err(stream.error.take().unwrap_or(code::BROKEN_PIPE))
            });
        }
        let work = state.queues().expect("a sending socket has work");
        let left = bytes_left(work, sends, progress);
        let Some(other) = stream.other else {
            // The other end is closed, so it replies with a reset.
            self.break_end(id, code::RESET);
            return Some(Ok(progress + left));
        };
        let capacity = self.options.buffer_bytes as usize;
        let far = self.sockets.stream(other).expect("the other end");
        let mut count = left.min(capacity.saturating_sub(far.incoming.len()));
        let short = count > 1 && self.random.chance(self.options.short_sends);
        if short {
            self.faults.short_sends += 1;
            count = self.random.at_least_one(count - 1);
        }
        copy(work, sends, progress, count, &mut far.incoming);
        let socket = self.sockets.at_mut(id).expect("the caller's");
        let request = socket.request_of(Direction::Writing).expect("the caller's");
        request.progress += count;
        if count > 0 {
            self.look_again(other, Direction::Reading);
        }
        (short || count == left).then_some(Ok(progress + count))
    }
}

/// Returns the bytes of the first sends in the queue, without those that are sent.
fn unsent(work: &Work, sends: usize, progress: usize) -> impl Iterator<Item = &[u8]> {
    let mut skip = work.head_sent + progress;
    let sends = work.sends.iter().take(sends).filter_map(Queued::bytes);
    sends.map(move |bytes| {
        let skipped = skip.min(bytes.len());
        skip -= skipped;
        &bytes[skipped..]
    })
}

fn bytes_left(work: &Work, sends: usize, progress: usize) -> usize {
    unsent(work, sends, progress).map(<[u8]>::len).sum()
}

fn copy(
    work: &Work,
    sends: usize,
    progress: usize,
    count: usize,
    to: &mut std::collections::VecDeque<u8>,
) {
    let mut left = count;
    for bytes in unsent(work, sends, progress) {
        let some = bytes.len().min(left);
        to.extend(&bytes[..some]);
        left -= some;
    }
    debug_assert_eq!(left, 0, "the caller counted them");
}
