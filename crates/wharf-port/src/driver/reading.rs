//! Reading a socket at its turn, for the drivers that learn that it is readable: readiness, and the
//! completion port, whose receive of no bytes tells the same.
//!
//! A buffer of the pool is taken once there is something to read, and as many reads are made as the
//! socket's turn has packets. Both drivers share these lines, so that what a pause, an end or a
//! short read means cannot differ between them.

use std::sync::Arc;

use crate::core::slot::{Receiving, SlotId, SocketState, flag};
use crate::core::{Core, Out};
use crate::sys;

/// The next read would bring something, as far as is known.
pub(super) const READABLE: u32 = 1 << flag::DRIVER_SHIFT;

/// Whether a turn would bring what the socket reads.
pub(super) fn has_more(state: &SocketState) -> bool {
    match state.receiving {
        Receiving::Into => state.has(READABLE),
        Receiving::Stream => {
            state.has(READABLE) && !state.has(flag::PAUSED_LEASES | flag::PAUSED_POOL)
        }
        Receiving::Nothing | Receiving::Accept | Receiving::Connect | Receiving::Watch => false,
    }
}

/// Reads for a streaming receive. `more_flags` say that something may stand behind a short read.
pub(super) fn stream(
    core: &Arc<Core>,
    id: SlotId,
    state: &mut SocketState,
    more_flags: u32,
    out: &mut Out<'_>,
) {
    while state.receiving == Receiving::Stream && state.has(READABLE) && out.may_take(core, state) {
        // Whatever it waited for, it tries: another packet may have given it this turn.
        state.clear(flag::PAUSED_LEASES | flag::PAUSED_POOL);
        if !core.reserve_lease(id, state) {
            return;
        }
        let Some(mut buffer) = core.buffer_or_wait(id) else {
            core.slots.return_lease(id, core.options.leases_per_socket);
            state.set(flag::PAUSED_POOL);
            return;
        };
        let space = core.pool.bytes_of_mut(&mut buffer);
        let capacity = space.len();
        match sys::receive(state.open_handle(), space) {
            Ok(count) if count > 0 => {
                note_short_read(state, count < capacity, more_flags);
                core.received(id, state, (buffer, count), out);
                out.note_read(count);
            }
            result => {
                core.slots.return_lease(id, core.options.leases_per_socket);
                core.buffer_returned(buffer);
                came_to_nothing(core, id, state, result, out);
            }
        }
    }
}

/// Reads into the callers' buffers.
pub(super) fn into(
    core: &Arc<Core>,
    id: SlotId,
    state: &mut SocketState,
    more_flags: u32,
    out: &mut Out<'_>,
) {
    while state.receiving == Receiving::Into && state.has(READABLE) && out.may_take(core, state) {
        let SocketState { work, handle, .. } = &mut *state;
        let into = work.as_mut().and_then(|work| work.intos.front_mut());
        let into = into.expect("a receive into a buffer is queued");
        let capacity = into.buffer.len();
        let handle = handle.as_ref().expect("a socket that receives is open");
        let result = match capacity {
            // After a read that filled its buffer exactly, `READABLE` is a guess: look.
            0 => sys::peek(handle).map(|_| 0),
            _ => sys::receive(handle, &mut into.buffer),
        };
        match result {
            Ok(count) => {
                note_short_read(state, count < capacity && count > 0, more_flags);
                core.received_into(id, state, count, out);
            }
            result => came_to_nothing(core, id, state, result, out),
        }
    }
}

/// A read that did not fill its buffer has emptied the socket, unless something may stand behind
/// the data, such as its end: of that no further edge would tell.
fn note_short_read(state: &mut SocketState, short: bool, more_flags: u32) {
    if short && !state.has(more_flags) {
        state.clear(READABLE);
    }
}

fn came_to_nothing(
    core: &Arc<Core>,
    id: SlotId,
    state: &mut SocketState,
    result: Result<usize, i32>,
    out: &mut Out<'_>,
) {
    match result {
        Err(code) if sys::would_block(code) => state.clear(READABLE),
        Err(code) if sys::interrupted(code) => {}
        Err(code) => core.receive_stopped(id, state, Some(code), out),
        Ok(_) => core.receive_stopped(id, state, None, out),
    }
}
