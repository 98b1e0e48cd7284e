//! The order in which bulk is taken, and which threads are woken. On real sockets the kernel
//! decides how much there is to read, and on real threads the scheduler decides which already
//! sleep. So these tests call the queue itself.

use super::*;

const BATCH: usize = 256 * 1024;

/// Makes a queue of a port with this many waiters.
fn with_waiters(waiters: u16) -> Ready {
    let ready = Ready::new(false);
    for _ in 0..waiters {
        ready.enlist(waiters).expect("room");
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
    // It is empty: the next one has its run. The first is last when it has more again.
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

#[test]
fn a_port_that_ends_in_order_closes_the_queue_once_nothing_is_left() {
    let ready = with_waiters(1);
    let mut local = Local::new(1, false);
    local.begin(8);
    assert!(ready.push_post(post(), 1).is_ok());
    assert!(ready.close_if_idle().is_none(), "a post that was taken");
    assert!(ready.take(&mut local).is_none());
    assert!(ready.close_if_idle().is_none(), "it is in a batch");
    assert!(ready.note_handed_out(&mut local));
    assert!(!ready.is_closed());
    assert!(ready.close_if_idle().is_some());
    assert!(ready.is_closed());
}

/// Makes a queue with a leader and `asleep` waiters asleep: number 1 leads, the others are parked
/// in order.
fn led(asleep: u16) -> Ready {
    let ready = Ready::new(true);
    assert!(matches!(ready.rest(1), Rest::Poll(_)));
    for number in 2..=asleep {
        assert!(matches!(ready.rest(number), Rest::Park));
    }
    ready
}

/// Makes a post.
fn post() -> Packet {
    Packet {
        key: crate::Key(1),
        op: crate::Op::post(0),
        socket: crate::SocketRef::none(0),
        event: crate::Event::Posted(1),
    }
}

fn is_parked(ready: &Ready, number: u16) -> bool {
    let state = lock(&ready.state);
    state.parked.iter().any(|parked| parked.0 == number)
}

#[test]
fn a_number_is_given_to_one_waiter_at_a_time() {
    let ready = Ready::new(true);
    assert_eq!(ready.enlist(3), Some(1));
    assert_eq!(ready.enlist(3), Some(2));
    assert_eq!(ready.dismiss(1), (1, false));
    // The second waiter still exists: the next one gets the number of the first.
    assert_eq!(ready.enlist(3), Some(1));
    assert_eq!(ready.enlist(3), Some(3));
    assert_eq!(ready.enlist(3), None);
    assert_eq!(ready.dismiss(2), (2, false));
    assert_eq!(ready.enlist(3), Some(2));
}

#[test]
fn no_thread_joins_a_port_that_has_ended() {
    let ready = Ready::new(true);
    assert_eq!(ready.enlist(1), Some(1));
    let _ = ready.close();
    let again = ready.enlist_again();
    assert_eq!(again, Some(2), "the last waiter has not left");
    assert_eq!(ready.dismiss(1), (1, true));
    assert_eq!(ready.dismiss(2), (0, true));
    assert_eq!(ready.enlist_again(), None);
}

#[test]
fn a_leader_that_leaves_calls_the_one_that_parked_last() {
    let ready = led(3);
    assert!(matches!(ready.woke(Entered::default(), 0), Wake::Parked(_)));
    assert!(is_parked(&ready, 2) && !is_parked(&ready, 3));
    assert!(ready.unparked(3), "it was called");
    assert!(matches!(ready.rest(3), Rest::Poll(_)), "it leads");
}

#[test]
fn a_follower_whose_time_is_up_swallows_no_call() {
    let ready = led(3);
    assert!(!ready.unparked(3), "no thread called it");
    assert!(matches!(ready.woke(Entered::default(), 0), Wake::Parked(_)));
    assert!(
        !is_parked(&ready, 2),
        "the one that still sleeps was called"
    );
}

#[test]
fn who_is_called_to_lead_and_leaves_calls_the_next() {
    let ready = led(3);
    assert!(matches!(ready.woke(Entered::default(), 0), Wake::Parked(_)));
    // Its own time was up, or it got a packet.
    assert!(ready.unparked(3));
    assert!(matches!(ready.hand_over(), Wake::Parked(_)));
    assert!(!is_parked(&ready, 2));
}

#[test]
fn no_waiter_is_called_while_another_leads() {
    let ready = led(3);
    assert!(matches!(ready.push_post(post(), 9), Ok(Wake::Parked(_))));
    assert!(ready.unparked(3));
    assert!(matches!(ready.hand_over(), Wake::NoThread));
    assert!(is_parked(&ready, 2));
}

#[test]
fn no_waiter_sleeps_while_anything_is_queued() {
    for push in [
        |ready: &Ready| ready.push_socket(1),
        |ready: &Ready| ready.push_bulk(1, BATCH),
        |ready: &Ready| ready.push_post(post(), 9).expect("room"),
        |ready: &Ready| ready.push_turnless(post()).expect("it is open"),
    ] {
        for leader_only in [true, false] {
            let ready = Ready::new(leader_only);
            assert!(matches!(push(&ready), Wake::NoThread));
            assert!(matches!(ready.rest(1), Rest::Ready));
        }
    }
}

#[test]
fn each_packet_that_is_put_back_wakes_one() {
    let ready = led(4);
    let Wake::Many(0, parked) = ready.push_turnless_front(vec![post(), post()]) else {
        panic!("two are parked last");
    };
    assert_eq!(parked.len(), 2);
    let Wake::Many(1, parked) = ready.push_turnless_front(vec![post(), post(), post()]) else {
        panic!("and the leader sleeps too");
    };
    assert_eq!(parked.len(), 1);
    let ready = Ready::new(false);
    assert!(matches!(ready.rest(1), Rest::Poll(_)));
    assert!(matches!(ready.rest(2), Rest::Poll(_)));
    let wake = ready.push_turnless_front(vec![post()]);
    assert!(matches!(wake, Wake::Many(1, _)), "{wake:?}");
}

#[test]
fn what_one_finds_is_shared_with_those_who_sleep() {
    let ready = Ready::new(false);
    for number in 1..=4 {
        assert!(matches!(ready.rest(number), Rest::Poll(_)));
    }
    // Inside the driver: the waiter that asks is not one of the sleepers.
    assert_eq!(ready.share_inside(8), 2);
    // A waiter that is being woken does not count as asleep.
    assert!(matches!(ready.push_socket(1), Wake::Driver(1)));
    assert!(matches!(ready.push_socket(2), Wake::Driver(1)));
    assert_eq!(ready.share_inside(8), 10_usize.div_ceil(3));
}

/// Registers a sleeper of the driver.
fn sleeps(ready: &Ready, number: u16) -> Entered {
    match ready.rest(number) {
        Rest::Poll(entered) => entered,
        other => panic!("nothing is queued: {other:?}"),
    }
}

#[test]
fn a_wake_up_for_a_deadline_that_another_took_is_made_up_for() {
    let ready = Ready::new(false);
    let first = sleeps(&ready, 1);
    assert!(matches!(ready.wake_drivers(), Wake::Driver(1)));
    // The second fell asleep after the deadline was set, and consumed the wake-up for the first.
    let second = sleeps(&ready, 2);
    assert!(matches!(ready.woke(second, 1), Wake::Driver(1)), "it goes");
    assert!(
        matches!(ready.woke(first, 1), Wake::NoThread),
        "it looks now"
    );
}

#[test]
fn no_waiter_is_woken_for_a_deadline_while_one_that_knows_it_sleeps() {
    let ready = Ready::new(false);
    let first = sleeps(&ready, 1);
    assert!(matches!(ready.wake_drivers(), Wake::Driver(1)));
    let (second, third) = (sleeps(&ready, 2), sleeps(&ready, 3));
    assert!(
        matches!(ready.woke(second, 1), Wake::NoThread),
        "the third knows"
    );
    assert!(
        matches!(ready.woke(third, 0), Wake::Driver(1)),
        "no sleeper does"
    );
    assert!(matches!(ready.woke(first, 1), Wake::NoThread));
}
