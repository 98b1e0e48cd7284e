//! Open and closed loops of a load, and how its files and lines report them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use serde_json::Value;

use crate::load::{last_line, load, misbehaving};
use crate::patience::{Watched, enough, given_time, has_messages, milliseconds};
use crate::program::{is_native, needs_native, run};
use crate::running::{Server, Signal, drivers};

/// The length of a stall of the running load.
static STALL_MS: AtomicU32 = AtomicU32::new(400);

/// Echoes, and stands still once.
fn stalls(mut client: TcpStream) {
    let mut bytes = [0; 64];
    for round in 0u32.. {
        if round == 5 {
            // The fault that the load must show.
            let stall = STALL_MS.load(Ordering::Relaxed);
            thread::sleep(Duration::from_millis(stall.into()));
        }
        if client.read_exact(&mut bytes).is_err() || client.write_all(&bytes).is_err() {
            return;
        }
    }
}

/// In a closed loop one message waits through the stall, in an open loop all that were due
/// meanwhile.
#[test]
fn a_stall_shows_in_the_percentiles_of_an_open_loop() {
    let address = misbehaving(stalls);
    for driver in drivers() {
        given_time(|factor| {
            let stall_ms = 400 * factor;
            STALL_MS.store(stall_ms, Ordering::Relaxed);
            let time = milliseconds(1_000, factor);
            let size = ["echo", &address, "--for", &time, "--driver", &driver];
            let (closed, _) = load(&size);
            assert_eq!(closed["requests"], "closed loop");
            // The same number of messages in any time.
            let rate = (500.0 / f64::from(factor)).to_string();
            let (open, _) = load(&[&size[..], &["--requests-per-second", &rate]].concat());
            assert_eq!(open["requests"], "open loop");
            let stall_us = f64::from(stall_ms) * 1e3;
            for told in [&closed, &open] {
                enough(told["messages"].as_u64() > Some(5), told)?;
                let max = told["message_us"]["max"].as_f64().expect("a number");
                assert!(max >= stall_us * 0.9, "{told}");
            }
            // They keep their due time until a connection exists, which may have no time left then.
            enough(open["messages_unsent"] == 0, &open)?;
            // 200 of 500 were due in it, and waited half of it on average.
            let p90 = open["message_us"]["p90"].as_f64().expect("a number");
            assert!(p90 >= stall_us * 0.4, "{open}");
            Ok(())
        });
    }
}

/// The first connection goes at once, and the second is due 400 ms later.
#[test]
fn messages_without_a_connection_keep_their_time() {
    static CLIENTS: AtomicU32 = AtomicU32::new(0);
    let address = misbehaving(|mut client| {
        let mut bytes = [0; 64];
        // Each load has a first one and a second.
        let first = CLIENTS.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        while !first && client.read_exact(&mut bytes).is_ok() {
            if client.write_all(&bytes).is_err() {
                return;
            }
        }
    });
    for driver in drivers() {
        given_time(|factor| {
            let time = milliseconds(1_000, factor);
            let of_rate = |per_second: f64| (per_second / f64::from(factor)).to_string();
            let (connects, requests) = (of_rate(2.5), of_rate(100.0));
            let size = ["echo", &address, "--connections", "2", "--driver", &driver];
            let pace = ["--for", &time, "--rate", &connects];
            let rate = ["--requests-per-second", &requests];
            let (told, code) = load(&[&size[..], &pace, &rate, &["--expect", "lost=1"]].concat());
            assert_eq!(code, Some(0), "{told}");
            // If it had been too late, there would have been no connection to send them.
            enough(has_messages(&told) && told["messages_unsent"] == 0, &told)?;
            assert_eq!(told["lost"], 1, "{told}");
            // The first message was lost with its connection.
            let messages = told["messages"].as_u64().expect("a number");
            enough(messages >= 90, &told)?;
            let max = told["message_us"]["max"].as_f64().expect("a number");
            assert!(max >= 300_000.0 * f64::from(factor), "{told}");
            assert!(told["messages_late"].as_u64() >= Some(30), "{told}");
            Ok(())
        });
    }
}

/// When it continued, its time for replies was over, and it gave up before it had looked.
#[test]
#[cfg_attr(windows, ignore = "no safe call sends a signal on Windows")]
fn what_came_back_while_a_load_stood_still_is_not_lost() {
    static ANSWERS: AtomicBool = AtomicBool::new(false);
    if !needs_native() {
        return;
    }
    let address = misbehaving(|mut client| {
        let mut bytes = [0; 64];
        while client.read_exact(&mut bytes).is_ok() {
            while !ANSWERS.load(Ordering::Acquire) {
                thread::yield_now();
            }
            if client.write_all(&bytes).is_err() {
                return;
            }
        }
    });
    for driver in drivers() {
        given_time(|factor| {
            ANSWERS.store(false, Ordering::Release);
            let time = milliseconds(100, factor);
            let size = ["--for", &time, "--interval", "20ms", "--driver", &driver];
            let mut load = Watched::start(&[&["echo", &address], &size[..]].concat());
            // Well after its time: its threads have seen that it is up.
            let is_up = f64::from(factor) * 0.2;
            let line = load.until(|line| line["seconds"].as_f64() > Some(is_up));
            load.signal(Signal::STOP);
            ANSWERS.store(true, Ordering::Release);
            // The fault: it stands still for longer than it waits for replies.
            thread::sleep(Duration::from_secs(6));
            load.signal(Signal::CONT);
            let (told, code) = load.end();
            assert_eq!(code, Some(0), "{told}");
            // It may have had no time to send anything.
            enough(line["bytes_sent"] == 64, &told)?;
            assert_eq!(
                (&told["messages"], &told["lost"]),
                (&1.into(), &0.into()),
                "{told}"
            );
            Ok(())
        });
    }
}

