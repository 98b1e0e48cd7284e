//! Packets: `wait` returns one for each event.
//!
//! An event is an enum that owns its data. So no second call has to fetch it, and nothing is lost
//! when a packet is dropped unread. The `(bool, code, pointer)` triple of
//! `GetQueuedCompletionStatus` was rejected: its `false` has three meanings, and almost every
//! program that used it mixed them up.

use std::time::Duration;

use crate::accepted::Accepted;
use crate::buffer::{Buffer, Lease};
use crate::error::{Error, Operation};
use crate::key::Key;
use crate::op::Op;
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
    /// The key of the socket, timer or post that the packet is about; for an accept the
    /// *listener's*.
    pub key: Key,
    /// The operation that the packet is about.
    pub op: Op,
    /// The socket that the packet is about; a stale reference for timers and posts.
    pub socket: SocketRef,
    /// What happened.
    pub event: Event,
}

/// The sides of a socket; each has its own operations. A shutdown waits for all sends before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Reading,
    Writing,
    End,
}

impl Packet {
    /// Whether it ends an operation of this side. The data of an operation, and reports in between,
    /// do not.
    pub(crate) fn is_outcome_of(&self, side: Side) -> bool {
        let own = match self.op.operation {
            Operation::Send => Some(Side::Writing),
            Operation::Shutdown => Some(Side::End),
            Operation::Accept
            | Operation::Connect
            | Operation::Receive
            | Operation::ReceiveInto
            | Operation::Watch => Some(Side::Reading),
            // None of these has a bound for each socket.
            Operation::Close
            | Operation::Timer
            | Operation::Post
            | Operation::Build
            | Operation::Waiter
            | Operation::Wait
            | Operation::Listen
            | Operation::Associate
            | Operation::Address
            | Operation::Descriptor => None,
        };
        own == Some(side)
            && !matches!(
                self.event,
                Event::Accepted(_)
                    | Event::Received(_)
                    | Event::SendReady
                    | Event::Paused { .. }
                    | Event::Resumed
            )
    }

    /// Whether it is the last packet about its socket. The slot is free once this packet is taken.
    pub(crate) fn is_last(&self) -> bool {
        matches!(
            (self.op.operation, &self.event),
            (Operation::Close, Event::Closed) | (Operation::Connect, Event::ConnectFailed { .. })
        )
    }
}

/// What happened.
///
/// A streaming operation (accept, receive) delivers any number of packets and then one
/// [`Event::Ended`]. Every other accepted operation delivers exactly one packet, except that a
/// plain `send` delivers none if it succeeds. Each operation has its own events. So code that
/// closes on [`Event::Ended`] does not close because a shutdown is done or a send was cancelled.
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
    /// A reported send is over: the system has taken every byte.
    #[non_exhaustive]
    Sent {
        /// What was sent.
        buffer: Buffer,
    },
    /// After a send was refused as full: the queue is less than half full again.
    SendReady,
    /// The peer left; the outcome of `watch`.
    PeerLeft(Leave),
    /// A listener stopped accepting for now. Connections wait in its backlog.
    #[non_exhaustive]
    Paused {
        /// Why.
        reason: PauseReason,
        /// When the next attempt is due. It comes at once when a socket of the port closes.
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
    /// An accept, a receive, a receive into a buffer or a watch is over: it delivers nothing more.
    #[non_exhaustive]
    Ended {
        /// How it ended; [`End::Finished`] is the peer's FIN.
        how: End,
        /// The caller's buffer of a receive into a buffer, with nothing new in it.
        buffer: Option<Vec<u8>>,
    },
    /// A connect failed, was cancelled or timed out. Its socket is gone.
    #[non_exhaustive]
    ConnectFailed {
        /// How it ended; never [`End::Finished`].
        how: End,
    },
    /// A send failed, was cancelled or was abandoned.
    #[non_exhaustive]
    SendFailed {
        /// How it ended; never [`End::Finished`].
        how: End,
        /// The bytes to send.
        buffer: Buffer,
        /// How many of them went out, if the system reports that.
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
    /// Returns how the operation ended, for events that say so. Returns `None` for a success with
    /// data, and for events that end nothing.
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
    /// Cleanly: the peer sent FIN, or the shutdown was carried out.
    Finished,
    /// By a cancel.
    Cancelled,
    /// By the program's own close, or because an earlier send failed.
    Aborted,
    /// By an error.
    Failed(Error),
}

impl End {
    /// Returns the kind of error of this end; `None` for [`End::Finished`].
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
    /// The peer sent FIN.
    Finished,
    /// The peer reset the connection.
    Reset,
    /// The connection broke in another way: it timed out, the peer is unreachable, or the system
    /// ended it.
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
