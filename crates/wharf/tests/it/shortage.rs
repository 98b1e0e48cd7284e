//! More connections than allowed: by `--max-connections`, or for lack of descriptors.

use std::io::{BufRead, BufReader, Read};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use crate::load::last_line;
use crate::program::{needs_native, program};
use crate::running::{Server, drivers};

#[test]
fn the_maximum_leaves_the_others_in_the_backlog() {
    for driver in drivers() {
        for threads in ["1", "3"] {
            let options = ["--max-connections", "3", "-v", "--threads", threads];
            let place = ["hold", "127.0.0.1:0", "--driver", &driver];
            let mut server = Server::start(&[&place[..], &options[..]].concat());
            let mut clients = server.connect_many(5);
            if threads == "1" {
                server.wait_for("accepted", 3);
                clients.drain(..3).for_each(drop);
                server.wait_for("accepted", 2);
            } else {
                // The system distributes them freely: a full thread keeps its own waiting.
                server.wait_for("accepted", 1);
                drop(clients);
                server.wait_for("accepted", 4);
            }
            let account = server.stop();
            assert!(account["peak"].as_u64() <= Some(3), "{driver}: {account}");
            assert_eq!(account["accepted"], 5, "{driver}: {account}");
            assert_eq!(
                account["refused"]["max_connections"], 0,
                "{driver}: {account}"
            );
        }
    }
}

/// One thread accepts for all at a path, and on Windows at every address. The others have no
/// listener, and once had the slot of one for another connection: five held with a maximum of three.
#[test]
fn the_maximum_holds_where_one_thread_accepts_for_all() {
    for driver in drivers() {
        if driver == "iocp" {
            let connect = |server: &Server| server.connect_many(5);
            assert_three_are_held(&driver, "127.0.0.1:0", connect);
        } else {
            #[cfg(unix)]
            {
                let path = crate::paths::fresh_path("maximum");
                let connect = |_| UnixStream::connect(&path).expect("it listens");
                let all = |_: &Server| (0..5).map(connect).collect::<Vec<_>>();
                assert_three_are_held(&driver, &format!("unix:{}", path.display()), all);
            }
        }
    }
}

fn assert_three_are_held<T>(driver: &str, address: &str, connect: impl FnOnce(&Server) -> T) {
    let mut command = program();
    command.args(["hold", address, "--driver", driver, "-v"]);
    command.args(["--max-connections", "3", "--threads", "3"]);
    command.stderr(Stdio::piped());
    let mut server = Server::start_command(command);
    let mut complaints = BufReader::new(server.child.stderr.take().expect("a pipe"));
    let clients = connect(&server);
    server.wait_for("accepted", 3);
    let mut complaint = String::new();
    complaints.read_line(&mut complaint).expect("a line");
    assert!(complaint.contains("3 is reached"), "{driver}: {complaint}");
    let account = server.stop();
    drop(clients);
    assert_eq!(account["peak"], 3, "{driver}: {account}");
}

/// With its own share of the maximum full, the thread that accepts for all once accepted nothing,
/// though the others had room again.
#[test]
fn room_of_any_thread_is_used_where_one_accepts_for_all() {
    for driver in drivers() {
        if driver == "iocp" {
            assert_room_is_used(&driver, "127.0.0.1:0", |server: &Server| {
                server.connect_many(1)
            });
        } else {
            #[cfg(unix)]
            {
                let path = crate::paths::fresh_path("room");
                let connect = |_: &Server| UnixStream::connect(&path).expect("it listens");
                assert_room_is_used(&driver, &format!("unix:{}", path.display()), connect);
            }
        }
    }
}

fn assert_room_is_used<T>(driver: &str, address: &str, connect: impl Fn(&Server) -> T) {
    let options = ["--max-connections", "3", "--threads", "3", "-v"];
    let place = ["hold", address, "--driver", driver];
    let mut server = Server::start(&[&place[..], &options[..]].concat());
    let mut clients = Vec::new();
    // Every thread gets one, the accepting thread too.
    for _ in 0..3 {
        clients.push(connect(&server));
        server.wait_for("accepted", 1);
    }
    // Each has the places of two others in turn, so also with only the accepting thread full.
    for kept in 0..3 {
        let stays = clients.remove(kept);
        clients.clear();
        server.wait_for("left", 2);
        clients.extend([connect(&server), connect(&server)]);
        server.wait_for("accepted", 2);
        clients.insert(kept, stays);
    }
    // One more waits for a place, and gets it.
    let waits = connect(&server);
    drop(clients.pop());
    server.wait_for("accepted", 1);
    let account = server.stop();
    drop((clients, waits));
    assert_eq!(account["accepted"], 10, "{driver}: {account}");
    assert_eq!(account["peak"], 3, "{driver}: {account}");
    assert_eq!(
        account["refused"]["max_connections"], 0,
        "{driver}: {account}"
    );
}

