//! `wharf load` against this program's own servers, and against servers that misbehave.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Output, Stdio};
use std::thread;

use serde_json::Value;

use crate::codes::Code;
use crate::patience::{Watched, enough, given_time, has_messages, milliseconds};
use crate::program::{code_of, is_native, program, run};
use crate::running::{Server, ask_to_end, drivers, free_ports, reset, until_stopped};

/// Runs a load to its end; returns its last line, and its exit code.
pub(crate) fn load(arguments: &[&str]) -> (Value, Code) {
    let output = run(&[&["load"], arguments, &["--format", "json"]].concat());
    last_line(&output)
}

pub(crate) fn last_line(output: &Output) -> (Value, Code) {
    let text = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().last().unwrap_or_else(|| panic!("{complaint}"));
    let value: Value = serde_json::from_str(last).expect("an object a line");
    assert_eq!(value["event"], "load", "{value}");
    balances(&value);
    (value, code_of(output.status))
}

pub(crate) fn balances(value: &Value) {
    let read = |name: &str| value[name].as_u64().expect(name);
    let asked = read("connected") + read("failed") + read("unfinished");
    assert_eq!(read("asked"), asked, "{value}");
    let by_reason = value["failed_by_reason"].as_object().expect("an object");
    let failed: u64 = by_reason.values().filter_map(Value::as_u64).sum();
    assert_eq!(read("failed"), failed, "{value}");
}

#[test]
fn echo_verifies_every_byte_on_every_driver() {
    for driver in drivers() {
        let server = Server::start(&["echo", "127.0.0.1:0", "--driver", &driver]);
        let address = server.address().to_string();
        for more in [
            &["--pipeline", "8", "--size", "1000"][..],
            &["--threads", "2", "--requests-per-second", "2000"],
            &["--size", "300000", "--seed", "9"],
        ] {
            given_time(|factor| {
                let time = milliseconds(500, factor);
                let place = ["echo", &address, "--connections", "20", "--for", &time];
                let place = [&place[..], &["--driver", &driver], more].concat();
                let (told, code) = load(&place);
                assert_eq!(code, Some(0), "{driver} {more:?}: {told}");
                assert_eq!(told["held"], 20, "{told}");
                assert_eq!(told["lost"], 0, "{told}");
                assert_eq!(told["bytes_sent"], told["bytes_received"], "{told}");
                let message = &told["message_us"];
                let has_some = has_messages(&told);
                assert_eq!(message["p50"].as_f64() > Some(0.0), has_some, "{told}");
                assert!(message["p50"].as_f64() <= message["max"].as_f64(), "{told}");
                assert_eq!(told["driver"], driver.as_str());
                enough(told["messages"].as_u64() > Some(20), &told)
            });
        }
        server.stop();
    }
}

/// The ledgers of both ends agree.
#[test]
fn hold_and_connect_agree_with_the_server() {
    for driver in drivers() {
        let mut server = Server::start(&["hold", "127.0.0.1:0", "-v", "--driver", &driver]);
        let address = server.address().to_string();
        let connections = ["--connections", "500", "--driver", &driver];
        // Connecting takes more than a second under Wine.
        let time = if is_native() { "300ms" } else { "10s" };
        let hold = ["hold", &address, "--for", time, "--expect", "held=500"];
        let (told, code) = load(&[&hold[..], &connections].concat());
        assert_eq!(code, Some(0), "{told}");
        assert_eq!(told["held"], 500, "{told}");
        server.wait_for("accepted", 500);
        let connect = ["connect", &address, "--rate", "5000", "--threads", "2"];
        let (told, code) = load(&[&connect[..], &connections].concat());
        assert_eq!(code, Some(0), "{told}");
        assert_eq!(told["connected"], 500, "{told}");
        assert_eq!(told["connects"], "open loop", "{told}");
        // Closed connections may still wait in the backlog.
        server.wait_for("accepted", 500);
        let account = server.stop();
        assert_eq!(account["accepted"], 1000, "{driver}: {account}");
    }
}

