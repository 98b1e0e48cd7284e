//! How many of the events that one call finds it leaves to other waiters. With real threads the
//! kernel decides which thread finds what, so here the other waiters only count as asleep.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::core::local::Local;
use crate::{DriverChoice, DriverKind, Key, Port};

#[test]
fn events_of_one_call_are_shared_with_waiters_that_sleep() {
    const SOCKETS: u64 = 8;
    let builder = Port::builder().driver(DriverChoice::Require(DriverKind::Poll));
    let port = builder.build().expect("every system has a poller");
    let mut peers = Vec::new();
    for key in 0..SOCKETS {
        let (mut peer, socket) = UnixStream::pair().expect("the system has sockets");
        let stream = port
            .associate(socket, Key(key))
            .expect("there is a free slot");
        stream.set_aside().receive().expect("nothing else reads");
        peer.write_all(b"x").expect("a byte always fits");
        peers.push(peer);
    }
    let core = &port.core;
    // The ready queue counts two waiters: this thread, which is in the driver, and another, which
    // sleeps.
    let _ = (core.ready().rest(1), core.ready().rest(2));
    let local = &mut Local::new(1, false);
    local.begin(256);
    let polled = core.driver().poll(core, Some(Duration::ZERO), local);
    assert_eq!(polled, Ok(()));
    let (taken, left) = (local.packets.len(), local.ready.len());
    assert_eq!(
        (taken, left),
        (4, 4),
        "half of the events are left to the other waiter"
    );
    core.put_back(local);
}
