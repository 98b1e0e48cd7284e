//! What the examples close, and in which order, on every way out: seen by strace.
//!
//! A program cannot prove that it has closed everything exactly once; the system can. strace also
//! lets any one step fail (`-e inject`), so each has its test. These tests use the driver `poll`,
//! whose steps are separate system calls; io_uring is refused for the purpose. One test shows that
//! the order is the same on the driver that a user gets.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{Read, Write};
use std::iter;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::program::{self, Ended, Program};
use super::{PATIENCE, connect, exchange, stored};

/// The calls that open what an example must close.
const OPENING: [&str; 4] = ["epoll_create1", "eventfd2", "socket", "accept4"];
/// Other calls that the tests examine.
const OTHERS: [&str; 6] = [
    "io_uring_setup",
    "io_uring_enter",
    "close",
    "listen",
    "epoll_ctl",
    "fcntl",
];
/// What closing a port closes.
const PORT: [&str; 2] = ["epoll_create1", "eventfd2"];
const LISTENER_AND_PORT: [&str; 3] = ["socket", "epoll_create1", "eventfd2"];

/// An example under strace.
struct Traced {
    program: Program,
    log: PathBuf,
}

/// What a traced program did: each handle with the call that opened it, and the order of closing.
#[derive(Debug)]
struct Account {
    calls: Vec<String>,
    closed: Vec<(i32, &'static str)>,
    left_open: Vec<(i32, &'static str)>,
}

/// Whether strace works; where it is required (`CI`), that it does not is a failure.
fn can_trace() -> bool {
    let mut command = Command::new("strace");
    command
        .args(["-o", "/dev/null", "true"])
        .stderr(Stdio::null());
    let works = program::are_native() && command.status().is_ok_and(|status| status.success());
    if !works {
        assert!(
            env::var_os("CI").is_none() || !program::are_native(),
            "strace is missing or may not trace"
        );
        // Printed past the harness, which hides the output of a passing test.
        let line = "skipped: what examples close is seen by strace, which does not work here\n";
        std::io::stderr()
            .write_all(line.as_bytes())
            .expect("stderr is open");
    }
    works
}

impl Traced {
    /// Starts the example on `poll`, with the failure that `inject` describes, if any.
    fn start(name: &str, inject: Option<&str>, arguments: &[&str]) -> Self {
        let forbid = "io_uring_setup:error=EPERM";
        let injections: Vec<&str> = iter::once(forbid).chain(inject).collect();
        Self::start_with(name, &injections, arguments)
    }

    /// Starts the example on whichever driver it takes, with these failures.
    fn start_with(name: &str, injections: &[&str], arguments: &[&str]) -> Self {
        let test = thread::current().name().map(|it| it.replace(':', "-"));
        let test = test.expect("a test's thread has its name");
        let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}.strace"));
        let mut command = Command::new("strace");
        // -D keeps the example, and not strace, as the child that gets the signal.
        command.args(["-D", "-f", "-q", "-o"]).arg(&log);
        let injected = injections.iter().filter_map(|it| it.split_once(':'));
        let calls = OPENING.into_iter().chain(OTHERS);
        let calls: Vec<&str> = calls.chain(injected.map(|(calls, _)| calls)).collect();
        command.args(["-e", &format!("trace={}", calls.join(","))]);
        for inject in injections {
            command.args(["-e", &format!("inject={inject}")]);
        }
        command.args(program::words(name));
        command.arg("127.0.0.1:0").args(arguments);
        let program = Program::spawn(name, command);
        Traced { program, log }
    }

    fn end(self) -> (Ended, Account) {
        let ended = self.program.end();
        let deadline = Instant::now() + PATIENCE;
        // strace writes its last line after the program has ended.
        let text = loop {
            let text = fs::read_to_string(&self.log).unwrap_or_default();
            if text.contains("+++ exited with") || text.contains("+++ killed by") {
                break text;
            }
            assert!(Instant::now() < deadline, "strace does not end: {text}");
            thread::sleep(Duration::from_millis(5));
        };
        fs::remove_file(&self.log).expect("strace has written it");
        (ended, Account::of(&text))
    }
}

impl Account {
    fn of(text: &str) -> Self {
        let mut open: BTreeMap<i32, &'static str> = BTreeMap::new();
        let mut closed = Vec::new();
        let calls = whole_calls(text);
        for call in &calls {
            let Some((name, rest)) = call.split_once('(') else {
                continue;
            };
            let result = rest
                .rsplit_once("= ")
                .and_then(|(_, it)| it.split(' ').next());
            let Some(result) = result.and_then(|it| it.parse::<i32>().ok()) else {
                continue;
            };
            if let Some(name) = OPENING.iter().find(|it| **it == name) {
                if result >= 0 {
                    open.insert(result, name);
                }
            } else if name == "close" {
                assert_eq!(result, 0, "a handle is closed once: {call}");
                let number = rest.split(')').next().and_then(|it| it.parse().ok());
                let number = number.expect("close has a number");
                if let Some(name) = open.remove(&number) {
                    closed.push((number, name));
                }
            }
        }
        let left_open = open.into_iter().collect();
        Account {
            calls,
            closed,
            left_open,
        }
    }