#[test]
fn a_missed_gate_ends_with_3_and_says_which() {
    let server = Server::start(&["echo", "127.0.0.1:0"]);
    let address = server.address().to_string();
    given_time(|factor| {
        let time = milliseconds(100, factor);
        let place = ["echo", &address, "--for", &time];
        for gate in [
            &["--expect", "held=2"][..],
            &["--expect", "messages<=0"],
            &["--max-p99", "1ns"],
        ] {
            let (told, code) = load(&[&place[..], gate].concat());
            enough(has_messages(&told), &told)?;
            assert_eq!(code, Some(3), "{told}");
            assert_eq!(told["missed"].as_array().map(Vec::len), Some(1), "{told}");
            let verdict = told["verdict"].as_str().expect("a sentence");
            assert!(verdict.contains("expected"), "{verdict}");
        }
        let gates = ["--expect", "held=1,lost=0", "--max-p99", "10m"];
        let (told, code) = load(&[&place[..], &gates].concat());
        enough(has_messages(&told), &told)?;
        assert_eq!(code, Some(0), "{told}");
        Ok(())
    });
}

#[test]
fn a_refused_connect_is_counted_with_its_reason() {
    let address = format!("127.0.0.1:{}", free_ports(24_000, 1));
    for driver in drivers() {
        let place = ["hold", &address, "--connections", "7", "--driver", &driver];
        let (told, code) = load(&place);
        assert_eq!(code, Some(1), "{told}");
        assert_eq!(told["failed_by_reason"]["connection refused"], 7, "{told}");
    }
}

#[test]
fn what_cannot_begin_ends_with_2_and_one_line() {
    for (arguments, expected) in [
        (&["load", "hold", "192.0.2.1:80"][..], "--i-own-this-target"),
        (&["load", "hold", "127.0.0.1:0"], "name the port"),
        (&["load", "hold", "127.0.0.1:1-9"], "not a range"),
        (&["load", "hold", "--expect", "helt=1"], "connected"),
        (&["load", "hold", "--source", "somewhere"], "127.0.0.0/24"),
        (
            &["load", "hold", "127.0.0.1:9", "--source", "::1"],
            "version of the target",
        ),
        (
            &["load", "hold", "unix:/tmp/x", "--source", "127.0.0.1"],
            "internet addresses",
        ),
        (&["load", "hover"], "hold"),
        (&["load", "hold", "--connections", "9000000"], "open files"),
    ] {
        if expected == "open files" && !is_native() {
            continue; // Windows has no such limit.
        }
        if expected == "--i-own-this-target" && !is_native() {
            continue; // Wine binds any address, so that each seems to be this machine's own.
        }
        let output = run(arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(code_of(output.status), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(expected), "{arguments:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{arguments:?}: {text}");
    }
}

/// A load that runs until it is stopped.
pub(crate) fn start(arguments: &[&str]) -> Child {
    let mut load = program();
    load.args([&["load"], arguments, &["--format", "json"]].concat());
    until_stopped(&mut load)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

/// The last line of a load that ends by itself. `wait_with_output` closes its input first, which
/// ends it on Windows.
pub(crate) fn ended(mut child: Child) -> (Value, Code) {
    let input = child.stdin.take();
    let output = child.wait_with_output().expect("it ends");
    drop(input);
    last_line(&output)
}

pub(crate) fn interrupt(mut child: Child) -> (Value, Code) {
    ask_to_end(&mut child);
    last_line(&child.wait_with_output().expect("it ends"))
}

#[test]
fn ctrl_c_still_reports() {
    for driver in drivers() {
        let mut server = Server::start(&["hold", "127.0.0.1:0", "-v", "--driver", &driver]);
        let address = server.address().to_string();
        let options = ["--connections", "50", "--driver", &driver];
        let child = start(&[&["hold", &address], &options[..]].concat());
        server.wait_for("accepted", 50);
        let (told, code) = interrupt(child);
        assert_eq!(code, Some(130), "{told}");
        assert_eq!(told["interrupted"], true, "{told}");
        assert_eq!(told["lost"], 0, "{told}");
        server.stop();
    }
}

/// A server made here, which calls `serve` for each connection.
pub(crate) fn misbehaving(serve: fn(TcpStream)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    // It ends with the test process.
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.expect("a client");
            thread::spawn(move || serve(client));
        }
    });
    address
}

