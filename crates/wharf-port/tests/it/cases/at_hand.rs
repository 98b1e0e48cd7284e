//! Packets in the batches of waiters when a port shuts down: they are delivered before the end.
//!
//! Posts and timers belong to no socket, so only the batch they are in has them.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use wharf_port::{Cancel, Event, Key, Wait, Waiter};

use crate::rig::Rig;
use crate::rig::case::{Case, Where, case, several_waiters, threads_apart};

pub(crate) const CASES: &[Case] = &[
    case!(
        packets_left_in_a_batch_are_delivered_before_the_end,
        [C14, C2, C16],
        "found by reading: posts of a batch that was broken off were lost"
    ),
    case!(
        skipped_packets_do_not_delay_the_end,
        [C14, C11],
        "found by reading: posts of a batch that was broken off were lost"
    ),
    case!(
        packets_in_another_waiters_batch_are_delivered_before_the_end,
        [C14, C2, C4, C16],
        "found by reading: posts of a batch that was broken off were lost"
    )
    .skip(several_waiters),
    case!(
        a_port_ends_when_the_last_batch_is_taken,
        [C14, C4],
        "found by reading: posts of a batch that was broken off were lost"
    )
    .skip(apart),
    case!(
        a_timer_of_a_closed_port_is_not_there_to_cancel,
        [C10, C2, C14],
        "found by seeds: an outcome was promised that no waiter could take"
    ),
];

fn apart(at: &Where) -> Option<&'static str> {
    several_waiters(at).or(threads_apart(at))
}

const LONG: Duration = Duration::from_secs(3_600);

/// Packets in a batch that belong to no socket.
#[derive(Clone, Copy, Debug)]
enum Loose {
    Post,
    Timer,
    TimerCancelled,
}

const LOOSE: [Loose; 3] = [Loose::Post, Loose::Timer, Loose::TimerCancelled];

/// Waits once and takes at most one packet. Returns its key, or nothing if the time is up.
fn one_packet(waiter: &mut Waiter) -> Option<Result<u64, &'static str>> {
    match waiter.wait(Some(Duration::ZERO)).expect("not broken") {
        Wait::Packets(mut batch) => Some(Ok(batch.next().expect("nobody drops it").key.0)),
        Wait::TimedOut => None,
        Wait::Closed => Some(Err("closed")),
    }
}

/// Makes three packets, with the keys 1 to 3. The waiter takes all and delivers one.
fn break_off_a_batch(rig: &mut Rig, loose: Loose) {
    let now = rig.port.sim().map_or_else(Instant::now, |it| it.now());
    for key in (1..=3).map(Key) {
        match loose {
            Loose::Post => rig.port.post(key, 1).expect("room"),
            Loose::Timer => _ = rig.port.timer(now, key).expect("room"),
            Loose::TimerCancelled => {
                let timer = rig.port.timer(now + LONG, key).expect("room");
                assert_eq!(rig.port.cancel(timer), Cancel::Requested);
            }
        }
    }
    assert_eq!(one_packet(rig.waiter()), Some(Ok(1)));
}

fn packets_left_in_a_batch_are_delivered_before_the_end(at: &Where) {
    for loose in LOOSE {
        let mut rig = Rig::new(at);
        break_off_a_batch(&mut rig, loose);
        rig.port.shutdown(LONG);
        let told = [(); 3].map(|()| one_packet(rig.waiter()));
        let all = [Some(Ok(2)), Some(Ok(3)), Some(Err("closed"))];
        assert_eq!(told, all, "{loose:?}");
    }
}

/// A packet of a dropped socket is never delivered: the batch that had it is empty.
fn skipped_packets_do_not_delay_the_end(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    rig.say(&mut peer, b"left");
    let Ok(Wait::Packets(batch)) = rig.waiter().wait(None) else {
        panic!("bytes were to come");
    };
    drop(batch);
    rig.renew_waiter();
    rig.port.post(Key(1), 1).expect("room");
    let Ok(Wait::Packets(mut batch)) = rig.waiter().wait(None) else {
        panic!("a post and the bytes were to come");
    };
    let first = batch.next().map(|packet| packet.event);
    assert!(matches!(first, Some(Event::Posted(1))), "{first:?}");
    assert_eq!(batch.len(), 1, "the bytes");
    drop(batch);
    drop(stream);
    rig.port.shutdown(LONG);
    let waited = rig.waiter().wait(None);
    assert!(matches!(waited, Ok(Wait::Closed)), "{waited:?}");
}

fn packets_in_another_waiters_batch_are_delivered_before_the_end(at: &Where) {
    for (loose, goes) in LOOSE.into_iter().flat_map(|it| [(it, false), (it, true)]) {
        let mut rig = Rig::new(at);
        let mut other = rig.port.waiter().expect("a shared port has many");
        break_off_a_batch(&mut rig, loose);
        rig.port.shutdown(LONG);
        assert_eq!(one_packet(&mut other), None, "{loose:?}: it is not over");
        let rest = if goes {
            rig.drop_waiter();
            [one_packet(&mut other), one_packet(&mut other)]
        } else {
            let rest = [one_packet(rig.waiter()), one_packet(rig.waiter())];
            assert_eq!(one_packet(rig.waiter()), Some(Err("closed")));
            rest
        };
        assert_eq!(rest, [Some(Ok(2)), Some(Ok(3))], "{loose:?}");
        assert_eq!(one_packet(&mut other), Some(Err("closed")));
    }
}

/// The waiter that takes the last packet need not wait again.
fn a_port_ends_when_the_last_batch_is_taken(at: &Where) {
    for goes in [false, true] {
        let mut rig = Rig::new(at);
        break_off_a_batch(&mut rig, Loose::Post);
        let (port, ready) = (rig.port.clone(), Barrier::new(2));
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                let mut waiter = port.waiter().expect("a shared port has many");
                ready.wait();
                let mut posts = 0;
                loop {
                    match waiter.wait(None).expect("the port is not broken") {
                        Wait::Packets(batch) => posts += batch.count(),
                        Wait::TimedOut => panic!("there was no limit"),
                        Wait::Closed => return posts,
                    }
                }
            });
            ready.wait();
            rig.port.shutdown(LONG);
            if goes {
                rig.drop_waiter();
                assert_eq!(sleeper.join().expect("it hears of the end"), 2);
                return;
            }
            let Ok(Wait::Packets(batch)) = rig.waiter().wait(None) else {
                panic!("two are at hand");
            };
            assert_eq!(batch.count(), 2);
            assert_eq!(sleeper.join().expect("it hears of the end"), 0);
        });
    }
}

fn a_timer_of_a_closed_port_is_not_there_to_cancel(at: &Where) {
    let mut rig = Rig::new(at);
    let now = rig.port.sim().map_or_else(Instant::now, |it| it.now());
    let timer = rig.port.timer(now + LONG, Key(1)).expect("room");
    rig.port.close();
    assert_eq!(rig.port.cancel(timer), Cancel::NotFound);
    rig.drop_waiter();
    assert_eq!(rig.port.cancel(timer), Cancel::NotFound);
}
