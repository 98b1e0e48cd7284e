//! Drivers seen from outside: the system calls they make, and the effect of failures. Most of it is
//! about readiness; `uring` sends by system calls if no thread waits.
//!
//! strace counts the calls and makes some of them fail, in a separate process: no system fails on
//! demand.

use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use wharf_port::{Event, Op, PauseReason};

use crate::cases::storms::rounds_of_all_kinds;
use crate::rig::Rig;
use crate::rig::case::{Case, Driver, Mode, Where, case, linux};
use crate::rig::system;

pub(crate) const CASES: &[Case] = &[
    case!(
        interrupted_calls_lose_nothing,
        [C2, C6],
        "signal(7): interrupted system calls"
    )
    .skip(traced)
    .alone()
    .seconds_max(60),
    case!(
        connections_during_a_pause_are_not_tried_one_by_one,
        [C12],
        "measured: 352,218 failures in 200 ms"
    )
    .skip(traced)
    .alone()
    .seconds_max(60),
    case!(
        an_accept_that_fails_once_loses_no_connection,
        [C12],
        "accept(2): errors of the new connection, and of this machine"
    )
    .skip(traced)
    .alone()
    .seconds_max(60),
    case!(
        sends_at_once_that_fail_for_now_lose_nothing,
        [C2, C6, C7],
        "signal(7): interrupted system calls"
    )
    .skip(traced_at_once)
    .alone()
    .seconds_max(60),
];

const NO_STRACE: &str = "strace is missing here, or may not trace";

fn traced(at: &Where) -> Option<&'static str> {
    linux(at).or_else(|| {
        if at.driver != Driver::Poll {
            return Some("it is about the system calls that the readiness driver makes");
        }
        (!at.strace).then_some(NO_STRACE)
    })
}

fn traced_at_once(at: &Where) -> Option<&'static str> {
    linux(at).or_else(|| {
        if at.driver != Driver::Uring {
            return Some(
                "it is about sends that io_uring is passed by for; others always are calls",
            );
        }
        if at.mode == Mode::Direct {
            return Some("a direct descriptor is none that a system call takes");
        }
        (!at.strace).then_some(NO_STRACE)
    })
}

/// Set for the process that strace watches.
const INSIDE: &str = "WHARF_TEST_INSIDE";

fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs this case again under strace, and returns the log.
fn under_strace(name: &str, options: &[&str]) -> String {
    under_strace_as("1", name, options)
}

/// The same for a case that does several things inside: `inside` says which.
fn under_strace_as(inside: &str, name: &str, options: &[&str]) -> String {
    let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-q", "-o"]).arg(&log).args(options);
    strace.arg(std::env::current_exe().expect("a test has a binary"));
    let output = strace.env(INSIDE, inside).output();
    let output = output.expect("it ran before");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "inside: {said}{complained}");
    let seen = std::fs::read_to_string(&log).expect("strace has written it");
    std::fs::remove_file(&log).expect("nobody else has it");
    seen
}

fn interrupted_calls_lose_nothing(at: &Where) {
    const CALLS: &str = "sendto,sendmsg,recvfrom,accept4,epoll_wait,epoll_pwait,epoll_pwait2";
    if is_inside() {
        return rounds_of_all_kinds(at);
    }
    let name = format!("interrupted-{}.strace", at.mode.name());
    let trace = format!("trace={CALLS}");
    let inject = format!("inject={CALLS}:error=EINTR:when=3+3");
    let seen = under_strace(&name, &["-e", &trace, "-e", &inject]);
    for call in ["sendto", "recvfrom", "accept4", "epoll_"] {
        let failed = |line: &&str| line.contains(call) && line.contains("(INJECTED)");
        let count = seen.lines().filter(failed).count();
        assert!(count >= 5, "only {count} interrupted calls of {call}");
    }
}

fn sent(rig: &mut Rig, op: Op) -> Event {
    let packet = rig.expect("the outcome of a send", |packet| packet.op == op);
    packet.event
}

