//! Open and closed loops of a load, and what its files and lines say of them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use crate::load::{last_line, load, misbehaving};
use crate::program::{Server, drivers, is_native, run};

const STALL: Duration = Duration::from_millis(400);

/// Echoes, and stands still once.
fn stalls(mut client: TcpStream) {
    let mut bytes = [0; 64];
    for round in 0u32.. {
        if round == 5 {
            // The fault that the load has to show.
            thread::sleep(STALL);
        }
        if client.read_exact(&mut bytes).is_err() || client.write_all(&bytes).is_err() {
            return;
        }
    }
}

/// In a closed loop one message waits through it, in an open loop all that were due meanwhile.
#[test]
fn a_stall_shows_in_the_percentiles_of_an_open_loop() {
    let address = misbehaving(stalls);
    for driver in drivers() {
        let size = ["echo", &address, "--for", "1s", "--driver", &driver];
        let (closed, _) = load(&size);
        assert_eq!(closed["requests"], "closed loop");
        let (open, _) = load(&[&size[..], &["--requests-per-second", "500"]].concat());
        assert_eq!(open["requests"], "open loop");
        let stall_us = STALL.as_micros() as f64;
        for told in [&closed, &open] {
            let max = told["message_us"]["max"].as_f64().expect("a number");
            assert!(max >= stall_us * 0.9, "{told}");
        }
        // 200 of 500 were due in it, and waited half of it on average.
        let p90 = open["message_us"]["p90"].as_f64().expect("a number");
        assert!(p90 >= stall_us * 0.4, "{open}");
        assert_eq!(open["messages_unsent"], 0, "{open}");
    }
}

/// The first connection goes at once, and the second is due 400 ms later.
#[test]
fn messages_that_nobody_can_send_keep_their_time() {
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
        let size = [
            "echo",
            &address,
            "--connections",
            "2",
            "--rate",
            "2.5",
            "--for",
            "1s",
        ];
        let rate = ["--requests-per-second", "100", "--driver", &driver];
        let (told, code) = load(&[&size[..], &rate].concat());
        assert_eq!(code, Some(0), "{told}");
        assert_eq!(told["lost"], 1, "{told}");
        // The first went with the connection that went.
        let messages = told["messages"].as_u64().expect("a number");
        assert!(messages >= 90, "{told}");
        let max = told["message_us"]["max"].as_f64().expect("a number");
        assert!(max >= 300_000.0, "{told}");
        assert!(told["messages_late"].as_u64() >= Some(30), "{told}");
    }
}

#[test]
fn messages_that_were_due_and_never_sent_are_counted() {
    let address = misbehaving(|client| {
        // It reads nothing, so that nothing can be sent any more, until the load gives up.
        let mut byte = [0];
        while client.peek(&mut byte).is_ok_and(|count| count > 0) {
            thread::sleep(Duration::from_millis(20));
        }
    });
    for driver in drivers() {
        let size = ["echo", &address, "--size", "1000000", "--for", "300ms"];
        let rate = ["--requests-per-second", "1000", "--driver", &driver];
        let late = ["--expect", "messages_unsent=0"];
        let (told, code) = load(&[&size[..], &rate, &late].concat());
        assert_eq!(code, Some(3), "{told}");
        assert_eq!(told["lost"], 1, "{told}");
        assert!(told["messages_unsent"].as_u64() >= Some(100), "{told}");
    }
}

#[test]
fn the_account_for_people_names_loops_and_seconds() {
    let address = misbehaving(stalls);
    let size = ["load", "echo", &address, "--for", "300ms", "--rate", "100"];
    let output = run(&[&size[..], &["--requests-per-second", "100"]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    for expected in [
        "connects in open loop",
        "in open loop",
        "from when each was due",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let resets = misbehaving(|mut client| {
        let _ = client.read(&mut [0; 1]);
        crate::program::reset(client);
    });
    let output = run(&[
        "load",
        "echo",
        &resets,
        "--connections",
        "2",
        "--for",
        "20s",
    ]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("reset by the peer 2 (in second 0)"), "{text}");
    assert!(text.contains("connects in closed loop"), "{text}");
}

/// Of all processes, and the same that the report says.
#[test]
fn the_histogram_file_has_every_latency() {
    let server = Server::start(&["echo", "127.0.0.1:0"]);
    let address = server.address().to_string();
    let path = std::env::temp_dir().join(format!("wharf-{}-hdr", std::process::id()));
    let shown = path.to_str().expect("text");
    let name = if is_native() {
        shown.to_owned()
    } else {
        format!("Z:{shown}")
    };
    let size = [
        "load",
        "echo",
        &address,
        "--connections",
        "4",
        "--for",
        "200ms",
    ];
    let file = ["--processes", "2", "--hdr", &name, "--format", "json"];
    let (told, code) = last_line(&run(&[&size[..], &file].concat()));
    assert_eq!(code, Some(0), "{told}");
    let text = std::fs::read(&path).expect("it was written");
    let _ = std::fs::remove_file(&path);
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
