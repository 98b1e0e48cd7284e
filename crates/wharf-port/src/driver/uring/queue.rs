//! The ring itself: its set-up, the queue of requests for it, and the sleep inside it.
//!
//! Any thread queues requests. Only the thread inside `poll` moves them into the ring and enters
//! the kernel, once for a whole batch, with no lock held. The queue is our own and not the ring's:
//! a request in it is certainly not with the kernel, and the end of a port must know that.
//!
//! Sleep and queue share one lock. So "nothing is queued, I sleep" and "queued, is a thread
//! asleep?" cannot miss each other. A thread that finds the other one asleep rings a bell (`bell`).

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, types};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};

use super::request::{BUFFER_GROUP, Kind, Name, is_reported};
use super::{abilities, probe};
use crate::{lock, sys};

mod bell;
mod table;
#[cfg(test)]
mod tests;
mod unseen;

/// How much fits into a ring at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Requests that one enter hands over. More go with the next one.
    pub(super) submissions: u32,
    /// Completions that fit before the kernel has to keep them in a list.
    pub(super) completions: u32,
}

impl Default for Size {
    fn default() -> Self {
        Size {
            submissions: 256,
            completions: 8192,
        }
    }
}

/// The most completions that are handed on at a time.
pub(super) const COMPLETIONS_MAX: usize = 128;

/// A queue that was longer than this frees its memory once it is empty.
const KEEP_ENTRIES: usize = 64;

/// Why a thread enters the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// To sleep until something completes, or a bell rings.
    Serve,
    /// To sleep until `want` requests have ended. A bell does not end this sleep.
    End { want: u32 },
}

/// The flags of a set-up, from the best to those that every kernel with io_uring knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Setup {
    /// The kernel processes completions when the one thread asks for them: 20 to 25 % less
    /// processor time, the largest gain there is. No other thread may enter.
    Bound { sq_array: bool },
    /// The kernel interrupts no thread. It processes the completions of a thread that computes when
    /// that thread next enters the kernel, at the latest with the tick of the clock.
    Cooperative { sq_array: bool },
    /// Without the flags of Linux 5.18 and later.
    Plain,
}

const SETUPS_SINGLE: [Setup; 4] = [
    Setup::Bound { sq_array: false },
    Setup::Bound { sq_array: true },
    Setup::Cooperative { sq_array: true },
    Setup::Plain,
];
/// An interruption for each completion costs a third of a small echo.
const SETUPS_SHARED: [Setup; 3] = [
    Setup::Cooperative { sq_array: false },
    Setup::Cooperative { sq_array: true },
    Setup::Plain,
];

pub(super) struct Ring {
    ring: IoUring,
    queue: Mutex<Queue>,
    /// Whether a thread sleeps in the kernel: what `asleep` of the queue says, for code that only
    /// chooses the cheaper way.
    sleeps: AtomicBool,
    /// Whether a message, and not the bell, ends the sleep in the kernel.
    takes_messages: bool,
    /// Rung to end a sleep in the kernel. The kernel reads the bell into `rung`.
    bell: OwnedFd,
    rung: Box<AtomicU64>,
    /// Requests in the ring or with the kernel whose end will be reported. Only the thread inside
    /// the driver writes to it: a count shared with the threads that queue took a fifth of a send.
    handed_over: AtomicU64,
    single: bool,
    setup: Setup,
    /// Whether only `owner` may enter; 0 before the first waiter.
    bound: bool,
    owner: AtomicU64,
    forks: u32,
    /// Whether there is a table of sockets without descriptors. `deferred` has the completions that
    /// came while a thread waited for the end of a request. `taken` has the descriptor of the socket
    /// that is being put into the table.
    has_table: bool,
    deferred: Mutex<VecDeque<cqueue::Entry>>,
    taken: Box<AtomicI32>,
    carried_out: AtomicU32,
}

#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<Entry>,
    /// A thread sleeps in the kernel, or is about to, and no thread has rung for it.
    asleep: bool,
    /// Wake-ups that no thread has used.
    wakes: u32,
    /// The ring reads the bell.
    bell_armed: bool,
}

