//! Waiters that busy-poll: everything holds as without it.
//!
//! A test of `spin` itself, with its own clock, checks how often a waiter looks. Here are the
//! events that end busy-polling, and every case about waiting once more. No case asserts that
//! busy-polling is fast.

use std::thread;
use std::time::{Duration, Instant};

use wharf_port::{ErrorKind, Event, Key, Wait};

use crate::cases::{port, timers, turns, waiters};
use crate::rig::case::{Case, Where, case, real_time, threads_apart};
use crate::rig::{OBSERVED, Rig, lock};

pub(crate) const CASES: &[Case] = &[
    case!(a_look_has_a_bound, [C13], "contract"),
    case!(a_wait_that_looks_is_not_over_early, [C5], "contract").skip(real_time),
    case!(a_post_ends_a_look, [C16, C5], "contract").skip(threads_apart),
    case!(a_close_ends_a_look, [C14, C5], "contract").skip(threads_apart),
    case!(a_nearer_timer_ends_a_look, [C17, C5], "contract").skip(real_time),
    case!(data_ends_a_look, [C5], "contract"),
    case!(
        submissions_of_other_threads_go_out_during_a_busy_poll,
        [C4, C5],
        "contract"
    )
    .skip(threads_apart),
    case!(
        the_cases_of_waiting_hold_with_a_look,
        [C4, C5, C16, C17, C18],
        "contract"
    )
    .skip(real_time)
    .seconds_max(120),
];

/// The longest busy-poll, so that everything here happens during one.
const LONGEST: Duration = Duration::from_secs(1);
/// A busy-poll that some of the events fall into, and some do not.
const SHORT: Duration = Duration::from_micros(200);

fn looking(at: &Where) -> Rig {
    Rig::with(at, |builder| builder.spin_max(LONGEST))
}

fn a_look_has_a_bound(at: &Where) {
    let error = at
        .builder()
        .spin_max(LONGEST + Duration::from_micros(1))
        .build();
    let error = error.expect_err("a look of more than a second");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    drop(looking(at));
}

fn a_wait_that_looks_is_not_over_early(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.spin_max(SHORT));
    for micros in [0, 1, 150, 200, 900, 5_000] {
        let limit = Duration::from_micros(micros);
        let start = Instant::now();
        let found = rig.waiter().wait(Some(limit)).expect("waits");
        assert!(matches!(found, Wait::TimedOut), "{found:?}");
        assert!(
            start.elapsed() >= limit,
            "a wait of {micros} µs was over early"
        );
    }
}

/// What the waiter finds while another thread does something.
fn meanwhile(rig: &mut Rig, act: impl FnOnce() + Send) -> String {
    thread::scope(|scope| {
        scope.spawn(act);
        match rig.waiter().wait(None).expect("waits") {
            Wait::Packets(mut batch) => {
                let packet = batch.next().expect("a batch is not empty");
                format!("{:?}", packet.event)
            }
            other => format!("{other:?}"),
        }
    })
}

fn a_post_ends_a_look(at: &Where) {
    let mut rig = looking(at);
    for value in 0..20 {
        let port = rig.port.clone();
        let found = meanwhile(&mut rig, move || port.post(Key(1), value).expect("room"));
        assert_eq!(found, format!("{:?}", Event::Posted(value)));
    }
}

fn a_close_ends_a_look(at: &Where) {
    let mut rig = looking(at);
    let port = rig.port.clone();
    let found = meanwhile(&mut rig, move || port.close());
    assert_eq!(found, format!("{:?}", Wait::Closed));
}

fn a_nearer_timer_ends_a_look(at: &Where) {
    let mut rig = looking(at);
    let port = rig.port.clone();
    let far = Instant::now() + Duration::from_secs(3600);
    let far = port.timer(far, Key(1)).expect("room");
    let deadline = Instant::now() + Duration::from_millis(5);
    let found = meanwhile(&mut rig, || {
        port.timer(deadline, Key(2)).expect("room");
    });
    assert_eq!(found, format!("{:?}", Event::Timer));
    assert!(Instant::now() >= deadline, "the timer was early");
    rig.port.cancel(far);
    rig.ended(far);
}

fn data_ends_a_look(at: &Where) {
    let mut rig = looking(at);
    let (stream, mut peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    for _ in 0..20 {
        rig.say(&mut peer, b"ping");
        assert_eq!(rig.receive(stream.socket(), 4), b"ping");
    }
}

fn submissions_of_other_threads_go_out_during_a_busy_poll(at: &Where) {
    let mut rig = looking(at);
    let (stream, mut peer) = rig.connection();
    let socket = stream.socket();
    let found = meanwhile(&mut rig, move || {
        let bytes = &b"from another thread"[..];
        socket.send_reported(bytes).expect("room");
    });
    assert!(found.starts_with("Sent"), "{found}");
    let heard = rig.hear(&mut peer, b"from another thread".len());
    assert_eq!(heard, b"from another thread");
}

fn the_cases_of_waiting_hold_with_a_look(at: &Where) {
    let at = Where {
        spin_max: SHORT,
        ..*at
    };
    let all = [waiters::CASES, turns::CASES, timers::CASES, port::CASES];
    for case in all.into_iter().flatten() {
        // Cases that need their own process are about what the process has, not about waiting.
        if !case.alone && (case.skip)(&at).is_none() {
            OBSERVED.with_borrow(|observed| lock(&observed.log).push(case.name.into()));
            (case.run)(&at);
        }
    }
}