/// The program with a limit of this number of descriptors.
pub(crate) fn with_descriptors(count: u32, arguments: &[&str]) -> Command {
    if cfg!(windows) {
        // It has no such limit.
        let mut program = program();
        program.args(arguments).stderr(Stdio::piped());
        return program;
    }
    let mut shell = Command::new("sh");
    let path = env!("CARGO_BIN_EXE_wharf");
    let limit = format!("ulimit -n {count}; exec \"$0\" \"$@\"");
    shell.arg("-c").arg(limit);
    shell.arg(path).args(arguments).stderr(Stdio::piped());
    shell
}

/// Processor time that a process has used, in ticks of a hundredth of a second.
#[cfg(target_os = "linux")]
fn ticks(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = text.split_whitespace().collect();
    let field = |place: usize| fields[place].parse::<u64>().expect("a number");
    field(13) + field(14)
}

#[test]
#[cfg_attr(windows, ignore = "Windows has no limit of descriptors")]
fn out_of_descriptors_it_says_so_once_and_serves_the_others_later() {
    if !needs_native() {
        return;
    }
    for driver in drivers() {
        let arguments = ["hold", "127.0.0.1:0", "-v", "--driver", &driver];
        let mut server = Server::start_command(with_descriptors(64, &arguments));
        let mut clients = server.connect_many(100);
        let mut complaints = BufReader::new(server.child.stderr.take().expect("a pipe"));
        let mut complaint = String::new();
        complaints.read_line(&mut complaint).expect("a line");
        assert!(complaint.contains("too many open files"), "{complaint}");
        assert!(complaint.contains("limit 64"), "{complaint}");
        assert!(complaint.contains("ulimit -n"), "{complaint}");
        #[cfg(target_os = "linux")]
        {
            let (before, begun) = (ticks(server.child.id()), std::time::Instant::now());
            std::thread::sleep(std::time::Duration::from_secs(1));
            let used = ticks(server.child.id()) - before;
            // This thread may have slept for longer.
            let share = used as f64 / begun.elapsed().as_secs_f64();
            assert!(
                share <= 5.0,
                "{driver}: {share} % of a core while it is full"
            );
        }
        // Each connection that leaves frees a slot for one that waits.
        let mut accepted = 0;
        while let Some(client) = clients.pop() {
            drop(client);
            accepted += 1;
        }
        server.wait_for("accepted", accepted);
        let account = server.stop();
        assert_eq!(account["accepted"], 100, "{driver}: {account}");
        assert!(account["accept_pauses"].as_u64() > Some(0), "{account}");
        let mut rest = String::new();
        complaints.read_to_string(&mut rest).expect("text");
        assert_eq!(rest, "", "{driver}: it said so once already");
    }
}

/// A load that closes each connection at once needs few descriptors, and no other process.
#[test]
#[cfg_attr(windows, ignore = "Windows has no limit of descriptors")]
fn what_connects_and_closes_gets_by_with_few_descriptors() {
    if !needs_native() {
        return;
    }
    for driver in drivers() {
        let server = Server::start(&["hold", "127.0.0.1:0", "--driver", &driver]);
        let address = server.address().to_string();
        let place = ["load", "connect", &address, "--driver", &driver];
        let size = ["--connections", "3000", "--format", "json"];
        for more in [&["--threads", "2"][..], &["--rate", "20000"]] {
            let load = with_descriptors(90, &[&place[..], &size, more].concat()).output();
            let (told, code) = last_line(&load.expect("it runs"));
            assert_eq!(code, Some(0), "{driver} {more:?}: {told}");
            assert_eq!(told["processes"], 1, "{driver} {more:?}: {told}");
            assert_eq!(told["connected"], 3000, "{driver} {more:?}: {told}");
        }
        server.stop();
    }
}

/// With few descriptors each driver fails at another step, and none of them is the kernel's fault.
#[cfg(target_os = "linux")]
#[test]
fn too_few_descriptors_are_reported_as_that() {
    if !needs_native() {
        return;
    }
    for driver in drivers() {
        let mut refused = 0;
        for count in 6..=16 {
            let line = [
                "hold",
                "127.0.0.1:0",
                "--until-eof",
                "-q",
                "--driver",
                &driver,
            ];
            let output = with_descriptors(count, &line).stdin(Stdio::null()).output();
            let output = output.expect("a shell");
            let text = String::from_utf8_lossy(&output.stderr);
            if output.status.success() {
                continue;
            }
            assert_eq!(output.status.code(), Some(2), "{driver} {count}: {text}");
            let names_them = text.contains("ulimit -n") || text.contains("limit on open files");
            assert!(names_them, "{driver} {count}: {text}");
            refused += 1;
        }
        assert!(refused > 0, "{driver} has begun with 6 descriptors");
    }
}