    /// The number of calls with all of these words.
    fn count(&self, words: &[&str]) -> usize {
        let has_all = |call: &&String| words.iter().all(|word| call.contains(word));
        self.calls.iter().filter(has_all).count()
    }

    /// Checks that all was closed, and by which calls it was opened, in the order of closing.
    fn assert_closed(&self, made_by: &[&str]) {
        assert!(self.left_open.is_empty(), "{self:?}");
        let names: Vec<&str> = self.closed.iter().map(|(_, name)| *name).collect();
        assert_eq!(names, made_by, "{self:?}");
    }
}

/// The calls of all threads; interrupted calls are joined.
fn whole_calls(text: &str) -> Vec<String> {
    let mut begun: BTreeMap<&str, &str> = BTreeMap::new();
    let mut calls = Vec::new();
    for line in text.lines() {
        let Some((thread, call)) = line.split_once(' ') else {
            continue;
        };
        let call = call.trim_start();
        if let Some(start) = call.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, start);
        } else if let Some((_, end)) = call.split_once(" resumed>") {
            let start = begun.remove(thread).unwrap_or_default();
            calls.push(format!("{start}{end}"));
        } else {
            calls.push(call.to_owned());
        }
    }
    calls
}

/// What is closed, in order, with this number of connections.
fn with_connections(count: usize) -> Vec<&'static str> {
    let mut closed = vec!["accept4"; count];
    closed.extend(LISTENER_AND_PORT);
    closed
}

/// What a client that only reads is sent.
fn read_all(address: SocketAddr) -> String {
    let mut text = String::new();
    let read = connect(address).read_to_string(&mut text);
    read.expect("the connection ends in order");
    text
}

/// Runs `03_serving` with one step that fails before there is a client.
fn fails_at_start(inject: &str, error: &str, closed: &[&str]) {
    if !can_trace() {
        return;
    }
    let (ended, account) = Traced::start("03_serving", Some(inject), &[]).end();
    assert_eq!(ended.code, Some(1), "{:?}", ended.lines);
    assert!(ended.errors.contains(error), "{}", ended.errors);
    account.assert_closed(closed);
}

#[test]
fn without_a_port_nothing_is_open() {
    fails_at_start(
        "epoll_create1:error=EMFILE",
        "raise its limit on open files",
        &[],
    );
}

#[test]
fn without_a_socket_the_port_is_closed() {
    fails_at_start("socket:error=EMFILE", "listen: too many open files", &PORT);
}

#[test]
fn without_the_address_socket_and_port_are_closed() {
    fails_at_start(
        "bind:error=EADDRNOTAVAIL",
        "listen: address not on this machine",
        &LISTENER_AND_PORT,
    );
}

#[test]
fn without_a_backlog_socket_and_port_are_closed() {
    fails_at_start(
        "listen:error=EADDRINUSE",
        "listen: address in use",
        &LISTENER_AND_PORT,
    );
}

#[test]
fn without_a_handler_of_ctrl_c_listener_and_port_are_closed() {
    fails_at_start(
        "clone,clone3:error=EAGAIN",
        "Ctrl-C error",
        &LISTENER_AND_PORT,
    );
}

#[test]
fn without_accepting_listener_and_port_are_closed() {
    // The first registration is the port's own wake-up.
    fails_at_start(
        "epoll_ctl:error=ENOMEM:when=2",
        "accept: ",
        &LISTENER_AND_PORT,
    );
}