/// A thread that waits on no port sends by a system call, and submits what a waiter has queued if
/// it may not enter the ring. What such a call does not take becomes a request.
fn sends_at_once_that_fail_for_now_lose_nothing(at: &Where) {
    const ROUNDS: u8 = 40;
    if !is_inside() {
        // If any thread may enter the ring, queued requests go there.
        let calls: &[&str] = match at.mode {
            Mode::Single => &["sendto", "sendmsg"],
            Mode::Shared | Mode::Direct | Mode::Leader => &["sendto"],
        };
        for error in ["EINTR", "EAGAIN"] {
            let name = format!("at-once-{error}-{}.strace", at.mode.name());
            let trace = "trace=sendto,sendmsg";
            // Counted for each thread; the first ones belong to the driver's self-test.
            let inject = format!("inject=sendto,sendmsg:error={error}:when=9+2");
            let seen = under_strace(&name, &["-e", trace, "-e", &inject]);
            for call in calls {
                let failed = |line: &&str| line.contains(call) && line.contains("(INJECTED)");
                let count = seen.lines().filter(failed).count();
                assert!(count >= 5, "only {count} of {call} failed with {error}");
            }
        }
        return;
    }
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let port = rig.port.clone();
    let (ask, asked) = channel::<Option<Vec<u8>>>();
    let (answer, answered) = channel();
    thread::scope(|scope| {
        let stream = &stream;
        scope.spawn(move || {
            for bytes in asked {
                let op = bytes.map(|it| stream.send_reported(it).expect("an empty queue"));
                port.submit();
                answer.send(op).expect("somebody asked");
            }
        });
        let elsewhere = |bytes| {
            ask.send(bytes).expect("it listens");
            answered.recv().expect("it answers")
        };
        for round in 0..ROUNDS {
            let op = elsewhere(Some(vec![round; 50])).expect("a send");
            assert_eq!(rig.hear(&mut peer, 50), [round; 50]);
            assert!(matches!(sent(&mut rig, op), Event::Sent { buffer, .. } if buffer.len() == 50));
            // This thread waited just now, and its sends stay for its next wait.
            rig.pump(Duration::ZERO);
            rig.pump(Duration::ZERO);
            let ops = [1, 2].map(|part| {
                let sent = stream.send_reported(vec![round; part]);
                sent.expect("room")
            });
            elsewhere(None);
            assert_eq!(rig.hear(&mut peer, 3), [round; 3]);
            for (op, part) in ops.into_iter().zip([1, 2]) {
                let is_it = |event: &Event| matches!(event, Event::Sent { buffer, .. } if buffer.len() == part);
                assert!(is_it(&sent(&mut rig, op)));
            }
        }
        drop(ask);
    });
}

/// Each of them is an event, and none of them a reason to try again early: without descriptors
/// every attempt fails.
fn connections_during_a_pause_are_not_tried_one_by_one(at: &Where) {
    const CONNECTIONS: usize = 60;
    if !is_inside() {
        let name = format!("paused-{}.strace", at.mode.name());
        let seen = under_strace(&name, &["-e", "trace=accept4"]);
        let failed = seen.matches("EMFILE").count();
        assert!(failed > 0, "it never was out of descriptors");
        // At 10, 20, 40 ms and so on: a machine would have to stand still for a long time.
        assert!(failed <= CONNECTIONS / 3, "{failed} accepts failed");
        return;
    }
    let mut rig = Rig::new(at);
    let address = rig.address().as_socket_addr().expect("an internet address");
    let clients: Vec<Socket> = (0..CONNECTIONS)
        .map(|_| Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket"))
        .collect();
    let _hoard = system::leave_descriptors(0);
    let mut paused = false;
    for client in &clients {
        client.connect(&address.into()).expect("the rig listens");
        rig.pump(Duration::ZERO);
        paused |= rig
            .find(|packet| matches!(packet.event, Event::Paused { .. }))
            .is_some();
    }
    assert!(paused, "there is no descriptor");
    rig.allowed.packets = true;
}

/// Errors of an accept, and the pause that each of them causes, if any.
const ACCEPT_ERRORS: [(&str, Option<PauseReason>); 6] = [
    ("ECONNABORTED", None),
    ("EPROTO", None),
    ("EPERM", None),
    ("ENFILE", Some(PauseReason::TooManyOpenFiles)),
    ("ENOMEM", Some(PauseReason::OutOfMemory)),
    ("ENOBUFS", Some(PauseReason::OutOfMemory)),
];

fn an_accept_that_fails_once_loses_no_connection(at: &Where) {
    let Ok(error) = std::env::var(INSIDE) else {
        for (error, _) in ACCEPT_ERRORS {
            let name = format!("accept-{error}-{}.strace", at.mode.name());
            let inject = format!("inject=accept4:error={error}:when=1");
            let options = ["-e", "trace=accept4", "-e", &inject];
            let seen = under_strace_as(error, &name, &options);
            assert_eq!(seen.matches("(INJECTED)").count(), 1, "{error}");
        }
        return;
    };
    let known = ACCEPT_ERRORS.iter().find(|known| known.0 == error);
    let expected = known.expect("one of the list").1;
    let mut rig = Rig::new(at);
    let _peers = [rig.dial(), rig.dial()];
    let (mut paused, mut resumed, mut accepted) = (None, 0, 0);
    while accepted < 2 {
        match rig.next("two connections").event {
            Event::Accepted(_) => accepted += 1,
            Event::Paused { reason, .. } => assert_eq!(paused.replace(reason), None),
            Event::Resumed => resumed += 1,
            other => panic!("not asked for: {other:?}"),
        }
    }
    assert_eq!((paused, resumed), (expected, expected.iter().count()));
    rig.expect_nothing();
}
