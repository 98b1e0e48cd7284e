//! The program from outside: started as a user would, driven by plain sockets, stopped by a signal.
//!
//! Each server case runs on every driver that works here. `WHARF_TEST_PROGRAM` names another
//! program to start, words and all, such as a Windows build under its runner, and
//! `WHARF_TEST_DRIVERS` the drivers of that one. On Unix only, because a signal is what ends a
//! server; the Windows program is driven from there.

#![cfg(unix)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A running server and its first line.
struct Server {
    child: Child,
    lines: BufReader<ChildStdout>,
    listening: Value,
}

fn program() -> Command {
    let words = std::env::var("WHARF_TEST_PROGRAM");
    let words = words.unwrap_or_else(|_| env!("CARGO_BIN_EXE_wharf").into());
    let mut words = words.split_whitespace();
    let mut command = Command::new(words.next().expect("a program to start"));
    command.args(words);
    command
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut child = program()
            .args(arguments)
            .args(["--format", "json"])
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let listening = next_line(&mut lines);
        assert_eq!(listening["event"], "listening", "{listening}");
        Server {
            child,
            lines,
            listening,
        }
    }

    fn address(&self) -> SocketAddr {
        let address = self.listening["address"].as_str().expect("a text");
        address.parse().expect("an internet address")
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).expect("the server listens")
    }

    /// Ends it as Ctrl-C does; answers the account, which balances.
    fn stop(mut self) -> Value {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::INT).expect("it runs until told to stop");
        let mut last = Value::Null;
        loop {
            let line = next_line(&mut self.lines);
            if line.is_null() {
                break;
            }
            last = line;
        }
        assert!(self.child.wait().expect("it ends").success());
        assert_eq!(last["event"], "account", "{last}");
        let read = |name: &str| last[name].as_u64().expect(name);
        let left = read("left_by_fin") + read("left_by_reset") + read("left_by_error");
        assert_eq!(read("accepted"), left + read("closed_by_us"), "{last}");
        last
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After an orderly stop there is nothing left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn next_line(lines: &mut impl BufRead) -> Value {
    let mut line = String::new();
    match lines.read_line(&mut line) {
        Ok(0) => Value::Null,
        Ok(_) => serde_json::from_str(&line).expect("an object a line"),
        Err(error) => panic!("the pipe: {error}"),
    }
}

fn drivers() -> Vec<String> {
    if let Ok(names) = std::env::var("WHARF_TEST_DRIVERS") {
        return names.split(',').map(ToOwned::to_owned).collect();
    }
    let drivers: Vec<String> = wharf_port::drivers_present()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(!drivers.is_empty());
    drivers
}

fn reset(client: TcpStream) {
    let client = socket2::Socket::from(client);
    client
        .set_linger(Some(std::time::Duration::ZERO))
        .expect("an open socket");
}

/// Waits until the server has seen so many of an event, by the lines that `-v` prints.
fn wait_for(server: &mut Server, event: &str, count: usize) {
    let mut seen = 0;
    while seen < count {
        let line = next_line(&mut server.lines);
        assert!(!line.is_null(), "the server ended early");
        seen += usize::from(line["event"] == event);
    }
}

#[test]
fn hold_accounts_for_each_connection() {
    for driver in drivers() {
        let mut server = Server::start(&["hold", "127.0.0.1:0", "--driver", &driver, "-v"]);
        assert_eq!(server.listening["driver"], driver.as_str());
        let mut clients: Vec<TcpStream> = (0..500).map(|_| server.connect()).collect();
        wait_for(&mut server, "accepted", 500);
        clients.drain(..200).for_each(drop);
        wait_for(&mut server, "left", 200);
        clients.drain(..100).for_each(reset);
        wait_for(&mut server, "left", 100);
        let account = server.stop();
        assert_eq!(account["accepted"], 500, "{driver}: {account}");
        assert_eq!(account["left_by_fin"], 200, "{driver}: {account}");
        assert_eq!(account["left_by_reset"], 100, "{driver}: {account}");
        assert_eq!(account["closed_by_us"], 200, "{driver}: {account}");
    }
}