#[test]
fn without_waiting_listener_and_port_are_closed() {
    let waits = "epoll_wait,epoll_pwait,epoll_pwait2:error=EBADF";
    fails_at_start(waits, "wait: ", &LISTENER_AND_PORT);
}

#[test]
fn after_an_unexpected_key_listener_and_port_are_closed() {
    if can_trace() {
        let (ended, account) = Traced::start("03_serving", None, &["--stray"]).end();
        assert_eq!(ended.errors, "unexpected completion key 7, expected 90");
        account.assert_closed(&LISTENER_AND_PORT);
    }
}

#[test]
fn when_accepting_ends_connections_listener_and_port_are_closed_in_this_order() {
    if !can_trace() {
        return;
    }
    let mut traced = Traced::start("03_serving", Some("accept4:error=EINVAL:when=8+"), &[]);
    let address = traced.program.address();
    traced.program.expect("WAITING FOR CONNECTION 100");
    let (mut clients, mut key) = (Vec::new(), 100);
    // The call that fails may find no client, and the listener closes while the next one connects.
    while let Ok(client) = TcpStream::connect(address) {
        clients.push(client);
        if traced.program.line_or_end().is_none() {
            break;
        }
        key += 1;
        traced
            .program
            .expect(&format!("WAITING FOR CONNECTION {key}"));
    }
    let (ended, account) = traced.end();
    assert_eq!(ended.code, Some(1));
    assert!(ended.errors.contains("accept: Failed"), "{}", ended.errors);
    assert!(
        key > 101,
        "some connections are stored before accepting fails"
    );
    account.assert_closed(&with_connections(key - 100));
}

#[test]
fn after_ctrl_c_connections_listener_and_port_are_closed_in_this_order() {
    if !can_trace() {
        return;
    }
    for arguments in [&[][..], &["--polling"][..]] {
        let mut traced = Traced::start("03_serving", None, arguments);
        let address = traced.program.address();
        traced.program.expect("WAITING FOR CONNECTION 100");
        let mut clients = Vec::new();
        let mut sockets = Vec::new();
        for key in 100..103 {
            clients.push(connect(address));
            sockets.push(stored(&mut traced.program, key));
            traced
                .program
                .expect(&format!("WAITING FOR CONNECTION {}", key + 1));
        }
        traced.program.interrupt();
        let (ended, account) = traced.end();
        assert_eq!(ended.code, Some(0), "{}", ended.errors);
        assert_eq!(ended.lines, ["*** Keyboard interrupt."]);
        account.assert_closed(&with_connections(3));
        let numbers = account
            .closed
            .iter()
            .map(|(number, _)| u64::try_from(*number));
        let numbers: Vec<u64> = numbers
            .map(|it| it.expect("no handle is negative"))
            .collect();
        assert_eq!(
            numbers[..3],
            sockets,
            "the lines name the handles themselves"
        );
    }
}

#[test]
fn accepting_serves_the_next_client_when_a_send_fails() {
    if !can_trace() {
        return;
    }
    let inject = "sendto,sendmsg:error=ECONNRESET:when=1";
    let mut traced = Traced::start("02_accepting", Some(inject), &[]);
    let address = traced.program.address();
    assert_eq!(
        read_all(address),
        "",
        "nothing could be sent to the first client"
    );
    assert_eq!(read_all(address), "Disconnecting you..");
    let (ended, account) = traced.end();
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    assert_eq!(ended.lines, ["SUCCESS"]);
    // The first connection closes as soon as its send has failed, before the rest.
    account.assert_closed(&with_connections(2));
}

#[test]
fn after_its_message_accepting_closes_connection_listener_and_port() {
    if !can_trace() {
        return;
    }
    let mut traced = Traced::start("02_accepting", None, &[]);
    let address = traced.program.address();
    assert_eq!(read_all(address), "Disconnecting you..");
    let (ended, account) = traced.end();
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    assert_eq!(ended.lines, ["SUCCESS"]);
    account.assert_closed(&with_connections(1));
}

