//! Servers, which run until they are stopped.
//!
//! On Unix they stop by SIGINT, as from Ctrl-C. No safe call sends a Ctrl-C to another process on
//! Windows: there each program that a test must stop runs until its input closes, and the test
//! closes it. Doing so on Unix too was rejected, since people press Ctrl-C. Tests that need a
//! signal itself are ignored on Windows, with the reason.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;
#[cfg(target_os = "linux")]
use std::time::Instant;

#[cfg(unix)]
pub(crate) use rustix::process::Signal;
use serde_json::Value;

use crate::program::{code_of, program, words};

/// Prepares `command` so that [`ask_to_end`] stops it.
pub(crate) fn until_stopped(command: &mut Command) -> &mut Command {
    if cfg!(windows) {
        command.arg("--until-eof").stdin(Stdio::piped());
    }
    command
}

/// Stops a program that runs until it is stopped.
#[cfg(unix)]
pub(crate) fn ask_to_end(child: &mut Child) {
    signal(child, Signal::INT);
}

/// Stops a program that runs until it is stopped.
#[cfg(windows)]
pub(crate) fn ask_to_end(child: &mut Child) {
    let input = child.stdin.take();
    drop(input.expect("it was started with until_stopped"));
}

#[cfg(unix)]
pub(crate) fn signal(child: &Child, signal: Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).expect("it runs until told to stop");
    #[cfg(target_os = "linux")]
    if signal == Signal::STOP {
        wait_until_still(child);
    }
}

