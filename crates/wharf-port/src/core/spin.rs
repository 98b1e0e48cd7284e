//! Busy-polling: a waiter that finds nothing may poll the driver for a bounded time before it
//! sleeps.
//!
//! With one connection, most of a round trip is the kernel putting a thread to sleep and waking it.
//! A thread that never slept is there at once, at the price of one core. While it spins, the ready
//! queue still counts the waiter as blocked in the driver. A post, a submission, an earlier timer
//! or a close wakes it exactly as if it were asleep, no other waiter takes over, and no other
//! module knows about spinning. A loop around the whole wait was rejected: where one waiter leads,
//! each iteration would have woken the next waiter.
//!
//! Each poll is a system call that does not wait: `epoll_wait` with a timeout of 0, an enter that
//! wants no completion, `GetQueuedCompletionStatusEx` with 0. Reading the ring without a system
//! call is not enough: a ring with a single waiter puts completions there only when its thread
//! enters.

use std::time::Duration;

/// Calls the driver's `poll` without sleeping until it returns true (it found something) or `spin`
/// has passed. If it found nothing, calls it once more, to sleep. `at_most` bounds the whole time.
pub(crate) fn poll<E>(
    spin: Duration,
    at_most: Option<Duration>,
    spent: impl Fn() -> Duration,
    mut poll: impl FnMut(Option<Duration>) -> Result<bool, E>,
) -> Result<(), E> {
    loop {
        let spent = spent();
        let left = at_most.map(|limit| limit.saturating_sub(spent));
        if spent >= spin || left == Some(Duration::ZERO) {
            return poll(left).map(drop);
        }
        if poll(Some(Duration::ZERO))? {
            return Ok(());
        }
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::time::Duration;

    use super::poll;

    const fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    /// Returns the limits that `poll` is called with if each call takes 10 µs and `brings` decides
    /// what it returns.
    fn calls(
        spin: Duration,
        at_most: Option<Duration>,
        brings: impl Fn(usize) -> bool,
    ) -> Vec<Option<Duration>> {
        let clock = Cell::new(Duration::ZERO);
        let calls = RefCell::new(Vec::new());
        let polled = poll(
            spin,
            at_most,
            || clock.get(),
            |limit| {
                clock.set(clock.get() + micros(10));
                calls.borrow_mut().push(limit);
                Ok::<_, i32>(brings(calls.borrow().len()))
            },
        );
        assert_eq!(polled, Ok(()));
        calls.into_inner()
    }

    #[test]
    fn without_a_spin_the_first_call_sleeps() {
        assert_eq!(calls(Duration::ZERO, None, |_| false), [None]);
    }

    #[test]
    fn after_the_spin_it_sleeps_for_what_is_left() {
        let now = Some(Duration::ZERO);
        let called = calls(micros(30), None, |_| false);
        assert_eq!(called, [now, now, now, None]);
        let called = calls(micros(30), Some(micros(500)), |_| false);
        assert_eq!(called, [now, now, now, Some(micros(470))]);
    }

    #[test]
    fn a_spin_ends_with_the_time_of_the_wait() {
        let now = Some(Duration::ZERO);
        let called = calls(micros(1000), Some(micros(20)), |_| false);
        assert_eq!(called, [now, now, now]);
        let called = calls(micros(1000), now, |_| false);
        assert_eq!(called, [now], "a wait without time asks once");
    }

    #[test]
    fn a_spin_ends_with_what_it_finds() {
        assert_eq!(calls(micros(1000), None, |call| call == 2).len(), 2);
    }

    #[test]
    fn an_error_ends_a_spin() {
        let result = poll(micros(1000), None, || Duration::ZERO, |_| Err(5));
        assert_eq!(result, Err(5));
    }
}
