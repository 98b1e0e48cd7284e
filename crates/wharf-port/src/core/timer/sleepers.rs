//! What sleepers know, and which of them a new timer has to wake.

use std::time::{Duration, Instant};

use crate::core::timer::Timers;

#[test]
fn only_a_timer_before_what_sleepers_know_is_news() {
    let start = Instant::now();
    let at = |millis| start + Duration::from_millis(millis);
    let mut timers = Timers::new(start, 100);
    assert_eq!(timers.sleep_until(at(0), false), None);
    let first = timers.insert(at(1_000), 1).expect("room");
    assert!(timers.is_news(at(1_000)), "they sleep for ever");
    assert_eq!(timers.sleep_until(at(0), false), Some(at(1_000)));
    // One timer for each request, cancelled each time. The sleepers look at the timers before it is
    // due.
    assert_eq!(timers.cancel(first), Some(1));
    for request in 1..100 {
        let timer = timers.insert(at(1_000 + request), 2).expect("room");
        assert!(!timers.is_news(at(1_000 + request)));
        assert_eq!(timers.cancel(timer), Some(2));
        assert_eq!(timers.sleep_until(at(request), false), Some(at(1_000)));
    }
    timers.insert(at(900), 3).expect("room");
    assert!(timers.is_news(at(900)), "it is nearer");
    assert_eq!(timers.sleep_until(at(100), false), Some(at(900)));
}

#[test]
fn sleepers_that_have_looked_know_what_is_set_now() {
    let start = Instant::now();
    let at = |millis| start + Duration::from_millis(millis);
    let mut timers = Timers::new(start, 100);
    let gone = timers.insert(at(10), 1).expect("room");
    assert!(timers.is_news(at(10)));
    timers.cancel(gone);
    timers.insert(at(500), 2).expect("room");
    assert!(!timers.is_news(at(500)), "they look at 10");
    assert_eq!(timers.sleep_until(at(9), false), Some(at(10)));
    // At 10 there is nothing. A thread that sleeps from now on sleeps until the next timer.
    assert_eq!(timers.expire(at(10)), None);
    assert_eq!(timers.sleep_until(at(10), false), Some(at(500)));
    assert!(timers.is_news(at(499)));
    // A thread that sleeps alone has no others to agree with.
    let nearer = timers.insert(at(400), 3).expect("room");
    assert!(timers.is_news(at(400)));
    timers.cancel(nearer);
    assert_eq!(timers.sleep_until(at(20), false), Some(at(400)));
    assert_eq!(timers.sleep_until(at(20), true), Some(at(500)));
}
