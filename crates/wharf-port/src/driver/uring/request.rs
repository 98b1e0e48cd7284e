//! Requests to the kernel, and the name with which a completion finds its socket.
//!
//! A name is a slot, its generation and the kind of request, in the 64 bits that the kernel returns
//! with a completion. A pointer in these bits was rejected: an unexpected completion would make us
//! dereference it. A number that matches nothing is counted and dropped.

use std::fmt;
use std::io::IoSlice;
use std::os::fd::RawFd;
use std::ptr;

use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types};

use crate::core::slot::SlotId;
use crate::core::work::{Queued, Work};
use crate::sys::Handle;

/// The most slices of the send queue that one request takes.
pub(super) const SLICES_MAX: usize = 16;
/// The most bytes that one request takes. The kernel itself stops short of 2 GiB.
const REQUEST_BYTES_MAX: usize = 1 << 30;
/// `IORING_RECVSEND_POLL_FIRST`: wait for data before trying to receive (linux/io_uring.h).
const POLL_FIRST: u16 = 1;
/// `IORING_RECV_MULTISHOT`: continue after each message (linux/io_uring.h).
const MULTISHOT: u16 = 2;
/// Where `optlen` is in a request: the number of bytes after which a multishot receive ends, since
/// Linux 6.17 (linux/io_uring.h). Older kernels have `file_index` there, and refuse a receive that
/// sets it.
const OPTLEN_OFFSET: usize = 44;
const _: () = assert!(
    size_of::<Entry>() == 64,
    "a request as the kernel defines it"
);
/// `MSG_WAITALL`: after a short send the kernel continues by itself. `MSG_NOSIGNAL`: no SIGPIPE.
const SEND_FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
/// The only group of provided buffers.
pub(super) const BUFFER_GROUP: u16 = 0;

/// Declares each kind once: in the enum, and in the list in which a name finds its kind again. In two
/// lists a new kind could be missing in the second, and all its completions would match nothing.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident,)*) => {
        /// The kinds of requests to the kernel. They are no names of operations: a connect may take
        /// two requests, one after the other, and the bell or a cancel is of no operation.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(super) enum Kind {
            $($(#[$doc])* $kind,)*
        }

        /// Every kind, in the order of their numbers.
        const KINDS: &[Kind] = &[$(Kind::$kind,)*];
    };
}

kinds! {
    Accept,
    Connect,
    /// Waits for the end of a connect that is already in progress.
    Connecting,
    Stream,
    Into,
    /// A receive into an empty buffer: only the wait for data.
    IntoNothing,
    Watch,
    /// Waits for the peer's end while a streaming receive is armed.
    Guard,
    Send,
    /// A thread rings for the thread that sleeps in the kernel.
    Bell,
    Cancel,
    /// Frees a place in the table of direct descriptors. Its name has the place.
    Free,
    /// Asks the ring's thread to close a socket without a descriptor. Its name has the place.
    Leave,
    /// Asks the ring's thread to start a connect.
    Start,
    /// Sets an option, or lends a descriptor or takes one in. No completion handler waits for its
    /// end.
    Immediate,
}

/// The name of a request.
///
/// A socket has at most one request of each side in the kernel at a time, and its slot is freed
/// only after these have ended. So slot, generation and kind name one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Name {
    pub(super) kind: Kind,
    pub(super) id: SlotId,
}

/// Slot numbers are less than 2^24, which leaves the topmost byte for the kind.
const INDEX_BITS: u32 = 24;
const KIND_SHIFT: u32 = 56;

impl Name {
    pub(super) fn of(kind: Kind, id: SlotId) -> Self {
        Name { kind, id }
    }

    /// Returns the name of a request that belongs to no socket.
    pub(super) fn own(kind: Kind) -> Self {
        let id = SlotId {
            index: 0,
            generation: 0,
        };
        Name { kind, id }
    }

    /// Returns the name for a place in the table of direct descriptors.
    pub(super) fn of_place(kind: Kind, place: u32) -> Self {
        let id = SlotId {
            index: place,
            generation: 0,
        };
        Name { kind, id }
    }

    /// Returns the name of the request with this number that is carried out at once.
    pub(super) fn immediate(number: u32) -> Self {
        let id = SlotId {
            index: 1,
            generation: number,
        };
        Name {
            kind: Kind::Immediate,
            id,
        }
    }

    pub(super) fn encode(self) -> u64 {
        debug_assert!(self.id.index < 1 << INDEX_BITS, "a table has 2^24 slots");
        // Kinds count from 1, so a zeroed completion has no valid name.
        ((self.kind as u64 + 1) << KIND_SHIFT)
            | (u64::from(self.id.generation) << INDEX_BITS)
            | u64::from(self.id.index)
    }