#[test]
fn losses_are_counted_with_their_reason_and_second() {
    let resets = misbehaving(|mut client| {
        let _ = client.read(&mut [0; 1]);
        reset(client);
    });
    let finishes = misbehaving(|mut client| {
        let _ = client.read(&mut [0; 1]);
        let _ = client.shutdown(std::net::Shutdown::Write);
        let _ = client.read_to_end(&mut Vec::new());
    });
    for driver in drivers() {
        for (address, reason) in [(&resets, "reset"), (&finishes, "finished by the peer")] {
            // The load is over as soon as all are lost.
            let options = ["--connections", "5", "--for", "5m", "--driver", &driver];
            let (told, code) = load(&[&["echo", address], &options[..]].concat());
            assert_eq!(code, Some(1), "{told}");
            assert_eq!(
                (&told["held"], &told["lost"]),
                (&0.into(), &5.into()),
                "{told}"
            );
            let lost = told["lost_by_reason"].as_object().expect("an object");
            let (name, seconds) = lost.iter().next().expect("a reason");
            assert!(name.contains(reason), "{told}");
            assert!(seconds[0]["second"].is_u64(), "{told}");
        }
    }
}

#[test]
fn a_server_that_changes_one_byte_is_found_out() {
    let address = misbehaving(|mut client| {
        let mut bytes = [0; 100];
        for round in 0u32.. {
            if client.read_exact(&mut bytes).is_err() {
                return;
            }
            if round == 3 {
                bytes[42] ^= 1;
            }
            if client.write_all(&bytes).is_err() {
                return;
            }
        }
    });
    for driver in drivers() {
        // The load is over as soon as the only one is lost.
        let options = ["--size", "100", "--for", "5m", "--driver", &driver];
        let (told, code) = load(&[&["echo", &address], &options[..]].concat());
        assert_eq!(code, Some(1), "{told}");
        assert_eq!(told["corrupt"], 1, "{told}");
        let lost = told["lost_by_reason"].as_object().expect("an object");
        assert!(lost.contains_key("wrong byte at 342"), "{told}");
    }
}