/// Waits until every thread stands still. One of them takes the signal, and the others go on until
/// it has: on a busy machine a server once served two thousand peers meanwhile.
#[cfg(target_os = "linux")]
fn wait_until_still(child: &Child) {
    let give_up_at = Instant::now() + Duration::from_secs(180);
    loop {
        let tasks = format!("/proc/{}/task", child.id());
        let tasks = std::fs::read_dir(tasks).expect("it is our child");
        let stands_still = |task: std::io::Result<std::fs::DirEntry>| {
            // A thread that has ended meanwhile is fine.
            let stat = task.and_then(|task| std::fs::read_to_string(task.path().join("stat")));
            stat.is_ok_and(|stat| {
                stat.rsplit(") ")
                    .next()
                    .is_some_and(|it| it.starts_with('T'))
            })
        };
        if tasks.into_iter().all(stands_still) {
            return;
        }
        assert!(Instant::now() < give_up_at, "it does not stop");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Compiles tests that are ignored here, so that a run lists them.
#[cfg(windows)]
#[derive(Clone, Copy)]
pub(crate) struct Signal;

#[cfg(windows)]
impl Signal {
    pub(crate) const CONT: Signal = Signal;
    pub(crate) const INT: Signal = Signal;
    pub(crate) const STOP: Signal = Signal;
    pub(crate) const TERM: Signal = Signal;
}

#[cfg(windows)]
pub(crate) fn signal(_: &Child, _: Signal) {
    unreachable!("a test that sends signals is ignored on Windows");
}

/// A running server and its first line.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) lines: BufReader<ChildStdout>,
    pub(crate) listening: Value,
}

impl Server {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = program();
        command.args(arguments);
        Server::start_command(command)
    }

    /// Starts a server on a port that the system chooses; returns its address too, for a load.
    pub(crate) fn somewhere(service: &str, options: &str) -> (Self, String) {
        let place = [service, "127.0.0.1:0"];
        let server = Server::start(&[&place[..], &words(options)].concat());
        let address = server.address().to_string();
        (server, address)
    }

    /// Starts a command that becomes a server.
    pub(crate) fn start_command(mut command: Command) -> Self {
        command.args(["--format", "json"]);
        command.stdout(Stdio::piped()).stdin(Stdio::null());
        let mut child = until_stopped(&mut command)
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

    pub(crate) fn address(&self) -> SocketAddr {
        address_of(&self.listening)
    }

    /// The address of the next line, for a server with several.
    pub(crate) fn next_address(&mut self) -> SocketAddr {
        address_of(&next_line(&mut self.lines))
    }

    /// The address of its `--admin`, if it has one.
    pub(crate) fn admin(&self) -> String {
        let admin = self.listening["admin"].as_str();
        admin.expect("a text").to_owned()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        connect_to(self.address())
    }

    pub(crate) fn connect_many(&self, count: usize) -> Vec<TcpStream> {
        (0..count).map(|_| self.connect()).collect()
    }

    pub(crate) fn ask_to_end(&mut self) {
        ask_to_end(&mut self.child);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self::signal(&self.child, signal);
    }

    /// Stops it as Ctrl-C does; returns the account, which balances.
    pub(crate) fn stop(mut self) -> Value {
        self.ask_to_end();
        self.account()
    }

    /// The account of a server that was stopped, and shuts down gracefully.
    pub(crate) fn account(&mut self) -> Value {
        let mut last = Value::Null;
        loop {
            let line = next_line(&mut self.lines);
            if line.is_null() {
                break;
            }
            last = line;
        }
        assert_eq!(code_of(self.wait()), Some(0));
        assert_eq!(last["event"], "account", "{last}");
        let read = |name: &str| last[name].as_u64().expect(name);
        let left = read("left_by_fin") + read("left_by_reset") + read("left_by_error");
        assert_eq!(read("accepted"), left + read("closed_by_us"), "{last}");
        last
    }

    /// The next line that it prints.
    pub(crate) fn next_line(&mut self) -> Value {
        next_line(&mut self.lines)
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }

    /// Waits until it has printed this number of lines of an event, with `-v`.
    pub(crate) fn wait_for(&mut self, event: &str, count: usize) {
        let mut seen = 0;
        while seen < count {
            let line = next_line(&mut self.lines);
            assert!(!line.is_null(), "the server ended early");
            seen += usize::from(line["event"] == event);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After a graceful stop there is nothing left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn address_of(listening: &Value) -> SocketAddr {
    let address = listening["address"].as_str().expect("a text");
    address.parse().expect("an internet address")
}

fn connect_to(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).expect("the server listens");
    let patience = Some(Duration::from_secs(180));
    client.set_read_timeout(patience).expect("an open socket");
    client
}

fn next_line(lines: &mut impl BufRead) -> Value {
    let mut line = String::new();
    match lines.read_line(&mut line) {
        Ok(0) => Value::Null,
        Ok(_) => serde_json::from_str(&line).expect("an object a line"),
        Err(error) => panic!("the pipe: {error}"),
    }
}

/// The first of `count` free ports in a row, from `first` on and below `first` + 2,000.
///
/// Each test has its own `first`, below the ports that systems choose for port 0. Two tests once
/// searched for free ports in the same range: one connected until its server replied, and the
/// other's server counted these connections. Two runs of the tests at the same time would do the
/// same, so each starts somewhere else.
pub(crate) fn free_ports(first: u16, count: u16) -> u16 {
    let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let mut places: Vec<u16> = (first..first + 2_000).step_by(17).collect();
    let begin = std::process::id() as usize % places.len();
    places.rotate_left(begin);
    let mut places = places.into_iter();
    let found = places.find(|&place| (place..place + count).all(free));
    found.unwrap_or_else(|| panic!("no {count} ports in a row are free"))
}

/// The drivers of the program.
pub(crate) fn drivers() -> Vec<String> {
    let drivers: Vec<String> = match std::env::var("WHARF_TEST_DRIVERS") {
        Ok(names) => names.split(',').map(str::to_owned).collect(),
        Err(_) => {
            let present = wharf_port::drivers_present();
            present.iter().map(ToString::to_string).collect()
        }
    };
    assert!(!drivers.is_empty());
    drivers
}

/// Ends a connection with RST.
pub(crate) fn reset(client: TcpStream) {
    let client = socket2::Socket::from(client);
    client
        .set_linger(Some(Duration::ZERO))
        .expect("an open socket");
}
