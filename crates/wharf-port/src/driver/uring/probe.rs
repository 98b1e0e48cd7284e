//! Whether io_uring works here, tried out once on a ring of its own.
//!
//! Systems refuse it in many ways: with EPERM in containers, ENOSYS in sandboxes, EOPNOTSUPP in
//! some clusters. Or they allow set-up but not entering, or have an operation but not its multishot
//! form. A query for the supported operations was rejected, because it reports neither of the last
//! two. So the trial accepts connections, receives a message into a provided buffer, and cancels a
//! request, in well under a millisecond.
//!
//! Each step has a connection of its own. When all steps shared one, a step that a kernel refused
//! left its bytes unread, the next step found them, and every kernel before 6.17 was passed over.

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use io_uring::cqueue::{buffer_select, more};
use io_uring::squeue::Entry;
use io_uring::{cqueue, opcode};
use parking_lot::Mutex;
use socket2::{Domain, SockAddr, Socket, Type};

use super::buffers::Buffers;
use super::queue::{Purpose, Ring, Size};
use super::request;
use crate::core::options::PoolOptions;
use crate::core::pool::Pool;
use crate::driver::Unavailable;
use crate::lock;
use crate::sys::{self, Handle};

/// How long one step may take before io_uring counts as broken here.
const PATIENCE: Duration = Duration::from_secs(3);

/// What some kernels with a working io_uring can do in addition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Abilities {
    /// It ends a multishot receive after the number of bytes that the request gives.
    pub(super) caps_streams: bool,
}

/// What this process knows of io_uring.
const UNKNOWN: u8 = 0;
const WORKS: u8 = 1;
const WORKS_AND_CAPS: u8 = 2;

/// Tries io_uring out. Once it has worked, the result is kept for the whole process.
pub(super) fn try_once() -> Result<Abilities, Unavailable> {
    // No `OnceLock`: if a process forks while one of its threads is in the trial, the child would
    // wait for that thread forever.
    static KNOWN: AtomicU8 = AtomicU8::new(UNKNOWN);
    match KNOWN.load(Ordering::Relaxed) {
        UNKNOWN => {}
        known => {
            return Ok(Abilities {
                caps_streams: known == WORKS_AND_CAPS,
            });
        }
    }
    let abilities = try_out()?;
    let known = if abilities.caps_streams {
        WORKS_AND_CAPS
    } else {
        WORKS
    };
    KNOWN.store(known, Ordering::Relaxed);
    Ok(abilities)
}

/// Returns why the system refuses io_uring, and what to do about it.
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
const WRONG: &str = "io_uring accepts requests here and handles them wrongly: use Linux 6.0 or \
                     later, or the readiness driver";

