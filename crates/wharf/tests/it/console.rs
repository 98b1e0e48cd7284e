//! The program's reaction to events of a Windows console: closing, shutdown and logoff.
//!
//! `WHARF_TEST_CONSOLE` has the command lines of `xtask/wine/console.c` and of the Windows build of
//! the program. The first starts the second, sends it events as Windows does, and ends it where
//! Windows would. The legs with Wine set the variable. Elsewhere there are no such events, and
//! these tests say so.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

const CTRL_C: u32 = 0;
const CTRL_BREAK: u32 = 1;
const CLOSE: u32 = 2;
const LOGOFF: u32 = 5;
const SHUTDOWN: u32 = 6;

/// A handler that waits for the end of the program gives up after this time: 4.5 seconds by its
/// clock. A handler that does not wait returns at once.
const WAITED_MS: u64 = 4_000;

/// The program on its own console.
struct Console {
    child: Child,
    events: Option<ChildStdin>,
    reports: BufReader<ChildStderr>,
    lines: BufReader<ChildStdout>,
}

/// The outcome of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Report {
    /// The program ended while its handler ran.
    Ended,
    /// The handler returned after this many milliseconds.
    Returned(u64),
}

/// The command lines of the console and of the program, if there are any.
fn words() -> Option<Vec<String>> {
    let Ok(words) = std::env::var("WHARF_TEST_CONSOLE") else {
        println!("skipped: WHARF_TEST_CONSOLE does not say what has a console of Windows");
        return None;
    };
    Some(words.split_whitespace().map(str::to_owned).collect())
}

impl Console {
    fn start(words: &[String], arguments: &[&str]) -> Self {
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .args(arguments)
            .args(["--format", "json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the console starts");
        Console {
            events: child.stdin.take(),
            reports: BufReader::new(child.stderr.take().expect("a pipe")),
            lines: BufReader::new(child.stdout.take().expect("a pipe")),
            child,
        }
    }

    /// Starts a server; returns its address too.
    fn serving(words: &[String], service: &str) -> (Self, String) {
        let mut console = Console::start(words, &[service, "127.0.0.1:0"]);
        let listening = console.line();
        let address = listening["address"].as_str().expect("a text").to_owned();
        (console, address)
    }

    /// The next line of the program; null at its end.
    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("text");
        match line.as_str() {
            "" => Value::Null,
            line => serde_json::from_str(line).expect("an object a line"),
        }
    }

    /// The last line of the program, when no more events are sent: the console has its output too.
    fn last_line(&mut self) -> Value {
        drop(self.events.take());
        let mut last = Value::Null;
        loop {
            let line = self.line();
            if line.is_null() {
                return last;
            }
            last = line;
        }
    }

    /// Sends a question to the console; returns its reply after this word.
    fn ask(&mut self, question: &str, word: &str) -> String {
        let events = self.events.as_mut().expect("before the last line");
        writeln!(events, "{question}").expect("it reads");
        let mut all = String::new();
        loop {
            let mut line = String::new();
            self.reports.read_line(&mut line).expect("text");
            assert!(!line.is_empty(), "no answer to {question} but {all}");
            if let Some(answer) = line.strip_prefix(word) {
                return answer.trim().to_owned();
            }
            all += &line;
        }
    }

    fn send(&mut self, event: u32) -> Report {
        let answer = self.ask(&event.to_string(), &format!("event {event}: "));
        if answer == "ended" {
            return Report::Ended;
        }
        let took = answer.strip_prefix("returned after ");
        let took = took.and_then(|took| took.strip_suffix(" ms")?.parse().ok());
        Report::Returned(took.expect("a time"))
    }

    /// Sends an event that ends the program, whatever that does. Returns whether the program ended
    /// in time: a machine may be too slow for the limit of Windows.
    fn ends_at(&mut self, event: u32) -> bool {
        let Report::Returned(after_ms) = self.send(event) else {
            return true;
        };
        assert!(after_ms >= WAITED_MS, "it returned after {after_ms} ms");
        println!("skipped: this machine is too slow to end a program in 4.5 s");
        false
    }