/// Memory of the server that is in use, as Linux counts it; under Wine too.
#[cfg(target_os = "linux")]
fn resident_bytes(server: &Server) -> usize {
    let path = format!("/proc/{}/status", server.child.id());
    let status = std::fs::read_to_string(path).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    kilobytes
        .and_then(|it| it.parse::<usize>().ok())
        .expect("a number")
        * 1024
}

/// As many as the maximum, again and again: a slot that is not given back is missed in the next round.
#[cfg(target_os = "linux")]
#[test]
fn crowds_come_and_go_without_a_trace() {
    const ROUNDS: usize = 10;
    // For each peer that leaves, Wine looks through all that are watched: 1,000 took 14 seconds.
    let elsewhere = std::env::var("WHARF_TEST_DRIVERS").is_ok();
    let count = if elsewhere { 300 } else { 2_000 };
    rlimit::increase_nofile_limit(u64::MAX).expect("a process may raise it");
    for driver in drivers() {
        let maximum = count.to_string();
        let mut server = Server::start(&[
            "hold",
            "127.0.0.1:0",
            "--max-connections",
            &maximum,
            "-v",
            "--driver",
            &driver,
        ]);
        let mut settled = 0;
        for round in 0..ROUNDS {
            let clients: Vec<TcpStream> = (0..count).map(|_| server.connect()).collect();
            wait_for(&mut server, "accepted", count);
            drop(clients);
            wait_for(&mut server, "left", count);
            if round == 1 {
                settled = resident_bytes(&server);
            }
        }
        let grown = resident_bytes(&server).saturating_sub(settled);
        println!("{driver}: {settled} bytes after two rounds, {grown} more after {ROUNDS}");
        let account = server.stop();
        assert_eq!(account["accepted"], count * ROUNDS, "{driver}: {account}");
        assert_eq!(
            account["left_by_fin"],
            count * ROUNDS,
            "{driver}: {account}"
        );
        assert_eq!(account["peak"], count, "{driver}: {account}");
        assert_eq!(account["closed_by_us"], 0, "{driver}: {account}");
        // Forgotten connections would cost tens of bytes each, and most came after the second round.
        assert!(grown < 1 << 19, "{driver}: {grown} bytes more: {account}");
    }
}

/// Held all at once, and none is missing from the account.
#[test]
fn two_thousand_are_held_at_once() {
    const COUNT: usize = 2_000;
    rlimit::increase_nofile_limit(u64::MAX).expect("a process may raise it");
    for driver in drivers() {
        let mut server = Server::start(&["hold", "127.0.0.1:0", "-v", "--driver", &driver]);
        let clients: Vec<TcpStream> = (0..COUNT).map(|_| server.connect()).collect();
        wait_for(&mut server, "accepted", COUNT);
        let account = server.stop();
        drop(clients);
        assert_eq!(account["accepted"], COUNT, "{driver}: {account}");
        assert_eq!(account["peak"], COUNT, "{driver}: {account}");
        assert_eq!(account["closed_by_us"], COUNT, "{driver}: {account}");
        println!("{driver}: {account}");
    }
}

#[test]
fn echo_returns_every_byte_and_then_its_fin() {
    for driver in drivers() {
        let server = Server::start(&["echo", "127.0.0.1:0", "--driver", &driver]);
        let sent: Vec<u8> = (0..3_000_000u32)
            .map(|number| ((number * 31) >> 3) as u8)
            .collect();
        let mut client = server.connect();
        let mut writer = client.try_clone().expect("an open socket");
        let expected = sent.clone();
        let writing = std::thread::spawn(move || {
            writer.write_all(&sent).expect("the server reads");
            writer.shutdown(Shutdown::Write).expect("an open socket");
        });
        let mut back = Vec::new();
        client.read_to_end(&mut back).expect("the echo, and a FIN");
        writing.join().expect("everything was sent");
        assert!(back == expected, "{driver}: {} bytes came back", back.len());
        let account = server.stop();
        assert_eq!(account["bytes_in"], 3_000_000, "{driver}: {account}");
        assert_eq!(account["bytes_out"], 3_000_000, "{driver}: {account}");
        assert_eq!(account["left_by_fin"], 1, "{driver}: {account}");
    }
}

