//! The examples, run as programs and compared line by line.
//!
//! This is a separate suite: `tests/it` calls the library, and this one runs what a newcomer types.
//! Cargo builds the examples for a plain `cargo test`, but not for `cargo test --test examples`
//! alone. A missing or stale example is an error that says so. The same cases run the Windows
//! builds under Wine, see `program::ELSEWHERE`.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use program::Program;

mod codes;
mod program;
mod readme;
#[cfg(target_os = "linux")]
mod traced;
mod usual;

/// Ends a hang, and is far longer than needed.
const PATIENCE: Duration = Duration::from_secs(180);

fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect_timeout(&address, PATIENCE).expect("the server listens");
    client.set_read_timeout(Some(PATIENCE)).expect("not zero");
    client.set_write_timeout(Some(PATIENCE)).expect("not zero");
    client
}

/// Sends, half-closes, and reads until the other end closes.
fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut client = connect(address);
    let mut writer = client.try_clone().expect("one more descriptor");
    thread::scope(|scope| {
        scope.spawn(move || {
            writer.write_all(bytes).expect("the server reads");
            writer.shutdown(Shutdown::Write).expect("still connected");
        });
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).expect("the server answers");
        answer
    })
}

/// Closes with a reset instead of a FIN.
fn reset(client: TcpStream) {
    let client = socket2::Socket::from(client);
    client
        .set_linger(Some(Duration::ZERO))
        .expect("a TCP socket");
}

/// The number in `STORING SOCKET h FOR KEY k`.
fn stored(program: &mut Program, key: u64) -> u64 {
    let line = program.line();
    let number = line.strip_prefix("STORING SOCKET ");
    let number = number.and_then(|it| it.strip_suffix(&format!(" FOR KEY {key}")));
    let number = number.unwrap_or_else(|| panic!("{line}"));
    number.parse().expect("a number")
}

#[test]
fn listening_says_where_and_ends() {
    let (program, address) = Program::serve("01_listening", &[]);
    let ended = program.end();
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    assert_eq!(ended.lines, ["SUCCESS"]);
    assert!(address.ip().is_loopback());
    TcpListener::bind(address).expect("its socket is closed");
}

#[test]
fn the_default_address_is_port_10101_of_this_machine() {
    let ended = Program::start("01_listening", &[]).end();
    // Another program may have that port; then it is really in use.
    if ended.code == Some(0) {
        assert_eq!(ended.lines, ["LISTENING ON 127.0.0.1:10101", "SUCCESS"]);
    } else {
        assert!(ended.errors.contains("address in use"), "{}", ended.errors);
        TcpListener::bind("127.0.0.1:10101").expect_err("it is in use");
    }
}

#[test]
fn a_bad_address_is_an_error_in_one_line() {
    for example in [
        "01_listening",
        "02_accepting",
        "03_serving",
        "04_echoing",
        "several_threads",
        "threads_with_state",
    ] {
        let ended = Program::start(example, &["127.0.0.1:a"]).end();
        assert_eq!(ended.code, Some(1), "{example}");
        assert_eq!(ended.errors, "invalid socket address syntax", "{example}");
        assert!(ended.lines.is_empty(), "{:?}", ended.lines);
    }
}

#[test]
fn a_second_instance_says_that_the_address_is_in_use_and_leaves_the_first_alone() {
    let (mut first, address) = Program::serve("03_serving", &[]);
    first.expect("WAITING FOR CONNECTION 100");
    for example in [
        "01_listening",
        "02_accepting",
        "03_serving",
        "04_echoing",
        "several_threads",
        "threads_with_state",
    ] {
        let ended = Program::start(example, &[&address.to_string()]).end();
        assert_eq!(ended.code, Some(1), "{example}");
        assert!(ended.lines.is_empty(), "{:?}", ended.lines);
        let text = "listen: address in use: choose another port, or end the program that holds it";
        assert_eq!(ended.errors, text, "{example}");
    }
    let _client = connect(address);
    stored(&mut first, 100);
    first.expect("WAITING FOR CONNECTION 101");
    first.interrupt_and_end();
}