#[test]
fn connections_come_from_the_sources_that_are_named() {
    if cfg!(not(target_os = "linux")) {
        println!("skipped: only Linux has all of 127.0.0.0/8 without being told");
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    let options = ["--connections", "4", "--source", "127.0.0.9,127.0.1.0/30"];
    let child = start(&[&["hold", &address], &options[..]].concat());
    let clients: Vec<_> = (0..4)
        .map(|_| listener.accept().expect("a client"))
        .collect();
    let mut from: Vec<String> = clients.iter().map(|it| it.1.ip().to_string()).collect();
    from.sort();
    from.dedup();
    assert_eq!(from, ["127.0.0.9", "127.0.1.1", "127.0.1.2"]);
    interrupt(child);
}

#[test]
fn intervals_tell_how_it_stands() {
    let server = Server::start(&["echo", "127.0.0.1:0"]);
    let address = server.address().to_string();
    let mut watched = Watched::start(&["echo", &address, "--interval", "20ms"]);
    // Each line has more than the one before.
    let mut messages = 0;
    for _ in 0..3 {
        let line = watched.until(|line| line["messages"].as_u64() > Some(messages));
        messages = line["messages"].as_u64().expect("a number");
    }
    let last = watched.interrupt();
    assert!(last["messages"].as_u64() >= Some(messages), "{last}");
}

/// What follows a word in one of the lines.
fn number_after(text: &str, word: &str) -> u64 {
    let rest = text
        .split(word)
        .nth(1)
        .unwrap_or_else(|| panic!("no {word}: {text}"));
    let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next();
    digits
        .and_then(|digits| digits.parse().ok())
        .unwrap_or_else(|| panic!("{word}: {text}"))
}

#[test]
fn it_takes_and_prints_what_rust_echo_bench_does() {
    let server = Server::start(&["echo", "127.0.0.1:0"]);
    let address = server.address().to_string();
    for options in [
        &["-c", "5", "-t", "TIME", "-l", "64", "-a"][..],
        &[
            "--processes",
            "2",
            "-n",
            "5",
            "-t",
            "TIME",
            "-l",
            "64",
            "-a",
        ],
        &[
            "--number",
            "5",
            "--duration",
            "TIME",
            "--length",
            "64",
            "--address",
        ],
    ] {
        given_time(|seconds| {
            let time = seconds.to_string();
            let options: Vec<&str> = options
                .iter()
                .map(|word| if *word == "TIME" { &time } else { *word })
                .chain([&*address])
                .collect();
            imitates(&options, &address, seconds)
        });
    }
}

/// The lines that the imitated program would print, with percentiles.
fn imitates(options: &[&str], address: &str, seconds: u32) -> Result<(), String> {
    let output = run(&[&["load", "--compat-rust-echo-bench"], options].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(code_of(output.status), Some(0), "{options:?}: {output:?}");
    let heading =
        format!("Benchmarking: {address}\n5 clients, running 64 bytes, {seconds} sec.\n\nSpeed: ");
    assert!(text.starts_with(&heading), "{text}");
    let requests = number_after(&text, "Requests: ");
    assert_eq!(number_after(&text, "Responses: "), requests, "{text}");
    let speed = requests / u64::from(seconds);
    assert_eq!(number_after(&text, "Speed: "), speed, "in its time: {text}");
    assert!(
        text.contains(" request/sec, ") && text.contains(" response/sec\n"),
        "{text}"
    );
    let latency = text.lines().find(|line| line.starts_with("Latency: "));
    let latency = latency.unwrap_or_else(|| panic!("{text}"));
    for quantile in ["p50 ", "p90 ", "p99 ", "p99.9 ", "max "] {
        assert!(latency.contains(quantile), "{text}");
    }
    if requests > 5 { Ok(()) } else { Err(text) }
}

#[test]
fn what_rust_echo_bench_would_not_take_is_refused_in_one_line() {
    for (arguments, expected) in [
        (
            &["--compat-rust-echo-bench", "echo"][..],
            "cannot be used with",
        ),
        (&["echo", "-n", "5"], "cannot be used with"),
        (&["-n", "5"], "--compat-rust-echo-bench"),
        (&["--compat-rust-echo-bench", "-t", "0"], "0"),
        (
            &["--compat-rust-echo-bench", "-a", "12345"],
            "-a 12345: write host:port",
        ),
        (&[], "<MODE>"),
    ] {
        let output = run(&[&["load"], arguments].concat());
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(code_of(output.status), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(expected), "{arguments:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{arguments:?}: {text}");
    }
}

/// The imitated program takes a part of a message for an error, and drops the client.
#[test]
fn answers_in_pieces_are_put_together() {
    let address = misbehaving(|mut client| {
        let _ = client.set_nodelay(true);
        let mut bytes = [0; 64];
        while client.read_exact(&mut bytes).is_ok() {
            for piece in bytes.chunks(23) {
                if client.write_all(piece).is_err() {
                    return;
                }
                // Unread pieces may be read as one: that is correct as well.
                thread::yield_now();
            }
        }
    });
    for driver in drivers() {
        given_time(|seconds| {
            let time = seconds.to_string();
            let options = [
                "-a", &address, "-n", "3", "-t", &time, "-l", "64", "--driver", &driver,
            ];
            let output = run(&[&["load", "--compat-rust-echo-bench"], &options[..]].concat());
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(code_of(output.status), Some(0), "{driver}: {output:?}");
            let requests = number_after(&text, "Requests: ");
            assert_eq!(
                number_after(&text, "Responses: "),
                requests,
                "{driver}: {text}"
            );
            assert!(
                text.contains("all 3 connected, and every byte came back"),
                "{text}"
            );
            if requests > 3 { Ok(()) } else { Err(text) }
        });
    }
}

#[test]
fn people_get_no_line_that_is_wider_than_a_terminal() {
    let server = Server::start(&["echo", "127.0.0.1:0"]);
    let address = server.address().to_string();
    for options in [
        &["echo", "--requests-per-second", "500", "--processes", "2"][..],
        &["stream", "--expect", "held=1000,failed>=3,asked>=100000"],
        &["hold", "--touch", "100%"],
        &["connect", "--rate", "1000"],
    ] {
        let place = [&["load", options[0], &address][..], &options[1..]].concat();
        let size = ["--connections", "20", "--for", "300ms"];
        let output = run(&[&place[..], &size].concat());
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("\nconnect "), "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(!text.contains("MB"), "one unit of speed: {text}");
        let is_fast = text.contains("MiB/s each way");
        assert_eq!(is_fast, text.contains("\nbytes "), "{text}");
    }
    server.stop();
}
