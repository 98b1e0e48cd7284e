//! Many at once: bursts, signals, and threads that come and leave; nothing may be lost.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use wharf_port::{Close, End, Event, Key, Op};

use crate::cases::send::signals;
use crate::rig::Rig;
use crate::rig::case::{Case, Driver, Where, case};
use crate::rig::system;

pub(crate) const CASES: &[Case] = &[
    case!(
        a_burst_of_many_sockets_loses_nothing,
        [C2, C8],
        "compio #460, tokio #8112: overflowing queues"
    )
    .skip(crate::rig::case::linux)
    .alone()
    .seconds_max(60),
    case!(
        a_storm_of_signals_loses_nothing,
        [C2, C5],
        "tokio #8255: interrupted system calls"
    )
    .skip(signals)
    .alone(),
    case!(
        errors_of_the_kernels_entrance_lose_nothing,
        [C2, C3],
        "tokio #8255, compio submit_auto, ntex 0.1.21"
    )
    .skip(injected)
    .alone()
    .seconds_max(60),
    case!(
        threads_that_submit_and_end_leave_nothing_undone,
        [C4, C2],
        "neon #11446"
    ),
    case!(
        everything_at_once_balances,
        [C2, C11],
        "reliability: the ledger"
    ),
];

fn injected(at: &Where) -> Option<&'static str> {
    if at.driver != Driver::Uring {
        return Some("io_uring alone has one entrance for all that it is asked");
    }
    (!at.strace).then_some("strace is missing here, or may not trace")
}

fn a_burst_of_many_sockets_loses_nothing(at: &Where) {
    const SOCKETS: usize = 3_000;
    system::allow_descriptors(2 * SOCKETS + 100);
    let mut rig = Rig::with(at, |builder| at.with_places(builder, SOCKETS as u32 + 1));
    let mut ends: Vec<_> = (0..SOCKETS).map(|_| rig.connection()).collect();
    for (stream, _) in &ends {
        stream.socket().receive().expect("nothing else reads");
    }
    rig.expect_nothing();
    for round in 0..3u8 {
        // All of it is there before a waiter waits.
        let mut left: HashSet<Op> = HashSet::new();
        for (stream, peer) in &mut ends {
            assert_eq!(peer.try_send(&[round]), Some(1), "a byte always fits");
            left.insert(stream.send_reported(vec![round]).expect("an empty queue"));
        }
        let mut bytes = 0;
        while bytes < SOCKETS || !left.is_empty() {
            let packet = rig.next("a byte, or the end of a send");
            match packet.event {
                Event::Received(lease) => {
                    assert_eq!(*lease, [round]);
                    bytes += 1;
                }
                Event::Sent { .. } => assert!(left.remove(&packet.op), "twice: {packet:?}"),
                other => panic!("not asked for: {other:?}"),
            }
        }
        rig.expect_nothing();
    }
}

fn a_storm_of_signals_loses_nothing(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    let storm = system::SignalStorm::start();
    let mut count = 0u32;
    while count < 500 || storm.came() < 500 {
        let bytes = count.to_le_bytes();
        rig.say(&mut peer, &bytes);
        assert_eq!(rig.receive(stream.socket(), 4), bytes);
        stream.send(bytes.to_vec()).expect("an empty queue");
        assert_eq!(rig.hear(&mut peer, 4), bytes);
        count += 1;
        if count % 10 == 0 {
            rig.expect_nothing();
        }
    }
    storm.stop();
}

/// Set for the process that strace watches.
const INSIDE: &str = "WHARF_TEST_INSIDE";

/// What is in the ring runs with the next call, whatever this call returns: freeing its buffer here
/// is a use after free, and submitting it again is a second send.
fn errors_of_the_kernels_entrance_lose_nothing(at: &Where) {
    if std::env::var_os(INSIDE).is_some() {
        return rounds_of_all_kinds(at);
    }
    for error in ["EAGAIN", "EBUSY", "EINTR"] {
        let log = format!("entrance-{}-{error}.strace", at.mode.name());
        let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(log);
        let mut strace = Command::new("strace");
        strace.args(["-f", "-q", "-e", "trace=io_uring_enter", "-o"]);
        // Not during the driver's self-test, which handles failure in its own way.
        let inject = format!("inject=io_uring_enter:error={error}:when=60+4");
        strace.arg(&log).args(["-e", &inject]);
        strace.arg(std::env::current_exe().expect("a test has a binary"));
        let output = strace.env(INSIDE, "1").output().expect("it ran before");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "with {error}: {said}");
        let seen = std::fs::read_to_string(&log).expect("strace has written it");
        let count = seen.matches("(INJECTED)").count();
        assert!(count >= 20, "only {count} of {error} came");
        std::fs::remove_file(&log).expect("nobody else has it");
    }
}

