//! Servers whose output is not read: they serve, report their account, and end.
//!
//! Test harnesses often start a server with a pipe, read its address, and read no more.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::ledgers::asked;
use crate::processes::can_share;
use crate::program::{code_of, is_native, needs_native, program, words};
use crate::running::{Server, Signal, drivers, reset};

/// The bytes that a pipe takes before a writer blocks, on Linux; elsewhere less.
const PIPE_BYTES: usize = 64 << 10;

/// A server with `-v` and `--admin`, in one process or in several.
fn talkative(service: &str, driver: &str, processes: u32) -> Server {
    let place = format!("{service} 127.0.0.1:0 --admin 127.0.0.1:0 -v --driver {driver}");
    let mut command = program();
    command.args(words(&place));
    if processes > 1 {
        command.args(["--processes", &processes.to_string()]);
    }
    command.stderr(Stdio::piped());
    Server::start_command(command)
}

/// One, and several if the system distributes connections.
fn processes() -> Vec<u32> {
    if can_share() { vec![1, 2] } else { vec![1] }
}

/// Clients that come, are served, and reset their connections, so that no port waits for long.
fn served(server: &Server, count: usize) {
    for _ in 0..count {
        let mut client = server.connect();
        client.write_all(b"ping").expect("the server reads");
        let mut back = [0; 4];
        client.read_exact(&mut back).expect("the echo");
        reset(client);
    }
}

/// Everything that is left to read, and the account in its last line.
fn rest(server: &mut Server) -> (String, Value) {
    let mut text = String::new();
    server.lines.read_to_string(&mut text).expect("text");
    let last = text.lines().last().unwrap_or_default();
    let last = serde_json::from_str(last).unwrap_or_default();
    (text, last)
}

#[test]
fn a_server_whose_output_is_not_read_serves_on_and_ends() {
    const COUNT: usize = 3_000;
    if !needs_native() {
        return;
    }
    let mut all = Vec::new();
    for driver in drivers() {
        for processes in processes() {
            let mut server = talkative("echo", &driver, processes);
            served(&server, COUNT);
            let admin = server.admin();
            while asked(&admin, b"")["left_by_reset"] != COUNT {}
            server.ask_to_end();
            all.push((format!("{driver} {processes}"), server));
        }
    }
    // Each waits a while for its reader, and all of them at the same time.
    for (which, mut server) in all {
        // Its account is lost, and it reports that.
        assert_eq!(code_of(server.wait()), Some(1), "{which}");
        let mut complaint = String::new();
        let stderr = server.child.stderr.as_mut().expect("a pipe");
        stderr.read_to_string(&mut complaint).expect("text");
        assert!(complaint.contains("it is not read"), "{which} {complaint}");
        // It had more output than was read.
        let (text, _) = rest(&mut server);
        let all = COUNT * "{\"event\":\"accepted\",\"key\":100}".len();
        assert!(all > PIPE_BYTES && text.len() <= PIPE_BYTES, "{which}");
    }
}

/// Output that is not read in time is dropped, not collected; the account has its amount.
#[test]
fn lines_that_are_not_read_in_time_are_counted() {
    // Two lines each, of 100 bytes and more: beyond the 4 MiB that may wait.
    const COUNT: u64 = 30_000;
    if !needs_native() {
        return;
    }
    for driver in drivers() {
        for processes in processes() {
            let mut server = talkative("hold", &driver, processes);
            let admin = server.admin();
            let load = format!(
                "load connect {} --connections 15000 --threads 2 --reset",
                server.address()
            );
            // Not all come: a full backlog forgets a connection that resets at once.
            while asked(&admin, b"")["accepted"].as_u64() < Some(COUNT) {
                let status = program().args(words(&load)).stdout(Stdio::null()).status();
                assert_eq!(code_of(status.expect("it runs")), Some(0), "{driver}");
            }
            server.ask_to_end();
            let (text, account) = rest(&mut server);
            let code = code_of(server.wait());
            assert_eq!(code, Some(0), "{driver} {processes}: {account}");
            let count = |member: &str| account[member].as_u64().expect("a count");
            let dropped = count("lines_dropped");
            assert!(dropped > 0, "{driver} {processes}: {account}");
            let left = ["left_by_fin", "left_by_reset", "left_by_error"].map(count);
            let all = count("accepted") + left.iter().sum::<u64>();
            let told = text.lines().count() as u64 - 1;
            assert_eq!(told + dropped, all, "{driver} {processes}: {account}");
        }
    }
}

