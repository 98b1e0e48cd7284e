//! The order in which bulk is taken. On a real socket it is the kernel that decides how much there
//! is to read, so that these cases speak to the queue itself.

use super::*;

const BATCH: usize = 256 * 1024;

/// A queue of a port that has so many waiters.
fn with_waiters(waiters: u16) -> Ready {
    let ready = Ready::new(false);
    for _ in 0..waiters {
        ready.enlist(waiters, &mut Vec::new()).expect("room");
    }
    ready
}

fn take(ready: &Ready) -> u32 {
    match lock(&ready.state).take_other() {
        Some(Taken::Socket(index)) => index,
        other => panic!("not a socket: {other:?}"),
    }
}

fn push_bulk(ready: &Ready, index: u32) {
    let _ = ready.push_bulk(index, BATCH);
}

#[test]
fn a_socket_stays_first_until_it_is_empty() {
    let ready = with_waiters(1);
    push_bulk(&ready, 1);
    push_bulk(&ready, 2);
    for _ in 0..4 {
        assert_eq!(take(&ready), 1);
        push_bulk(&ready, 1);
    }
    assert_eq!(take(&ready), 1);
    // It is empty: the next one has its run, and it stands last when it has more again.
    assert_eq!(take(&ready), 2);
    push_bulk(&ready, 1);
    push_bulk(&ready, 2);
    assert_eq!(take(&ready), 2);
    assert_eq!(take(&ready), 1);
}

#[test]
fn a_run_ends_though_there_is_more() {
    let ready = with_waiters(1);
    push_bulk(&ready, 1);
    push_bulk(&ready, 2);
    for index in [1, 2, 1, 2] {
        for _ in 0..RUN_BYTES_MAX / BATCH {
            assert_eq!(take(&ready), index);
            push_bulk(&ready, index);
        }
    }
}

#[test]
fn each_waiter_has_a_run() {
    let ready = with_waiters(2);
    for index in 1..=3 {
        push_bulk(&ready, index);
    }
    let mut taken = [0; 4];
    for _ in 0..RUN_BYTES_MAX / BATCH {
        let (one, other) = (take(&ready), take(&ready));
        for index in [one, other] {
            taken[index as usize] += 1;
            push_bulk(&ready, index);
        }
    }
    assert_eq!(taken, [0, 16, 16, 0]);
    assert_eq!(take(&ready), 3, "neither of the two stays for ever");
}

#[test]
fn bulk_waits_for_others_but_not_for_ever() {
    let ready = with_waiters(1);
    push_bulk(&ready, 1);
    for index in 100..200 {
        let _ = ready.push_socket(index);
    }
    let taken: Vec<_> = (0..101).map(|_| take(&ready)).collect();
    let others = TAKEN_BEFORE_BULK_MAX as usize;
    assert_eq!(taken.iter().position(|&index| index == 1), Some(others));
    assert!(taken[..others].iter().copied().eq((100..).take(others)));
}

#[test]
fn places_that_are_used_again_do_not_lengthen_the_queue() {
    let ready = with_waiters(1);
    for _ in 0..100 {
        for index in 0..1_000 {
            push_bulk(&ready, index);
        }
    }
    assert!(lock(&ready.state).behind.len() <= 2_000);
    let taken: HashSet<_> = (0..2_000).map_while(|_| taken(&ready)).collect();
    assert_eq!(taken.len(), 1_000, "each is still there");
}

fn taken(ready: &Ready) -> Option<u32> {
    match lock(&ready.state).take_other()? {
        Taken::Socket(index) => Some(index),
        other => panic!("not a socket: {other:?}"),
    }
}
