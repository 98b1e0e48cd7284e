//! Whether io_uring works here, tried out once on a ring of its own.
//!
//! It is refused in many places in many ways: with EPERM in containers, ENOSYS in sandboxes,
//! EOPNOTSUPP in some clusters; or set-up is allowed and entering is not; or an operation exists
//! and its streaming form does not. Asking which operations there are was rejected, because it
//! tells neither. So a connection is accepted, a message received into a provided buffer, and a
//! request cancelled, in well under a millisecond.

use std::io::{self, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::OnceLock;
use std::time::Duration;

use io_uring::cqueue::{buffer_select, more};
use io_uring::squeue::Entry;
use io_uring::{cqueue, opcode};
use parking_lot::Mutex;

use super::buffers::Buffers;
use super::request;
use super::ring::{Purpose, Ring, Size};
use crate::config::PoolOptions;
use crate::driver::Unavailable;
use crate::lock;
use crate::pool::Pool;
use crate::sys::{self, Handle};

/// How long one step may take before the machine counts as broken.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a working io_uring may be able to do besides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Abilities {
    /// It ends a multishot receive after so many bytes as it is told.
    pub(super) caps_streams: bool,
}

/// Tries io_uring out, once in a process where it works.
pub(super) fn try_once() -> Result<Abilities, Unavailable> {
    static WORKS: OnceLock<Abilities> = OnceLock::new();
    if let Some(abilities) = WORKS.get() {
        return Ok(*abilities);
    }
    let abilities = try_out()?;
    Ok(*WORKS.get_or_init(|| abilities))
}

/// Why the system refuses io_uring, and the cure.
pub(super) fn refused(code: i32) -> Unavailable {
    let reason = match code {
        libc::EPERM | libc::EACCES => {
            "io_uring is forbidden here: allow io_uring_setup, io_uring_enter and \
             io_uring_register in the container's seccomp profile, and set \
             kernel.io_uring_disabled to 0"
        }
        libc::ENOSYS => {
            "this kernel or sandbox has no io_uring: use Linux 6.0 or later, and a container \
             that does not hide it"
        }
        libc::EOPNOTSUPP => {
            "this machine refuses io_uring: allow it in the cluster's or the sandbox's policy"
        }
        libc::ENOMEM => "io_uring may not lock enough memory: raise \"ulimit -l\" (RLIMIT_MEMLOCK)",
        libc::EMFILE | libc::ENFILE => {
            "no descriptor is left for io_uring: raise \"ulimit -n\" (RLIMIT_NOFILE)"
        }
        libc::EINVAL => "this kernel's io_uring is too old: use Linux 6.0 or later",
        _ => "io_uring does not work here: the readiness driver does",
    };
    (reason, Some(code))
}

const LACKS: &str = "this kernel's io_uring lacks a feature that is needed (NODROP, EXT_ARG, \
                     FAST_POLL, CQE_SKIP): use Linux 6.0 or later";
const WRONG: &str = "io_uring accepts requests here and answers them wrongly: use Linux 6.0 or \
                     later, or the readiness driver";