#[test]
fn on_the_driver_that_a_user_gets_the_order_is_the_same() {
    if !can_trace() {
        return;
    }
    let mut traced = Traced::start_with("03_serving", &[], &[]);
    let address = traced.program.address();
    traced.program.expect("WAITING FOR CONNECTION 100");
    let mut clients = Vec::new();
    let mut closed = Vec::new();
    for key in 100..103 {
        clients.push(connect(address));
        closed.push(stored(&mut traced.program, key).to_string());
        traced
            .program
            .expect(&format!("WAITING FOR CONNECTION {}", key + 1));
    }
    traced.program.interrupt();
    let (ended, account) = traced.end();
    assert_eq!(ended.lines, ["*** Keyboard interrupt."]);
    // Before it listens, the driver may have run its self-test with other sockets.
    let calls = &account.calls;
    let listening = calls.iter().rposition(|call| call.starts_with("listen("));
    let (before, after) = calls.split_at(listening.expect("it listens"));
    let made = |name: &str| {
        before
            .iter()
            .rev()
            .find(|call| call.starts_with(name))
            .map(|call| result(call))
    };
    let port = made("io_uring_setup(").filter(|it| !it.starts_with('-'));
    closed.push(argument(&after[0]));
    closed.extend(port.or_else(|| made("epoll_create1(")));
    closed.extend(made("eventfd2("));
    let closes = after.iter().filter(|call| call.starts_with("close("));
    assert_eq!(
        closes.map(|call| argument(call)).collect::<Vec<_>>(),
        closed,
        "{calls:?}"
    );
}

/// The first argument of a call.
fn argument(call: &str) -> String {
    let arguments = call.split_once('(').map_or("", |(_, it)| it);
    arguments.split([',', ')']).next().unwrap_or("").to_owned()
}

/// The result of a call.
fn result(call: &str) -> String {
    call.rsplit_once("= ").map_or("", |(_, it)| it).to_owned()
}

#[test]
fn a_connection_costs_one_registration_and_no_question_about_its_modes() {
    if !can_trace() {
        return;
    }
    let mut traced = Traced::start("04_echoing", None, &[]);
    let address = traced.program.address();
    for _ in 0..10 {
        assert_eq!(exchange(address, b"four"), b"[four]");
        traced.program.expect("CONNECTION; 2 SOCKETS REGISTERED");
        traced.program.expect("DISCONNECTION; 1 SOCKETS REGISTERED");
    }
    traced.program.interrupt();
    let (ended, account) = traced.end();
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    // The wake-up and the listener are registered too, and the listener is asked for its modes.
    assert_eq!(account.count(&["epoll_ctl(", "EPOLL_CTL_ADD"]), 2 + 10);
    assert_eq!(account.count(&["epoll_ctl("]), 2 + 10);
    assert_eq!(account.count(&["fcntl(", "F_GETFL"]), 1);
    account.assert_closed(&with_connections(10));
}

/// The cost of an echo in lockstep: the registration is the connection's. A waiter enters io_uring
/// for the batch with the bytes and, at most, for the one with the end of the send. On a busy
/// machine an enter may be interrupted by work of the ring that delivers nothing yet.
#[test]
fn an_echo_costs_no_registration_and_few_entrances() {
    const ECHOES: usize = 200;
    if !can_trace() {
        return;
    }
    for forbidden in [&[][..], &["io_uring_setup:error=EPERM"][..]] {
        let mut traced = Traced::start_with("04_echoing", forbidden, &[]);
        let mut client = connect(traced.program.address());
        let mut answer = [0; 6];
        for _ in 0..ECHOES {
            client.write_all(b"four").expect("the server reads");
            client.read_exact(&mut answer).expect("the server answers");
        }
        traced.program.interrupt();
        let (ended, account) = traced.end();
        assert_eq!(ended.code, Some(0), "{}", ended.errors);
        let (entered, changed) = (
            account.count(&["io_uring_enter("]),
            account.count(&["epoll_ctl("]),
        );
        println!(
            "{ECHOES} echoes: io_uring entered {entered} times, epoll changed {changed} times"
        );
        // In addition: a self-test, a connection, the end.
        assert!(entered <= 3 * ECHOES + 50, "{entered} entrances");
        assert!(changed < 10, "{changed} changes of epoll");
    }
}

#[test]
fn listening_closes_listener_and_port() {
    if can_trace() {
        let (ended, account) = Traced::start("01_listening", None, &[]).end();
        assert_eq!(ended.code, Some(0), "{}", ended.errors);
        account.assert_closed(&LISTENER_AND_PORT);
    }
}
