//! Where a server listens: several addresses, ranges, version 6, Unix sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::program::{Server, code_of, drivers, free_ports, needs_native, program, run};

/// What any stream says comes back.
fn echoes(mut client: impl Read + Write) {
    client.write_all(b"a line\n").expect("the server reads");
    let mut back = [0; 7];
    client.read_exact(&mut back).expect("the echo");
    assert_eq!(&back, b"a line\n");
}

#[test]
fn several_addresses_and_a_range_are_served_at_once() {
    let first = free_ports(20_000, 3);
    let range = format!("127.0.0.1:{first}-{}", first + 2);
    for driver in drivers() {
        let arguments = ["echo", "127.0.0.1:0", &range, "--driver", &driver];
        let mut server = Server::start(&arguments);
        let mut addresses = vec![server.address()];
        for port in first..first + 3 {
            let address = server.next_address();
            assert_eq!(address.port(), port);
            addresses.push(address);
        }
        for address in addresses {
            echoes(TcpStream::connect(address).expect("it listens"));
        }
        assert_eq!(server.stop()["accepted"], 4, "{driver}");
    }
}

#[test]
fn version_6_is_served() {
    if TcpListener::bind("[::1]:0").is_err() {
        println!("skipped: this machine has no loopback address of version 6");
        return;
    }
    for driver in drivers() {
        let server = Server::start(&["echo", "[::1]:0", "--driver", &driver]);
        assert!(server.address().is_ipv6());
        echoes(server.connect());
        assert_eq!(server.stop()["accepted"], 1, "{driver}");
    }
}

/// A path in the directory for temporary files, where nothing is.
fn fresh_path(name: &str) -> PathBuf {
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

#[test]
fn text_tells_people_the_same() {
    let mut child = program()
        .args(["hold", "127.0.0.1:0", "-v"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut next = || lines.next().expect("a line").expect("text");
    let listening = next();
    let (_, rest) = listening.split_once("listening on ").expect(&listening);
    let (address, driver) = rest.split_once(", driver ").expect(rest);
    assert!(!driver.is_empty(), "{listening}");
    let client = TcpStream::connect(address).expect("the server listens");
    let peer = client.local_addr().expect("it is connected");
    let place = format!(", {peer} at {address}, after ");
    let accepted = next();
    assert!(accepted.starts_with("accepted 100: socket ") && accepted.contains(&place));
    drop(client);
    let left = next();
    assert!(left.starts_with(&format!("left 100: fin{place}")), "{left}");
    assert!(left.ends_with(" s, 0 bytes in, 0 out"), "{left}");
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::INT).expect("it runs");
    let account: Vec<String> = std::iter::from_fn(|| lines.next()?.ok()).collect();
    let words = [
        "accepted",
        "left",
        "closed by us",
        "refused",
        "bytes",
        "seconds",
    ];
    for word in words {
        assert!(
            account.iter().any(|line| line.starts_with(word)),
            "{word}: {account:?}"
        );
    }
    assert_eq!(code_of(child.wait().expect("it ends")), Some(0));
}

/// A signal that came after the address answered and before signals were listened for once killed
/// the program without its account: whoever could connect was not yet safe to stop it.
#[test]
fn quiet_prints_the_account_alone_however_soon_it_is_stopped() {
    for _ in 0..10 {
        let port = free_ports(22_000, 1);
        let address = format!("127.0.0.1:{port}");
        let mut child = program()
            .args(["hold", &address, "-q"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        while TcpStream::connect(&address).is_err() {
            assert!(child.try_wait().expect("a child").is_none(), "it ended");
        }
        let pid = Pid::from_child(&child);
        kill_process(pid, Signal::INT).expect("it runs");
        let mut text = String::new();
        let mut stdout = child.stdout.take().expect("a pipe");
        stdout.read_to_string(&mut text).expect("text");
        assert_eq!(code_of(child.wait().expect("it ends")), Some(0), "{text}");
        assert!(text.starts_with("accepted "), "{text}");
    }
}

/// A path is no identity: what stands at it may be another server's by now.
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

/// Whether somebody listens is asked by connecting, which would wait for a place in the backlog.
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

/// What a program says that has to end; one that hangs is killed.
fn in_time(mut child: std::process::Child) -> std::process::Output {
    let give_up_at = Instant::now() + Duration::from_secs(60);
    while child.try_wait().expect("a child").is_none() {
        if Instant::now() >= give_up_at {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("it has ended")
}
