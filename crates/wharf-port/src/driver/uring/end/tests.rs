//! Ends that no kernel produces on demand: a request that does not come back, and a ring that
//! fails.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use io_uring::opcode;

use crate::core::Core;
use crate::core::local::Local;
use crate::driver::uring::Uring;
use crate::driver::uring::end::LEFT;
use crate::driver::uring::request::{Kind, Name};
use crate::{DriverChoice, DriverKind, Key, Port, Wait};

/// Returns a shared port on a ring that `prepare` has changed, or `None` if io_uring is not
/// allowed.
fn port_on(prepare: impl FnOnce(&Uring)) -> Option<Port> {
    let builder = Port::builder().driver(DriverChoice::Require(DriverKind::Uring));
    let like = builder.build().ok()?;
    let options = *like.core.options();
    let uring = Uring::new(&options).expect("as the other one");
    prepare(&uring);
    let core = Core::new(options, Box::new(uring), like.driver().clone());
    Some(Port { core })
}

fn is_alive(core: &Weak<Core>) -> bool {
    core.upgrade().is_some()
}

#[test]
fn what_the_kernel_keeps_is_leaked_and_counted() {
    let Some(port) = port_on(|uring| uring.ring.never_ends()) else {
        return;
    };
    let core = Arc::downgrade(&port.core);
    let listener = port
        .listen(([127, 0, 0, 1], 0), Key(1))
        .expect("loopback listens");
    port.close();
    assert_eq!(port.stats().operations_leaked, 1, "the one that never ends");
    drop((listener, port));
    assert!(is_alive(&core), "the kernel may still write to it");
}

#[test]
fn what_came_back_is_not_leaked() {
    let Some(port) = port_on(|_| {}) else {
        return;
    };
    let core = Arc::downgrade(&port.core);
    let listener = port
        .listen(([127, 0, 0, 1], 0), Key(1))
        .expect("loopback listens");
    listener.socket().accept().expect("a fresh listener");
    let mut waiter = port.waiter().expect("a fresh port");
    drop(waiter.wait(Some(Duration::from_millis(1))));
    drop(waiter);
    port.close();
    assert_eq!(port.stats().operations_leaked, 0);
    drop((listener, port));
    assert!(!is_alive(&core), "no code has it any more");
}

#[test]
fn an_end_that_no_request_expects_is_counted_and_changes_nothing() {
    // The first socket has the name of all zeros. It watches nothing.
    let entry = opcode::Nop::new().build();
    let entry = entry.user_data(Name::own(Kind::Watch).encode());
    let Some(port) = port_on(|uring| uring.ring.push(entry)) else {
        return;
    };
    let listener = port
        .listen(([127, 0, 0, 1], 0), Key(1))
        .expect("loopback listens");
    listener.socket().accept().expect("a fresh listener");
    let mut waiter = port.waiter().expect("a fresh port");
    let began = Instant::now();
    while port.stats().foreign_packets == 0 {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "it was processed"
        );
        let waited = waiter.wait(Some(Duration::from_millis(1)));
        assert!(matches!(waited, Ok(Wait::TimedOut)), "{waited:?}");
    }
}

#[test]
fn a_wait_that_fails_reports_the_wake_ups_it_used() {
    let mut ring = 0;
    let Some(port) = port_on(|uring| ring = uring.ring.descriptor()) else {
        return;
    };
    let core = &port.core;
    let local = &mut Local::new(1, false);
    let mut poll = || {
        local.begin(8);
        core.driver().wake(3);
        let polled = core.driver().poll(core, Some(Duration::ZERO), local);
        (polled.is_ok(), std::mem::take(&mut local.wakes))
    };
    assert_eq!(poll(), (true, 3));
    let nothing = std::fs::File::open("/dev/null").expect("every system has it");
    let saved = replaced(ring, &nothing);
    assert_eq!(poll(), (false, 3), "they are used although the wait failed");
    drop(replaced(ring, &saved));
    assert_eq!(poll(), (true, 3));
}

/// Puts another file behind a descriptor, and returns the one that was there.
fn replaced(descriptor: i32, by: &impl std::os::fd::AsFd) -> std::os::fd::OwnedFd {
    use std::os::fd::{AsRawFd, BorrowedFd};
    // SAFETY: the ring has it open as long as the port lives.
    let open = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let saved = open.try_clone_to_owned().expect("room for one more");
    // SAFETY: both are open, and dup2(2) leaves the number with its owner.
    let result = unsafe { libc::dup2(by.as_fd().as_raw_fd(), descriptor) };
    assert_eq!(result, descriptor);
    saved
}

/// A thread that makes ports with tables and lives on keeps nothing of those that are gone.
#[test]
fn a_thread_forgets_the_tables_of_ports_that_are_gone() {
    let builder = || Port::builder().single_waiter().direct_descriptors(16);
    for _ in 0..4 {
        let Ok(port) = builder().build() else {
            return; // io_uring is not allowed, or its tables are not.
        };
        drop(port.waiter().expect("a fresh port"));
    }
    let kept = LEFT.with(|left| left.0.borrow().len());
    assert_eq!(
        kept, 1,
        "the last one is gone too, and the next one notices"
    );
}
