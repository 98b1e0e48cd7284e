//! Addresses of a server: several, ranges, IPv6.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;

use crate::program::{code_of, program};
use crate::running::{Server, ask_to_end, drivers, free_ports, until_stopped};

/// The stream gets back what it sends.
pub(crate) fn echoes(mut client: impl Read + Write) {
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

#[test]
fn text_has_the_same_figures() {
    let mut hold = program();
    hold.args(["hold", "127.0.0.1:0", "-v"]);
    let mut child = until_stopped(&mut hold)
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
    ask_to_end(&mut child);
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

/// A signal after the address was reachable and before the program listened for signals once killed
/// it without its account: a client that could connect could not yet rely on it.
#[test]
fn quiet_prints_the_account_alone_however_soon_it_is_stopped() {
    for _ in 0..10 {
        let port = free_ports(22_000, 1);
        let address = format!("127.0.0.1:{port}");
        let mut hold = program();
        hold.args(["hold", &address, "-q"]);
        let mut child = until_stopped(&mut hold)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        while TcpStream::connect(&address).is_err() {
            assert!(child.try_wait().expect("a child").is_none(), "it ended");
        }
        ask_to_end(&mut child);
        let mut text = String::new();
        let mut stdout = child.stdout.take().expect("a pipe");
        stdout.read_to_string(&mut text).expect("text");
        assert_eq!(code_of(child.wait().expect("it ends")), Some(0), "{text}");
        assert!(text.starts_with("accepted "), "{text}");
    }
}
