//! Servers and loads in several processes: one account, and one end.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::ledgers::asked;
use crate::load::{balances, interrupt, last_line, load, start};
use crate::program::{Server, drivers, is_native, needs_native, program, run};
use crate::shortage::with_descriptors;

/// Servers share an address on Linux only.
fn can_share() -> bool {
    let can = is_native() && cfg!(target_os = "linux");
    if !can {
        println!("skipped: only Linux deals connections out to several processes");
    }
    can
}

/// The processes that one has started.
#[cfg(target_os = "linux")]
fn children(parent: u32) -> Vec<Pid> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = std::fs::read_to_string(path).expect("it runs");
    let numbers = text.split_whitespace().filter_map(|word| word.parse().ok());
    numbers.filter_map(Pid::from_raw).collect()
}

#[test]
fn a_load_in_several_processes_has_one_account() {
    for driver in drivers() {
        let server = Server::start(&["echo", "127.0.0.1:0", "--driver", &driver]);
        let address = server.address().to_string();
        let size = ["echo", &address, "--connections", "20", "--for", "500ms"];
        let several = ["--processes", "3", "--threads", "2", "--driver", &driver];
        for more in [&["--pipeline", "4"][..], &["--requests-per-second", "2000"]] {
            let (told, code) = load(&[&size[..], &several, more].concat());
            assert_eq!(code, Some(0), "{driver} {more:?}: {told}");
            assert_eq!(
                (&told["processes"], &told["threads"]),
                (&3.into(), &2.into())
            );
            assert_eq!((&told["asked"], &told["held"]), (&20.into(), &20.into()));
            assert_eq!(told["bytes_sent"], told["bytes_received"], "{told}");
            assert!(told["message_us"]["p50"].as_f64() > Some(0.0), "{told}");
            assert!(told["messages"].as_u64() > Some(20), "{told}");
        }
        let account = server.stop();
        assert_eq!(account["accepted"], 40, "{driver}: {account}");
    }
}