    fn code(&mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // After a test that has passed there is nothing left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn client_of(address: &str) -> TcpStream {
    let client = TcpStream::connect(address).expect("the server listens");
    let patience = Some(Duration::from_secs(180));
    client.set_read_timeout(patience).expect("an open socket");
    client
}

/// The other end closed cleanly: with FIN, and not with RST.
fn has_ended(mut peer: &TcpStream) {
    assert_eq!(peer.read(&mut [0; 16]).expect("no reset"), 0);
}

/// Sends this and reads it back.
fn echoes(mut client: &TcpStream, text: &[u8]) {
    client.write_all(text).expect("the server reads");
    let mut back = vec![0; text.len()];
    client.read_exact(&mut back).expect("the echo");
    assert_eq!(back, text);
}

#[test]
fn a_server_whose_console_closes_ends_with_its_account() {
    let Some(words) = words() else { return };
    for event in [CLOSE, SHUTDOWN] {
        let (mut console, address) = Console::serving(&words, "echo");
        let clients: Vec<TcpStream> = (0..3).map(|_| client_of(&address)).collect();
        clients.iter().for_each(|it| echoes(it, b"hello"));
        if !console.ends_at(event) {
            continue;
        }
        clients.iter().for_each(has_ended);
        let account = console.last_line();
        assert_eq!(account["event"], "account", "event {event}: {account}");
        assert_eq!(account["closed_by_us"], 3, "{account}");
        assert_eq!(account["bytes_in"], 15, "{account}");
        assert_eq!(console.code(), Some(0), "event {event}");
    }
}

/// Any user may log off; Windows notifies a service each time.
#[test]
fn a_logoff_leaves_a_server_serving() {
    let Some(words) = words() else { return };
    let (mut console, address) = Console::serving(&words, "echo");
    let client = client_of(&address);
    echoes(&client, b"before");
    for _ in 0..2 {
        assert!(matches!(console.send(LOGOFF), Report::Returned(_)));
        echoes(&client, b"after");
        echoes(&client_of(&address), b"a new one");
    }
    // The Ctrl-Break after it is the first event for the server.
    assert!(matches!(console.send(CTRL_BREAK), Report::Returned(_)));
    has_ended(&client);
    let account = console.last_line();
    assert_eq!(account["accepted"], 3, "{account}");
    assert_eq!(console.code(), Some(0));
}

/// Windows goes on after these, and so may the program: the console does not wait for it.
#[test]
fn ctrl_c_and_ctrl_break_end_a_server_in_its_own_time() {
    let Some(words) = words() else { return };
    for event in [CTRL_C, CTRL_BREAK] {
        let (mut console, address) = Console::serving(&words, "hold");
        let client = client_of(&address);
        console.send(event);
        has_ended(&client);
        let account = console.last_line();
        assert_eq!(account["event"], "account", "event {event}: {account}");
        assert_eq!(console.code(), Some(0), "event {event}");
    }
}

/// A load that holds the requested number of connections, and their other ends.
fn holding(words: &[String], connections: usize, more: &[&str]) -> (Console, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket").to_string();
    let count = connections.to_string();
    let load = ["load", "hold", &address, "--connections", &count];
    let console = Console::start(words, &[&load[..], more].concat());
    let accept = |_| listener.accept().expect("a client").0;
    let peers: Vec<TcpStream> = (0..connections).map(accept).collect();
    let patience = Some(Duration::from_secs(180));
    let patient = |peer: &TcpStream| peer.set_read_timeout(patience).expect("an open socket");
    peers.iter().for_each(patient);
    (console, peers)
}

#[test]
fn a_load_whose_console_closes_ends_with_its_account() {
    let Some(words) = words() else { return };
    for (event, more) in [
        (CLOSE, &[][..]),
        (SHUTDOWN, &[]),
        (CLOSE, &["--processes", "2"]),
    ] {
        let (mut console, peers) = holding(&words, 6, more);
        // Windows notifies the processes of a console one after the other, and ends each. The other
        // processes of a load would not live to report their results to the first.
        assert_eq!(console.ask("members", "members: "), "1", "{more:?}");
        if !console.ends_at(event) {
            continue;
        }
        peers.iter().for_each(has_ended);
        let account = console.last_line();
        assert_eq!(account["interrupted"], true, "{account}");
        assert_eq!(account["connected"], 6, "{account}");
        assert_eq!(console.code(), Some(130), "event {event}, {more:?}");
    }
}

/// If a process has one of these, Windows treats it as one with windows, and does not call its
/// handler at shutdown. Wine does all the same.
#[test]
fn nothing_that_has_windows_is_linked_into_the_program() {
    let Some(words) = words() else { return };
    let file = std::fs::read(words.last().expect("the program")).expect("it can be read");
    let text = String::from_utf8_lossy(&file).to_ascii_lowercase();
    for library in ["user32", "gdi32", "shell32", "ole32", "combase", "comctl32"] {
        assert!(
            !text.contains(&format!("{library}.dll")),
            "it needs {library}"
        );
    }
    assert!(text.contains("kernel32.dll"), "it tells what it needs");
}
