//! The bell: how the thread that sleeps in the kernel is woken.
//!
//! If the kernel takes a message from outside (Linux 6.13), the bell is such a message: it goes
//! into the ring by itself. Otherwise the bell is an eventfd that the ring reads. That read
//! completes on the thread that requested it, which on a shared port may not be the sleeper. While
//! a disk or the start of a process held that thread up in the kernel, no thread woke for posts,
//! for requests or for the end of the port. A read for each thread was rejected: every ring of the
//! bell would wake all of them.
//!
//! Messages between rings were rejected too: the ringing side would need a ring.

use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, types};

use super::Ring;
use crate::driver::uring::request::{Kind, Name};
use crate::lock;

/// `IORING_REGISTER_SEND_MSG_RING`: a message to a ring, from no ring (linux/io_uring.h).
const SEND_MESSAGE: libc::c_uint = 31;
/// The descriptor that means "no ring".
const NO_RING: libc::c_int = -1;

impl Ring {
    /// Ends the sleep of the thread in the kernel.
    pub(super) fn ring_the_bell(&self) {
        if self.takes_messages {
            // It fails only if the ring is full and there is no memory for more. No thread sleeps
            // in a full ring.
            send_message(&self.ring);
        } else {
            // It fails only if 2^64 rings are already pending.
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    /// The read of the bell has ended.
    pub(in crate::driver::uring) fn bell_ended(&self) {
        lock(&self.queue).bell_armed = false;
    }

    /// Whether the kernel may still write to `rung`.
    pub(in crate::driver::uring) fn is_bell_armed(&self) -> bool {
        lock(&self.queue).bell_armed
    }
}

/// Whether a new ring takes messages. The message of this trial is removed from the ring.
pub(super) fn takes_messages(ring: &mut IoUring) -> bool {
    send_message(ring) && ring.completion().next().is_some()
}

fn send_message(ring: &IoUring) -> bool {
    let name = Name::own(Kind::Bell).encode();
    let to = types::Fd(ring.as_raw_fd());
    let message = opcode::MsgRingData::new(to, 0, name, None).build();
    // SAFETY: the kernel reads one request, which lives through the call.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            NO_RING,
            SEND_MESSAGE,
            &raw const message,
            1,
        )
    };
    sent == 0
}

#[cfg(test)]
mod tests;
