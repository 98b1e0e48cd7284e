//! Sending: a bounded queue per socket, one request in the kernel, whole sends in order.
//!
//! Concurrent sends interleave on io_uring (measured: 10 of 10). So the queue goes out gathered, in
//! one request at a time (contract C6). A send that was cut short ends the write side, because the
//! peer could not understand what follows (C10).

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::buffer::Buffer;
use crate::core::locked::Locked;
use crate::core::slot::{SlotId, Writing, flag};
use crate::core::work::{Queued, Work};
use crate::core::{Core, Out};
use crate::driver::{self, Transmitted};
use crate::error::{Error, ErrorKind, Operation, Refused, Result};
use crate::op::{Cancel, Op};
use crate::packet::{End, Event, Side};
use crate::sys;

/// The most bytes of a socket that system calls send at a time: one part. The slot is locked
/// meanwhile, and if the peer reads as fast as this side sends, one turn would last as long as there
/// are bytes to send.
pub(crate) const PART_BYTES_MAX: usize = 1 << 20;

impl Core {
    pub(crate) fn send(
        self: &Arc<Self>,
        id: SlotId,
        buffer: Buffer,
        reported: bool,
    ) -> Result<Op, Refused<Buffer>> {
        let bytes: &[u8] = &buffer;
        let count = bytes.len();
        let mut socket = match self.lock_with_room(id, count, reported) {
            Ok(socket) => socket,
            Err(kind) => return Err(Refused::new(Operation::Send, kind, buffer)),
        };
        let sequence = socket.next_sequence();
        let op = Op::of(self.id, id, sequence, Operation::Send);
        let tried = if !socket.has_sends() && count > 0 {
            let bytes = &bytes[..count.min(PART_BYTES_MAX)];
            self.driver.send_at_once(&mut socket, bytes)
        } else {
            None
        };
        if tried == Some(Ok(count)) {
            if reported {
                let name = (sequence, Operation::Send);
                socket.deliver(name, Event::Sent { buffer });
            }
            return Ok(op);
        }
        let gone = tried.map_or(0, |result| result.unwrap_or(0));
        socket.queue_send((buffer, count - gone), (sequence, reported));
        if let Some(Err(code)) = tried {
            socket.send_failed(code);
        }
        socket.go_on_sending();
        socket.spare_the_pool();
        Ok(op)
    }

    /// Copies the leases that the next request covers, at most `sends_max` sends, out of a pool
    /// that runs short. The system keeps them as long as the peer reads nothing. Without this, as
    /// many peers that do not read as the pool has buffers blocked every stream.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn spare_the_pool_of_request(work: &mut Work, sends_max: usize) {
        let sends = work.sends.iter_mut().take(sends_max);
        sends.for_each(Queued::leave_scarce_pool);
    }

    pub(crate) fn shutdown(self: &Arc<Self>, id: SlotId) -> Result<Op> {
        let closed = Error::new(Operation::Shutdown, ErrorKind::Closed);
        let mut socket = self.lock(id, Out::queue()).ok_or(closed)?;
        socket
            .may_send()
            .map_err(|kind| Error::new(Operation::Shutdown, kind))?;
        if socket.has_many_outcomes(Side::End) {
            return Err(Error::new(Operation::Shutdown, ErrorKind::Full));
        }
        socket.set_writing(Writing::Shut);
        let sequence = socket.next_sequence();
        let sends = &mut socket.work().sends;
        sends.push_back(Queued::Shutdown { sequence });
        socket.go_on_sending();
        Ok(Op::of(self.id, id, sequence, Operation::Shutdown))
    }

    pub(crate) fn cancel_send(self: &Arc<Self>, op: Op, out: Out<'_>) -> Cancel {
        let id = op.slot_id();
        let Some(mut socket) = self.lock(id, out) else {
            return Cancel::NotFound;
        };
        let (closing, sending) = (socket.is_closing(), socket.is_sending());
        let Some(work) = socket.work.as_mut() else {
            return Cancel::NotFound;
        };
        let place = work
            .sends
            .iter()
            .position(|queued| queued.sequence() == op.sequence);
        let Some(place) = place else {
            return Cancel::NotFound;
        };
        if closing || work.cancelled_send == Some(op.sequence) {
            return Cancel::NotFound;
        }
        if sending && place < work.sends_in_request {
            if work.cancelled_send.is_some() {
                return Cancel::NotFound; // A cancel is in progress, and it ends this send too.
            }
            work.cancelled_send = Some(op.sequence);
            socket.note_send_cancelled();
            self.driver.cancel(&mut socket, driver::Direction::Writing);
            return Cancel::Requested;
        }
        socket.cut_send(place);
        socket.go_on_sending();
        Cancel::Requested
    }
}