/// The second signal ends it at once, whatever the first one waits for.
#[test]
#[cfg_attr(windows, ignore = "no safe call sends a signal on Windows")]
fn a_second_signal_ends_every_process_at_once() {
    if !can_share() {
        return;
    }
    for driver in drivers() {
        let mut server = talkative("echo", &driver, 2);
        served(&server, 1_000);
        server.signal(Signal::INT);
        let status = loop {
            if let Some(status) = server.child.try_wait().expect("a child") {
                break status;
            }
            // Signals at the same time as the first count as one with it.
            server.signal(Signal::INT);
            std::thread::sleep(std::time::Duration::from_millis(10));
        };
        assert_eq!(code_of(status), Some(130), "{driver}");
    }
}

/// If an account could not be written, it is no success.
#[test]
#[cfg_attr(
    windows,
    ignore = "no program of Windows ends at once and reads nothing, as true does"
)]
fn a_closed_pipe_loses_the_account_and_is_reported() {
    for driver in drivers() {
        let mut command = program();
        command.args(["echo", "127.0.0.1:0", "--driver", &driver, "-v"]);
        command.stderr(Stdio::piped());
        let mut server = Server::start_command(command);
        // As in `wharf echo -v | head -1`.
        let empty = Command::new("true").stdout(Stdio::piped()).spawn();
        let mut empty = empty.expect("every Unix has true");
        empty.wait().expect("it ends");
        let nothing = empty.stdout.take().expect("a pipe");
        drop(std::mem::replace(
            &mut server.lines,
            std::io::BufReader::new(nothing),
        ));
        for _ in 0..20 {
            let mut client = TcpStream::connect(server.address()).expect("it listens");
            client.write_all(b"still here").expect("the server reads");
            let mut back = [0; 10];
            client.read_exact(&mut back).expect("the echo");
        }
        server.ask_to_end();
        let code = code_of(server.wait());
        let mut complaint = String::new();
        let stderr = server.child.stderr.as_mut().expect("a pipe");
        stderr.read_to_string(&mut complaint).expect("text");
        assert_eq!(code, Some(1), "{driver}: {complaint}");
        if is_native() {
            assert!(complaint.contains("is lost"), "{driver}: {complaint}");
            assert_eq!(complaint.lines().count(), 1, "{driver}: {complaint}");
        }
    }
}

/// A load that could not print its result has failed, whatever the result was.
#[test]
#[cfg_attr(
    windows,
    ignore = "no program of Windows ends at once and reads nothing, as true does"
)]
fn a_load_whose_result_has_no_reader_has_failed() {
    let (server, address) = Server::somewhere("hold", "");
    let reader = Command::new("true").stdin(Stdio::piped()).spawn();
    let mut reader = reader.expect("every Unix has true");
    let pipe = reader.stdin.take().expect("a pipe");
    reader.wait().expect("it ends");
    let mut load = program();
    load.args(words(&format!("load connect {address} --connections 3")));
    let output = load.stdout(pipe).stderr(Stdio::piped()).output();
    let output = output.expect("it runs");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code_of(output.status), Some(1), "{complaint}");
    if is_native() {
        assert!(complaint.contains("is lost"), "{complaint}");
    }
    assert_eq!(server.stop()["accepted"], 3);
}
