//! Runs the commands of the README.
//!
//! Two things differ, so that a test can run anywhere. The program that cargo has built for this
//! test replaces `cargo run --release --`. A free port replaces port 10101, which may be in use.

#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Ends a hang, and is far longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(180);
const PYTHON: &str = r#"python3 -c "import socket; held = [socket.create_connection(('127.0.0.1', 10101)) for _ in range(1000)]; input()""#;
const PROGRAM: &str = "cargo run --release -- ";

/// A command, which the README of the workspace must show. A package of this crate has another one.
fn shown(command: &str) -> &str {
    if is_package() {
        return command;
    }
    let readme = fs::read_to_string("../../README.md").expect("the workspace has one");
    let blocks = readme.split("```sh\n").skip(1);
    let mut lines = blocks.flat_map(|block| block.split("```").next().unwrap_or("").lines());
    assert!(
        lines.any(|line| line == command),
        "the README lacks {command}"
    );
    command
}

/// Whether this is a crate that cargo has packed, outside of its workspace.
fn is_package() -> bool {
    Path::new("Cargo.toml.orig").exists()
}

/// Runs a command in a shell that becomes the command, so that it gets the signals.
fn shell(command: &str) -> Command {
    let program = format!("{} ", env!("CARGO_BIN_EXE_wharf"));
    let (variables, command) = match command.split_once(PROGRAM) {
        Some((variables, arguments)) => (variables, format!("{program}{arguments}")),
        None => ("", command.to_owned()),
    };
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{variables}exec {command}"));
    shell.stdin(Stdio::piped()).stdout(Stdio::piped());
    shell
}

/// A server of the README, which prints its connections as JSON.
struct Server {
    child: Child,
    lines: Receiver<String>,
    listening: Value,
}

impl Server {
    fn start(command: &str) -> Self {
        let mut child = shell(command)
            .env("WHARF_ADDRESS", "127.0.0.1:0")
            .env("WHARF_FORMAT", "json")
            .env("WHARF_VERBOSE", "true")
            .spawn()
            .expect("there is a shell");
        let lines = lines_of(child.stdout.take().expect("piped"));
        let mut server = Server {
            child,
            lines,
            listening: Value::Null,
        };
        server.listening = server.next("listening");
        server
    }

    /// The next line, which must be this event.
    fn next(&self, event: &str) -> Value {
        let line = self.lines.recv_timeout(PATIENCE);
        let line = line.unwrap_or_else(|error| panic!("no line with {event}: {error}"));
        let value: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
        assert_eq!(value["event"], event, "{line}");
        value
    }

    fn address(&self) -> SocketAddr {
        let address = self.listening["address"].as_str().expect("a text");
        address.parse().expect("an internet address")
    }

    /// Runs a client of the README, with this server's port in it.
    fn client(&self, command: &str) -> Child {
        let port = self.address().port().to_string();
        assert!(command.contains("10101"), "{command}");
        let client = shell(&command.replace("10101", &port)).spawn();
        client.expect("there is a shell")
    }

    /// Sends Ctrl-C; returns the account.
    fn stop(mut self) -> Value {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("it still runs");
        let account = self.next("account");
        let status = self.child.wait().expect("a child can be waited for");
        assert!(status.success(), "{status}");
        account
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A failed test leaves no server behind; one that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads lines on another thread, so that a test can wait for one with a deadline.
fn lines_of(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        // The test may be over before the program is.
        lines.all(|line| sender.send(line).is_ok())
    });
    receiver
}

/// Whether a client's program is installed; if not, prints it past the harness.
fn is_installed(program: &str) -> bool {
    let command = format!("command -v {program}");
    let found = Command::new("sh")
        .args(["-c", &command])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{program} is missing");
        let line = format!("skipped: a command of the README needs {program}\n");
        let mut stderr = std::io::stderr();
        stderr.write_all(line.as_bytes()).expect("stderr is open");
    }
    found
}

/// Lets a client that waits for its input go on, and waits for its end.
fn end(mut client: Child) {
    let mut input = client.stdin.take().expect("piped");
    // A client that has ended reads nothing.
    let _ = input.write_all(b"\n");
    drop(input);
    client.wait().expect("a child can be waited for");
}

// README: cargo run --release -- hold
// README: nc 127.0.0.1 10101
#[test]
fn hold_keeps_what_nc_opens_until_it_leaves() {
    if !is_installed("nc") {
        return;
    }
    let server = Server::start(shown("cargo run --release -- hold"));
    let mut client = server.client(shown("nc 127.0.0.1 10101"));
    assert_eq!(server.next("accepted")["key"], 100);
    client.kill().expect("nc waits for input");
    client.wait().expect("a child can be waited for");
    assert_eq!(server.next("left")["detail"], "fin");
    let account = server.stop();
    assert_eq!(
        (&account["accepted"], &account["left_by_fin"]),
        (&1.into(), &1.into())
    );
}