impl Locked<'_> {
    /// Queues a send of which `left` bytes are left. Other bytes of it may be sent only if it is
    /// the first in the queue.
    fn queue_send(&mut self, (buffer, left): (Buffer, usize), (sequence, reported): (u32, bool)) {
        let work = self.work();
        work.queued_bytes += left;
        if work.sends.is_empty() {
            work.head_sent = buffer.len() - left;
        }
        work.sends.push_back(Queued::Bytes {
            sequence,
            buffer,
            reported,
        });
    }

    /// Copies leases that only wait in the queue out of a pool that runs short (contract C8): a
    /// thousand peers that never read must not starve those that do.
    fn spare_the_pool(&mut self) {
        let Some(work) = self.state.work.as_mut() else {
            return;
        };
        let waiting = work.sends.len() > work.sends_in_request;
        if !waiting {
            return;
        }
        // A lease may be of another port, and then that port's pool may run short.
        let newest = work.sends.back();
        if self.core.pool.is_scarce() || newest.is_some_and(Queued::comes_from_scarce_pool) {
            let waiting = work.sends.iter_mut().skip(work.sends_in_request);
            waiting.for_each(Queued::leave_scarce_pool);
        }
    }

    /// Sends what is queued, unless a request is in progress.
    pub(crate) fn go_on_sending(&mut self) {
        if !self.is_sending() {
            self.send_queue();
        }
        self.recycle();
    }

    /// Sends the queue from its head, until it is empty, the system takes no more, or a request is
    /// in progress.
    fn send_queue(&mut self) {
        let driver = &self.core.driver;
        let mut left = PART_BYTES_MAX;
        while let Some(head) = self.work.as_ref().and_then(|work| work.sends.front()) {
            let outcome = match head {
                Queued::Bytes { buffer, .. } if buffer.is_empty() => Transmitted::Sent(0),
                Queued::Bytes { .. } => driver.transmit(self, left),
                Queued::Shutdown { .. } => match driver.shutdown_write(self) {
                    Some(result) => {
                        self.shut_down(result);
                        continue;
                    }
                    None => Transmitted::Submitted { sends: 0 },
                },
            };
            match outcome {
                Transmitted::Sent(count) => {
                    left -= count;
                    self.sent(count);
                }
                Transmitted::Blocked => return,
                Transmitted::Submitted { sends } => {
                    self.begin_sending();
                    self.work().sends_in_request = sends;
                    return;
                }
                Transmitted::Failed(code) => self.send_failed(code),
            }
        }
    }

    /// The shutdown at the head of the queue was carried out, or failed with a system code.
    fn shut_down(&mut self, result: Result<(), i32>) {
        let how = match result {
            Ok(()) => End::Finished,
            Err(code) => End::Failed(Error::from_os(Operation::Shutdown, code)),
        };
        self.end_head(how);
        // With one place in the queue, the shutdown held `SendReady` back.
        self.deliver_send_ready_if_owed();
    }

    /// The system has taken `count` more bytes of the queue.
    fn sent(&mut self, mut count: usize) {
        while let Some(work) = self.work.as_mut() {
            let left = match work.sends.front() {
                Some(Queued::Bytes { buffer, .. }) => buffer.len() - work.head_sent,
                // No request covers a shutdown: every byte belonged to a send before it.
                Some(Queued::Shutdown { .. }) | None => break,
            };
            if left > count {
                work.head_sent += count;
                work.queued_bytes -= count;
                break;
            }
            count -= left;
            work.queued_bytes -= left;
            work.head_sent = 0;
            match work.sends.pop_front() {
                Some(Queued::Bytes {
                    sequence,
                    buffer,
                    reported: true,
                }) => self.deliver((sequence, Operation::Send), Event::Sent { buffer }),
                Some(Queued::Bytes { .. } | Queued::Shutdown { .. }) | None => {}
            }
            if count == 0 {
                break;
            }
        }
        self.deliver_send_ready_if_owed();
    }

    /// The request at the head failed with a system code: the write side is over.
    pub(crate) fn send_failed(&mut self, code: i32) {
        let how = if self.is_closing() && sys::is_cancelled(code) {
            End::Aborted
        } else {
            let error = Error::from_os(Operation::Send, code);
            // The system reports once how a connection broke, and then ends the stream of bytes as
            // if cleanly. So the port remembers the break. A broken pipe is no such report, because
            // a FIN came before it. A lack of resources on this machine is none either, because the
            // connection is intact.
            let lacks = matches!(error.kind(), ErrorKind::Full | ErrorKind::OutOfMemory);
            if !lacks && !sys::is_broken_pipe(code) {
                self.note_broken();
            }
            End::Failed(error)
        };
        self.end_writing(how);
    }

    /// Ends the head of the queue with `how`, and every entry after it as aborted.
    pub(crate) fn end_writing(&mut self, how: End) {
        debug_assert!(!self.is_sending(), "the driver holds nothing of the queue");
        self.end_write_side();
        let mut how = how;
        while self
            .work
            .as_ref()
            .is_some_and(|work| !work.sends.is_empty())
        {
            self.end_head(how);
            how = End::Aborted;
        }
        self.deliver_send_ready_if_owed();
    }

    /// Nothing more can be sent. A write side that was shut down refuses sends for that reason.
    fn end_write_side(&mut self) {
        let next = match self.writing() {
            Writing::Open | Writing::Ended => Writing::Ended,
            Writing::Shut => Writing::Shut,
        };
        self.set_writing(next);
    }

    /// Ends the head of the queue, and returns its buffer in a packet.
    fn end_head(&mut self, how: End) {
        let work = self
            .work
            .as_mut()
            .expect("a queue with a head is in its work block");
        let head = work
            .sends
            .pop_front()
            .expect("the caller looked at the head");
        work.queued_bytes -= head.count() - work.head_sent;
        let sent = std::mem::take(&mut work.head_sent);
        let (name, event) = head.ended(how, Some(sent));
        self.deliver(name, event);
    }

    /// Removes a send from the queue that no request in the kernel covers. If part of it has gone
    /// out, the write side is over.
    pub(crate) fn cut_send(&mut self, place: usize) {
        let work = self.work.as_mut().expect("the caller found the send in it");
        if place == 0 && work.head_sent > 0 {
            return self.end_writing(End::Cancelled);
        }
        let cut = work
            .sends
            .remove(place)
            .expect("the caller found the send there");
        work.queued_bytes -= cut.count();
        match cut {
            Queued::Bytes { .. } => {}
            Queued::Shutdown { .. } => self.set_writing(Writing::Open),
        }
        let (name, event) = cut.ended(End::Cancelled, Some(0));
        self.deliver(name, event);
        self.deliver_send_ready_if_owed();
    }

    /// The driver reports the end of its request: the bytes that went out, or a system code.
    /// Continues with the queue.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn send_stopped(&mut self, result: Result<usize, i32>) {
        let asked = self.is_send_cancelled();
        self.end_sending();
        if !asked && result.is_ok_and(|count| self.only_send_is_out(count)) {
            return self.recycle();
        }
        let target = self.work.as_mut().and_then(|work| {
            work.sends_in_request = 0;
            work.cancelled_send.take()
        });
        match result {
            Ok(count) => self.sent(count),
            // No caller asked for this cancel: the thread that had submitted the request is gone.
            // Continue.
            Err(code) if sys::is_cancelled(code) && !self.is_resetting() => {
                debug_assert!(
                    asked || target.is_none(),
                    "a cancelled send was marked as such"
                );
            }
            Err(code) => self.send_failed(code),
        }
        let place = target.and_then(|target| {
            let work = self.work.as_ref()?;
            let mut sends = work.sends.iter();
            sends.position(|queued| queued.sequence() == target)
        });
        if let Some(place) = place {
            self.cut_send(place);
        }
        if self.is_resetting() {
            self.end_writing(End::Aborted);
        }
        self.go_on_sending();
        if self.is_closing() {
            self.settle();
        }
    }

    /// Handles the most frequent report: the only send went out as a whole, and needs no packet.
    /// Its buffer is dropped here, and nothing else is left to do.
    fn only_send_is_out(&mut self, count: usize) -> bool {
        let in_line = !self.is_closing() && !self.has(flag::SEND_READY_OWED);
        let Some(work) = self.work.as_mut() else {
            return false;
        };
        let only = work.sends.len() == 1 && work.queued_bytes == count;
        if !only || !in_line {
            return false;
        }
        match work.sends[0] {
            Queued::Bytes {
                reported: false, ..
            } => {}
            Queued::Bytes { reported: true, .. } | Queued::Shutdown { .. } => return false,
        }
        work.sends_in_request = 0;
        work.queued_bytes = 0;
        work.head_sent = 0;
        work.sends.pop_front();
        true
    }

    /// The driver reports that its request was cancelled, and cannot say how much of it went out
    /// (Windows). The write side is over, and the packets make no claim about the bytes.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn send_cut_short(&mut self) {
        self.end_sending();
        self.end_write_side();
        let work = self
            .work
            .as_mut()
            .expect("a request of the writing side keeps its work");
        let target = work.cancelled_send.take();
        let cut = std::mem::take(&mut work.sends_in_request);
        work.queued_bytes = 0;
        work.head_sent = 0;
        for (place, queued) in std::mem::take(&mut work.sends).into_iter().enumerate() {
            let count = (place >= cut).then_some(0);
            let asked = target == Some(queued.sequence()) && !self.is_closing();
            let how = if asked { End::Cancelled } else { End::Aborted };
            let (name, event) = queued.ended(how, count);
            self.deliver(name, event);
        }
        self.deliver_send_ready_if_owed();
        if self.is_closing() {
            self.settle();
        } else {
            self.recycle();
        }
    }
}