/// Whether the clock interrupts whoever computes, on every processor. Where `nohz_full` keeps it
/// away, a thread is left alone for as long as it does not enter the kernel.
pub(super) fn every_processor_ticks() -> bool {
    match std::fs::read_to_string("/sys/devices/system/cpu/nohz_full") {
        Ok(list) => is_empty_list(&list),
        // Kernels that have no such processors have no such list.
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// The kernel writes a list of no processors as nothing, or as it writes a pointer to nothing.
fn is_empty_list(list: &str) -> bool {
    matches!(list.trim(), "" | "(null)")
}

fn try_out() -> Result<Abilities, Unavailable> {
    let size = Size {
        submissions: 8,
        completions: 16,
    };
    let ring = Ring::new(true, size).map_err(refused)?;
    if !ring.has_features() {
        return Err((LACKS, None));
    }
    ring.bind().map_err(refused)?;
    let trial = Trial {
        ring,
        ended: Mutex::default(),
    };
    let failed = |error: io::Error| refused(sys::code_of(&error));
    let abilities = trial.operations().map_err(failed)?;
    abilities.ok_or((WRONG, None))
}

/// A ring to try things on. What it asks for has ended before its memory goes.
struct Trial {
    ring: Ring,
    ended: Mutex<Vec<Ended>>,
}

#[derive(Clone, Copy, Debug)]
struct Ended {
    data: u64,
    result: i32,
    flags: u32,
}

/// Receives that take a buffer each.
const RECEIVES: usize = 3;

const NOTHING: u64 = 1;
const ACCEPT: u64 = 2;
const RECEIVE: u64 = 3;
const WATCH: u64 = 4;

impl Trial {
    /// Answers what it can do, if everything ended as it should.
    fn operations(&self) -> io::Result<Option<Abilities>> {
        self.ask(opcode::Nop::new().build(), NOTHING);
        if self.end_of(NOTHING)?.result != 0 {
            return Ok(None);
        }
        let options = PoolOptions::default();
        let mut buffers = Buffers::new(PoolOptions {
            pool_bytes_max: 4 * RECEIVES * options.buffer_bytes as usize,
            ..options
        });
        buffers
            .open(|address, entries| self.ring.register_buffers(address, entries))
            .map_err(io::Error::from_raw_os_error)?;
        let pool = Pool::new(options);
        pool.take_many(RECEIVES, |buffer| {
            buffers.provide(buffer);
        });
        let abilities = self.sockets(options.buffer_bytes)?;
        // Nothing is with the kernel any more, but for what a wrong answer left there.
        if abilities.is_none() {
            std::mem::forget((pool, buffers));
        }
        Ok(abilities)
    }

    /// One accept of many, receives into provided buffers, one cancelled wait.
    fn sockets(&self, buffer_bytes: u32) -> io::Result<Option<Abilities>> {
        let (listener, address) = listener()?;
        self.ask(request::accept(&listener, true), ACCEPT);
        self.enter()?;
        let mut client = UnixStream::connect_addr(&address)?;
        let accepted = self.end_of(ACCEPT)?;
        if accepted.result < 0 || !more(accepted.flags) {
            return Ok(None);
        }
        // SAFETY: the kernel made the descriptor for this completion.
        let accepted = unsafe { OwnedFd::from_raw_fd(accepted.result) }.into();
        self.ask(request::receive(&accepted, buffer_bytes, false), RECEIVE);
        self.enter()?;
        client.write_all(b"wharf")?;
        let received = self.end_of(RECEIVE)?;
        if received.result != 5 || buffer_select(received.flags).is_none() {
            return Ok(None);
        }
        let caps_streams = self.caps_streams(&accepted, &mut client)?;
        self.ask(request::wait(&accepted, libc::POLLIN), WATCH);
        self.enter()?;
        let cancelled = self.cancel(WATCH)? && self.cancel(ACCEPT)?;
        Ok(cancelled.then_some(Abilities { caps_streams }))
    }

    /// Whether a receive of many goes on below its cap and ends at it. Before Linux 6.16 it is
    /// refused instead.
    fn caps_streams(&self, accepted: &Handle, client: &mut UnixStream) -> io::Result<bool> {
        self.ask(request::receive_many(accepted, 6, false), RECEIVE);
        self.enter()?;
        client.write_all(b"wharf")?;
        let first = self.end_of(RECEIVE)?;
        if first.result != 5 || !more(first.flags) {
            return Ok(false);
        }
        client.write_all(b"s")?;
        let last = self.end_of(RECEIVE)?;
        if more(last.flags) {
            self.cancel(RECEIVE)?;
            return Ok(false);
        }
        Ok(last.result == 1)
    }

    /// Cancels a request; answers whether both told so.
    fn cancel(&self, data: u64) -> io::Result<bool> {
        self.ask(opcode::AsyncCancel::new(data).build(), NOTHING);
        let (cancel, cancelled) = (self.end_of(NOTHING)?, self.end_of(data)?);
        Ok(cancel.result == 0 && cancelled.result == -libc::ECANCELED && !more(cancelled.flags))
    }

    fn ask(&self, entry: Entry, data: u64) {
        self.ring.push(entry.user_data(data));
    }

    fn enter(&self) -> io::Result<()> {
        // SAFETY: no other thread has this ring, which was bound to this one.
        let entered = unsafe {
            self.ring
                .enter(Some(Duration::ZERO), Purpose::End { want: 0 })
        };
        entered.map_err(io::Error::from_raw_os_error)
    }

    /// Waits for a completion, and keeps others for later.
    fn end_of(&self, data: u64) -> io::Result<Ended> {
        let purpose = Purpose::End { want: 1 };
        for patience in [Duration::ZERO, PATIENCE, PATIENCE, PATIENCE] {
            // SAFETY: as in `enter`.
            unsafe {
                self.ring
                    .enter(Some(patience), purpose)
                    .map_err(io::Error::from_raw_os_error)?;
                self.ring
                    .completions(|all| lock(&self.ended).extend(all.iter().map(Ended::from)));
            }
            let mut ended = lock(&self.ended);
            if let Some(place) = ended.iter().position(|it| it.data == data) {
                return Ok(ended.remove(place));
            }
        }
        Err(io::Error::from_raw_os_error(libc::ETIMEDOUT))
    }
}

impl From<&cqueue::Entry> for Ended {
    fn from(completed: &cqueue::Entry) -> Self {
        Ended {
            data: completed.user_data(),
            result: completed.result(),
            flags: completed.flags(),
        }
    }
}

/// A listener that needs neither a network nor a file: an abstract Unix address of its own.
fn listener() -> io::Result<(Handle, SocketAddr)> {
    static TRIALS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let trial = TRIALS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let name = format!("wharf-trial-{}-{trial}", std::process::id());
    let address = SocketAddr::from_abstract_name(name)?;
    let listener = UnixListener::bind_addr(&address)?;
    Ok((OwnedFd::from(listener).into(), address))
}

#[cfg(test)]
mod tests {
    use super::is_empty_list;

    #[test]
    fn a_list_of_no_processors_is_known() {
        assert!(is_empty_list("\n") && is_empty_list("(null)\n"));
        assert!(!is_empty_list("1-3\n"));
    }
}
