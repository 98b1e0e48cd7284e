//! Servers and loads in several processes: one account, and one end.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::ledgers::asked;
use crate::load::{balances, interrupt, last_line, load, start};
use crate::patience::{Watched, enough, given_time, has_messages, milliseconds};
use crate::program::{code_of, is_native, needs_native, program, words};
use crate::running::{Server, drivers};
use crate::shortage::with_descriptors;

/// Servers share an address on Linux only.
pub(crate) fn can_share() -> bool {
    let can = is_native() && cfg!(target_os = "linux");
    if !can {
        println!("skipped: only Linux deals connections out to several processes");
    }
    can
}

#[test]
fn a_load_in_several_processes_has_one_account() {
    for driver in drivers() {
        let (server, address) = Server::somewhere("echo", &format!("--driver {driver}"));
        let mut connected = 0;
        let several = ["--processes", "3", "--threads", "2", "--driver", &driver];
        for more in [&["--pipeline", "4"][..], &["--requests-per-second", "2000"]] {
            given_time(|factor| {
                let time = milliseconds(500, factor);
                let size = ["echo", &address, "--connections", "20", "--for", &time];
                let (told, code) = load(&[&size[..], &several, more].concat());
                connected += told["connected"].as_u64().expect("a number");
                // On a busy machine its time may be up before all have started.
                enough(told["connected"] == 20, &told)?;
                assert_eq!(code, Some(0), "{driver} {more:?}: {told}");
                assert_eq!(
                    (&told["processes"], &told["threads"]),
                    (&3.into(), &2.into())
                );
                assert_eq!((&told["asked"], &told["held"]), (&20.into(), &20.into()));
                assert_eq!(told["bytes_sent"], told["bytes_received"], "{told}");
                let p50 = told["message_us"]["p50"].as_f64();
                assert_eq!(p50 > Some(0.0), has_messages(&told), "{told}");
                enough(told["messages"].as_u64() > Some(20), &told)
            });
        }
        let account = server.stop();
        assert_eq!(account["accepted"], connected, "{driver}: {account}");
    }
}

#[test]
fn intervals_are_of_all_processes() {
    let (_server, address) = Server::somewhere("hold", "");
    let size = "--connections 9 --processes 3 --interval 100ms";
    let mut watched = Watched::start(&words(&format!("hold {address} {size}")));
    let all = watched.until(|line| {
        balances(line);
        line["held"] == 9
    });
    assert_eq!(all["processes"], 3, "{all}");
    assert_eq!(watched.interrupt()["held"], 9);
}

#[test]
fn the_limit_of_open_files_divides_by_itself() {
    if !can_share() {
        return;
    }
    for driver in drivers() {
        let hold = format!("hold 127.0.0.1:0 --max-connections 300 -v --driver {driver}");
        let mut server = Server::start_command(with_descriptors(200, &words(&hold)));
        assert_eq!(server.listening["processes"], 3, "{}", server.listening);
        let address = server.address().to_string();
        let size = "--connections 300 --for 300ms --format json";
        let load = format!("load hold {address} --driver {driver} {size}");
        let output = with_descriptors(200, &words(&load)).output();
        let output = output.expect("it runs");
        let (told, code) = last_line(&output);
        assert_eq!(code, Some(0), "{driver}: {told}");
        assert_eq!(
            (&told["processes"], &told["held"]),
            (&3.into(), &300.into())
        );
        server.wait_for("accepted", 300);
        let account = server.stop();
        assert_eq!(
            (&account["accepted"], &account["processes"]),
            (&300.into(), &3.into())
        );
        assert!(account["peak"].as_u64() <= Some(300), "{account}");
    }
}