#[test]
fn intervals_are_of_all_processes() {
    let server = Server::start(&["hold", "127.0.0.1:0"]);
    let address = server.address().to_string();
    let size = ["--connections", "9", "--processes", "3", "--for", "1s"];
    let told = ["--interval", "100ms", "--format", "json"];
    let output = run(&[&["load", "hold", &address], &size[..], &told[..]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("an object"));
    let intervals: Vec<Value> = lines.filter(|line| line["event"] == "interval").collect();
    intervals.iter().for_each(balances);
    let last = intervals.last().expect("a second has several");
    assert_eq!(
        (&last["held"], &last["processes"]),
        (&9.into(), &3.into()),
        "{last}"
    );
}

#[test]
fn the_limit_of_open_files_divides_by_itself() {
    if !can_share() {
        return;
    }
    for driver in drivers() {
        let options = ["--max-connections", "300", "-v", "--driver", &driver];
        let arguments = [&["hold", "127.0.0.1:0"], &options[..]].concat();
        let mut server = Server::start_command(with_descriptors(200, &arguments));
        assert_eq!(server.listening["processes"], 3, "{}", server.listening);
        let address = server.address().to_string();
        let size = ["--connections", "300", "--for", "300ms", "--format", "json"];
        let arguments = [&["load", "hold", &address, "--driver", &driver], &size[..]].concat();
        let output = with_descriptors(200, &arguments).output().expect("it runs");
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
        let options = ["--processes", "4", "-v", "--driver", &driver];
        let door = ["hold", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        let mut server = Server::start(&[&door[..], &options[..]].concat());
        let clients: Vec<TcpStream> = (0..200).map(|_| server.connect()).collect();
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
        let admin = server.listening["admin"].as_str().expect("a text");
        let standing = asked(admin, b"");
        assert_eq!(
            (&standing["held"], &standing["processes"]),
            (&200.into(), &4.into())
        );
        let account = server.stop();
        assert_eq!(account["closed_by_us"], 200, "{driver}: {account}");
        drop(clients);
    }
}

#[test]
fn ctrl_c_reaches_every_process() {
    for driver in drivers() {
        let mut server = Server::start(&["hold", "127.0.0.1:0", "-v", "--driver", &driver]);
        let address = server.address().to_string();
        let size = [
            "--connections",
            "50",
            "--processes",
            "4",
            "--driver",
            &driver,
        ];
        let child = start(&[&["hold", &address], &size[..]].concat());
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

/// A terminal sends its Ctrl-C to all processes of a group, and the first tells the others too.
#[test]
#[cfg(target_os = "linux")]
fn a_signal_that_reaches_all_at_once_is_one_signal() {
    if !can_share() {
        return;
    }
    for driver in drivers() {
        let options = ["--processes", "3", "-v", "--driver", &driver];
        let mut server = Server::start(&[&["hold", "127.0.0.1:0"], &options[..]].concat());
        let clients: Vec<TcpStream> = (0..30).map(|_| server.connect()).collect();
        server.wait_for("accepted", 30);
        for child in children(server.child.id()) {
            kill_process(child, Signal::INT).expect("it runs");
        }
        // The others may have brought it to its end already.
        let _ = kill_process(Pid::from_child(&server.child), Signal::INT);
        assert_eq!(server.account()["closed_by_us"], 30, "{driver}");
        drop(clients);
    }
}

#[test]
fn the_processes_of_one_that_was_killed_end_too() {
    if !needs_native() {
        return;
    }
    for driver in drivers() {
        let mut server = Server::start(&["hold", "127.0.0.1:0", "-v", "--driver", &driver]);
        let address = server.address().to_string();
        let size = [
            "--connections",
            "40",
            "--processes",
            "4",
            "--driver",
            &driver,
        ];
        let mut child = start(&[&["hold", &address], &size[..]].concat());
        server.wait_for("accepted", 40);
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        server.wait_for("left", 40);
        server.stop();
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_process_of_a_load_that_dies_is_told_and_counted() {
    if !needs_native() {
        return;
    }
    for driver in drivers() {
        let options = ["-v", "--admin", "127.0.0.1:0", "--driver", &driver];
        let mut server = Server::start(&[&["hold", "127.0.0.1:0"], &options[..]].concat());
        let address = server.address().to_string();
        let admin = server.listening["admin"]
            .as_str()
            .expect("a text")
            .to_owned();
        let size = ["--connections", "30", "--processes", "3", "--for", "2s"];
        let place = [
            "load", "hold", &address, "--driver", &driver, "--admin", &admin,
        ];
        let load = program()
            .args([&place[..], &size[..], &["--format", "json"]].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        server.wait_for("accepted", 30);
        let second = children(load.id())[1];
        kill_process(second, Signal::KILL).expect("it runs");
        let output = load.wait_with_output().expect("it ends");
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            complaint.contains("process 2 of 3 died (signal: 9"),
            "{complaint}"
        );
        let (told, code) = last_line(&output);
        assert_eq!(code, Some(1), "{told}");
        assert_eq!((&told["asked"], &told["held"]), (&30.into(), &20.into()));
        let gone = "their process died";
        let lost = told["lost_by_reason"][gone][0]["count"].as_u64();
        let failed = told["failed_by_reason"][gone].as_u64();
        assert_eq!(lost.unwrap_or(0) + failed.unwrap_or(0), 10, "{told}");
        assert_eq!(told["server"]["of_others"], 0, "{told}");
        server.stop();
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_server_goes_on_without_a_process_that_dies() {
    if !can_share() {
        return;
    }
    for driver in drivers() {
        let options = ["--processes", "2", "-v", "--driver", &driver];
        let mut command = program();
        command.args(
            [
                &["hold", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
                &options[..],
            ]
            .concat(),
        );
        command.stderr(Stdio::piped());
        let mut server = Server::start_command(command);
        let clients: Vec<TcpStream> = (0..40).map(|_| server.connect()).collect();
        server.wait_for("accepted", 40);
        let admin = server.listening["admin"]
            .as_str()
            .expect("a text")
            .to_owned();
        assert_eq!(asked(&admin, b"")["held"], 40);
        let second = children(server.child.id())[1];
        kill_process(second, Signal::KILL).expect("it runs");
        let mut complaints = BufReader::new(server.child.stderr.take().expect("a pipe"));
        let mut complaint = String::new();
        complaints.read_line(&mut complaint).expect("a line");
        assert!(complaint.contains("process 2 of 2 died"), "{complaint}");
        // Until the system has closed the listener of the dead one, it deals it some too.
        let mut more = Vec::new();
        let mut standing = asked(&admin, b"");
        while standing["accepted"].as_u64() < Some(50) {
            more.extend(TcpStream::connect(server.address()));
            standing = asked(&admin, b"");
        }
        let read = |name: &str| standing[name].as_u64().expect("a number");
        assert!(read("left_by_error") > 0, "{driver}: {standing}");
        let left = read("left_by_error") + read("held");
        assert_eq!(left, read("accepted"), "{driver}: {standing}");
        server.signal(Signal::INT);
        assert_eq!(server.wait().code(), Some(1), "{driver}");
        drop((clients, more));
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
        (&["hold", "--processes", "257"], "1..=256"),
        (&["load", "hold", "--processes", "0"], "1..=256"),
        (&["load", "hold", "--processes", "2", "--part"], "--part"),
    ] {
        let mut command: Command = program();
        let output = command.args(arguments).stdin(Stdio::null()).output();
        let output = output.expect("it starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(cure), "{arguments:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{arguments:?}: {text}");
    }
}

/// Two servers of one user could share an address, and each would get some of the clients.
#[test]
fn a_shared_address_is_not_shared_with_another_server() {
    if !can_share() {
        return;
    }
    for several in ["--processes", "--threads"] {
        let server = Server::start(&["hold", "127.0.0.1:0", several, "2"]);
        let address = server.address().to_string();
        let output = run(&["hold", &address, several, "2"]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{several}: {text}");
        assert!(
            text.contains("in use") && text.lines().count() == 1,
            "{text}"
        );
        server.stop();
    }
}
