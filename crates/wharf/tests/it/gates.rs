//! How a load treats requests without a reply: gates, exit codes, and the count of what is owed.
//!
//! A load that counted only replies would look better the less a server replies.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use serde_json::Value;

use crate::load::{load, misbehaving};
use crate::patience::{Watched, enough, given_time, milliseconds};
use crate::program::{code_of, is_native, run};
use crate::running::{Server, drivers};

/// A server that replies to one message, and then to nothing on any connection.
fn falls_silent() -> String {
    misbehaving(|mut client| {
        let mut message = [0; 64];
        if client.read_exact(&mut message).is_ok() {
            let _ = client.write_all(&message);
        }
        let _ = client.read_to_end(&mut Vec::new());
    })
}

#[test]
fn what_is_not_answered_is_slower_than_any_limit() {
    let address = falls_silent();
    for driver in drivers() {
        for open_loop in [false, true] {
            given_time(|factor| {
                let time = milliseconds(300, factor);
                let place = ["echo", &address, "--for", &time, "--driver", &driver];
                let rate = ["--requests-per-second", "100"];
                let rate = if open_loop { &rate[..] } else { &[] };
                let (told, code) = load(&[&place[..], rate, &["--max-p99", "10m"]].concat());
                // It must have come so far that one message had a reply and another was due.
                let unanswered = told["messages_unanswered"].as_u64();
                enough(told["messages"] == 1 && unanswered > Some(0), &told)?;
                assert_eq!(code, Some(3), "{told}");
                assert_eq!(told["exit_code"], 3, "{told}");
                assert!(told["oldest_unanswered_us"].as_f64() > Some(0.0), "{told}");
                assert!(told["message_us"]["p99"].is_null(), "{told}");
                assert!(told["message_us"]["max"].as_f64() > Some(0.0), "{told}");
                let verdict = told["verdict"].as_str().expect("a sentence");
                assert!(verdict.contains("not answered"), "{verdict}");
                Ok(())
            });
        }
    }
}

#[test]
fn connections_that_are_lost_fail_unless_a_gate_allows_them() {
    let address = misbehaving(|mut client| {
        let _ = client.read(&mut [0; 1]);
    });
    for driver in drivers() {
        let place = ["echo", &address, "--connections", "3", "--for", "5m"];
        let place = [&place[..], &["--driver", &driver]].concat();
        let (told, code) = load(&place);
        assert_eq!(told["lost"], 3, "{told}");
        assert_eq!(code, Some(1), "{told}");
        for gate in ["lost=3", "lost<=5"] {
            let (told, code) = load(&[&place[..], &["--expect", gate]].concat());
            assert_eq!(code, Some(0), "{gate}: {told}");
            assert_eq!(told["exit_code"], 0, "{told}");
        }
        let (told, code) = load(&[&place[..], &["--expect", "lost<=2"]].concat());
        assert_eq!(code, Some(3), "{told}");
    }
}

/// Five are accepted, and then there is no listener.
#[test]
fn connects_that_fail_are_slower_than_any_limit() {
    for driver in drivers() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let accepts = thread::spawn(move || {
            let accept = || listener.accept().expect("a client");
            (0..5).map(|_| accept()).collect::<Vec<_>>()
        });
        let options = ["--connections", "300", "--connecting", "1", "--for", "5s"];
        let place = ["hold", &address, "--driver", &driver, "--max-p99", "10m"];
        let (told, code) = load(&[&place[..], &options].concat());
        drop(accepts.join().expect("they came"));
        assert!(told["failed"].as_u64() > Some(10), "{told}");
        assert_eq!(code, Some(3), "{told}");
        assert!(told["connect_us"]["p99"].is_null(), "{told}");
        let missed = told["missed"][0].as_str().expect("a sentence");
        assert!(missed.contains("were not answered"), "{missed}");
    }
}

/// A peer's FIN after the load's own is no act of the peer.
#[test]
fn what_the_load_cuts_short_has_one_name() {
    let address = misbehaving(|mut client| {
        let _ = client.read_to_end(&mut Vec::new());
    });
    for driver in drivers() {
        given_time(|factor| {
            let time = milliseconds(100, factor);
            let place = ["echo", &address, "--for", &time, "--driver", &driver];
            let (told, code) = load(&place);
            // A connection that connects when the time is up sends nothing, and nothing is cut
            // short.
            enough(told["bytes_sent"].as_u64() > Some(0), &told)?;
            assert_eq!(code, Some(1), "{told}");
            let lost = told["lost_by_reason"].as_object().expect("an object");
            let names: Vec<&String> = lost.keys().collect();
            assert_eq!(names, ["did not come back in time"], "{told}");
            Ok(())
        });
    }
}

