//! Packets: what `wait` hands out, one for each thing that happened.
//!
//! An event is an enum that owns what it brings, so that nothing has to be fetched with a second
//! call and nothing is lost when a packet is dropped unread. The `(bool, code, pointer)` triple of
//! `GetQueuedCompletionStatus` was rejected: its three meanings of false were merged by almost
//! everyone who used it.

use std::time::Duration;

use crate::accepted::Accepted;
use crate::buffer::{Buffer, Lease};
use crate::error::Error;
use crate::key::Key;
use crate::op::{Op, OpKind};
use crate::reference::SocketRef;
use crate::stream::Stream;

/// One completion.
///
/// ```
/// use wharf_port::{Event, Key, Port, Wait};
/// # fn main() -> wharf_port::Result<()> {
/// let port = Port::builder().build()?;
/// let mut waiter = port.waiter()?;
/// port.post(Key(7), 42).unwrap();
/// if let Wait::Packets(packets) = waiter.wait(None)? {
///     for packet in packets {
///         assert_eq!(packet.key, Key(7));
///         assert!(matches!(packet.event, Event::Posted(42)));
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Packet {
    /// The key of the socket, timer or post this is about; for an accept the *listener's*.
    pub key: Key,
    /// The operation this is about.
    pub op: Op,
    /// The socket this is about; a stale reference for timers and posts.
    pub socket: SocketRef,
    /// What happened.
    pub event: Event,
}

/// The sides of a socket, which have their operations apart; a shutdown waits behind all sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Reading,
    Writing,
    End,
}

impl Packet {
    /// Whether it ends an operation of this side: not what one of them brings, or tells in between.
    pub(crate) fn is_outcome_of(&self, side: Side) -> bool {
        let own = match self.op.kind {
            OpKind::Send => Side::Writing,
            OpKind::Shutdown => Side::End,
            _ => Side::Reading,
        };
        own == side
            && !matches!(
                self.event,
                Event::Accepted(_)
                    | Event::Received(_)
                    | Event::SendReady
                    | Event::Paused { .. }
                    | Event::Resumed
            )
    }

    /// Whether it is the last about its socket, whose slot is free once it is taken.
    pub(crate) fn is_last(&self) -> bool {
        matches!(
            (self.op.kind, &self.event),
            (OpKind::Close, Event::Closed) | (OpKind::Connect, Event::ConnectFailed { .. })
        )
    }
}

/// What happened.
///
/// A streaming operation (accept, receive) gives any number of packets and then one
/// [`Event::Ended`]; every other accepted operation gives exactly one, but a plain `send` that
/// succeeds gives none. Each operation has events of its own, so that code which closes on
/// [`Event::Ended`] does not close because a shutdown is done or a send was cancelled.
///
/// | operation | success | otherwise |
/// |---|---|---|
/// | accept | `Accepted`, any number (`Paused`, `Resumed` between) | `Ended` |
/// | connect | `Connected` | `ConnectFailed` |
/// | receive | `Received`, any number, then `Ended` with [`End::Finished`] | `Ended` |
/// | receive into | `ReceivedInto` | `Ended` with the buffer |
/// | watch | `PeerLeft` | `Ended` |
/// | send | nothing | `SendFailed` with the buffer |
/// | reported send | `Sent` with the buffer | `SendFailed` with the buffer |
/// | shutdown | `ShutDown` with [`End::Finished`] | `ShutDown` |
/// | timer | `Timer` | `TimerCancelled` |
/// | close | `Closed` | |
///
/// ```
/// use wharf_port::{Close, Event, Packet};
/// fn handle(packet: Packet) {
///     match packet.event {
///         Event::Received(data) => _ = packet.socket.send(data),
///         // The peer's FIN, a reset or a cancel: nothing more arrives.
///         Event::Ended { .. } => _ = packet.socket.close(Close::Flush),
///         _ => {}
///     }
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A connection was accepted; it is not yet associated with any port.
    Accepted(Accepted),
    /// A connect succeeded; the stream is associated with the key given to `connect`.
    Connected(Stream),
    /// Bytes arrived; never empty.
    Received(Lease),
    /// A receive into the caller's buffer is over: the first `count` bytes are new.
    #[non_exhaustive]
    ReceivedInto {
        /// The caller's buffer.
        buffer: Vec<u8>,
        /// How many bytes arrived; 0 only when the buffer was empty.
        count: usize,
    },
    /// A reported send is over: every byte is with the system.
    #[non_exhaustive]
    Sent {
        /// What was sent.
        buffer: Buffer,
    },
    /// After a send was refused as full, the queue is under half again.
    SendReady,
    /// The peer left; the answer to `watch`.
    PeerLeft(Leave),
    /// A listener stopped accepting for a while; connections wait in its backlog.
    #[non_exhaustive]
    Paused {
        /// Why.
        reason: PauseReason,
        /// When the next try is due; it comes at once when a socket of the port closes.
        retry_in: Duration,
    },
    /// A listener accepts again.
    Resumed,
    /// A timer's deadline passed.
    Timer,
    /// A posted value.
    Posted(u64),
    /// An explicit close is over; the last packet about its socket.
    Closed,
    /// An accept, a receive, a receive into a buffer or a watch is over: nothing more arrives
    /// by it.
    #[non_exhaustive]
    Ended {
        /// How it ended; [`End::Finished`] is the peer's FIN.
        how: End,
        /// The caller's buffer of a receive into one, with nothing new in it.
        buffer: Option<Vec<u8>>,
    },
    /// A connect failed, was cancelled or ran out of time; its socket is gone.
    #[non_exhaustive]
    ConnectFailed {
        /// How it ended; never [`End::Finished`].
        how: End,
    },
    /// A send failed, was cancelled or was given up.
    #[non_exhaustive]
    SendFailed {
        /// How it ended; never [`End::Finished`].
        how: End,
        /// What was to be sent.
        buffer: Buffer,
        /// How many bytes of it went out, where the system tells.
        count: Option<usize>,
    },
    /// A shutdown is over.
    #[non_exhaustive]
    ShutDown {
        /// How it ended: [`End::Finished`] when the FIN is out.
        how: End,
    },
    /// A timer was cancelled before its deadline.
    TimerCancelled,
}

