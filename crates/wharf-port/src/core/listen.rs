//! Listening: how a listener enters a port, and another port.

use std::sync::Arc;

use crate::core::slot::{SlotId, flag};
use crate::core::{Core, Out};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::key::Key;
use crate::listen::ListenOptions;
use crate::reference::SocketRef;
use crate::sys;

const SAME_DRIVER: &str =
    "a listener is shared among ports of one kind of driver: require the same for both";

impl Core {
    pub(crate) fn listen(self: &Arc<Self>, at: &ListenOptions, key: Key) -> Result<SocketRef> {
        let failed = |error: std::io::Error| Error::from_io(Operation::Listen, &error);
        if self.takes_no_sockets() {
            return Err(Error::new(Operation::Listen, ErrorKind::Closed));
        }
        let handle = self.driver.open_listener(at).map_err(failed)?;
        // A socket that the caller supplied may be shared with other processes.
        let listener = self.listen_on(handle, key, at.is_supplied())?;
        let id = listener.slot_id();
        if let Some(socket) = self.lock(id, Out::queue()) {
            self.driver.listening(&socket, at);
        }
        Ok(listener)
    }

    /// Adds a listening socket to the port.
    fn listen_on(
        self: &Arc<Self>,
        handle: sys::Handle,
        key: Key,
        shared: bool,
    ) -> Result<SocketRef> {
        let mut socket = match self.admit(false) {
            Ok(admitted) => admitted,
            Err(kind) => {
                self.driver.abandon(handle);
                return Err(Error::new(Operation::Listen, kind));
            }
        };
        socket.key = key;
        socket.handle = Some(handle);
        socket.set(flag::LISTENER);
        if shared {
            socket.set(flag::SHARED_LISTENER);
        }
        if let Err(code) = self.driver.associate(&mut socket, false) {
            let handle = socket.handle.take().expect("set above");
            socket.turn_away(false);
            self.driver.abandon(handle);
            return Err(Error::from_os(Operation::Listen, code));
        }
        Ok(self.socket(socket.id))
    }

    /// Returns another handle to the listener `id`, for the port `with`.
    pub(crate) fn share_listener(self: &Arc<Self>, id: SlotId, with: &Self) -> Result<sys::Handle> {
        let closed = Error::new(Operation::Listen, ErrorKind::Closed);
        let mut socket = self.lock(id, Out::queue()).ok_or(closed)?;
        if socket.handle.is_none() {
            return Err(closed);
        }
        if self.report.kind != with.report.kind {
            // Both ports would use one socket, and each driver needs another mode of it.
            let kind = ErrorKind::InvalidInput;
            return Err(Error::advised(Operation::Listen, kind, SAME_DRIVER));
        }
        let shared = self.driver.share_listener(socket.open_handle());
        let shared = shared.map_err(|error| Error::from_io(Operation::Listen, &error))?;
        socket.set(flag::SHARED_LISTENER);
        Ok(shared)
    }

    /// Adds a listener that another port shares.
    pub(crate) fn listen_shared(
        self: &Arc<Self>,
        handle: sys::Handle,
        key: Key,
    ) -> Result<SocketRef> {
        self.listen_on(handle, key, true)
    }
}
