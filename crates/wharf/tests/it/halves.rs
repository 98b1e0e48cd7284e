//! The end of a load's connections: its FIN says that no message follows.
//!
//! The FIN once went out just after the last message. nginx's `stream` proxy by default takes a FIN
//! as the end of both directions: most connections of a load through it were "lost", one reply
//! each.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::load::{load, misbehaving};
use crate::patience::{enough, given_time, has_messages, milliseconds};
use crate::running::drivers;

/// Drops a reply whose client has sent its FIN meanwhile, as such a proxy does.
fn ends_at_a_fin(mut client: TcpStream) {
    let mut bytes = [0; 64];
    while client.read_exact(&mut bytes).is_ok() {
        // The reply is on its way back.
        thread::sleep(Duration::from_millis(30));
        client.set_nonblocking(true).expect("a socket");
        let has_finished = matches!(client.peek(&mut [0]), Ok(0));
        client.set_nonblocking(false).expect("a socket");
        if has_finished || client.write_all(&bytes).is_err() {
            return;
        }
    }
}

#[test]
fn no_answer_is_lost_to_a_proxy_that_knows_no_half_close() {
    let address = misbehaving(ends_at_a_fin);
    for driver in drivers() {
        for loops in [&[][..], &["--requests-per-second", "400"]] {
            given_time(|factor| {
                let time = milliseconds(400, factor);
                let options = [
                    "echo",
                    &address,
                    "--connections",
                    "20",
                    "--for",
                    &time,
                    "--driver",
                    &driver,
                ];
                let (told, code) = load(&[&options[..], loops].concat());
                enough(code == Some(0) && has_messages(&told), &told)?;
                assert_eq!(told["lost"], 0, "{driver}: {told}");
                assert_eq!(told["held"], 20, "{driver}: {told}");
                Ok(())
            });
        }
    }
}

/// Replies when its client has finished, and not before.
fn answers_at_a_fin(mut client: TcpStream) {
    let mut bytes = Vec::new();
    if client.read_to_end(&mut bytes).is_ok() {
        let _ = client.write_all(&bytes);
    }
}

#[test]
fn a_server_that_waits_for_the_fin_gets_it() {
    let address = misbehaving(answers_at_a_fin);
    for driver in drivers() {
        let options = [
            "echo",
            &address,
            "--connections",
            "5",
            "--for",
            "100ms",
            "--driver",
            &driver,
        ];
        let (told, code) = load(&options);
        assert_eq!(code, Some(0), "{driver}: {told}");
        assert_eq!(told["messages"], 5, "{driver}: {told}");
    }
}
