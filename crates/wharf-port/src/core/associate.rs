//! Associating: how a socket enters a port.

use std::sync::Arc;

use crate::accepted::Unassociated;
use crate::core::Core;
use crate::error::{Error, ErrorKind, Operation, Refused, Result};
use crate::key::Key;
use crate::reference::SocketRef;
use crate::sys::{self, SocketKind};

const ELSEWHERE: &str = "a socket with a direct descriptor belongs to the port that accepted it: \
                         associate it there, or leave direct descriptors out";

const DATAGRAMS: &str = "only a socket of type stream can be associated: this one has another type";

const LISTENS: &str = "a listening socket cannot be associated: give it to Port::listen";

/// Checks a socket that the caller made, before a port takes it.
fn take_foreign(handle: &sys::Handle) -> Result<()> {
    let failed = |code| Error::from_os(Operation::Associate, code);
    let unfit = |advice| Error::advised(Operation::Associate, ErrorKind::InvalidInput, advice);
    match sys::socket_kind(handle).map_err(failed)? {
        SocketKind::Stream => {}
        SocketKind::Listening => return Err(unfit(LISTENS)),
        SocketKind::Other => return Err(unfit(DATAGRAMS)),
    }
    // The port decides how a socket closes, because it closes the socket with its slot locked.
    sys::forget_linger(handle).map_err(failed)
}

impl Core {
    pub(crate) fn associate(
        self: &Arc<Self>,
        socket: Unassociated,
        key: Key,
    ) -> Result<SocketRef, Refused<Unassociated>> {
        if self.takes_no_sockets() {
            return Err(Refused::new(
                Operation::Associate,
                ErrorKind::Closed,
                socket,
            ));
        }
        // A place that this port reserved at the accept becomes the socket's own.
        let kept = socket.place.as_ref().is_some_and(|place| place.is_of(self));
        if !kept && sys::is_direct(&socket.handle) {
            let error = Error::advised(Operation::Associate, ErrorKind::Unsupported, ELSEWHERE);
            return Err(Refused {
                error,
                value: socket,
            });
        }
        if !socket.accepted {
            if let Err(error) = take_foreign(&socket.handle) {
                return Err(Refused {
                    error,
                    value: socket,
                });
            }
        }
        let mut slot = match self.admit(kept) {
            Ok(admitted) => admitted,
            Err(kind) => return Err(Refused::new(Operation::Associate, kind, socket)),
        };
        let Unassociated {
            handle,
            place,
            accepted,
            peer,
        } = socket;
        slot.key = key;
        slot.handle = Some(handle);
        if let Err(code) = self.driver.associate(&mut slot, accepted && kept) {
            let handle = slot.handle.take().expect("set above");
            slot.turn_away(kept);
            let value = Unassociated {
                handle,
                place,
                accepted,
                peer,
            };
            return Err(Refused {
                error: Error::from_os(Operation::Associate, code),
                value,
            });
        }
        let id = slot.id;
        drop(slot);
        match place {
            Some(place) if kept => place.spend(),
            place => drop(place),
        }
        Ok(self.socket(id))
    }
}