#[test]
fn a_server_in_several_processes_has_one_address_one_account_and_no_key_twice() {
    if !can_share() {
        return;
    }
    for driver in drivers() {
        let options = format!("--admin 127.0.0.1:0 --processes 4 -v --driver {driver}");
        let (mut server, _) = Server::somewhere("hold", &options);
        let clients = server.connect_many(200);
        let mut keys: Vec<u64> = Vec::new();
        while keys.len() < 200 {
            let mut line = String::new();
            server.lines.read_line(&mut line).expect("a line");
            let line: Value = serde_json::from_str(&line).expect("an object");
            assert_eq!(line["event"], "accepted", "{line}");
            keys.push(line["key"].as_u64().expect("a number"));
        }
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 200, "{driver}");
        let mut served = [0; 4];
        keys.iter().for_each(|key| served[(*key % 4) as usize] += 1);
        assert!(
            served.iter().all(|count| *count > 0),
            "{driver}: {served:?}"
        );
        let admin = server.admin();
        // A process that is not scheduled for long has an older state.
        let mut standing = asked(&admin, b"");
        while standing["held"] != 200 {
            assert!(standing["held"].as_u64() < Some(200), "{standing}");
            standing = asked(&admin, b"");
        }
        assert_eq!(standing["processes"], 4, "{standing}");
        let account = server.stop();
        assert_eq!(account["closed_by_us"], 200, "{driver}: {account}");
        drop(clients);
    }
}

#[test]
fn ctrl_c_reaches_every_process() {
    for driver in drivers() {
        let (mut server, address) = Server::somewhere("hold", &format!("-v --driver {driver}"));
        let load = format!("hold {address} --connections 50 --processes 4 --driver {driver}");
        let child = start(&words(&load));
        server.wait_for("accepted", 50);
        let (told, code) = interrupt(child);
        assert_eq!(code, Some(130), "{told}");
        assert_eq!(
            (&told["interrupted"], &told["held"]),
            (&true.into(), &50.into())
        );
        server.stop();
    }
}

#[test]
fn what_cannot_be_divided_is_refused_in_one_line() {
    if !needs_native() {
        return;
    }
    let path = std::env::temp_dir().join(format!("wharf-{}-divided", std::process::id()));
    let path = format!("unix:{}", path.display());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let taken = taken.local_addr().expect("it is bound").to_string();
    let shared = if can_share() { "in use" } else { "--threads" };
    for (arguments, cure) in [
        (&["echo", &path, "--processes", "2"][..], "--threads"),
        (&["hold", &taken, "--processes", "2"], shared),
        (&["hold", "--processes", "257"], "from 1 to 256"),
        (&["load", "hold", "--processes", "0"], "from 1 to 256"),
        (
            &["load", "--part", "hold", "--processes", "2"],
            "use --processes",
        ),
    ] {
        let mut command: Command = program();
        let output = command.args(arguments).stdin(Stdio::null()).output();
        let output = output.expect("it starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(code_of(output.status), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(cure), "{arguments:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{arguments:?}: {text}");
    }
}

/// An `--admin` client may ask before all processes have begun. The order was ignored, the reply
/// never came, and every later question was answered with the counts of the start.
#[test]
fn a_child_that_is_asked_before_it_begins_replies_once_it_has_begun() {
    if !can_share() {
        return;
    }
    let mut command: Command = program();
    command.args(["hold", "--part", "127.0.0.1:0", "--processes", "2"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut orders = child.stdin.take().expect("it is piped");
    let part = "{\"process\":0,\"processes\":2}";
    let all = format!("{part}\ntell\nbegin\nstop\n");
    orders.write_all(all.as_bytes()).expect("it reads");
    let reports = BufReader::new(child.stdout.take().expect("it is piped"));
    let reports: Vec<String> = reports.lines().map_while(Result::ok).collect();
    child.wait().expect("it has ended");
    let standing = |line: &String| line.starts_with("{\"standing\"");
    assert!(reports.iter().any(standing), "{reports:?}");
}

/// Two servers of one user could share an address, and each would get some of the clients.
#[test]
fn a_shared_address_is_not_shared_with_another_server() {
    if !can_share() {
        return;
    }
    for several in ["--processes", "--threads"] {
        let (server, address) = Server::somewhere("hold", &format!("{several} 2"));
        let mut other = program()
            .args(["hold", &address, several, "2"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        let mut lines = BufReader::new(other.stdout.take().expect("a pipe"));
        lines.read_line(&mut line).expect("a pipe");
        // A server that listens says so, and would not end.
        let _ = other.kill();
        assert_eq!(line, "", "{several}");
        let output = other.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            text.contains("in use") && text.lines().count() == 1,
            "{text}"
        );
        server.stop();
    }
}