impl Ring {
    /// Sets a ring up, with as many of the good flags as the kernel knows.
    pub(super) fn new(single: bool, size: Size) -> Result<Self, i32> {
        let setups: &[Setup] = if single {
            &SETUPS_SINGLE
        } else if probe::every_processor_ticks() {
            &SETUPS_SHARED
        } else {
            // A thread that computes on a processor without a tick would keep the packets of others
            // for as long as it computes.
            &[Setup::Plain]
        };
        let mut result = Err(libc::EINVAL);
        for &setup in setups {
            result = set_up(setup, size).map(|ring| (ring, setup));
            if !matches!(result, Err(libc::EINVAL)) {
                break;
            }
        }
        let (mut ring, setup) = result?;
        let bound = matches!(setup, Setup::Bound { .. });
        let bell = eventfd(0, EventfdFlags::CLOEXEC).map_err(rustix::io::Errno::raw_os_error)?;
        Ok(Ring {
            // In a bound ring, the one thread requests the read of the bell. The ring is still
            // disabled here.
            takes_messages: !bound && bell::takes_messages(&mut ring),
            ring,
            queue: Mutex::default(),
            sleeps: AtomicBool::new(false),
            bell,
            rung: Box::default(),
            handed_over: AtomicU64::new(0),
            single,
            setup,
            bound,
            owner: AtomicU64::new(0),
            forks: sys::forks(),
            has_table: false,
            deferred: Mutex::default(),
            taken: Box::default(),
            carried_out: AtomicU32::new(0),
        })
    }

    /// Whether the kernel has what the driver cannot do without.
    pub(super) fn has_features(&self) -> bool {
        let parameters = self.ring.params();
        parameters.is_feature_nodrop()
            && parameters.is_feature_ext_arg()
            && parameters.is_feature_fast_poll()
            && parameters.is_feature_skip_cqe_on_success()
    }

    /// Returns what this kernel does for the ring, and what replaces the rest.
    pub(super) fn features(&self) -> [&'static str; 3] {
        let own = match self.setup {
            Setup::Bound { .. } => abilities::DEFERS.in_use(true),
            _ if self.single => abilities::DEFERS.in_use(false),
            _ => abilities::TAKES_MESSAGES.in_use(self.takes_messages),
        };
        let index = !matches!(
            self.setup,
            Setup::Bound { sq_array: false } | Setup::Cooperative { sq_array: false }
        );
        let idles = self.ring.params().is_feature_no_iowait();
        [
            own,
            abilities::NEEDS_NO_INDEX.in_use(!index),
            abilities::IDLES.in_use(idles),
        ]
    }

    /// Makes the calling thread the one that may enter, if only one may. Returns whether it may
    /// enter.
    pub(super) fn bind(&self) -> Result<bool, i32> {
        if !self.bound {
            return Ok(true);
        }
        let this = this_thread();
        match self.owner.load(Ordering::Relaxed) {
            0 => {
                // The ring was made disabled, so that another thread than its maker can use it.
                let enabled = self.ring.submitter().register_enable_rings();
                enabled.map_err(|error| sys::code_of(&error))?;
                self.owner.store(this, Ordering::Relaxed);
                Ok(true)
            }
            owner => Ok(owner == this),
        }
    }

    /// Whether the calling thread is the only one that may enter.
    pub(super) fn is_bound_here(&self) -> bool {
        self.bound && self.owner.load(Ordering::Relaxed) == this_thread() && !self.is_forked()
    }

    /// Registers the provided buffers with the kernel.
    pub(super) fn register_buffers(&self, address: u64, entries: u16) -> Result<(), i32> {
        // SAFETY: the buffer ring lives until `unregister_buffers`, or is leaked with this ring.
        let registered = unsafe {
            self.ring
                .submitter()
                .register_buf_ring_with_flags(address, entries, BUFFER_GROUP, 0)
        };
        registered.map_err(|error| sys::code_of(&error))
    }

    /// Removes the provided buffers from the kernel.
    pub(super) fn unregister_buffers(&self) -> Result<(), i32> {
        let result = self.ring.submitter().unregister_buf_ring(BUFFER_GROUP);
        result.map_err(|error| sys::code_of(&error))
    }

