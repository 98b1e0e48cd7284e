//! `echo`: sends back what arrives, without a copy and in order, and a FIN after the peer's FIN.
//!
//! The port does back-pressure: it does not read a stream whose leases wait to be sent. Bytes that
//! a full queue refuses wait here until `SendReady`. An idle connection has no entry.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;

use wharf_port::{Buffer, Close, End, ErrorKind, Event, Packet, SocketRef};

use super::Bytes;
use crate::account::{Ledger, Left};

#[derive(Debug, Default)]
pub(crate) struct Echo {
    waiting: HashMap<SocketRef, Waiting>,
    /// Byte counts of each connection, if the server reports them.
    told: Option<HashMap<SocketRef, Bytes>>,
}

/// What a connection could not send yet.
#[derive(Debug, Default)]
struct Waiting {
    buffers: VecDeque<Buffer>,
    finished: bool,
}

impl Echo {
    /// `tells`: count the bytes of each connection.
    pub(super) fn new(tells: bool) -> Self {
        Echo {
            told: tells.then(HashMap::new),
            ..Echo::default()
        }
    }

    pub(super) fn take_bytes(&mut self, socket: SocketRef) -> Bytes {
        let told = self.told.as_mut().and_then(|it| it.remove(&socket));
        told.unwrap_or_default()
    }

    fn count(&mut self, socket: SocketRef, count: impl FnOnce(&mut Bytes)) {
        if let Some(told) = &mut self.told {
            count(told.entry(socket).or_default());
        }
    }

    pub(super) fn handle(&mut self, packet: Packet, ledger: &Ledger) -> Option<Left> {
        let socket = packet.socket;
        match packet.event {
            Event::Received(lease) => {
                let bytes = lease.len() as u64;
                ledger.bytes_in.fetch_add(bytes, Ordering::Relaxed);
                self.count(socket, |it| it.received += bytes);
                self.send(socket, lease.into(), ledger);
                None
            }
            Event::SendReady => self.send_on(socket, ledger),
            Event::Ended {
                how: End::Finished, ..
            } => self.finish(socket, ledger),
            Event::ShutDown {
                how: End::Finished, ..
            } => self.leave(socket, Close::Flush, Left::Fin, ledger),
            Event::SendFailed {
                how, buffer, count, ..
            } => {
                let unsent = buffer.len() - count.unwrap_or(0);
                ledger.bytes_out.fetch_sub(unsent as u64, Ordering::Relaxed);
                self.count(socket, |it| it.sent -= unsent as u64);
                self.leave(socket, Close::Reset, left_by_end(how), ledger)
            }
            Event::Ended { how, .. } | Event::ShutDown { how, .. } => {
                self.leave(socket, Close::Reset, left_by_end(how), ledger)
            }
            _ => None,
        }
    }

    fn send(&mut self, socket: SocketRef, buffer: Buffer, ledger: &Ledger) {
        if let Some(waiting) = self.waiting.get_mut(&socket) {
            return waiting.buffers.push_back(buffer);
        }
        let bytes = buffer.len() as u64;
        match socket.send(buffer) {
            Ok(_) => {
                ledger.bytes_out.fetch_add(bytes, Ordering::Relaxed);
                self.count(socket, |it| it.sent += bytes);
            }
            Err(refused) if refused.error.kind() == ErrorKind::Full => {
                let waiting = self.waiting.entry(socket).or_default();
                waiting.buffers.push_back(refused.value);
            }
            // A packet reports the end of the write side, or has reported it.
            Err(_) => {}
        }
    }

    /// Sends what waited, as far as the queue has space.
    fn send_on(&mut self, socket: SocketRef, ledger: &Ledger) -> Option<Left> {
        let mut waiting = self.waiting.remove(&socket)?;
        while let Some(buffer) = waiting.buffers.pop_front() {
            self.send(socket, buffer, ledger);
            if let Some(again) = self.waiting.get_mut(&socket) {
                again.buffers.append(&mut waiting.buffers);
                again.finished = waiting.finished;
                return None;
            }
        }
        if waiting.finished {
            self.finish(socket, ledger)
        } else {
            None
        }
    }

    /// The peer has sent its FIN: send ours after everything else.
    fn finish(&mut self, socket: SocketRef, ledger: &Ledger) -> Option<Left> {
        if let Some(waiting) = self.waiting.get_mut(&socket) {
            waiting.finished = true;
            return None;
        }
        match socket.shutdown() {
            Ok(_) => None,
            Err(_) => self.leave(socket, Close::Reset, Left::Error, ledger),
        }
    }

    fn leave(
        &mut self,
        socket: SocketRef,
        how: Close,
        left: Left,
        ledger: &Ledger,
    ) -> Option<Left> {
        self.waiting.remove(&socket);
        let close = || socket.close(how).is_ok();
        ledger.leaves(left, close).then_some(left)
    }
}

fn left_by_end(how: End) -> Left {
    match how.error_kind() {
        None => Left::Fin,
        Some(ErrorKind::Reset) => Left::Reset,
        Some(_) => Left::Error,
    }
}
