//! How a server ends: by either signal, by a second one, and with nobody listening to it.

use std::io::{Read, Write};
use std::net::TcpStream;

use rustix::process::Signal;

use crate::program::{Server, drivers, needs_native};

#[test]
fn sigterm_ends_it_with_the_account_too() {
    if !needs_native() {
        return;
    }
    for driver in drivers() {
        let mut server = Server::start(&["hold", "127.0.0.1:0", "--driver", &driver, "-v"]);
        let clients: Vec<TcpStream> = (0..50).map(|_| server.connect()).collect();
        server.wait_for("accepted", 50);
        server.signal(Signal::TERM);
        assert_eq!(server.account()["closed_by_us"], 50, "{driver}");
        drop(clients);
    }
}

/// A server that cannot get rid of its lines hangs in the middle of its end.
#[test]
fn a_second_ctrl_c_ends_it_at_once() {
    if !needs_native() {
        return;
    }
    for driver in drivers() {
        let mut server = Server::start(&["hold", "127.0.0.1:0", "--driver", &driver, "-v"]);
        // Nobody reads what it prints; a pipe holds 64 KiB of these lines.
        let clients: Vec<TcpStream> = (0..2000)
            .map_while(|_| TcpStream::connect(server.address()).ok())
            .collect();
        server.signal(Signal::INT);
        let mut again = 0;
        let status = loop {
            if let Some(status) = server.child.try_wait().expect("a child") {
                break status;
            }
            // The first one may not have been seen yet, and two at once count as one.
            again += 1;
            server.signal(Signal::INT);
            std::thread::sleep(std::time::Duration::from_millis(10));
        };
        assert_eq!(status.code(), Some(130), "{driver}, after {again} more");
        drop(clients);
    }
}

#[test]
fn a_closed_pipe_is_no_reason_to_stop_serving() {
    for driver in drivers() {
        let mut server = Server::start(&["echo", "127.0.0.1:0", "--driver", &driver, "-v"]);
        // As in `wharf echo -v | head -1`.
        let empty = std::process::Command::new("true")
            .stdout(std::process::Stdio::piped())
            .spawn()
            .map(|mut child| {
                let _ = child.wait();
                child.stdout.take().expect("a pipe")
            })
            .expect("every Unix has true");
        server.lines = std::io::BufReader::new(empty);
        for _ in 0..20 {
            let mut client = server.connect();
            client.write_all(b"still here").expect("the server reads");
            let mut back = [0; 10];
            client.read_exact(&mut back).expect("the echo");
        }
        server.signal(Signal::INT);
        assert!(server.wait().success(), "{driver}");
    }
}
