//! Posting: packets that the program makes.

use crate::core::Core;
use crate::core::ready::Unposted;
use crate::error::{ErrorKind, Operation, Refused, Result};
use crate::key::Key;
use crate::op::Op;
use crate::packet::{Event, Packet};
use crate::reference::SocketRef;

impl Core {
    pub(crate) fn post(&self, key: Key, value: u64) -> Result<(), Refused<u64>> {
        if self.is_forked() {
            return Err(Refused::new(Operation::Post, ErrorKind::Closed, value));
        }
        let packet = Packet {
            key,
            op: Op::post(self.id),
            socket: SocketRef::none(self.id),
            event: Event::Posted(value),
        };
        match self.ready.push_post(packet, self.options.posts_max) {
            Ok(wake) => {
                self.wake(wake);
                Ok(())
            }
            Err(Unposted::Full) => Err(Refused::new(Operation::Post, ErrorKind::Full, value)),
            Err(Unposted::Closed) => Err(Refused::new(Operation::Post, ErrorKind::Closed, value)),
        }
    }
}