#[test]
fn accepting_sends_nineteen_bytes_and_ends() {
    let (program, address) = Program::serve("02_accepting", &[]);
    let mut text = String::new();
    connect(address)
        .read_to_string(&mut text)
        .expect("a FIN follows the text");
    assert_eq!(text, "Disconnecting you..");
    let ended = program.end();
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    assert_eq!(ended.lines, ["SUCCESS"]);
}

#[test]
fn accepting_without_a_client_times_out_and_names_the_step() {
    let (program, _) = Program::serve("02_accepting", &[]);
    let ended = program.end();
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.errors, "accept: timed out");
    assert!(ended.lines.is_empty(), "{:?}", ended.lines);
}

#[test]
fn serving_stores_each_connection_under_the_key_that_waited_for_it() {
    for arguments in [&[][..], &["--polling"][..]] {
        let (mut program, address) = Program::serve("03_serving", arguments);
        program.expect("WAITING FOR CONNECTION 100");
        let mut sockets = Vec::new();
        let mut clients = Vec::new();
        for key in 100..110 {
            clients.push(connect(address));
            sockets.push(stored(&mut program, key));
            program.expect(&format!("WAITING FOR CONNECTION {}", key + 1));
        }
        sockets.sort_unstable();
        sockets.dedup();
        assert_eq!(sockets.len(), 10, "each connection has a socket of its own");
        program.interrupt_and_end();
    }
}

#[test]
fn serving_ignores_what_its_clients_say_and_that_they_leave() {
    let (mut program, address) = Program::serve("03_serving", &[]);
    program.expect("WAITING FOR CONNECTION 100");
    let mut talker = connect(address);
    talker.write_all(b"hello").expect("the kernel takes it");
    stored(&mut program, 100);
    program.expect("WAITING FOR CONNECTION 101");
    drop(talker);
    reset(connect(address));
    let _last = connect(address);
    // A client that resets before it is accepted may still be stored, or be skipped by the system.
    let mut key = 101;
    while key < 102 {
        stored(&mut program, key);
        key += 1;
        program.expect(&format!("WAITING FOR CONNECTION {key}"));
    }
    program.interrupt();
    let ended = program.end();
    if program::SIGNALS {
        assert_eq!(ended.code, Some(0), "{}", ended.errors);
        assert_eq!(
            ended.lines.last().map(String::as_str),
            Some("*** Keyboard interrupt.")
        );
    }
}

#[test]
fn serving_takes_an_unexpected_key_for_an_error_that_names_both() {
    for arguments in [&["--stray"][..], &["--stray", "--polling"][..]] {
        let (program, _) = Program::serve("03_serving", arguments);
        let ended = program.end();
        assert_eq!(ended.code, Some(1));
        assert_eq!(ended.errors, "unexpected completion key 7, expected 90");
        assert_eq!(ended.lines, ["WAITING FOR CONNECTION 100"]);
    }
}

#[test]
fn echoing_puts_brackets_around_what_arrives_and_keeps_nul_bytes() {
    let (mut program, address) = Program::serve("04_echoing", &[]);
    assert_eq!(exchange(address, b"a\0b"), b"[a\0b]");
    program.expect("CONNECTION; 2 SOCKETS REGISTERED");
    program.expect("DISCONNECTION; 1 SOCKETS REGISTERED");
    program.interrupt_and_end();
}

#[test]
fn echoing_returns_every_byte_before_the_fin() {
    let (mut program, address) = Program::serve("04_echoing", &[]);
    let bytes: Vec<u8> = (0..1 << 20).map(|at| at as u8 | 0x80).collect();
    let answer = exchange(address, &bytes);
    let inner: Vec<u8> = answer
        .iter()
        .copied()
        .filter(|byte| *byte >= 0x80)
        .collect();
    assert!(inner == bytes, "{} of {} bytes", inner.len(), bytes.len());
    assert_eq!((answer.first(), answer.last()), (Some(&b'['), Some(&b']')));
    program.expect("CONNECTION; 2 SOCKETS REGISTERED");
    program.expect("DISCONNECTION; 1 SOCKETS REGISTERED");
    program.interrupt_and_end();
}

