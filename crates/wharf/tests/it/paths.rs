//! Unix sockets of a server, and that their files are removed.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::places::echoes;
use crate::program::{code_of, needs_native, program, run};
use crate::running::{Server, drivers};

/// A free path in the directory for temporary files.
pub(crate) fn fresh_path(name: &str) -> PathBuf {
    let name = format!("wharf-{}-{name}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let _ = std::fs::remove_file(&path);
    path
}

#[test]
fn a_unix_socket_goes_with_its_server() {
    if !needs_native() {
        return;
    }
    for driver in drivers() {
        for threads in ["1", "2"] {
            let path = fresh_path("goes");
            let address = format!("unix:{}", path.display());
            let options = ["--driver", &driver, "--threads", threads];
            let server = Server::start(&[&["echo", &address], &options[..]].concat());
            assert_eq!(server.listening["address"], address.as_str());
            for _ in 0..10 {
                echoes(UnixStream::connect(&path).expect("it listens"));
            }
            assert_eq!(server.stop()["accepted"], 10, "{driver}");
            assert!(!path.exists(), "{driver}: its file is left");
        }
    }
}

#[test]
fn the_file_of_a_dead_server_is_replaced_and_that_of_a_live_one_is_not() {
    if !needs_native() {
        return;
    }
    let path = fresh_path("stale");
    let address = format!("unix:{}", path.display());
    drop(UnixListener::bind(&path).expect("a fresh path"));
    assert!(path.exists(), "a listener leaves its file");
    let mut server = Server::start(&["hold", &address, "-v"]);
    let refused = run(&["hold", &address]);
    let text = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(code_of(refused.status), Some(2), "{text}");
    assert!(text.contains("address in use"), "{text}");
    let _client = UnixStream::connect(&path).expect("the first still listens");
    server.wait_for("accepted", 1);
    server.stop();

    std::fs::write(&path, "a file of somebody").expect("a fresh path");
    let refused = run(&["hold", &address]);
    assert_eq!(code_of(refused.status), Some(2));
    let kept = std::fs::read_to_string(&path).expect("it is still there");
    assert_eq!(kept, "a file of somebody");
    std::fs::remove_file(&path).expect("it was made here");
}

/// A path is no identity: another server's file may be there by now.
#[test]
fn a_successor_at_the_same_path_keeps_its_file() {
    if !needs_native() {
        return;
    }
    for driver in drivers() {
        let path = fresh_path("successor");
        let address = format!("unix:{}", path.display());
        let start = || Server::start(&["echo", &address, "--driver", &driver]);
        let old = start();
        std::fs::remove_file(&path).expect("it is there");
        let new = start();
        old.stop();
        echoes(UnixStream::connect(&path).expect("its file is still there"));
        assert_eq!(new.stop()["accepted"], 1, "{driver}");
        assert!(!path.exists(), "{driver}: its file is left");
    }
}

/// A connect finds out whether a server listens, and would wait for space in the backlog.
#[test]
fn a_path_whose_server_has_a_full_backlog_is_in_use() {
    if !needs_native() {
        return;
    }
    let path = fresh_path("full");
    let address = socket2::SockAddr::unix(&path).expect("a short path");
    let socket = || socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
    let listener = socket().expect("a socket");
    listener.bind(&address).expect("a fresh path");
    listener.listen(1).expect("it is bound");
    let mut waiting = Vec::new();
    let full = loop {
        let client = socket().expect("a socket");
        client.set_nonblocking(true).expect("an open socket");
        match client.connect(&address) {
            Ok(()) => waiting.push(client),
            Err(error) => break error,
        }
    };
    assert!(waiting.len() < 10, "the backlog has a bound: {full}");
    let address = format!("unix:{}", path.display());
    let child = program()
        .args(["hold", &address])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let told = in_time(child);
    let text = String::from_utf8_lossy(&told.stderr);
    assert_eq!(code_of(told.status), Some(2), "{text}");
    assert!(text.contains("address in use"), "{text}");
    assert!(path.exists(), "it is the other's");
    std::fs::remove_file(&path).expect("it was made here");
}

/// The output of a program that must end; one that hangs is killed.
fn in_time(mut child: std::process::Child) -> std::process::Output {
    let give_up_at = Instant::now() + Duration::from_secs(180);
    while child.try_wait().expect("a child").is_none() {
        if Instant::now() >= give_up_at {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("it has ended")
}
