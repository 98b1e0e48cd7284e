//! `echo`: what arrives goes back, without a copy, in order, and after the FIN so does ours.
//!
//! Back-pressure is the port's: a stream whose leases wait to be sent is not read. The few bytes
//! that a full queue refuses wait here until `SendReady`; an idle connection has no entry.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;

use wharf_port::{Buffer, Close, End, ErrorKind, Event, Operation, Packet, SocketRef};

use super::Step;
use crate::account::{Ledger, Left};

#[derive(Debug, Default)]
pub(crate) struct Echo {
    waiting: HashMap<SocketRef, Waiting>,
}

/// What a connection could not send yet.
#[derive(Debug, Default)]
struct Waiting {
    buffers: VecDeque<Buffer>,
    finished: bool,
}

impl Echo {
    pub(super) fn handle(&mut self, packet: Packet, ledger: &Ledger) -> Step {
        let socket = packet.socket;
        match (packet.op.operation(), packet.event) {
            (_, Event::Received(lease)) => {
                ledger
                    .bytes_in
                    .fetch_add(lease.len() as u64, Ordering::Relaxed);
                self.send(socket, lease.into(), ledger)
            }
            (_, Event::SendReady) => self.send_on(socket, ledger),
            (
                Operation::Receive,
                Event::Ended {
                    how: End::Finished, ..
                },
            ) => self.finish(socket),
            (
                Operation::Shutdown,
                Event::Ended {
                    how: End::Finished, ..
                },
            ) => self.leave(socket, Close::Flush, Left::Fin),
            (Operation::Send, Event::Ended { how, buffer, count }) => {
                let unsent = buffer.map_or(0, |buffer| buffer.len()) - count.unwrap_or(0);
                ledger.bytes_out.fetch_sub(unsent as u64, Ordering::Relaxed);
                self.leave(socket, Close::Reset, left_by_end(how))
            }
            (_, Event::Ended { how, .. }) => self.leave(socket, Close::Reset, left_by_end(how)),
            _ => Step::Stays,
        }
    }

    fn send(&mut self, socket: SocketRef, buffer: Buffer, ledger: &Ledger) -> Step {
        if let Some(waiting) = self.waiting.get_mut(&socket) {
            waiting.buffers.push_back(buffer);
            return Step::Stays;
        }
        let bytes = buffer.len() as u64;
        match socket.send(buffer) {
            Ok(_) => {
                ledger.bytes_out.fetch_add(bytes, Ordering::Relaxed);
                Step::Stays
            }
            Err(refused) if refused.error.kind() == ErrorKind::Full => {
                self.waiting
                    .entry(socket)
                    .or_default()
                    .buffers
                    .push_back(refused.value);
                Step::Stays
            }
            // The end of the write side tells itself, or has been told.
            Err(_) => Step::Stays,
        }
    }

    /// Sends what waited, as far as it goes now.
    fn send_on(&mut self, socket: SocketRef, ledger: &Ledger) -> Step {
        let Some(mut waiting) = self.waiting.remove(&socket) else {
            return Step::Stays;
        };
        while let Some(buffer) = waiting.buffers.pop_front() {
            let step = self.send(socket, buffer, ledger);
            if let Some(again) = self.waiting.get_mut(&socket) {
                again.buffers.append(&mut waiting.buffers);
                again.finished = waiting.finished;
                return step;
            }
        }
        if waiting.finished {
            self.finish(socket)
        } else {
            Step::Stays
        }
    }

    /// The peer has sent its FIN: ours goes out behind everything else.
    fn finish(&mut self, socket: SocketRef) -> Step {
        if let Some(waiting) = self.waiting.get_mut(&socket) {
            waiting.finished = true;
            return Step::Stays;
        }
        match socket.shutdown() {
            Ok(_) => Step::Stays,
            Err(_) => self.leave(socket, Close::Reset, Left::Error),
        }
    }

    fn leave(&mut self, socket: SocketRef, how: Close, left: Left) -> Step {
        self.waiting.remove(&socket);
        // Closed already means counted already.
        match socket.close(how) {
            Ok(_) => Step::Leaves(left),
            Err(_) => Step::Stays,
        }
    }
}

fn left_by_end(how: End) -> Left {
    match how.error_kind() {
        None => Left::Fin,
        Some(ErrorKind::Reset) => Left::Reset,
        Some(_) => Left::Error,
    }
}