#[test]
fn echoing_ends_only_the_connection_that_was_reset() {
    let (mut program, address) = Program::serve("04_echoing", &[]);
    let mut kept = connect(address);
    program.expect("CONNECTION; 2 SOCKETS REGISTERED");
    let rude = connect(address);
    program.expect("CONNECTION; 3 SOCKETS REGISTERED");
    reset(rude);
    program.expect("DISCONNECTION; 2 SOCKETS REGISTERED");
    kept.write_all(b"still here").expect("the server reads");
    let mut answer = [0; 12];
    kept.read_exact(&mut answer).expect("the server answers");
    assert_eq!(&answer, b"[still here]");
    program.interrupt_and_end();
}

#[test]
fn several_threads_echo_for_many_clients_at_once() {
    let (mut program, address) = Program::serve("several_threads", &[]);
    const CLIENTS: u8 = 50;
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                let bytes: Vec<u8> = (0..100_000_u32)
                    .map(|at| (at >> 3) as u8 ^ client)
                    .collect();
                assert!(exchange(address, &bytes) == bytes, "client {client}");
            });
        }
    });
    program.interrupt();
    let ended = program.end();
    if !program::SIGNALS {
        return;
    }
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    let (last, threads) = ended.lines.split_last().expect("there are last words");
    assert_eq!(
        (threads.len(), last.as_str()),
        (4, "*** Keyboard interrupt.")
    );
    let packets = threads.iter().map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        assert!(
            matches!(words[..], ["THREAD", _, "TOOK", _, "PACKETS"]),
            "{line}"
        );
        words[3].parse::<u64>().expect("a number")
    });
    let packets: u64 = packets.sum();
    let least = 3 * u64::from(CLIENTS);
    assert!(packets >= least, "accept, data and end of each: {packets}");
}

#[test]
fn threads_keep_the_state_of_each_connection_apart() {
    let (mut program, address) = Program::serve("threads_with_state", &[]);
    const CLIENTS: usize = 20;
    const LINES: usize = 500;
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                let lines = |number: bool| {
                    let line = |at| match number {
                        true => format!("{} client {client}\n", at + 1),
                        false => format!("client {client}\n"),
                    };
                    (0..LINES).map(line).collect::<String>()
                };
                let answer = exchange(address, lines(false).as_bytes());
                assert!(answer == lines(true).as_bytes(), "client {client}");
            });
        }
    });
    let mut said: Vec<String> = (0..CLIENTS).map(|_| program.line()).collect();
    said.sort_unstable();
    let expected = |at: usize| format!("{} NUMBERED {LINES} LINES", 100 + at);
    assert_eq!(said, (0..CLIENTS).map(expected).collect::<Vec<_>>());
    program.interrupt_and_end();
}

#[test]
fn a_cancelled_receive_loses_nothing() {
    let ended = Program::start("cancel_a_receive", &[]).end();
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    let said = [
        "RECEIVED first",
        "NOTHING MORE CAME; CANCEL: Requested",
        "CANCELLED; ONCE MORE: NotFound",
        "RECEIVED second",
    ];
    assert_eq!(ended.lines, said);
}

#[test]
fn what_threads_post_arrives_once_and_in_order() {
    let mut ended = Program::start("post_from_a_thread", &[]).end();
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    // The example itself checks the order; the order of the threads among each other is open.
    ended.lines[..3].sort_unstable();
    let said = [
        "THREAD 0 IS DONE",
        "THREAD 1 IS DONE",
        "THREAD 2 IS DONE",
        "SUM 1001500500",
    ];
    assert_eq!(ended.lines, said);
}
