//! What a ring reports of itself, also one that this kernel would set up otherwise.

use super::*;

/// Returns a ring, or `None` if io_uring is not allowed.
fn ring(single: bool) -> Option<Ring> {
    let ring = Ring::new(single, Size::default());
    ring.inspect_err(|code| println!("skipped: io_uring is refused with {code}"))
        .ok()
}

#[test]
fn queued_requests_and_those_of_the_kernel_are_unended() {
    let Some(ring) = ring(false) else {
        return;
    };
    let name = Name::own(Kind::Watch).encode();
    ring.push(opcode::Nop::new().build().user_data(name));
    ring.never_ends();
    ring.never_ends();
    assert_eq!(ring.unended(), 3);
    ring.ended(1);
    assert_eq!(ring.unended(), 2);
}

#[test]
fn any_thread_enters_a_ring_that_is_bound_to_none() {
    if let Some(ring) = ring(false) {
        assert!(ring.may_enter());
    }
    let Some(ring) = ring(true) else {
        return;
    };
    ring.bind().expect("no thread has it yet");
    assert!(ring.may_enter());
    let elsewhere = std::thread::scope(|scope| {
        let other = scope.spawn(|| ring.may_enter());
        other.join().expect("no call panics")
    });
    assert_eq!(elsewhere, !ring.bound);
}

#[test]
fn a_single_waiters_ring_says_whether_the_kernel_defers_its_work() {
    let Some(mut ring) = ring(true) else {
        return;
    };
    let bound = matches!(ring.setup, Setup::Bound { .. });
    assert_eq!(ring.features()[0], abilities::DEFERS.in_use(bound));
    // As on a kernel that has no bound rings.
    ring.setup = Setup::Plain;
    assert_eq!(ring.features()[0], abilities::DEFERS.in_use(false));
    ring.single = false;
    let messages = abilities::TAKES_MESSAGES.in_use(ring.takes_messages);
    assert_eq!(ring.features()[0], messages);
}