#[test]
fn messages_that_were_due_and_never_sent_are_counted() {
    let address = misbehaving(|client| {
        // It reads nothing, so sends fail until the load gives up.
        let mut byte = [0];
        while client.peek(&mut byte).is_ok_and(|count| count > 0) {
            thread::sleep(Duration::from_millis(20));
        }
    });
    for driver in drivers() {
        given_time(|factor| {
            let time = milliseconds(300, factor);
            let size = ["echo", &address, "--size", "1000000", "--for", &time];
            let rate = ["--requests-per-second", "1000", "--driver", &driver];
            let late = ["--expect", "messages_unsent=0"];
            let (told, code) = load(&[&size[..], &rate, &late].concat());
            // A connection that connects when the time is up sends nothing.
            enough(told["bytes_sent"].as_u64() > Some(0), &told)?;
            assert_eq!(code, Some(3), "{told}");
            assert_eq!(told["lost"], 1, "{told}");
            assert!(told["messages_unsent"].as_u64() >= Some(100), "{told}");
            Ok(())
        });
    }
}

#[test]
fn the_account_for_people_names_loops_and_seconds() {
    let address = misbehaving(|mut client| {
        let mut bytes = [0; 64];
        while client.read_exact(&mut bytes).is_ok() && client.write_all(&bytes).is_ok() {}
    });
    // The figures of a connect and a message. It connects whatever the time, and may have no
    // message.
    given_time(|factor| {
        let time = milliseconds(300, factor);
        let size = ["load", "echo", &address, "--for", &time, "--rate", "100"];
        let output = run(&[&size[..], &["--requests-per-second", "100"]].concat());
        let text = String::from_utf8_lossy(&output.stdout);
        for expected in ["connects in open loop", "a second in open loop"] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        let text = text.split_whitespace().collect::<Vec<&str>>().join(" ");
        let dues = text.matches("from when each was due").count();
        if dues == 2 { Ok(()) } else { Err(text) }
    });
    let resets = misbehaving(|mut client| {
        let _ = client.read(&mut [0; 1]);
        crate::running::reset(client);
    });
    let output = run(&["load", "echo", &resets, "--connections", "2", "--for", "5m"]);
    let text = String::from_utf8_lossy(&output.stdout);
    // The first second, unless the machine stood still in it.
    assert!(text.contains("reset by the peer 2 (in second"), "{text}");
    assert!(text.contains("connects in closed loop"), "{text}");
}

/// Of all processes, and the same as in the report.
#[test]
fn the_histogram_file_has_every_latency() {
    let server = Server::start(&["echo", "127.0.0.1:0"]);
    let address = server.address().to_string();
    let path = std::env::temp_dir().join(format!("wharf-{}-hdr", std::process::id()));
    let shown = path.to_str().expect("text");
    let name = if is_native() || cfg!(windows) {
        shown.to_owned()
    } else {
        format!("Z:{shown}")
    };
    let (mut told, mut text) = (Value::Null, Vec::new());
    given_time(|factor| {
        let time = milliseconds(200, factor);
        let size = [
            "load",
            "echo",
            &address,
            "--connections",
            "4",
            "--for",
            &time,
        ];
        let file = ["--processes", "2", "--hdr", &name, "--format", "json"];
        let (last, code) = last_line(&run(&[&size[..], &file].concat()));
        assert_eq!(code, Some(0), "{last}");
        text = std::fs::read(&path).expect("it was written");
        let _ = std::fs::remove_file(&path);
        told = last;
        enough(has_messages(&told), &told)
    });
    let mut counts = Vec::new();
    for entry in IntervalLogIterator::new(&text) {
        let entry = entry.expect("a line of the format");
        let LogEntry::Interval(interval) = entry else {
            continue;
        };
        let bytes = base64::decode(interval.encoded_histogram());
        let mut reader = Deserializer::new();
        let histogram: Histogram<u64> = reader.deserialize(&mut &bytes[..]).expect("a histogram");
        let tag = interval.tag().expect("each has one").as_str().to_owned();
        counts.push((tag, histogram.len(), histogram.max() as f64 / 1e3));
    }
    let messages = told["messages"].as_u64().expect("a number");
    let max = |of: &str| told[of]["max"].as_f64().expect("a number");
    assert_eq!(
        counts,
        [
            ("connect".to_owned(), 4, max("connect_us")),
            ("message".to_owned(), messages, max("message_us"))
        ]
    );
    server.stop();
}

mod base64 {
    //! The bytes of base 64, as the format has them.

    pub(super) fn decode(text: &str) -> Vec<u8> {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let digit = |letter: u8| LETTERS.iter().position(|known| *known == letter);
        let (mut bits, mut held, mut bytes) = (0u32, 0, Vec::new());
        for digit in text.bytes().filter_map(digit) {
            bits = bits << 6 | digit as u32;
            held += 6;
            if held >= 8 {
                held -= 8;
                bytes.push((bits >> held) as u8);
            }
        }
        bytes
    }
}