// README: python3 -c "import socket; held = [socket.create_connection(('127.0.0.1', 10101)) for _ in range(1000)]; input()"
#[test]
fn hold_keeps_the_thousand_that_python_opens() {
    if !is_installed("python3") {
        return;
    }
    let server = Server::start(shown("cargo run --release -- hold"));
    let client = server.client(shown(PYTHON));
    for key in 100..1100 {
        assert_eq!(server.next("accepted")["key"], key);
    }
    end(client);
    for _ in 0..1000 {
        server.next("left");
    }
    let account = server.stop();
    assert_eq!(
        (&account["accepted"], &account["peak"]),
        (&1000.into(), &1000.into())
    );
}

// README: cargo run --release -- hold --descriptors direct --max-connections 60000
#[test]
fn hold_takes_no_descriptors_where_it_can() {
    let command = shown("cargo run --release -- hold --descriptors direct --max-connections 60000");
    let builder = wharf_port::Port::builder().single_waiter();
    if let Err(error) = builder.direct_descriptors(1).build() {
        let refused = shell(command).stderr(Stdio::piped()).output();
        let refused = refused.expect("there is a shell");
        assert_eq!(refused.status.code(), Some(2), "{error}: {refused:?}");
        return;
    }
    let server = Server::start(command);
    let files = || {
        let open = fs::read_dir(format!("/proc/{}/fd", server.child.id()));
        open.expect("it runs").count()
    };
    let before = files();
    let clients: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect(server.address()).expect("it listens"))
        .collect();
    clients.iter().for_each(|_| drop(server.next("accepted")));
    // A descriptor is needed now and then for a moment, and the account reads files.
    let more = files().saturating_sub(before);
    assert!(more < 10, "a hundred connections took {more} files");
    drop(clients);
    (0..100).for_each(|_| drop(server.next("left")));
    assert_eq!(server.stop()["left_by_fin"], 100);
}

// README: cargo run --release -- echo
#[test]
fn echo_sends_back_what_arrives() {
    let server = Server::start(shown("cargo run --release -- echo"));
    let mut client = TcpStream::connect(server.address()).expect("it listens");
    client.set_read_timeout(Some(PATIENCE)).expect("not zero");
    client.write_all(b"a\0b").expect("it reads");
    client.shutdown(Shutdown::Write).expect("still connected");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).expect("it answers");
    assert_eq!(answer, b"a\0b");
}

// README: cargo run --release -- echo --driver poll
// README: WHARF_DRIVER=poll cargo run --release -- echo
#[test]
fn io_uring_is_switched_off_in_both_ways() {
    for command in [
        "cargo run --release -- echo --driver poll",
        "WHARF_DRIVER=poll cargo run --release -- echo",
    ] {
        let server = Server::start(shown(command));
        assert_eq!(server.listening["driver"], "poll", "{command}");
    }
}

// README: cargo run --release -- load hold --connections 1000 --for 5s --expect held=1000
// README: cargo run --release -- load echo --connections 100 --for 5s
// README: cargo run --release -- load echo --connections 100 --for 5s --requests-per-second 10000 --max-p99 50ms
#[test]
fn load_accounts_for_what_it_opens() {
    let echo = "cargo run --release -- load echo --connections 100 --for 5s";
    let open_loop = format!("{echo} --requests-per-second 10000 --max-p99 50ms");
    let hold = "cargo run --release -- load hold --connections 1000 --for 5s --expect held=1000";
    for (service, command) in [("hold", hold), ("echo", echo), ("echo", &open_loop)] {
        let server = Server::start(&format!("{PROGRAM}{service}"));
        // The test does not depend on the speed of the machine: if half a second is not enough to
        // connect a thousand, or for any message, it takes more.
        let load = |time: &str| {
            let command = shown(command).replace("--for 5s", time);
            let patient = command.replace("--max-p99 50ms", "--max-p99 10m");
            let load = shell(&patient)
                .env("WHARF_ADDRESS", server.address().to_string())
                .env("WHARF_FORMAT", "json")
                .output()
                .expect("there is a shell");
            let told: Value = serde_json::from_slice(&load.stdout).expect("one object");
            assert_eq!(told["lost"], 0, "{told}");
            (load, told)
        };
        let mut last = load("--for 500ms");
        if !last.0.status.success() {
            last = load("--for 1m");
        }
        let (load, told) = last;
        assert!(load.status.success(), "{command}: {load:?}");
        assert_eq!(told["held"], told["connections"], "{told}");
    }
}

