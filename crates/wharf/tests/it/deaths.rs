//! Processes that end before others: by a signal to one or to all, and by being killed.
//!
//! Linux reports the children of a process, and the other systems in other ways.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::ledgers::asked;
use crate::load::{last_line, start};
use crate::patience::{enough, given_time, milliseconds};
use crate::processes::can_share;
use crate::program::{code_of, needs_native, program, words};
use crate::running::{Server, drivers};

/// The children of a process.
fn children(parent: u32) -> Vec<Pid> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = std::fs::read_to_string(path).expect("nobody has waited for it yet");
    let numbers = text.split_whitespace().filter_map(|word| word.parse().ok());
    numbers.filter_map(Pid::from_raw).collect()
}

/// A load that reports everything.
fn load_to_watch(line: &str) -> Command {
    let mut command = program();
    command.arg("load").args(words(line));
    command.args(["--format", "json"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A signal to all of them means one end. The first process orders the others to end too.
#[test]
fn a_signal_that_reaches_all_at_once_is_one_signal() {
    if !can_share() {
        return;
    }
    for driver in drivers() {
        let options = format!("--processes 3 -v --driver {driver}");
        let (mut server, _) = Server::somewhere("hold", &options);
        let clients = server.connect_many(30);
        server.wait_for("accepted", 30);
        // It sees the end of the others and its own signal at the same time, however long this
        // thread takes to send them all.
        server.signal(Signal::STOP);
        for child in children(server.child.id()) {
            kill_process(child, Signal::INT).expect("it runs");
        }
        server.signal(Signal::INT);
        server.signal(Signal::CONT);
        assert_eq!(server.account()["closed_by_us"], 30, "{driver}");
        drop(clients);
    }
}

/// Processes that are just starting do not listen for signals yet, and would die.
#[test]
fn ctrl_c_while_processes_start_ends_them_with_the_account() {
    if !needs_native() {
        return;
    }
    let (server, address) = Server::somewhere("hold", "");
    let mut command = load_to_watch(&format!("hold {address} --connections 80 --processes 8"));
    let load = command.process_group(0).spawn().expect("it starts");
    while children(load.id()).is_empty() {
        std::thread::yield_now();
    }
    kill_process_group(Pid::from_child(&load), Signal::INT).expect("it runs");
    let output = load.wait_with_output().expect("it ends");
    let (told, code) = last_line(&output);
    assert_eq!(code, Some(130), "{told}");
    assert_eq!(told["interrupted"], true, "{told}");
    server.stop();
}

#[test]
fn the_processes_of_one_that_was_killed_end_too() {
    if !needs_native() {
        return;
    }
    for driver in drivers() {
        let (mut server, address) = Server::somewhere("hold", &format!("-v --driver {driver}"));
        let load = format!("hold {address} --connections 40 --processes 4 --driver {driver}");
        let mut child = start(&words(&load));
        server.wait_for("accepted", 40);
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        server.wait_for("left", 40);
        server.stop();
    }
}

#[test]
fn a_process_of_a_load_that_dies_is_reported_and_counted() {
    if !needs_native() {
        return;
    }
    for driver in drivers() {
        let options = format!("-v --admin 127.0.0.1:0 --driver {driver}");
        let (mut server, address) = Server::somewhere("hold", &options);
        given_time(|factor| {
            let time = milliseconds(2_000, factor);
            let size = format!("--connections 30 --processes 3 --for {time}");
            let admin = server.admin();
            let place = format!("hold {address} --driver {driver} --admin {admin} {size}");
            let load = load_to_watch(&place).spawn().expect("it starts");
            server.wait_for("accepted", 30);
            // It may have ended meanwhile.
            if let Some(&second) = children(load.id()).get(1) {
                let _ = kill_process(second, Signal::KILL);
            }
            let output = load.wait_with_output().expect("it ends");
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            let (told, code) = last_line(&output);
            server.wait_for("left", 30);
            enough(code != Some(0), &told)?;
            assert!(
                complaint.contains("process 2 of 3 died (signal: 9"),
                "{complaint}"
            );
            assert_eq!(code, Some(1), "{told}");
            assert_eq!((&told["asked"], &told["held"]), (&30.into(), &20.into()));
            let gone = "their process died";
            let lost = told["lost_by_reason"][gone][0]["count"].as_u64();
            let failed = told["failed_by_reason"][gone].as_u64();
            assert_eq!(lost.unwrap_or(0) + failed.unwrap_or(0), 10, "{told}");
            assert_eq!(told["server"]["of_others"], 0, "{told}");
            Ok(())
        });
        server.stop();
    }
}

#[test]
fn a_server_goes_on_without_a_process_that_dies() {
    if !can_share() {
        return;
    }
    for driver in drivers() {
        let place = "hold 127.0.0.1:0 --admin 127.0.0.1:0 --processes 2 -v --driver";
        let mut command = program();
        command.args([&words(place)[..], &[&driver]].concat());
        command.stderr(Stdio::piped());
        let mut server = Server::start_command(command);
        let clients = server.connect_many(40);
        server.wait_for("accepted", 40);
        let admin = server.admin();
        while asked(&admin, b"")["held"] != 40 {}
        let second = children(server.child.id())[1];
        kill_process(second, Signal::KILL).expect("it runs");
        let mut complaints = BufReader::new(server.child.stderr.take().expect("a pipe"));
        let mut complaint = String::new();
        complaints.read_line(&mut complaint).expect("a line");
        assert!(complaint.contains("process 2 of 2 died"), "{complaint}");
        // Until the system has closed the listener of the dead process, it gives it some too.
        let mut more = Vec::new();
        let mut standing = asked(&admin, b"");
        while standing["accepted"].as_u64() < Some(50) {
            more.extend(TcpStream::connect(server.address()));
            standing = asked(&admin, b"");
        }
        let read = |name: &str| standing[name].as_u64().expect("a number");
        assert!(read("left_by_error") > 0, "{driver}: {standing}");
        let left = read("left_by_error") + read("held");
        assert_eq!(left, read("accepted"), "{driver}: {standing}");
        server.signal(Signal::INT);
        assert_eq!(code_of(server.wait()), Some(1), "{driver}");
        drop((clients, more));
    }
}
