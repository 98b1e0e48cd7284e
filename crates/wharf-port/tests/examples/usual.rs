//! The examples that people look for: a client, a proxy, a line server with an idle time-out, a chat,
//! and an orderly shutdown.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::time::{Duration, Instant};

use super::program::{Program, SIGNALS};
use super::{PATIENCE, connect, exchange, reset};

#[test]
fn the_client_prints_what_comes_back() {
    let (server, address) = Program::serve("several_threads", &[]);
    let ended = Program::start("client", &[&address.to_string(), "hello"]).end();
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    assert_eq!(ended.lines, ["hello"]);
    drop(server);
}

#[test]
fn the_client_names_the_server_that_refuses_it() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    drop(listener);
    let ended = Program::start("client", &[&address]).end();
    assert_eq!(ended.code, Some(1), "{:?}", ended.lines);
    assert!(ended.errors.starts_with(&address), "{}", ended.errors);
}

#[test]
fn the_proxy_passes_on_what_comes_and_how_it_ends() {
    let (server, server_address) = Program::serve("several_threads", &[]);
    let (proxy, address) = Program::serve("proxy", &[&server_address.to_string()]);
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|at| at as u8).collect();
    assert!(exchange(address, &bytes) == bytes, "a byte differs");
    // A reset on one side closes the other side, and the proxy goes on.
    let mut client = connect(address);
    client.write_all(b"one").expect("connected");
    let mut back = [0; 3];
    client.read_exact(&mut back).expect("the server echoes");
    reset(client);
    assert_eq!(exchange(address, b"two"), b"two");
    proxy.interrupt_and_end();
    drop(server);
}

#[test]
fn the_proxy_closes_a_client_whose_server_is_not_there() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let server = listener.local_addr().expect("bound").to_string();
    drop(listener);
    let (proxy, address) = Program::serve("proxy", &[&server]);
    let mut client = connect(address);
    let mut back = Vec::new();
    // The proxy closes it, by FIN or by RST.
    _ = client.read_to_end(&mut back);
    assert!(back.is_empty());
    proxy.interrupt_and_end();
}

#[test]
fn a_silent_client_is_closed_and_a_busy_one_stays() {
    let (mut server, address) = Program::serve("idle_timeout", &["2000"]);
    let (mut silent, mut busy) = (connect(address), connect(address));
    let start = Instant::now();
    let mut back = Vec::new();
    // Far more often than the time-out, so that a slow machine does not make it silent.
    while start.elapsed() < Duration::from_secs(3) {
        busy.write_all(b"line\n").expect("it stays");
        let mut line = [0; 5];
        busy.read_exact(&mut line).expect("it stays");
        assert_eq!(&line, b"line\n");
        std::thread::sleep(Duration::from_millis(50));
    }
    silent.read_to_end(&mut back).expect("a FIN");
    assert!(back.is_empty() && start.elapsed() >= Duration::from_secs(2));
    let line = server.line();
    assert!(line.ends_with(" WAS SILENT"), "{line}");
    busy.shutdown(Shutdown::Write).expect("connected");
    busy.read_to_end(&mut back).expect("a FIN");
    server.interrupt_and_end();
}

#[test]
fn members_of_the_chat_hear_each_other() {
    let (mut chat, address) = Program::serve("chat", &[]);
    let (mut first, mut second) = (connect(address), connect(address));
    for _ in 0..2 {
        let line = chat.line();
        assert!(line.ends_with(" CAME"), "{line}");
    }
    first.write_all(b"from the first\n").expect("connected");
    let mut heard = [0; 15];
    second.read_exact(&mut heard).expect("it hears the first");
    assert_eq!(&heard, b"from the first\n");
    second.write_all(b"and back again\n").expect("connected");
    // Its own words do not come back: the first bytes are the other's.
    first.read_exact(&mut heard).expect("it hears the second");
    assert_eq!(&heard, b"and back again\n");
    drop(second);
    let line = chat.line();
    assert!(line.ends_with(" LEFT"), "{line}");
    chat.interrupt_and_end();
}

#[test]
fn an_orderly_shutdown_sends_what_is_queued_and_ends() {
    let (mut server, address) = Program::serve("orderly_shutdown", &[]);
    let mut client = connect(address);
    client.set_read_timeout(Some(PATIENCE)).expect("not zero");
    client.write_all(b"hello").expect("connected");
    let mut back = [0; 5];
    client.read_exact(&mut back).expect("the server echoes");
    if !SIGNALS {
        return;
    }
    server.interrupt();
    let mut rest = Vec::new();
    client
        .read_to_end(&mut rest)
        .expect("a FIN ends the stream");
    assert!(rest.is_empty());
    let ended = server.end();
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    assert_eq!(
        ended.lines,
        ["ENDED; 0 STREAMS WERE CUT, 0 BYTES DID NOT GO OUT"]
    );
}