// README: cargo run --release -- echo --admin 127.0.0.1:10102
// README: cargo run --release -- load echo --connections 100 --for 5s --admin 127.0.0.1:10102
#[test]
fn a_load_and_its_server_have_one_ledger() {
    let server = "cargo run --release -- echo --admin 127.0.0.1:10102";
    let server = Server::start(&shown(server).replace("127.0.0.1:10102", "127.0.0.1:0"));
    let admin = server.listening["admin"].as_str().expect("a text");
    let load = shown(
        "cargo run --release -- load echo --connections 100 --for 5s --admin 127.0.0.1:10102",
    );
    let load = load.replace("--for 5s", "--for 500ms");
    let load = shell(&load.replace("127.0.0.1:10102", admin))
        .env("WHARF_ADDRESS", server.address().to_string())
        .env("WHARF_FORMAT", "json")
        .output()
        .expect("there is a shell");
    assert!(load.status.success(), "{load:?}");
    let told: Value = serde_json::from_slice(&load.stdout).expect("one object");
    assert_eq!(told["server"]["balances"], true, "{told}");
    assert_eq!(told["server"]["accepted"], 100, "{told}");
}

// README: cargo run --release -- bench
// README: cargo run --release -- bench --quick
#[test]
fn bench_measures_both_ends_on_one_page() {
    for command in [
        "cargo run --release -- bench",
        "cargo run --release -- bench --quick",
    ] {
        let bench = shell(shown(command))
            .env("WHARF_DURATION", "50ms")
            .env("WHARF_ROUNDS", "1")
            .env("WHARF_CONNECTIONS", "500")
            .output()
            .expect("there is a shell");
        let text = String::from_utf8_lossy(&bench.stdout);
        assert!(bench.status.success(), "{bench:?}");
        assert!(text.contains("server CPU"), "{text}");
        assert!(text.contains("the ledgers of both ends agree"), "{text}");
    }
}

// README: cargo run --release -- bench million
#[test]
fn a_million_are_held_touched_and_ended() {
    let million = shell(shown("cargo run --release -- bench million"))
        .env("WHARF_CONNECTIONS", "1000")
        .output()
        .expect("there is a shell");
    let text = String::from_utf8_lossy(&million.stdout);
    assert!(million.status.success(), "{million:?}");
    assert!(text.contains("all 1,000 were held"), "{text}");
}

// README: cargo run --release -- bench million --descriptors direct
#[test]
fn a_million_in_one_process_are_held_where_it_can_be() {
    let command = shown("cargo run --release -- bench million --descriptors direct");
    let million = shell(command)
        .env("WHARF_CONNECTIONS", "1000")
        .stderr(Stdio::piped())
        .output()
        .expect("there is a shell");
    let builder = wharf_port::Port::builder().single_waiter();
    if let Err(error) = builder.direct_descriptors(1).build() {
        assert_eq!(million.status.code(), Some(2), "{error}: {million:?}");
        return;
    }
    let text = String::from_utf8_lossy(&million.stdout);
    assert!(million.status.success(), "{million:?}");
    assert!(text.contains("with direct descriptors"), "{text}");
    assert!(text.contains("all 1,000 were held"), "{text}");
}

// README: cargo run --release -- doctor
// README: cargo run --release -- doctor --goal 1000000
#[test]
fn the_doctor_reports_what_this_machine_holds() {
    for command in [
        "cargo run --release -- doctor",
        "cargo run --release -- doctor --goal 1000000",
    ] {
        let doctor = shell(shown(command)).output().expect("there is a shell");
        let text = String::from_utf8_lossy(&doctor.stdout);
        assert!(text.contains("A server in one process holds"), "{text}");
        // Whether a million fit depends on the machine.
        assert!(matches!(doctor.status.code(), Some(0 | 3)), "{doctor:?}");
    }
}

/// It builds what is built already, without the optimizer, and installs it elsewhere.
// README: cargo install --path crates/wharf --locked
#[test]
fn the_program_installs_from_the_tree() {
    let command = shown("cargo install --path crates/wharf --locked");
    if is_package() {
        println!("skipped: a package is not in crates/wharf");
        return;
    }
    let built = Path::new(env!("CARGO_BIN_EXE_wharf"));
    let target = built.ancestors().nth(2).expect("target/debug/wharf");
    let place = target.join(format!("installed-by-a-test-{}", std::process::id()));
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!(
        "cd ../.. && {command} --debug --offline --no-track --quiet --root '{}'",
        place.display()
    ));
    shell.env("CARGO_TARGET_DIR", target);
    let installed = shell.output().expect("cargo starts");
    let said = String::from_utf8_lossy(&installed.stderr);
    assert!(installed.status.success(), "{said}");
    let version = Command::new(place.join("bin/wharf"))
        .arg("--version")
        .output();
    let version = version.expect("the program starts").stdout;
    fs::remove_dir_all(&place).expect("only this test has it");
    assert!(version.starts_with(b"wharf "), "{version:?}");
}