#[test]
fn a_peer_that_never_reads_affects_only_itself() {
    for driver in drivers() {
        let server = Server::start(&["echo", "127.0.0.1:0", "--driver", &driver]);
        let stuck: Vec<TcpStream> = (0..20)
            .map(|_| {
                let mut client = server.connect();
                client.set_nonblocking(true).expect("an open socket");
                // Until both directions are full.
                while client.write(&[0; 65536]).is_ok() {}
                client
            })
            .collect();
        let mut client = server.connect();
        for number in 0..100u8 {
            client.write_all(&[number; 100]).expect("the server reads");
            let mut back = [0; 100];
            client.read_exact(&mut back).expect("the echo");
            assert_eq!(back, [number; 100], "{driver}");
        }
        drop((stuck, client));
        server.stop();
    }
}

#[test]
fn two_threads_serve_one_address() {
    for driver in drivers() {
        let threads = ["echo", "127.0.0.1:0", "--threads", "2", "--driver", &driver];
        let server = Server::start(&threads);
        for _ in 0..100 {
            let mut client = server.connect();
            client.write_all(b"a\0b").expect("the server reads");
            client.shutdown(Shutdown::Write).expect("an open socket");
            let mut back = Vec::new();
            client.read_to_end(&mut back).expect("the echo");
            assert_eq!(back, b"a\0b", "{driver}");
        }
        assert_eq!(server.stop()["accepted"], 100, "{driver}");
    }
}

#[test]
fn the_maximum_leaves_the_others_in_the_backlog() {
    for driver in drivers() {
        let options = [
            "hold",
            "127.0.0.1:0",
            "--max-connections",
            "3",
            "-v",
            "--driver",
            &driver,
        ];
        let mut server = Server::start(&options);
        let mut clients: Vec<TcpStream> = (0..5).map(|_| server.connect()).collect();
        wait_for(&mut server, "accepted", 3);
        clients.drain(..3).for_each(drop);
        wait_for(&mut server, "accepted", 2);
        let account = server.stop();
        assert_eq!(account["peak"], 3, "{driver}: {account}");
        assert_eq!(account["accepted"], 5, "{driver}: {account}");
        assert_eq!(
            account["refused"]["max_connections"], 0,
            "{driver}: {account}"
        );
    }
}

fn run(arguments: &[&str]) -> Output {
    program()
        .args(arguments)
        .output()
        .expect("the program starts")
}

#[test]
fn a_mistake_gets_one_line_and_exit_code_2() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let taken = taken.local_addr().expect("it is bound").to_string();
    // Of another system than the one whose program this is.
    let foreign = match drivers().iter().any(|driver| driver == "iocp") {
        true => "uring",
        false => "iocp",
    };
    let cases: [(&[&str], &str); 5] = [
        (&["hold", &taken], "address in use"),
        (&["hold", "127.0.0.1:70000"], "no port"),
        (&["hold", "--driver", "epoll"], "auto, iocp, uring, poll"),
        (
            &["hold", "--driver", foreign],
            "does not exist on this system",
        ),
        (&["echo", "--threads", "0"], "1..=256"),
    ];
    for (arguments, expected) in cases {
        let output = run(arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(expected), "{arguments:?}: {text}");
        assert!(!text.contains("panicked"), "{arguments:?}: {text}");
    }
}

#[test]
fn one_definition_makes_the_manual_and_the_completions() {
    let page = run(&["man"]).stdout;
    assert!(String::from_utf8_lossy(&page).contains(".TH wharf"));
    let completions = run(&["completions", "bash"]).stdout;
    assert!(String::from_utf8_lossy(&completions).contains("--max-connections"));
}

#[test]
fn options_come_from_the_environment_too() {
    let output = program()
        .args(["hold"])
        .env("WHARF_DRIVER", "epoll")
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(2));
}
