//! How a random program submits operations on a connection, and what holds for each result on any
//! network: on the simulated one and on those of systems.

use std::collections::VecDeque;

use wharf_port::{Buffer, Close, ErrorKind, Op, Refused, SocketRef, Stream};

use super::ledger::{Asked, Ledger};
use super::plan::Dice;

/// How a connection reads.
#[derive(Debug)]
pub(crate) enum Reading {
    Nothing,
    Stream(Op),
    Into(VecDeque<Op>),
    Watch(Op),
    /// Its end was delivered.
    Over,
}

impl Reading {
    /// Whether the connection reads by this operation.
    pub(crate) fn is_by(&self, op: Op) -> bool {
        match self {
            Reading::Stream(reads) | Reading::Watch(reads) => *reads == op,
            Reading::Into(ops) => ops.contains(&op),
            Reading::Nothing | Reading::Over => false,
        }
    }

    /// One of several operations ended; returns whether others go on.
    pub(crate) fn goes_on_without(&mut self, op: Op) -> bool {
        match self {
            Reading::Into(ops) => {
                ops.retain(|other| *other != op);
                !ops.is_empty()
            }
            _ => false,
        }
    }

    /// An operation that reads, if any does.
    pub(crate) fn some_op(&self, dice: &mut Dice) -> Option<Op> {
        match self {
            Reading::Stream(op) | Reading::Watch(op) => Some(*op),
            Reading::Into(ops) if !ops.is_empty() => Some(ops[dice.below(ops.len())]),
            Reading::Into(_) | Reading::Nothing | Reading::Over => None,
        }
    }
}

/// Its owner, unless the dice have the port own it.
pub(crate) fn own(stream: Stream, dice: &mut Dice) -> Option<Stream> {
    if dice.chance(500) {
        stream.set_aside();
        return None;
    }
    Some(stream)
}

/// Submits a receive into a buffer of this size, if there is space for one.
pub(crate) fn receive_into(socket: SocketRef, capacity: usize, ledger: &mut Ledger) -> Option<Op> {
    match socket.receive_into(vec![0; capacity]) {
        Ok(op) => {
            ledger.accepted(Asked::Into, op, Some(socket));
            Some(op)
        }
        Err(Refused { error, value }) => {
            assert_eq!(error.kind(), ErrorKind::Full, "C13: one bound refuses");
            assert_eq!(value.len(), capacity, "C2: a refusal brings the buffer");
            None
        }
    }
}

/// Sends, or returns why not and the buffer.
pub(crate) fn send(
    socket: SocketRef,
    buffer: Buffer,
    reported: bool,
    ledger: &mut Ledger,
) -> Result<Op, (ErrorKind, Buffer)> {
    let count = buffer.len();
    let (sent, asked) = match reported {
        true => (socket.send_reported(buffer), Asked::ReportedSend),
        false => (socket.send(buffer), Asked::Send),
    };
    match sent {
        Ok(op) => {
            ledger.accepted(asked, op, Some(socket));
            Ok(op)
        }
        Err(Refused { error, value }) => {
            assert_eq!(value.len(), count, "C2: a refusal brings the buffer");
            Err((error.kind(), value))
        }
    }
}

/// Closes through the owner, or through the reference of a socket that was set aside.
pub(crate) fn close(stream: Option<Stream>, socket: SocketRef, how: Close, ledger: &mut Ledger) {
    let op = match stream {
        Some(stream) => stream.close(how),
        None => socket.close(how),
    };
    ledger.accepted(Asked::Close, op.expect("it was open"), Some(socket));
}
