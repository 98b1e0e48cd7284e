//! `hold`: a connection is set aside; the only thing that can happen to it is that its peer leaves.

use wharf_port::{Close, Event, Packet};

use super::{Step, left_by};
use crate::account::Left;
use crate::command::Notice;

#[derive(Debug)]
pub(crate) struct Hold {
    notice: Notice,
}

impl Hold {
    pub(super) fn new(notice: Notice) -> Self {
        Hold { notice }
    }

    pub(super) fn handle(&mut self, packet: &Packet) -> Step {
        debug_assert!(self.notice == Notice::Leave, "nothing else asks for events");
        let left = match packet.event {
            Event::PeerLeft(leave) => left_by(leave),
            Event::Ended { .. } => Left::Error,
            _ => return Step::Stays,
        };
        // Closed already means counted already.
        match packet.socket.close(Close::Flush) {
            Ok(_) => Step::Leaves(left),
            Err(_) => Step::Stays,
        }
    }
}
