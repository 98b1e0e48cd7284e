//! Reads a socket at its turn. Two drivers learn only that a socket is readable, and share this
//! module: the readiness driver, and the completion port, whose zero-byte receive reports the
//! same.
//!
//! A buffer is taken from the pool only once there is something to read. Each step is one read; the
//! core decides how many a turn may have. Because both drivers share these lines, a pause, an end
//! and a short read have the same meaning in both.

use crate::core::locked::Locked;
use crate::core::slot::{Own, Receiving};
use crate::sys;

/// The bit of the driver `D` that says: as far as is known, the next read would return something.
pub(super) const fn readable<D>() -> Own<D> {
    Own::bit(0)
}

/// Whether a turn would deliver something from the socket.
pub(super) fn has_more<D>(socket: &Locked<'_>) -> bool {
    match socket.receiving() {
        Some(Receiving::Into) => socket.has(readable::<D>()),
        Some(Receiving::Stream) => socket.has(readable::<D>()) && !socket.is_paused(),
        None | Some(Receiving::Accept | Receiving::Connect | Receiving::Watch) => false,
    }
}

/// Makes one read for a streaming receive. If one of the bits of `more` is set, something may follow
/// a short read.
pub(super) fn stream<D>(socket: &mut Locked<'_>, more: Own<D>) {
    if !socket.has(readable::<D>()) {
        return;
    }
    // The stream tries again, whatever it waited for: a packet of another kind may have given it
    // this turn.
    socket.end_pause();
    if !socket.reserve_lease() {
        return;
    }
    let Some(mut buffer) = socket.buffer_or_wait() else {
        return socket.give_lease_back();
    };
    let space = socket.core.pool().bytes_of_mut(&mut buffer);
    let capacity = space.len();
    match sys::receive(socket.open_handle(), space) {
        Ok(count) if count > 0 => {
            note_short_read(socket, count < capacity, more);
            socket.received((buffer, count));
            socket.note_read(count);
        }
        result => {
            socket.give_lease_back();
            socket.core.buffer_returned(buffer);
            came_to_nothing::<D>(socket, result);
        }
    }
}

/// Makes one read into the first of the callers' buffers.
pub(super) fn into<D>(socket: &mut Locked<'_>, more: Own<D>) {
    if !socket.has(readable::<D>()) {
        return;
    }
    let (work, handle) = socket.queues_and_handle();
    let into = work.intos.front_mut();
    let into = into.expect("a receive into a buffer is queued");
    let capacity = into.buffer.len();
    let result = match capacity {
        // After a read that filled its buffer exactly, `READABLE` is only a guess, so check.
        0 => sys::peek(handle).map(|_| 0),
        _ => sys::receive(handle, &mut into.buffer),
    };
    match result {
        Ok(count) => {
            note_short_read(socket, count < capacity && count > 0, more);
            socket.received_into(count);
        }
        result => came_to_nothing::<D>(socket, result),
    }
}

/// A read that did not fill its buffer has emptied the socket, unless something may follow the
/// data, such as the end of the stream. No further edge would report that end.
fn note_short_read<D>(socket: &mut Locked<'_>, short: bool, more: Own<D>) {
    if short && !socket.has(more) {
        socket.clear(readable::<D>());
    }
}

fn came_to_nothing<D>(socket: &mut Locked<'_>, result: Result<usize, i32>) {
    match result {
        Err(code) if sys::would_block(code) => socket.clear(readable::<D>()),
        Err(code) if sys::interrupted(code) => {}
        Err(code) => socket.receive_stopped(Some(code)),
        Ok(_) => socket.receive_stopped(None),
    }
}
