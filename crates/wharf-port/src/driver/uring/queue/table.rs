//! The ring's own table of sockets without descriptors, and requests that are carried out at once.
//!
//! A system call on a socket needs a descriptor, and a ring lends one. One request to the kernel
//! installs a descriptor for the place in the table. Then the system call is made, and the
//! descriptor is closed. This works at once, and only on the ring's thread, because no other thread
//! may enter. The operations that io_uring has for the same were rejected: its shutdown always goes
//! to a worker thread (6.8 against 1.2 microseconds), and it returns addresses only from Linux 6.19
//! on.

use std::collections::VecDeque;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::Ordering;

use io_uring::squeue::Entry;
use io_uring::{EnterFlags, Probe, cqueue, opcode, types};
use parking_lot::MutexGuard;

use super::{COMPLETIONS_MAX, Ring};
use crate::driver::uring::request::Name;
use crate::lock;
use crate::sys::{self, Handle};

/// How many times a completion is looked for. A kernel that is short of memory may take the request
/// later.
const TRIES_MAX: u32 = 1000;
/// `IORING_FILE_INDEX_ALLOC`: the kernel chooses the place (linux/io_uring.h).
const ANY_PLACE: i32 = -1;

impl Ring {
    /// Makes a table with this many places, before the ring has a thread.
    pub(in crate::driver::uring) fn open_table(&mut self, places: u32) -> Result<(), i32> {
        let submitter = self.ring.submitter();
        let opened = submitter.register_files_sparse(places);
        opened.map_err(|error| sys::code_of(&error))?;
        self.has_table = true;
        Ok(())
    }

    /// Whether this kernel can lend descriptors, and do everything else that a table needs. Setting
    /// options (Linux 6.7) is older than lending (Linux 6.8).
    pub(in crate::driver::uring) fn lends(&self) -> bool {
        let mut probe = Probe::new();
        let probed = self.ring.submitter().register_probe(&mut probe);
        self.bound && probed.is_ok() && probe.is_supported(opcode::FixedFdInstall::CODE)
    }

    /// Closes every socket in the table, on the ring's thread.
    pub(in crate::driver::uring) fn close_table(&self) {
        if self.has_table {
            // It fails only if there is no table.
            let _ = self.ring.submitter().unregister_files();
        }
    }

    /// Returns a descriptor of the socket in this place. It is closed when the handle is dropped.
    pub(in crate::driver::uring) fn lend(&self, place: u32) -> Result<Handle, i32> {
        let install = opcode::FixedFdInstall::new(types::Fixed(place), 0).build();
        let descriptor = self.carry_out(install)?;
        let descriptor = i32::try_from(descriptor).expect("descriptors are not negative");
        // SAFETY: the kernel made it for this request, whose completion no other code sees.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }.into())
    }

    /// Puts a socket into the table as well, and returns its place.
    pub(in crate::driver::uring) fn take_in(&self, handle: &Handle) -> Result<u32, i32> {
        self.taken.store(handle.number(), Ordering::Relaxed);
        let update = opcode::FilesUpdate::new(self.taken.as_ptr(), 1).offset(ANY_PLACE);
        match self.carry_out(update.build())? {
            1 => Ok(self.taken.load(Ordering::Relaxed).unsigned_abs()),
            _ => Err(libc::ENFILE),
        }
    }

    /// Makes a request that the kernel carries out without waiting, and waits for its end. The
    /// completions of other requests are deferred.
    fn carry_out(&self, entry: Entry) -> Result<u32, i32> {
        if !self.is_bound_here() {
            return Err(libc::EXDEV);
        }
        // The thread that ends the port looks at completions too.
        let mut deferred = lock(&self.deferred);
        let number = self.carried_out.fetch_add(1, Ordering::Relaxed);
        let name = Name::immediate(number).encode();
        let entry = entry.user_data(name);
        let mut pushed = false;
        for _ in 0..TRIES_MAX {
            // SAFETY: this is the only thread that may enter, it does nothing else with this side
            // of the ring meanwhile, and what the entry points to belongs to this ring.
            let length = unsafe {
                let mut submissions = self.ring.submission_shared();
                pushed = pushed || submissions.push(&entry).is_ok();
                submissions.len() as u32
            };
            // Without GETEVENTS, the kernel processes no completions of other requests here. With
            // it, the kernel moves completions into the queue that did not fit before.
            self.enter_now(length, 0)?;
            if let Some(result) = self.find_and_defer(name, &mut deferred) {
                return u32::try_from(result).map_err(|_| -result);
            }
            self.enter_now(0, EnterFlags::GETEVENTS.bits())?;
        }
        Err(libc::EAGAIN)
    }

    fn enter_now(&self, to_submit: u32, flags: u32) -> Result<(), i32> {
        // SAFETY: as in `carry_out`; what was in the ring before stays in place, as `push` says.
        let entered = unsafe {
            let submitter = self.ring.submitter();
            submitter.enter::<libc::sigset_t>(to_submit, 0, flags, None)
        };
        match entered.map_err(|error| sys::code_of(&error)) {
            Ok(_) | Err(libc::EINTR) => Ok(()),
            Err(libc::EAGAIN | libc::EBUSY) => {
                std::thread::yield_now();
                Ok(())
            }
            Err(code) => Err(code),
        }
    }

    /// Defers all completions except the one with this name, and returns the result of that one.
    fn find_and_defer(&self, name: u64, deferred: &mut VecDeque<cqueue::Entry>) -> Option<i32> {
        let mut found = None;
        // SAFETY: under the lock of `deferred` no other thread takes completions.
        for completed in unsafe { self.ring.completion_shared() } {
            if completed.user_data() == name {
                found = Some(completed.result());
            } else {
                deferred.push_back(completed);
            }
        }
        found
    }

    /// Keeps other threads from the completions, if there is a table.
    pub(super) fn alone(&self) -> Option<MutexGuard<'_, VecDeque<cqueue::Entry>>> {
        self.has_table.then(|| lock(&self.deferred))
    }

    /// Whether completions were deferred.
    pub(super) fn has_deferred(&self) -> bool {
        self.has_table && !lock(&self.deferred).is_empty()
    }

    /// Hands on the deferred completions. They are older than those in the ring.
    pub(super) fn hand_on_deferred(&self, handle: &mut impl FnMut(&[cqueue::Entry])) {
        while self.has_deferred() {
            let mut deferred = lock(&self.deferred);
            let many = deferred.len().min(COMPLETIONS_MAX);
            let completed: Vec<_> = deferred.drain(..many).collect();
            drop(deferred);
            handle(&completed);
        }
    }
}
