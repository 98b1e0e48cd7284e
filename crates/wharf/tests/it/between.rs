//! Connections that a load holds and its server does not, because a proxy between them has them.

use std::net::{TcpListener, TcpStream};
use std::thread;

use serde_json::Value;

use crate::ledgers::{asked, open_server};
use crate::load::{ended, load, start};
use crate::patience::{enough, given_time, milliseconds};
use crate::program::run;
use crate::running::drivers;

/// A proxy that accepts every connection, and passes on only some of each load.
fn lets_through(server: &str, some: usize, of: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    let server = server.to_owned();
    // It ends with the test process.
    thread::spawn(move || {
        for (number, client) in listener.incoming().enumerate() {
            let client = client.expect("a client");
            let is_let_through = number % of < some;
            let beyond = is_let_through.then(|| TcpStream::connect(&server).expect("it listens"));
            thread::spawn(move || ends_with(client, beyond));
        }
    });
    address
}

/// The connection to the server ends when the client's does.
fn ends_with(mut client: TcpStream, beyond: Option<TcpStream>) {
    let _ = std::io::copy(&mut client, &mut std::io::sink());
    drop(beyond);
}

/// The load reads the server's account before the first close: a moment later both ends have none.
#[test]
fn connections_held_by_a_proxy_are_held_by_neither_end() {
    for driver in drivers() {
        let (server, address, admin) = open_server("hold", &driver);
        let proxy = lets_through(&address, 10, 20);
        for division in ["--threads", "--processes"] {
            given_time(|factor| {
                let time = milliseconds(500, factor);
                let place = ["hold", &proxy, "--connections", "20", "--for", &time];
                let asks = ["--admin", &admin, "--driver", &driver, division, "2"];
                let gate = ["--expect", "held=20"];
                let (told, code) = load(&[&place[..], &asks, &gate].concat());
                enough(told["connected"] == 20, &told)?;
                assert_eq!(code, Some(3), "{told}");
                let joint = &told["server"];
                assert_eq!(joint["held"], 20, "{told}");
                assert_eq!(joint["held_by_server"], 10, "{told}");
                assert_eq!(joint["balances"], false, "{told}");
                let missed = told["missed"].as_array().expect("a list");
                assert_eq!(missed.len(), 2, "{told}");
                assert_eq!(missed[0], "expected held=20: it is 10", "{told}");
                let verdict = told["verdict"].as_str().expect("a sentence");
                let between = "20 connected here, 10 held there, 10 wait in between";
                assert!(verdict.contains(between), "{verdict}");
                assert!(!verdict.contains("all 20"), "{verdict}");
                Ok(())
            });
        }
        server.stop();
    }
}

#[test]
fn connections_held_at_both_ends_are_reported() {
    for driver in drivers() {
        let (server, address, admin) = open_server("hold", &driver);
        for division in ["--threads", "--processes"] {
            given_time(|factor| {
                let time = milliseconds(300, factor);
                let place = ["hold", &address, "--connections", "20", "--for", &time];
                let asks = ["--admin", &admin, "--driver", &driver, division, "2"];
                let (told, code) = load(&[&place[..], &asks].concat());
                enough(told["connected"] == 20, &told)?;
                assert_eq!(code, Some(0), "{told}");
                let joint = &told["server"];
                assert_eq!(joint["held_by_server"], 20, "{told}");
                assert_eq!(joint["balances"], true, "{told}");
                Ok(())
            });
        }
        server.stop();
    }
}

/// A load that started just after another load once reported that the server held none of its own.
/// The server's earlier count included those of the first load, and they left meanwhile.
#[test]
fn who_leaves_meanwhile_hides_none_of_those_held() {
    for driver in drivers() {
        let (server, address, admin) = open_server("hold", &driver);
        let held = || asked(&admin, b"")["held"].as_u64();
        given_time(|factor| {
            while held() != Some(0) {}
            let connect = |_| TcpStream::connect(&address).expect("it listens");
            let others: Vec<_> = (0..20).map(connect).collect();
            while held() != Some(20) {}
            let time = milliseconds(1_000, factor);
            let place = ["hold", &address, "--connections", "20", "--for", &time];
            let asks = ["--admin", &admin, "--driver", &driver];
            let mut load = start(&[&place[..], &asks, &["--expect", "held=20"]].concat());
            let mut runs = || load.try_wait().expect("it is our child").is_none();
            while held() != Some(40) && runs() {}
            drop(others);
            while held() > Some(20) && runs() {}
            let was_in_time = held() == Some(20) && runs();
            let (told, code) = ended(load);
            enough(was_in_time, &told)?;
            assert_eq!(code, Some(0), "{told}");
            assert_eq!(told["server"]["held_by_server"], 20, "{told}");
            assert_eq!(told["server"]["balances"], true, "{told}");
            Ok(())
        });
        server.stop();
    }
}

/// The server's account at its end holds nothing, and still has the peak.
#[test]
fn files_of_both_ends_are_compared_by_what_was_held() {
    let load = r#"{"event":"load","mode":"hold","connected":20,"unfinished":0,"lost":0,"held":20,
        "bytes_sent":0,"bytes_received":0}"#;
    let account = |peak: u32| {
        format!(r#"{{"event":"account","accepted":20,"peak":{peak},"bytes_in":0,"bytes_out":0}}"#)
    };
    for (peak, code) in [(20, 0), (10, 3)] {
        let file = |name: &str, text: &str| {
            let name = format!("wharf-{}-between-{name}.json", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, text.replace('\n', "")).expect("there is room");
            path.to_str().expect("text").to_owned()
        };
        let files = [file("load", load), file("server", &account(peak))];
        let output = run(&["compare", &files[0], &files[1], "--format", "json"]);
        for file in &files {
            std::fs::remove_file(file).expect("it was written");
        }
        let told: Value = serde_json::from_slice(&output.stdout).expect("an object");
        assert_eq!(output.status.code(), Some(code), "{told}");
        assert_eq!(told["held_by_server"], peak, "{told}");
    }
}
