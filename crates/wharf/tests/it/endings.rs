//! How a server ends: by either signal, by a second one, and without a reader.

use std::io::{BufRead, BufReader};
#[cfg(target_os = "linux")]
use std::io::{Read, Write};
#[cfg(target_os = "linux")]
use std::net::SocketAddr;
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;
#[cfg(target_os = "linux")]
use std::time::Instant;

use serde_json::Value;

use crate::program::{code_of, needs_native, program};
use crate::running::{Server, Signal, drivers};

/// A server that holds this number of connections, and their other ends.
fn holding(driver: &str, count: usize) -> (Server, Vec<TcpStream>) {
    let mut server = Server::start(&["hold", "127.0.0.1:0", "--driver", driver, "-v"]);
    let clients = server.connect_many(count);
    server.wait_for("accepted", count);
    (server, clients)
}

#[test]
#[cfg_attr(windows, ignore = "no safe call sends a signal on Windows")]
fn sigterm_ends_it_with_the_account_too() {
    if !needs_native() {
        return;
    }
    for driver in drivers() {
        let (mut server, clients) = holding(&driver, 50);
        server.signal(Signal::TERM);
        assert_eq!(server.account()["closed_by_us"], 50, "{driver}");
        drop(clients);
    }
}

/// Whether this process ignores SIGHUP, the first signal in its mask.
#[cfg(target_os = "linux")]
fn ignores_hangups() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let mask = status.lines().find_map(|it| it.strip_prefix("SigIgn:"));
    let mask = u64::from_str_radix(mask.expect("a mask").trim(), 16);
    mask.expect("a number of base 16") & 1 == 1
}

/// A terminal that goes away ends its programs; a program that was started with `nohup` goes on.
#[cfg(target_os = "linux")]
#[test]
fn sighup_ends_it_with_the_account_unless_it_is_ignored() {
    if !needs_native() {
        return;
    }
    for driver in drivers() {
        // Children inherit ignored signals, as when these tests run with nohup.
        if ignores_hangups() {
            println!("skipped: SIGHUP is ignored here, and so by what is started");
        } else {
            let (mut server, clients) = holding(&driver, 50);
            server.signal(Signal::HUP);
            assert_eq!(server.account()["closed_by_us"], 50, "{driver}");
            drop(clients);
        }
        let mut nohup = std::process::Command::new("nohup");
        nohup.arg(env!("CARGO_BIN_EXE_wharf"));
        nohup.args(["echo", "127.0.0.1:0", "--driver", &driver]);
        let server = Server::start_command(nohup);
        server.signal(Signal::HUP);
        let mut client = server.connect();
        client.write_all(b"still here").expect("the server reads");
        let mut back = [0; 10];
        client.read_exact(&mut back).expect("the echo");
        assert_eq!(server.stop()["accepted"], 1, "{driver}");
    }
}

/// `timeout` sends its signal to the program and to its group.
#[test]
#[cfg_attr(windows, ignore = "no safe call sends a signal on Windows")]
fn a_signal_that_comes_twice_is_one() {
    if !needs_native() {
        return;
    }
    for driver in drivers() {
        let (mut server, clients) = holding(&driver, 50);
        // The system may merge two of one kind. The server sees both at the same time, however long
        // this thread takes to send them.
        server.signal(Signal::STOP);
        server.signal(Signal::TERM);
        server.signal(Signal::INT);
        server.signal(Signal::CONT);
        assert_eq!(server.account()["closed_by_us"], 50, "{driver}");
        drop(clients);
    }
}

/// More connections than one wait delivers.
#[test]
#[cfg_attr(windows, ignore = "no safe call sends a signal on Windows")]
fn all_that_left_before_the_end_are_counted_as_such() {
    if !needs_native() {
        return;
    }
    for driver in drivers() {
        let (mut server, clients) = holding(&driver, 2000);
        server.signal(Signal::STOP);
        drop(clients);
        #[cfg(target_os = "linux")]
        until_peers_left(server.address(), 2000);
        server.signal(Signal::TERM);
        server.signal(Signal::CONT);
        let account = server.account();
        assert_eq!(account["left_by_fin"], 2000, "{driver}: {account}");
    }
}

/// Waits until the system has seen the FIN of this number of peers of `server`, which itself has
/// not: on a busy machine a kernel thread delivers the last of them after its sender went on, and
/// after the stop.
#[cfg(target_os = "linux")]
fn until_peers_left(server: SocketAddr, count: usize) {
    const CLOSE_WAIT: &str = "08";
    let local = format!(":{:04X}", server.port());
    let give_up_at = Instant::now() + Duration::from_secs(180);
    loop {
        let sockets = std::fs::read_to_string("/proc/net/tcp").expect("Linux has it");
        let left = sockets.lines().filter(|line| {
            let mut words = line.split_whitespace().skip(1);
            let is_ours = words.next().is_some_and(|at| at.ends_with(&local));
            is_ours && words.nth(1) == Some(CLOSE_WAIT)
        });
        let left = left.count();
        if left == count {
            return;
        }
        assert!(Instant::now() < give_up_at, "{left} of {count} have left");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A server that cannot write its lines hangs in the middle of its end.
#[test]
#[cfg_attr(windows, ignore = "no safe call sends a signal on Windows")]
fn a_second_ctrl_c_ends_it_at_once() {
    if !needs_native() {
        return;
    }
    for driver in drivers() {
        let mut server = Server::start(&["hold", "127.0.0.1:0", "--driver", &driver, "-v"]);
        // The test does not read its output; a pipe holds 64 KiB of these lines.
        let clients: Vec<TcpStream> = (0..2000)
            .map_while(|_| TcpStream::connect(server.address()).ok())
            .collect();
        server.signal(Signal::INT);
        let mut again = 0;
        let status = loop {
            if let Some(status) = server.child.try_wait().expect("a child") {
                break status;
            }
            // The server may not have seen the first one yet, and two at once count as one.
            again += 1;
            server.signal(Signal::INT);
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(code_of(status), Some(130), "{driver}, after {again} more");
        drop(clients);
    }
}

/// The process that starts a program holds the other end of its input, and loses it by ending in
/// any way.
#[test]
fn the_end_of_input_is_its_end_where_asked() {
    let start = |arguments: &[&str]| {
        let mut command = program();
        command
            .args(arguments)
            .args(["--until-eof", "--format", "json"]);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.spawn().expect("the program starts")
    };
    let told = |mut child: Child| {
        drop(child.stdin.take());
        let output = child.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let last = text.lines().last().unwrap_or_else(|| panic!("no line"));
        let value: Value = serde_json::from_str(last).expect("an object a line");
        (value, code_of(output.status))
    };
    let mut server = start(&["hold", "127.0.0.1:0"]);
    let mut lines = BufReader::new(server.stdout.take().expect("a pipe"));
    let mut line = String::new();
    lines.read_line(&mut line).expect("it listens");
    let listening: Value = serde_json::from_str(&line).expect("an object");
    let address = listening["address"].as_str().expect("a text");
    let load = start(&["load", "hold", address]);
    line.clear();
    let (load, code) = told(load);
    assert_eq!(code, Some(130), "{load}");
    assert_eq!(load["interrupted"], true, "{load}");
    drop(server.stdin.take());
    lines.read_line(&mut line).expect("its account");
    let account: Value = serde_json::from_str(&line).expect("an object");
    assert_eq!(account["event"], "account", "{account}");
    assert!(account["processor_us"].as_u64() > Some(0), "{account}");
    assert!(account["port_bytes"].as_u64() > Some(0), "{account}");
    assert_eq!(code_of(server.wait().expect("it ends")), Some(0));
}
