//! Conversions of the standard library's Unix sockets into those of a port and back.
//!
//! The conversions of internet sockets are in `accepted` and `listen`, because every system has
//! them.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use crate::accepted::{Accepted, Family, Unassociated};
use crate::error::Refused;
use crate::listen::ListenOptions;

impl From<UnixStream> for Unassociated {
    fn from(socket: UnixStream) -> Self {
        Unassociated::of(socket.into())
    }
}

impl From<UnixListener> for ListenOptions {
    fn from(listener: UnixListener) -> Self {
        OwnedFd::from(listener).into()
    }
}

impl TryFrom<Accepted> for UnixStream {
    type Error = Refused<Unassociated>;

    fn try_from(accepted: Accepted) -> Result<Self, Self::Error> {
        Unassociated::from(accepted).try_into()
    }
}

impl TryFrom<Unassociated> for UnixStream {
    type Error = Refused<Unassociated>;

    fn try_from(socket: Unassociated) -> Result<Self, Self::Error> {
        socket
            .into_standard(Some(Family::Unix))
            .map(UnixStream::from)
    }
}
