//! The services: what to do about each event of a connection.
//!
//! They ask sockets for operations and never wait, so that one thread serves them all, and no call
//! about one socket can end the server: what it answers ends that connection only.

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

/// What one connection has sent and was sent.
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

    /// Counts the bytes of each connection too, where they are told.
    pub(crate) fn start(self, tells: bool) -> Service {
        match self {
            Kind::Hold(notice) => Service::Hold(hold::Hold::new(notice)),
            Kind::Echo => Service::Echo(echo::Echo::new(tells)),
        }
    }

    /// Begins to serve a connection; the port owns it from here.
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
    /// What a connection that has left had sent and was sent; it is forgotten.
    pub(crate) fn take_bytes(&mut self, socket: SocketRef) -> Bytes {
        match self {
            // It reads nothing.
            Service::Hold(_) => Bytes::default(),
            Service::Echo(echo) => echo.take_bytes(socket),
        }
    }

    /// Answers how the connection left, if it did.
    pub(crate) fn handle(&mut self, packet: Packet, ledger: &Ledger) -> Option<Left> {
        match self {
            Service::Hold(hold) => hold.handle(&packet, ledger),
            Service::Echo(echo) => echo.handle(packet, ledger),
        }
    }
}

/// How a peer that was watched left.
fn left_by(leave: Leave) -> Left {
    match leave {
        Leave::Finished => Left::Fin,
        Leave::Reset => Left::Reset,
        Leave::Broken(_) => Left::Error,
    }
}