    /// Queues a request, and rings for the thread that sleeps in the kernel. What the request
    /// points to stays in place until its end is reported.
    pub(super) fn push(&self, entry: Entry) {
        if self.is_forked() {
            return; // The ring is the parent's.
        }
        let mut queue = lock(&self.queue);
        queue.entries.push_back(entry);
        let ring = std::mem::take(&mut queue.asleep);
        drop(queue);
        if ring {
            self.ring_the_bell();
        }
    }

    /// Whether the calling thread may enter if no thread is inside. This does not bind the ring to
    /// it.
    pub(super) fn may_enter(&self) -> bool {
        !self.bound || self.is_bound_here()
    }

    /// Whether this process is a fork of the one that made the ring.
    pub(super) fn is_forked(&self) -> bool {
        sys::forks() != self.forks
    }

    /// Whether a thread sleeps in the kernel, as far as this is visible without the lock.
    pub(super) fn has_sleeper(&self) -> bool {
        self.sleeps.load(Ordering::Relaxed)
    }

    /// Returns how many requests whose end will be reported are with the kernel or queued for it.
    pub(super) fn unended(&self) -> u64 {
        let queue = lock(&self.queue);
        let queued = queue.entries.iter();
        let queued = queued.filter(|entry| is_reported(entry.get_user_data()));
        queued.count() as u64 + self.handed_over.load(Ordering::Relaxed)
    }

    /// The thread inside the driver reports that this many requests have ended.
    pub(super) fn ended(&self, requests: u64) {
        let before = self.handed_over.load(Ordering::Relaxed);
        self.handed_over.store(before - requests, Ordering::Relaxed);
    }