    pub(super) fn decode(data: u64) -> Option<Self> {
        let kind = usize::try_from(data >> KIND_SHIFT).ok()?.checked_sub(1)?;
        let id = SlotId {
            index: (data as u32) & ((1 << INDEX_BITS) - 1),
            generation: (data >> INDEX_BITS) as u32,
        };
        let kind = *KINDS.get(kind)?;
        Some(Name { kind, id })
    }
}

/// Whether the driver waits for the end of the request with this name.
pub(super) fn is_reported(data: u64) -> bool {
    const BELL: u64 = Kind::Bell as u64 + 1;
    const CANCEL: u64 = Kind::Cancel as u64 + 1;
    const IMMEDIATE: u64 = Kind::Immediate as u64 + 1;
    // This is called for each completion, and twice for each request, so it does not decode the
    // name.
    let kind = data >> KIND_SHIFT;
    (1..=KINDS.len() as u64).contains(&kind) && !matches!(kind, BELL | CANCEL | IMMEDIATE)
}

/// What a socket keeps at a stable address while the kernel sends for it.
///
/// Invariant: what `message` and `slices` point to belongs to the queue of sends in the same work
/// block, which keeps it until the request has ended.
pub(crate) struct WorkBlock {
    message: libc::msghdr,
    slices: [libc::iovec; SLICES_MAX],
}

// SAFETY: the pointers are only handed to the kernel, and what they point to is `Send`.
unsafe impl Send for WorkBlock {}

impl Default for WorkBlock {
    fn default() -> Self {
        let nothing = libc::iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        };
        WorkBlock {
            // SAFETY: a message header consists of integers and pointers, for which zero is a
            // value.
            message: unsafe { std::mem::zeroed() },
            slices: [nothing; SLICES_MAX],
        }
    }
}

impl fmt::Debug for WorkBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkBlock")
    }
}

fn descriptor(handle: &Handle) -> types::Fd {
    types::Fd(handle.number())
}

/// Marks the request `entry` with the kind of its number: a descriptor, or a place in the ring's
/// own table.
pub(super) fn aimed(handle: &Handle, entry: Entry) -> Entry {
    match handle.place() {
        None => entry,
        Some(_) => entry.flags(Flags::FIXED_FILE),
    }
}

/// Accepts one connection; with `many`, every connection that comes until the request is ended.
pub(super) fn accept(handle: &Handle, many: bool) -> Entry {
    let handle = descriptor(handle);
    if many {
        opcode::AcceptMulti::new(handle)
            .flags(libc::SOCK_CLOEXEC)
            .build()
    } else {
        opcode::Accept::new(handle, ptr::null_mut(), ptr::null_mut())
            .flags(libc::SOCK_CLOEXEC)
            .build()
    }
}

/// Accepts one connection into the ring's own table, in any free place.
pub(super) fn accept_direct(handle: &Handle) -> Entry {
    opcode::Accept::new(descriptor(handle), ptr::null_mut(), ptr::null_mut())
        .file_index(Some(types::DestinationSlot::auto_target()))
        .build()
}

/// Closes the socket in this place of the ring's own table.
pub(super) fn close_direct(place: u32) -> Entry {
    opcode::Close::new(types::Fixed(place)).build()
}

/// Makes the close that follows a reset.
pub(super) fn reset_at_close(place: u32, linger: &'static libc::linger) -> Entry {
    let (level, option) = (libc::SOL_SOCKET, libc::SO_LINGER);
    let value: *const libc::linger = linger;
    opcode::SetSockOpt::new(
        types::Fixed(place),
        level.unsigned_abs(),
        option.unsigned_abs(),
        value.cast(),
        size_of::<libc::linger>() as u32,
    )
    .build()
    .flags(Flags::SKIP_SUCCESS)
    .user_data(Name::own(Kind::Immediate).encode())
}

/// Does nothing. Its completion is processed on the thread that enters.
pub(super) fn nothing() -> Entry {
    opcode::Nop::new().build()
}

/// Receives into a provided buffer. If data is at hand it tries at once, otherwise it waits for
/// data first.
pub(super) fn receive(handle: &Handle, buffer_bytes: u32, at_hand: bool) -> Entry {
    opcode::Recv::new(descriptor(handle), ptr::null_mut(), buffer_bytes)
        .buf_group(BUFFER_GROUP)
        .ioprio(if at_hand { 0 } else { POLL_FIRST })
        .build()
        .flags(Flags::BUFFER_SELECT)
}

