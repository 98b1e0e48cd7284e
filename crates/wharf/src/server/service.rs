//! The services: how a server reacts to each event of a connection.
//!
//! They submit operations and never wait, so one thread serves all connections. An error of one
//! socket ends that connection and never the server.

use wharf_port::{Leave, Packet, SocketRef, Stream};

use crate::account::{Ledger, Left};
use crate::server::options::Notice;

mod echo;
mod hold;

/// Which service runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Hold(Notice),
    Echo,
}

/// Bytes that one connection sent and received.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Bytes {
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

/// One thread's part of a service.
#[derive(Debug)]
pub(crate) enum Service {
    Hold(hold::Hold),
    Echo(echo::Echo),
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Hold(_) => "hold",
            Kind::Echo => "echo",
        }
    }

    /// `tells`: count the bytes of each connection too.
    pub(crate) fn start(self, tells: bool) -> Service {
        match self {
            Kind::Hold(notice) => Service::Hold(hold::Hold::new(notice)),
            Kind::Echo => Service::Echo(echo::Echo::new(tells)),
        }
    }

    /// Starts to serve a connection. The port owns it from here.
    pub(crate) fn welcome(self, stream: Stream) -> wharf_port::Result<()> {
        match self {
            Kind::Hold(Notice::Leave) => stream.socket().watch().map(drop)?,
            Kind::Hold(Notice::Never) => {}
            Kind::Echo => stream.socket().receive().map(drop)?,
        }
        stream.set_aside();
        Ok(())
    }
}

impl Service {
    /// Removes and returns the byte counts of a connection that has left.
    pub(crate) fn take_bytes(&mut self, socket: SocketRef) -> Bytes {
        match self {
            // It reads nothing.
            Service::Hold(_) => Bytes::default(),
            Service::Echo(echo) => echo.take_bytes(socket),
        }
    }

    /// Handles a packet; returns how the connection left, if it did.
    pub(crate) fn handle(&mut self, packet: Packet, ledger: &Ledger) -> Option<Left> {
        match self {
            Service::Hold(hold) => hold.handle(&packet, ledger),
            Service::Echo(echo) => echo.handle(packet, ledger),
        }
    }
}

/// How a watched peer left.
fn left_by(leave: Leave) -> Left {
    match leave {
        Leave::Finished => Left::Fin,
        Leave::Reset => Left::Reset,
        Leave::Broken(_) => Left::Error,
    }
}
