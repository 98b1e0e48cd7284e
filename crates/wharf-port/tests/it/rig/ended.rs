//! The end of an operation, as one value for all kinds of operations.
//!
//! Each kind has an event of its own, so that a program which closes a connection on `Ended` does
//! not close it because a shutdown is done. Cases that expect an end check that too.

use wharf_port::{End, Event, Op, Operation, Packet};

use super::Rig;

/// How an operation ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) how: End,
    pub(crate) buffer: Option<Vec<u8>>,
    pub(crate) count: Option<usize>,
}

impl Rig {
    /// The end of this operation.
    pub(crate) fn ended(&mut self, op: Op) -> Ended {
        let packet = self.expect("the end of an operation", |packet| {
            packet.op == op && packet.event.end().is_some()
        });
        assert!(is_of_its_operation(&packet), "another one's: {packet:?}");
        match packet.event {
            Event::SendFailed {
                how, buffer, count, ..
            } => Ended {
                how,
                buffer: Some(buffer.into_vec()),
                count,
            },
            Event::Ended { how, buffer, .. } => Ended {
                how,
                count: buffer.as_ref().map(|_| 0),
                buffer,
            },
            event => Ended {
                how: event.end().expect("asked for an end"),
                buffer: None,
                count: None,
            },
        }
    }
}

/// Whether the event is the one that ends this kind of operation.
fn is_of_its_operation(packet: &Packet) -> bool {
    match packet.op.operation() {
        Operation::Connect => matches!(packet.event, Event::ConnectFailed { .. }),
        Operation::Send => matches!(packet.event, Event::SendFailed { .. }),
        Operation::Shutdown => matches!(packet.event, Event::ShutDown { .. }),
        Operation::Timer => matches!(packet.event, Event::TimerCancelled),
        _ => matches!(packet.event, Event::Ended { .. }),
    }
}