impl Event {
    /// The end of a send or a shutdown that did not go through, or of a shutdown that did.
    pub(crate) fn of_write_side(
        kind: OpKind,
        how: End,
        buffer: Buffer,
        count: Option<usize>,
    ) -> Self {
        if kind == OpKind::Shutdown {
            Event::ShutDown { how }
        } else {
            Event::SendFailed { how, buffer, count }
        }
    }

    /// How the operation ended, for the events that say so; nothing for success that brings
    /// something, and for events that are no end.
    ///
    /// ```
    /// use wharf_port::{End, Event};
    /// assert_eq!(Event::TimerCancelled.end(), Some(End::Cancelled));
    /// assert_eq!(Event::Timer.end(), None);
    /// ```
    #[must_use]
    pub fn end(&self) -> Option<End> {
        match self {
            Event::Ended { how, .. }
            | Event::ConnectFailed { how }
            | Event::SendFailed { how, .. }
            | Event::ShutDown { how } => Some(*how),
            Event::TimerCancelled => Some(End::Cancelled),
            Event::Accepted(_)
            | Event::Connected(_)
            | Event::Received(_)
            | Event::ReceivedInto { .. }
            | Event::Sent { .. }
            | Event::SendReady
            | Event::PeerLeft(_)
            | Event::Paused { .. }
            | Event::Resumed
            | Event::Timer
            | Event::Posted(_)
            | Event::Closed => None,
        }
    }
}

/// How an operation ended.
///
/// ```
/// use wharf_port::{End, Error, ErrorKind, Operation};
/// let error = Error::new(Operation::Receive, ErrorKind::Reset);
/// assert_eq!(End::Failed(error).error_kind(), Some(ErrorKind::Reset));
/// assert_eq!(End::Finished.error_kind(), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(
    clippy::exhaustive_enums,
    reason = "complete: `Failed` takes what the others do not, and a program counts each end"
)]
pub enum End {
    /// In order: the peer sent FIN, or the shutdown was carried out.
    Finished,
    /// By request.
    Cancelled,
    /// By our own close, or because an earlier send failed.
    Aborted,
    /// By an error.
    Failed(Error),
}

impl End {
    /// The kind of error that this end is; `None` for [`End::Finished`].
    ///
    /// ```
    /// use wharf_port::{End, ErrorKind};
    /// assert_eq!(End::Cancelled.error_kind(), Some(ErrorKind::Cancelled));
    /// ```
    #[must_use]
    pub fn error_kind(&self) -> Option<crate::ErrorKind> {
        match self {
            End::Finished => None,
            End::Cancelled => Some(crate::ErrorKind::Cancelled),
            End::Aborted => Some(crate::ErrorKind::Aborted),
            End::Failed(error) => Some(error.kind()),
        }
    }
}

/// How a watched peer left.
///
/// ```
/// use wharf_port::Leave;
/// assert_ne!(Leave::Finished, Leave::Reset);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(
    clippy::exhaustive_enums,
    reason = "complete: `Broken` takes what the others do not, and a program counts each way"
)]
pub enum Leave {
    /// It sent FIN.
    Finished,
    /// It reset the connection.
    Reset,
    /// The connection broke in another way: timed out, unreachable, killed by the system.
    Broken(Error),
}

/// Why a listener pauses.
///
/// ```
/// use wharf_port::PauseReason;
/// assert_eq!(PauseReason::SocketsMax.to_string(), "the port holds as many sockets as it may");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum PauseReason {
    /// The process or the system is out of descriptors.
    TooManyOpenFiles,
    /// The system is out of memory or of network buffers.
    OutOfMemory,
    /// The port's own bound `sockets_max` is reached.
    SocketsMax,
}

impl std::fmt::Display for PauseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PauseReason::TooManyOpenFiles => {
                write!(f, "too many open files{}", crate::sys::descriptor_advice())
            }
            PauseReason::OutOfMemory => f.write_str("out of memory or network buffers"),
            PauseReason::SocketsMax => f.write_str("the port holds as many sockets as it may"),
        }
    }
}