/// Receives into provided buffers, one per message, until `bytes_max` bytes have arrived.
pub(super) fn receive_many(handle: &Handle, bytes_max: u32, at_hand: bool) -> Entry {
    let first = if at_hand { 0 } else { POLL_FIRST };
    let mut entry = opcode::Recv::new(descriptor(handle), ptr::null_mut(), 0)
        .buf_group(BUFFER_GROUP)
        .ioprio(first | MULTISHOT)
        .build()
        .flags(Flags::BUFFER_SELECT);
    let start: *mut Entry = &raw mut entry;
    // SAFETY: an entry is the kernel's 64 bytes of a request, and these four of them are an
    // integer.
    unsafe {
        start.byte_add(OPTLEN_OFFSET).cast::<u32>().write(bytes_max);
    }
    entry
}

/// Receives into a caller's buffer. The caller of this function keeps it until the request ends.
pub(super) fn receive_into(handle: &Handle, buffer: &mut [u8]) -> Entry {
    let bytes = buffer.len().min(REQUEST_BYTES_MAX) as u32;
    opcode::Recv::new(descriptor(handle), buffer.as_mut_ptr(), bytes).build()
}

/// Waits until one of these events of poll(2) happens, or the connection breaks.
pub(super) fn wait(handle: &Handle, events: i16) -> Entry {
    opcode::PollAdd::new(descriptor(handle), u32::from(events.unsigned_abs())).build()
}

/// The same, and reports each further change until it is cancelled.
pub(super) fn wait_for_changes(handle: &Handle, events: i16) -> Entry {
    opcode::PollAdd::new(descriptor(handle), u32::from(events.unsigned_abs()))
        .multi(true)
        .build()
}

/// Connects to an address. The caller of this function keeps the address until the request ends.
pub(super) fn connect(handle: &Handle, to: &socket2::SockAddr) -> Entry {
    opcode::Connect::new(descriptor(handle), to.as_ptr().cast(), to.len()).build()
}

/// Sends what is queued, gathered, up to a bound. Returns the request and the number of sends that
/// it covers.
pub(super) fn send(handle: RawFd, work: &mut Work) -> (Entry, usize) {
    let only = work.sends.front().filter(|_| work.sends.len() == 1);
    if let Some(bytes) = only.and_then(Queued::bytes) {
        return (send_one(handle, &bytes[work.head_sent..]), 1);
    }
    let mut gathered = [libc::iovec {
        iov_base: ptr::null_mut(),
        iov_len: 0,
    }; SLICES_MAX];
    let (mut count, mut bytes) = (0, 0);
    {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let unsent = work.unsent(&mut slices, usize::MAX);
        for slice in &slices[..unsent] {
            let room = REQUEST_BYTES_MAX - bytes;
            if room == 0 {
                break;
            }
            gathered[count] = libc::iovec {
                iov_base: slice.as_ptr().cast_mut().cast(),
                iov_len: slice.len().min(room),
            };
            bytes += gathered[count].iov_len;
            count += 1;
        }
    }
    let block = &mut work.driver;
    block.slices = gathered;
    block.message.msg_iov = block.slices.as_mut_ptr();
    #[allow(trivial_numeric_casts, reason = "other C libraries have an int there")]
    let slices = count as _;
    block.message.msg_iovlen = slices;
    let send = opcode::SendMsg::new(types::Fd(handle), &raw const block.message);
    (send.flags(SEND_FLAGS.unsigned_abs()).build(), count)
}

/// Sends one slice, up to a bound.
fn send_one(handle: RawFd, bytes: &[u8]) -> Entry {
    let count = bytes.len().min(REQUEST_BYTES_MAX) as u32;
    opcode::Send::new(types::Fd(handle), bytes.as_ptr(), count)
        .flags(SEND_FLAGS)
        .build()
}

/// Asks for a request to end. This request itself has a completion only if there was nothing to
/// end.
pub(super) fn cancel(name: Name) -> Entry {
    opcode::AsyncCancel::new(name.encode())
        .build()
        .flags(Flags::SKIP_SUCCESS)
        .user_data(Name::own(Kind::Cancel).encode())
}

/// Asks for all requests with this name to end.
pub(super) fn cancel_all(name: Name) -> Entry {
    let every = types::CancelBuilder::user_data(name.encode()).all();
    opcode::AsyncCancel2::new(every)
        .build()
        .flags(Flags::SKIP_SUCCESS)
        .user_data(Name::own(Kind::Cancel).encode())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_the_kernel() {
        for &kind in KINDS {
            for (index, generation) in [(0, 0), ((1 << INDEX_BITS) - 1, u32::MAX), (7, 1 << 31)] {
                let name = Name::of(kind, SlotId { index, generation });
                assert_eq!(Name::decode(name.encode()), Some(name));
            }
        }
        assert_eq!(Name::decode(0), None);
        assert_eq!(Name::decode(u64::MAX), None);
    }
}
