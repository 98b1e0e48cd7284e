//! A waiter's place on its port, and what gives it up.
//!
//! A waiter may be dropped, forgotten (`mem::forget` is safe), or left in a thread-local of the
//! program. A thread-local may be dropped before or after the list of seats here, because we do not
//! choose the order of a thread's destructors. So the seat itself knows whether it is taken. The
//! drop of the waiter or the end of its thread, whichever is first, gives the seat up. The other
//! one then finds that this is done. A seat that was given up twice once let a port end while a
//! thread was inside its ring.
//!
//! The seat owns what the waiter has at hand. So giving up the seat returns that too.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use crate::core::taking::Taking;
use crate::core::{Core, registry};
use crate::error::{Error, ErrorKind, Operation, Result};

/// A waiter's place. It is an `Rc`, because all of it belongs to one thread.
#[derive(Debug)]
pub(crate) struct Seat {
    core: Weak<Core>,
    number: u16,
    is_taken: Cell<bool>,
    pub(crate) taking: RefCell<Taking>,
}

const TOO_MANY: &str = "the port has as many waiters as it may: raise waiters_max where the port \
                        is built, or drop one";

impl Seat {
    /// Takes a place on the port, for this thread.
    pub(crate) fn take(core: &Arc<Core>) -> Result<Rc<Self>> {
        if core.is_closed() {
            return Err(Error::new(Operation::Waiter, ErrorKind::Closed));
        }
        let shared = core.options.shared;
        let waiters_max = if shared { core.options.waiters_max } else { 1 };
        let number = core.ready.enlist(waiters_max).ok_or(match shared {
            true => Error::advised(Operation::Waiter, ErrorKind::Full, TOO_MANY),
            false => Error::new(Operation::Waiter, ErrorKind::Busy),
        })?;
        let seat = Rc::new(Seat {
            core: Arc::downgrade(core),
            number,
            is_taken: Cell::new(true),
            taking: RefCell::new(Taking::new(number, !shared)),
        });
        if let Err(error) = core.driver.enter_thread() {
            seat.give_up(core);
            return Err(error);
        }
        // A thread whose thread-locals are destroyed has no waiters to lose.
        let _ = OF_THIS_THREAD.try_with(|seats| seats.0.borrow_mut().push(Rc::clone(&seat)));
        registry::keep(core);
        Ok(seat)
    }

    /// Whether the waiter may still wait. It may not after its thread has given up its waiters,
    /// because then the port can end at any time.
    pub(crate) fn is_taken(&self) -> bool {
        self.is_taken.get()
    }

    /// The waiter is dropped.
    pub(crate) fn leave(&self, core: &Arc<Core>) {
        let _ = OF_THIS_THREAD.try_with(|seats| {
            seats
                .0
                .borrow_mut()
                .retain(|seat| !std::ptr::eq(Rc::as_ptr(seat), self));
        });
        if !self.give_up(core) {
            // The end of the thread came first, and counted the waiter as forgotten.
            core.counters.waiters_leaked.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The thread ends, and the waiter was not dropped before.
    fn end_with_thread(&self) {
        let Some(core) = self.core.upgrade() else {
            return;
        };
        core.counters.waiters_leaked.fetch_add(1, Ordering::Relaxed);
        if !core.options.shared {
            // No other thread may wait in its place.
            core.close();
        }
        self.give_up(&core);
    }

    /// Gives up the place. Returns whether this call did it.
    fn give_up(&self, core: &Arc<Core>) -> bool {
        if !self.is_taken.replace(false) {
            return false;
        }
        registry::let_go(core);
        if core.is_forked() {
            return true; // The count belongs to the parent.
        }
        core.put_back(&mut self.taking.borrow_mut().local);
        if !core.is_closed() {
            core.driver.leave_thread(core, false);
        }
        core.waiter_left(self.number);
        true
    }
}

impl Core {
    /// A thread ends, and the driver has work to do on it although its waiters are gone.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn thread_ends(self: &Arc<Self>) {
        // It counts like a waiter, so no other thread ends the port meanwhile.
        if let Some(number) = self.ready.enlist_again() {
            self.driver.leave_thread(self, true);
            self.waiter_left(number);
        }
    }
}

/// The places that a thread has not given up.
struct OfThisThread(RefCell<Vec<Rc<Seat>>>);

thread_local! {
    static OF_THIS_THREAD: OfThisThread = const { OfThisThread(RefCell::new(Vec::new())) };
}

impl Drop for OfThisThread {
    fn drop(&mut self) {
        self.0.take().iter().for_each(|seat| seat.end_with_thread());
    }
}