/// More than any machine can send: the load still reads replies, takes no more memory for it,
/// notices the request to end, and reports that it could not send it.
#[test]
fn a_rate_that_no_machine_sends_is_counted_and_reported() {
    for driver in drivers() {
        let server = Server::start(&["echo", "127.0.0.1:0", "--driver", &driver]);
        let address = server.address().to_string();
        let place = ["echo", &address, "--connections", "5", "--driver", &driver];
        let rate = ["--requests-per-second", "100000000", "--for", "10h"];
        let interval = ["--interval", "50ms"];
        let mut watched = Watched::start(&[&place[..], &rate, &interval].concat());
        let is_busy = |line: &Value| line["messages"].as_u64() > Some(10_000);
        let line = watched.until(is_busy);
        let owed = line["messages_unanswered"].as_u64();
        assert!(owed > line["messages"].as_u64(), "{line}");
        assert!(line["oldest_unanswered_us"].as_f64() > Some(0.0), "{line}");
        let told = watched.interrupt();
        assert_eq!(told["lost"], 0, "{driver}: {told}");
        assert!(told["messages_unsent"].as_u64() > Some(10_000), "{told}");
        let resident = told["resident_bytes"].as_u64();
        assert!(resident.unwrap_or(0) < 256 << 20, "{told}");
        let verdict = told["verdict"].as_str().expect("a sentence");
        assert!(verdict.contains("the load could not send"), "{verdict}");
        server.stop();
    }
}

#[test]
fn an_interval_has_what_came_in_it() {
    let server = Server::start(&["echo", "127.0.0.1:0"]);
    let address = server.address().to_string();
    let mut watched = Watched::start(&["echo", &address, "--interval", "20ms"]);
    let (mut sum, mut count, mut timed) = (0, 0, false);
    // Each interval adds its own figures to those before. A message is counted and timed in two
    // steps, and a reading may fall between them, so not each interval has both.
    while count < 5 || !timed {
        count += 1;
        let line = watched.until(|_| true);
        let period = &line["period"];
        sum += period["messages"].as_u64().expect("a number");
        assert_eq!(line["messages"], sum, "{line}");
        timed |= period["messages"] != 0 && period["message_us"]["p99"].is_number();
        assert!(period["seconds"].as_f64() > Some(0.0), "{line}");
    }
    let last = watched.interrupt();
    let more = last["period"]["messages"].as_u64().expect("a number");
    assert!(last["messages"].as_u64() >= Some(sum + more), "{last}");
    server.stop();
}

/// A server that does not reply does not look fast in a comparison.
#[test]
fn a_build_that_answers_nothing_does_not_pass_a_comparison() {
    let server = Server::start(&["echo", "127.0.0.1:0"]);
    let lives = server.address().to_string();
    let dead = misbehaving(|mut client| {
        let _ = client.read_to_end(&mut Vec::new());
    });
    let file = |name: &str| {
        let name = format!("wharf-{}-gates-{name}.json", std::process::id());
        let path = std::env::temp_dir().join(name);
        path.to_str().expect("text").to_owned()
    };
    let measured = |name: &str, address: &str| {
        let name = file(name);
        given_time(|factor| {
            let time = milliseconds(100, factor);
            let (told, _) = load(&["echo", address, "--for", &time]);
            std::fs::write(&name, told.to_string()).expect("there is room");
            let has_asked = told["bytes_sent"].as_u64() > Some(0);
            enough(
                has_asked && (address == dead || told["messages"] != 0),
                &told,
            )
        });
        name
    };
    let (a, b) = (measured("lives", &lives), measured("dead", &dead));
    let compared = |a: &str, b: &str| {
        let output = run(&["compare", a, b, "--fail-above", "1000"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (text, code_of(output.status))
    };
    let (text, code) = compared(&a, &a);
    assert_eq!(code, Some(0), "{text}");
    let (text, code) = compared(&a, &b);
    assert_eq!(code, Some(3), "{text}");
    assert!(
        text.contains("run 1 has failed") && text.contains("never"),
        "{text}"
    );
    for file in [a, b] {
        std::fs::remove_file(file).expect("it was written");
    }
    server.stop();
}

/// The last line has the exit code.
#[test]
fn a_log_that_could_not_be_written_is_in_the_code() {
    if cfg!(not(target_os = "linux")) || !is_native() {
        println!("skipped: only Linux has a file that is always full");
        return;
    }
    let server = Server::start(&["echo", "127.0.0.1:0"]);
    let address = server.address().to_string();
    given_time(|factor| {
        let time = milliseconds(100, factor);
        let place = ["echo", &address, "--for", &time, "--hdr", "/dev/full"];
        let (told, code) = load(&place);
        enough(told["connected"] == 1 && told["lost"] == 0, &told)?;
        assert_eq!(code, Some(1), "{told}");
        assert_eq!(told["exit_code"], 1, "{told}");
        Ok(())
    });
    server.stop();
}