pub(crate) fn rounds_of_all_kinds(at: &Where) {
    let mut rig = Rig::new(at);
    for round in 0..30u8 {
        let (stream, mut peer) = rig.connection();
        let bytes = [round; 50];
        let into = stream
            .socket()
            .receive_into(vec![0; 50])
            .expect("nothing reads");
        rig.say(&mut peer, &bytes);
        let packet = rig.expect("bytes for a buffer", |packet| packet.op == into);
        let Event::ReceivedInto { buffer, count, .. } = packet.event else {
            panic!("not asked for: {packet:?}");
        };
        assert_eq!(buffer[..count], bytes, "in round {round}");
        let streaming = stream.socket().receive().expect("nothing reads");
        for _ in 0..5 {
            rig.say(&mut peer, &bytes);
            assert_eq!(rig.receive(stream.socket(), 50), bytes);
            let op = stream.send_reported(bytes.to_vec()).expect("a short queue");
            let packet = rig.expect("the outcome of a send", |packet| packet.op == op);
            let Event::Sent { buffer, .. } = packet.event else {
                panic!("the send is with the kernel, whatever its call said: {packet:?}");
            };
            assert_eq!(*buffer, bytes, "it comes back as it was");
            assert_eq!(rig.hear(&mut peer, 50), bytes);
        }
        rig.port.cancel(streaming);
        assert_eq!(rig.ended(streaming).how, End::Cancelled);
        let socket = stream.socket();
        stream.close(Close::Flush).expect("it is open");
        rig.hear_finish(&mut peer);
        rig.closed(socket);
    }
}

fn threads_that_submit_and_end_leave_nothing_undone(at: &Where) {
    let mut rig = Rig::new(at);
    let mut ends: Vec<_> = (0..4).map(|_| rig.connection()).collect();
    for round in 0..50u8 {
        for (stream, peer) in &mut ends {
            let socket = stream.socket();
            // Each thread ends at once, perhaps before any other thread has seen its requests.
            let submit = move || {
                socket.receive_into(vec![0; 1]).expect("nothing else reads");
                socket.send(vec![round]).expect("an empty queue");
            };
            thread::spawn(submit).join().expect("it submits");
            assert_eq!(rig.hear(peer, 1), [round]);
            rig.say(peer, &[round]);
            let packet = rig.next("a byte");
            assert!(
                matches!(&packet.event, Event::ReceivedInto { buffer, .. } if buffer == &[round])
            );
        }
    }
}

/// Unlimited producers fill a port faster than one thread empties it, if each packet costs a call
/// to Wine's server: so each round has a bounded number of each kind.
const PRODUCED_IN_ROUND: u64 = 20;

fn everything_at_once_balances(at: &Where) {
    let mut rig = Rig::new(at);
    rig.allowed.packets = true;
    rig.traffic_from = Some(Key(1_000));
    let stop = AtomicBool::new(false);
    let rounds = AtomicU64::new(0);
    let port = rig.port.clone();
    thread::scope(|scope| {
        for name in 0..3u64 {
            let (port, stop, rounds) = (&port, &stop, &rounds);
            scope.spawn(move || {
                let mut value = 0;
                while !stop.load(Ordering::Acquire) {
                    if value >= PRODUCED_IN_ROUND * rounds.load(Ordering::Acquire) {
                        thread::yield_now();
                        continue;
                    }
                    // Full for a moment is a valid result too.
                    let _ = port.post(Key(1_000 + name), value);
                    let timer = port.timer(std::time::Instant::now(), Key(2_000 + name));
                    if let (0, Ok(timer)) = (value % 2, timer) {
                        port.cancel(timer);
                    }
                    value += 1;
                    thread::yield_now();
                }
            });
        }
        // A panic here must not leave the others running.
        let _stop = StopOnDrop(&stop);
        for round in 0..100u8 {
            rounds.fetch_add(1, Ordering::AcqRel);
            let (stream, mut peer) = rig.connection();
            stream.socket().receive().expect("nothing else reads");
            rig.say(&mut peer, &[round; 10]);
            assert_eq!(rig.receive(stream.socket(), 10), [round; 10]);
            stream.send(vec![round; 10]).expect("an empty queue");
            assert_eq!(rig.hear(&mut peer, 10), [round; 10]);
        }
    });
    rig.until_stats("the connections are gone", |stats| stats.sockets == 1);
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