    /// Counts a request that will never end.
    #[cfg(test)]
    pub(super) fn never_ends(&self) {
        self.handed_over.fetch_add(1, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn descriptor(&self) -> i32 {
        self.ring.as_raw_fd()
    }

    /// Makes `threads` calls of `poll` return.
    pub(super) fn wake(&self, threads: u32) {
        let mut queue = lock(&self.queue);
        queue.wakes += threads;
        let ring = std::mem::take(&mut queue.asleep);
        drop(queue);
        if ring {
            self.ring_the_bell();
        }
    }

    /// Returns the wake-ups since the last call. They count as used.
    pub(super) fn used_wakes(&self) -> u32 {
        std::mem::take(&mut lock(&self.queue).wakes)
    }

    /// Hands over the queued requests and sleeps, at most this long, until something completes.
    ///
    /// # Safety
    /// Only one thread at a time is in here or in `completions`, and `bind` lets it.
    pub(super) unsafe fn enter(
        &self,
        at_most: Option<Duration>,
        purpose: Purpose,
    ) -> Result<(), i32> {
        let may_sleep = at_most != Some(Duration::ZERO);
        // SAFETY: one thread at a time, as the caller promises.
        let (to_submit, sleeps) = unsafe { self.prepare(may_sleep, purpose) };
        let want = match purpose {
            _ if !sleeps => 0,
            Purpose::Serve => 1,
            Purpose::End { want } => want,
        };
        let mut flags = EnterFlags::GETEVENTS;
        if self.ring.params().is_feature_no_iowait() {
            // Waiting for a peer is no reason to show the processor as waiting for a disk.
            flags |= EnterFlags::NO_IOWAIT;
        }
        // Half a million years is as good as forever, and the kernel can add it to its clock
        // without overflow.
        let limit = at_most.filter(|_| sleeps).map(|limit| {
            Timespec::new()
                .sec(limit.as_secs().min(1 << 44))
                .nsec(limit.subsec_nanos())
        });
        let submitter = self.ring.submitter();
        // SAFETY: what the requests point to stays in place until they end, as `push` says; the
        // arguments live through the call.
        let entered = unsafe {
            match &limit {
                Some(limit) => {
                    flags |= EnterFlags::EXT_ARG;
                    let arguments = SubmitArgs::new().timespec(limit);
                    submitter.enter(to_submit, want, flags.bits(), Some(&arguments))
                }
                None => submitter.enter::<libc::sigset_t>(to_submit, want, flags.bits(), None),
            }
        };
        if sleeps {
            lock(&self.queue).asleep = false;
            self.sleeps.store(false, Ordering::Relaxed);
        }
        match entered.map_err(|error| sys::code_of(&error)) {
            Ok(_) | Err(libc::ETIME | libc::EINTR) => Ok(()),
            // The kernel is short of memory, or completions wait to be taken. The requests stay
            // queued in the ring and go with the next enter.
            Err(libc::EAGAIN | libc::EBUSY) => {
                std::thread::yield_now();
                Ok(())
            }
            Err(code) => Err(code),
        }
    }

    /// Moves queued requests into the ring. Returns how many the ring holds, and whether to sleep.
    ///
    /// # Safety
    /// As for `enter`.
    unsafe fn prepare(&self, may_sleep: bool, purpose: Purpose) -> (u32, bool) {
        let mut queue = lock(&self.queue);
        let serves = purpose == Purpose::Serve;
        if serves && !self.takes_messages && !queue.bell_armed {
            queue.bell_armed = true;
            let read = opcode::Read::new(
                types::Fd(self.bell.as_raw_fd()),
                self.rung.as_ptr().cast(),
                size_of::<u64>() as u32,
            );
            let name = Name::own(Kind::Bell).encode();
            queue.entries.push_front(read.build().user_data(name));
        }
        // SAFETY: one thread at a time looks at either side of the ring.
        let (mut submissions, completed) = unsafe {
            let completions = self.ring.completion_shared();
            (self.ring.submission_shared(), !completions.is_empty())
        };
        let completed = completed || self.has_deferred();
        let mut reported = 0;
        while let Some(entry) = queue.entries.front() {
            // SAFETY: what it points to stays in place until it ends, as `push` says.
            if unsafe { submissions.push(entry) }.is_err() {
                break;
            }
            reported += u64::from(is_reported(entry.get_user_data()));
            queue.entries.pop_front();
        }
        let before = self.handed_over.load(Ordering::Relaxed);
        self.handed_over.store(before + reported, Ordering::Relaxed);
        if queue.entries.is_empty() && queue.entries.capacity() > KEEP_ENTRIES {
            queue.entries = VecDeque::new();
        }
        let woken = serves && queue.wakes > 0;
        let sleeps = may_sleep && !completed && !woken && queue.entries.is_empty();
        queue.asleep = sleeps && serves;
        self.sleeps.store(queue.asleep, Ordering::Relaxed);
        (submissions.len() as u32, sleeps)
    }

    /// Hands on what has completed.
    ///
    /// # Safety
    /// As for `enter`.
    pub(super) unsafe fn completions(&self, mut handle: impl FnMut(&[cqueue::Entry])) {
        loop {
            self.hand_on_deferred(&mut handle);
            let mut space = [const { std::mem::MaybeUninit::uninit() }; COMPLETIONS_MAX];
            // The queue is released before its completions are handled, so that the kernel has its
            // space back.
            let alone = self.alone();
            // SAFETY: one thread at a time, as the caller promises; and `alone` keeps out the
            // thread that takes completions in `carry_out`.
            let completed = unsafe { self.ring.completion_shared() }.fill(&mut space);
            drop(alone);
            if completed.is_empty() {
                return;
            }
            handle(completed);
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("parameters", self.ring.params())
            .field("bound", &self.bound)
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

/// Returns a number that no other thread has or ever had. The system gives the number of a thread
/// that has ended to another one: the ring would go to a thread that the kernel refuses.
fn this_thread() -> u64 {
    static THREADS: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static THIS: Cell<u64> = const { Cell::new(0) };
    }
    if THIS.get() == 0 {
        THIS.set(THREADS.fetch_add(1, Ordering::Relaxed) + 1);
    }
    THIS.get()
}

fn set_up(setup: Setup, size: Size) -> Result<IoUring, i32> {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(size.completions).setup_clamp();
    match setup {
        Setup::Bound { sq_array } => {
            builder
                .setup_submit_all()
                .setup_single_issuer()
                .setup_defer_taskrun()
                .setup_r_disabled();
            if !sq_array {
                builder.setup_no_sqarray();
            }
        }
        Setup::Cooperative { sq_array } => {
            builder.setup_submit_all().setup_coop_taskrun();
            if !sq_array {
                builder.setup_no_sqarray();
            }
        }
        Setup::Plain => {}
    }
    builder
        .build(size.submissions)
        .map_err(|error| sys::code_of(&error))
}