/// Whether the clock interrupts threads that compute, on every processor. Processors in `nohz_full`
/// have no such tick: a thread there is not interrupted before it enters the kernel.
pub(super) fn every_processor_ticks() -> bool {
    match std::fs::read_to_string("/sys/devices/system/cpu/nohz_full") {
        Ok(list) => is_empty_list(&list),
        // A kernel without support for such processors has no such list.
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// The kernel prints an empty list as nothing, or as it prints a null pointer.
fn is_empty_list(list: &str) -> bool {
    matches!(list.trim(), "" | "(null)")
}

fn try_out() -> Result<Abilities, Unavailable> {
    let failed = |error: io::Error| refused(sys::code_of(&error));
    // The ring comes first: where it is forbidden, nothing else is made.
    let trial = Trial::new(capped)?;
    let listener = Listener::open().map_err(failed)?;
    let abilities = trial.operations(&listener).map_err(failed)?;
    abilities.ok_or((WRONG, None))
}

/// A ring to try requests on. All of its requests have ended before its memory is freed.
struct Trial {
    ring: Ring,
    ended: Mutex<Vec<Ended>>,
    /// Makes a receive that ends at a cap. Tests replace it to simulate kernels that have no caps.
    capped: fn(&Handle) -> Entry,
}

#[derive(Clone, Copy, Debug)]
struct Ended {
    data: u64,
    result: i32,
    flags: u32,
}

/// Receives that take a buffer each.
const RECEIVES: usize = 3;

/// A message; one byte shorter than the cap.
const MESSAGE: &[u8] = b"wharf";

const NOTHING: u64 = 1;
const ACCEPT: u64 = 2;
const RECEIVE: u64 = 3;
const WATCH: u64 = 4;

fn capped(handle: &Handle) -> Entry {
    request::receive_many(handle, MESSAGE.len() as u32 + 1, false)
}

impl Trial {
    fn new(capped: fn(&Handle) -> Entry) -> Result<Self, Unavailable> {
        let size = Size {
            submissions: 8,
            completions: 16,
        };
        let ring = Ring::new(true, size).map_err(refused)?;
        if !ring.has_features() {
            return Err((LACKS, None));
        }
        ring.bind().map_err(refused)?;
        Ok(Trial {
            ring,
            ended: Mutex::default(),
            capped,
        })
    }

    /// Returns what it can do, if everything ended as it should.
    fn operations(&self, listener: &Listener) -> io::Result<Option<Abilities>> {
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
        let abilities = self.sockets(listener, options.buffer_bytes);
        // The kernel has no request any more, unless a failure or a wrong result left one there.
        if !matches!(abilities, Ok(Some(_))) {
            std::mem::forget((pool, buffers));
        }
        abilities
    }

    /// One accept for many connections, and then one step for each thing that a connection does.
    fn sockets(&self, listener: &Listener, buffer_bytes: u32) -> io::Result<Option<Abilities>> {
        self.ask(request::accept(&listener.handle, true), ACCEPT);
        self.enter()?;
        if !self.receives(listener, buffer_bytes)? || !self.waits(listener)? {
            return Ok(None);
        }
        let Some(caps_streams) = self.caps_streams(listener)? else {
            return Ok(None);
        };
        let cancelled = self.cancel(ACCEPT)?;
        Ok(cancelled.then_some(Abilities { caps_streams }))
    }

    /// Returns the connection of one step: the accepted end, and the client's.
    fn connection(&self, listener: &Listener) -> io::Result<Option<(Handle, Socket)>> {
        let client = listener.connect()?;
        let accepted = self.end_of(ACCEPT)?;
        if let Some(code @ (libc::EMFILE | libc::ENFILE)) = accepted.result.checked_neg() {
            // The kernel knows the request, but has no descriptor left for its result.
            return Err(io::Error::from_raw_os_error(code));
        }
        if accepted.result < 0 || !more(accepted.flags) {
            return Ok(None);
        }
        // SAFETY: the kernel made the descriptor for this completion.
        let accepted = unsafe { OwnedFd::from_raw_fd(accepted.result) };
        Ok(Some((accepted.into(), client)))
    }

    /// Whether a message arrives in a provided buffer.
    fn receives(&self, listener: &Listener, buffer_bytes: u32) -> io::Result<bool> {
        let Some((accepted, mut client)) = self.connection(listener)? else {
            return Ok(false);
        };
        self.ask(request::receive(&accepted, buffer_bytes, false), RECEIVE);
        self.enter()?;
        client.write_all(MESSAGE)?;
        let received = self.end_of(RECEIVE)?;
        Ok(is_message(&received) && buffer_select(received.flags).is_some())
    }

    /// Whether a wait for something that does not happen continues until it is cancelled.
    fn waits(&self, listener: &Listener) -> io::Result<bool> {
        let Some((accepted, _client)) = self.connection(listener)? else {
            return Ok(false);
        };
        self.ask(request::wait(&accepted, libc::POLLIN), WATCH);
        self.enter()?;
        self.cancel(WATCH)
    }

    /// Whether a multishot receive continues below its cap and ends at it. Kernels before Linux
    /// 6.17 refuse it instead. Returns `None` if there is no connection to try it on.
    fn caps_streams(&self, listener: &Listener) -> io::Result<Option<bool>> {
        let Some((accepted, mut client)) = self.connection(listener)? else {
            return Ok(None);
        };
        self.ask((self.capped)(&accepted), RECEIVE);
        self.enter()?;
        client.write_all(MESSAGE)?;
        let first = self.end_of(RECEIVE)?;
        if !more(first.flags) {
            return Ok(Some(false));
        }
        if is_message(&first) {
            client.write_all(b"s")?;
            let last = self.end_of(RECEIVE)?;
            if !more(last.flags) {
                return Ok(Some(last.result == 1));
            }
        }
        // It continues, so the kernel does not keep the cap. It may end before its cancel finds it,
        // if the kernel takes a buffer before it looks for a message and finds no more buffers.
        self.ask(opcode::AsyncCancel::new(RECEIVE).build(), NOTHING);
        self.end_of(NOTHING)?;
        while more(self.end_of(RECEIVE)?.flags) {}
        Ok(Some(false))
    }

    /// Cancels a request. Returns whether both requests reported that.
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

    /// Waits for a completion, and keeps others for later. Signals and other completions may end a
    /// sleep any number of times before it comes.
    fn end_of(&self, data: u64) -> io::Result<Ended> {
        let purpose = Purpose::End { want: 1 };
        let deadline = Instant::now() + PATIENCE;
        let mut patience = Duration::ZERO;
        loop {
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
            patience = deadline.saturating_duration_since(Instant::now());
            if patience.is_zero() {
                return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
            }
        }
    }
}

fn is_message(ended: &Ended) -> bool {
    usize::try_from(ended.result) == Ok(MESSAGE.len())
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

/// The listener of the trial.
struct Listener {
    handle: Handle,
    address: SockAddr,
}

impl Listener {
    /// Needs neither a network nor a file where Unix sockets are allowed. Services are often
    /// confined to internet sockets (`RestrictAddressFamilies=` of systemd).
    fn open() -> io::Result<Self> {
        Self::unix().or_else(|_| Self::loopback())
    }

    /// The kernel chooses a free name, as unix(7) says. A name made of the process's number would
    /// be taken if two containers share a network.
    fn unix() -> io::Result<Self> {
        Self::at(&SockAddr::unix("")?)
    }

    fn loopback() -> io::Result<Self> {
        Self::at(&SockAddr::from(std::net::SocketAddr::from((
            Ipv4Addr::LOCALHOST,
            0,
        ))))
    }

    fn at(address: &SockAddr) -> io::Result<Self> {
        let listener = Socket::new(address.domain(), Type::STREAM, None)?;
        listener.bind(address)?;
        listener.listen(16)?;
        let address = listener.local_addr()?;
        let handle = OwnedFd::from(listener).into();
        Ok(Listener { handle, address })
    }

    fn connect(&self) -> io::Result<Socket> {
        let client = Socket::new(
            Domain::from(i32::from(self.address.family())),
            Type::STREAM,
            None,
        )?;
        client.connect(&self.address)?;
        Ok(client)
    }
}

#[cfg(test)]
mod tests;
