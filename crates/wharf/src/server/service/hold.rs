//! `hold`: sets a connection aside. The only event that it can have is that its peer leaves.

use wharf_port::{Close, Event, Packet};

use super::left_by;
use crate::account::{Ledger, Left};
use crate::server::options::Notice;

#[derive(Debug)]
pub(crate) struct Hold {
    notice: Notice,
}

impl Hold {
    pub(super) fn new(notice: Notice) -> Self {
        Hold { notice }
    }

    pub(super) fn handle(&mut self, packet: &Packet, ledger: &Ledger) -> Option<Left> {
        debug_assert!(self.notice == Notice::Leave, "nothing else asks for events");
        let left = match packet.event {
            Event::PeerLeft(leave) => left_by(leave),
            Event::Ended { .. } => Left::Error,
            _ => return None,
        };
        let close = || packet.socket.close(Close::Flush).is_ok();
        ledger.leaves(left, close).then_some(left)
    }
}
