//! Both ends of a load in one ledger, and comparisons of results.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::codes::Code;
use crate::patience::{Watched, enough, given_time, has_messages, milliseconds};
use crate::program::{code_of, is_native, run};
use crate::running::{Server, drivers};

/// A server with `--admin`.
pub(crate) fn open_server(service: &str, driver: &str) -> (Server, String, String) {
    let arguments = [
        service,
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--driver",
        driver,
    ];
    let server = Server::start(&arguments);
    let address = server.address().to_string();
    let admin = server.admin();
    (server, address, admin)
}

fn load(arguments: &[&str]) -> (Value, Code, String) {
    let output = run(&[&["load"], arguments, &["--format", "json"]].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().last().unwrap_or_else(|| panic!("{complaint}"));
    let value = serde_json::from_str(last).expect("an object a line");
    (value, code_of(output.status), text)
}

/// The reply of `--admin` to a client that has sent this.
pub(crate) fn asked(admin: &str, request: &[u8]) -> Value {
    let mut client = TcpStream::connect(admin).expect("it listens");
    let patience = Some(Duration::from_secs(180));
    client.set_read_timeout(patience).expect("an open socket");
    client.write_all(request).expect("it reads");
    let mut answer = String::new();
    client
        .read_to_string(&mut answer)
        .expect("a line, and a FIN");
    assert!(answer.ends_with('\n'), "{answer}");
    serde_json::from_str(&answer).expect("an object")
}

/// A file that is removed with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("wharf-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).expect("there is room");
        Scratch(path)
    }

    /// Its path for the program, which under Wine sees this system as a drive.
    fn name(&self) -> String {
        let path = self.0.to_str().expect("text");
        if is_native() || cfg!(windows) {
            path.to_owned()
        } else {
            format!("Z:{}", path.replace('/', "\\"))
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A missing file need not be removed.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn the_account_is_readable_while_the_server_runs() {
    for driver in drivers() {
        let (server, _, admin) = open_server("hold", &driver);
        assert_eq!(asked(&admin, b"")["accepted"], 0);
        let clients = server.connect_many(20);
        let told = || asked(&admin, b"GET / HTTP/1.1\r\nHost: here\r\n\r\n");
        while told()["accepted"] != 20 {}
        let standing = told();
        assert_eq!(standing["event"], "standing", "{standing}");
        assert_eq!(
            (&standing["held"], &standing["closed_by_us"]),
            (&20.into(), &0.into())
        );
        drop(clients);
        while told()["left_by_fin"] != 20 {}
        assert_eq!(server.stop()["held"], 0, "{driver}");
    }
}

/// Neither many clients at once, nor clients that never leave, keep it from replying.
#[test]
fn askers_that_stay_do_not_close_the_door() {
    for driver in drivers() {
        let (server, _, admin) = open_server("echo", &driver);
        let connect = |_| TcpStream::connect(&admin).expect("it listens");
        let idle: Vec<TcpStream> = (0..63).map(connect).collect();
        assert_eq!(asked(&admin, b"")["accepted"], 0, "{driver}");
        drop(idle);
        assert_eq!(asked(&admin, b"")["accepted"], 0, "{driver}");
        server.stop();
    }
}

/// More clients than `--admin` has slots for, none of which leaves: the oldest are closed for the
/// newest, before the 5 seconds are over in which each may read its line.
#[test]
fn askers_that_stay_make_room_for_the_next() {
    for driver in drivers() {
        let (server, _, admin) = open_server("echo", &driver);
        let mut silent = Vec::new();
        let mut answered_at = Vec::new();
        for _ in 0..200 {
            let asker = TcpStream::connect(&admin).expect("it listens");
            let mut line = String::new();
            let mut lines = BufReader::new(&asker);
            lines.read_line(&mut line).expect("it is answered");
            let told: Value = serde_json::from_str(&line).expect("an object");
            answered_at.push(told["seconds"].as_f64().expect("a number"));
            silent.push(asker);
        }
        // With 64 slots and no early close, three times 64 clients would be closed for staying too
        // long, each 64 of them 5 seconds after they came, by the clock of the server: three
        // clients wait that long. A busy machine makes all of them slow, and not three of them by
        // that much.
        let waits = answered_at.windows(2).map(|pair| pair[1] - pair[0]);
        let long: Vec<f64> = waits.filter(|seconds| *seconds > 2.5).collect();
        assert!(long.len() < 3, "{driver}: waited for {long:?} seconds");
        // The closed ones notice it.
        while (&silent[100]).write_all(b"still here").is_ok() {}
        server.stop();
    }
}

#[test]
fn a_load_asks_its_server_and_both_ledgers_agree() {
    for driver in drivers() {
        let (server, address, admin) = open_server("echo", &driver);
        let place = [&address, "--admin", &admin, "--driver", &driver];
        for mode in [
            &["echo", "--connections", "20", "--for", "200ms"][..],
            &["stream", "--connections", "4", "--for", "200ms"],
            &["connect", "--connections", "200"],
        ] {
            let (told, code, _) = load(&[&mode[..1], &place, &mode[1..]].concat());
            assert_eq!(code, Some(0), "{told}");
            let joint = &told["server"];
            assert_eq!(joint["balances"], true, "{told}");
            assert_eq!(joint["accepted"], told["connected"], "{told}");
            assert_eq!(joint["bytes_in"], told["bytes_sent"], "{told}");
            let verdict = told["verdict"].as_str().expect("a sentence");
            assert!(verdict.contains("the ledgers agree"), "{verdict}");
        }
        server.stop();
    }
}

/// Its own account is then the more useful.
#[test]
fn a_load_whose_server_is_gone_reports_its_own_outcome() {
    let driver = &drivers()[0];
    let (server, address, admin) = open_server("echo", driver);
    let child = std::thread::spawn({
        let (address, admin) = (address.clone(), admin.clone());
        move || load(&["echo", &address, "--admin", &admin, "--for", "60s"])
    });
    while asked(&admin, b"")["accepted"] != 1 {}
    server.stop();
    let (told, code, _) = child.join().expect("it does not panic");
    assert_eq!(code, Some(3), "{told}");
    assert_eq!(told["lost"], 1, "{told}");
    assert_eq!(told["server"], Value::Null, "{told}");
    let missed = told["missed"][0].as_str().expect("a sentence");
    assert!(missed.contains("no account from"), "{told}");
}

#[test]
fn what_somebody_else_connects_is_found_out() {
    let driver = &drivers()[0];
    given_time(|factor| {
        let (server, address, admin) = open_server("hold", driver);
        let time = milliseconds(1_000, factor);
        let child = std::thread::spawn({
            let (address, admin) = (address.clone(), admin.clone());
            move || load(&["hold", &address, "--admin", &admin, "--for", &time])
        });
        while asked(&admin, b"")["accepted"] != 1 {}
        let other = server.connect();
        while asked(&admin, b"")["accepted"] != 2 {}
        let was_there = !child.is_finished();
        let (told, code, _) = child.join().expect("it does not panic");
        drop(other);
        server.stop();
        // Its last reading may have been before the other client came.
        let was_seen = told["server"]["of_others"] == 1;
        enough(was_there && was_seen, &told)?;
        assert_eq!(code, Some(3), "{told}");
        Ok(())
    });
}

#[test]
fn a_door_that_is_none_is_said_before_the_load_begins() {
    let server = Server::start(&["echo", "127.0.0.1:0"]);
    let address = server.address().to_string();
    let output = run(&[
        "load", "echo", &address, "--admin", &address, "--for", "100ms",
    ]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code_of(output.status), Some(2), "{text}");
    assert!(text.contains("no account from"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn bulk_goes_both_ways_and_every_byte_is_right() {
    for driver in drivers() {
        let server = Server::start(&["echo", "127.0.0.1:0", "--driver", &driver]);
        let address = server.address().to_string();
        given_time(|factor| {
            let time = milliseconds(300, factor);
            let options = ["--connections", "4", "--for", &time, "--driver", &driver];
            let (told, code, _) = load(&[&["stream", &address], &options[..]].concat());
            assert_eq!(code, Some(0), "{told}");
            assert_eq!(
                (&told["size_bytes"], &told["pipeline"]),
                (&65_536.into(), &16.into())
            );
            assert_eq!(told["bytes_sent"], told["bytes_received"], "{told}");
            enough(told["bytes_received"].as_u64() > Some(1 << 20), &told)
        });
        server.stop();
    }
}

#[test]
fn a_ramp_spreads_the_connects() {
    let server = Server::start(&["hold", "127.0.0.1:0"]);
    let address = server.address().to_string();
    let options = ["--connections", "50", "--ramp", "500ms", "--for", "600ms"];
    let (told, code, _) = load(&[&["hold", &address], &options[..]].concat());
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(
        (&told["connects"], &told["held"]),
        (&"open loop".into(), &50.into())
    );
    assert_eq!(told["rate_per_second"], 100.0, "{told}");
    server.stop();
}

#[test]
fn every_latency_is_in_the_log() {
    let server = Server::start(&["echo", "127.0.0.1:0"]);
    let address = server.address().to_string();
    let file = Scratch::new("latencies.hlog", "");
    given_time(|factor| {
        let time = milliseconds(100, factor);
        let place = ["echo", &address, "--for", &time, "--hdr", &file.name()];
        let (told, code, _) = load(&place);
        assert_eq!(code, Some(0), "{told}");
        enough(has_messages(&told), &told)
    });
    let log = std::fs::read_to_string(&file.0).expect("it was written");
    for expected in ["[StartTime:", "Tag=connect,", "Tag=message,", ",HISTF"] {
        assert!(log.contains(expected), "{expected}: {log}");
    }
    let output = run(&["load", "echo", &address, "--hdr", "/no/such/place"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code_of(output.status), Some(2), "{text}");
    assert!(text.contains("cannot write"), "{text}");
}

#[test]
fn two_results_are_compared_and_a_load_with_its_server() {
    let mut server = Server::start(&["echo", "127.0.0.1:0"]);
    let address = server.address().to_string();
    // These four explain the server's account, so none of them is tried again.
    let run_load = || {
        let mut watched =
            Watched::start(&["echo", &address, "--connections", "5", "--interval", "20ms"]);
        watched.until(|line| line["connected"] == 5 && has_messages(line));
        let last = watched.interrupt();
        format!("{last}\n")
    };
    let a = Scratch::new("a.json", &(run_load() + &run_load()));
    let b = Scratch::new("b.json", &(run_load() + &run_load()));
    let output = run(&["compare", &a.name(), &b.name(), "--format", "json"]);
    let value: Value = serde_json::from_slice(&output.stdout).expect("an object");
    let figures = value["figures"].as_array().expect("a list");
    assert!(figures.len() > 6, "{value}");
    for figure in figures {
        assert!(figure["ratio"].as_f64() > Some(0.0), "{figure}");
        assert!(figure["beyond_spread"].is_boolean(), "{figure}");
    }
    let text = run(&["compare", &a.name(), &b.name()]).stdout;
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("messages a second"), "{text}");

    server.ask_to_end();
    let account = server.account();
    let c = Scratch::new("server.json", &account.to_string());
    let both = Scratch::new("both.json", &[&a, &b].map(|file| read(&file.0)).concat());
    let output = run(&["compare", &both.name(), &c.name()]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(code_of(output.status), Some(0), "{text}");
    assert!(
        text.contains("the ledgers agree: 20 connected, 20 accepted"),
        "{text}"
    );
    // Half of the loads explain half of the connections.
    let output = run(&["compare", &c.name(), &a.name()]);
    assert_eq!(code_of(output.status), Some(3));
    let output = run(&["compare", &c.name(), &c.name()]);
    assert_eq!(code_of(output.status), Some(2));
}

fn read(path: &PathBuf) -> String {
    std::fs::read_to_string(path).expect("it was written")
}

/// A peer that ends its side first gets its replies all the same.
#[test]
fn an_asker_may_finish_before_it_reads() {
    let (server, _, admin) = open_server("hold", &drivers()[0]);
    let mut client = TcpStream::connect(&admin).expect("it listens");
    client.shutdown(Shutdown::Write).expect("an open socket");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("a line");
    assert!(answer.contains("standing"), "{answer}");
    server.stop();
}
