//! Reports: what the port learns of its requests, and in which of its states.
//!
//! This is the counterpart of the code that reads a completion queue. Each report is matched with
//! its request and with the socket's flags. A report that does not match is a bug of the core and
//! ends the test.

use std::sync::Arc;

use super::request::Outcome;
use super::socket::SocketId;
use super::{Sim, code};
use crate::core::locked::Locked;
use crate::core::slot::Receiving;
use crate::core::{Core, Out};
use crate::driver::Direction;

impl Sim {
    pub(super) fn report(
        &self,
        core: &Arc<Core>,
        (own, direction): (SocketId, Direction),
        outcome: Outcome,
        out: &mut Out<'_>,
    ) {
        let id = self.shared.with(|world| world.slot_of(own));
        let id = id.expect("a socket with a request is associated");
        let Some(mut socket) = core.lock(id, out.reborrow()) else {
            panic!("driver's contract 2: the slot was freed before {outcome:?} was reported");
        };
        let held = match direction {
            Direction::Reading => socket.is_armed(),
            Direction::Writing => socket.is_sending(),
        };
        assert!(
            held,
            "driver's contract 1: the socket does not know of {outcome:?}"
        );
        self.shared.with(|world| {
            let own = world.sockets.at_mut(own).expect("it has a slot");
            let request = own.request_mut(direction);
            request.as_ref().expect("it was asked for").check(&socket);
            if outcome.is_last() {
                *request = None;
                world.requests -= 1;
            }
        });
        let accepted = matches!(outcome, Outcome::Accepted(_));
        deliver(&mut socket, outcome);
        let goes_on = socket.receiving() == Some(Receiving::Accept) && !socket.is_closing();
        if accepted && goes_on && socket.has_many_pending_accepts() {
            self.shared.with(|world| {
                Self::cancel_request(world, socket.open_handle(), Direction::Reading);
            });
        }
    }
}

fn deliver(socket: &mut Locked<'_>, outcome: Outcome) {
    match outcome {
        Outcome::Accepted(accepted) => {
            if !socket.is_closing() {
                socket.accepted(*accepted);
            }
        }
        Outcome::AcceptEnded(code) => accept_ended(socket, code),
        Outcome::Connected(result) => socket.connected(result),
        Outcome::Received(buffer, count) => {
            socket.end_reading();
            socket.received((buffer, count));
            go_on(socket);
        }
        Outcome::NoBuffer => no_buffer(socket),
        Outcome::ReceivedInto(bytes) => {
            // The receive has succeeded although a cancel was requested. The cancel is over with
            // it.
            socket.end_reading();
            socket.forget_cancel();
            let work = socket.queues_mut().expect("checked");
            let into = work.intos.front_mut().expect("checked");
            into.buffer[..bytes.len()].copy_from_slice(&bytes);
            socket.received_into(bytes.len());
            go_on(socket);
        }
        Outcome::Stopped(code) => {
            if socket.receiving() == Some(Receiving::Stream) {
                socket.give_lease_back();
            }
            socket.receive_stopped(code);
        }
        Outcome::Sent(result) => socket.send_stopped(result),
    }
}

/// Continues after a request that had nothing to deliver, unless the caller has requested the end.
fn go_on(socket: &mut Locked<'_>) {
    if socket.stops_reading() {
        socket.receive_stopped(Some(code::CANCELLED));
    } else {
        socket.go_on_receiving();
    }
}

fn accept_ended(socket: &mut Locked<'_>, code: Option<i32>) {
    socket.end_reading();
    socket.accept_ended_there();
    if socket.stops_reading() {
        return socket.receive_stopped(Some(code::CANCELLED));
    }
    match code {
        // There was no free slot: the next accept finds one, or waits for it.
        None | Some(code::CANCELLED) => {}
        Some(code) => {
            if !socket.accept_failed(code) {
                return;
            }
        }
    }
    socket.go_on_receiving();
}

/// Data arrived and the pool had no buffer: the stream waits for one, or tries again.
fn no_buffer(socket: &mut Locked<'_>) {
    socket.end_reading();
    socket.give_lease_back();
    if socket.stops_reading() {
        return go_on(socket);
    }
    if let Some(buffer) = socket.buffer_or_wait() {
        socket.core.buffer_returned(buffer);
        socket.go_on_receiving();
    }
}
