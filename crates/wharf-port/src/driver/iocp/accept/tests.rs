//! Refills that fail, and slots that other sockets take: faults that no client can cause.

use std::cell::Cell;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use windows_sys::Win32::Networking::WinSock::WSAEMFILE;

use crate::{
    Accepted, Builder, Close, Event, Key, Listener, PauseReason, Port, SocketRef, Wait, Waiter,
};

/// Ends a test that hangs. No test waits for it.
const AT_MOST: Duration = Duration::from_secs(30);

thread_local! {
    /// How many more sockets for accepts this thread is to fail to open, and how many it has failed
    /// to.
    static FAULTS: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
}

/// Returns the code to fail with, in place of opening a socket for an accept.
pub(super) fn injected_fault() -> Option<i32> {
    let (left, done) = FAULTS.get();
    let next = (left.checked_sub(1)?, done + 1);
    FAULTS.set(next);
    Some(WSAEMFILE)
}

struct Server {
    listener: Listener,
    address: SocketAddr,
    waiter: Waiter,
    port: Port,
}

impl Server {
    fn new(builder: Builder) -> Self {
        FAULTS.set((0, 0));
        let port = builder.build().expect("Windows has completion ports");
        let waiter = port.waiter().expect("the first waiter");
        let listener = port.listen(([127, 0, 0, 1], 0), Key(90));
        let listener = listener.expect("a free port of the loopback");
        let address = listener.local_addr().expect("it listens");
        let address = address.as_socket_addr().expect("an internet address");
        Server {
            listener,
            address,
            waiter,
            port,
        }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).expect("the backlog has space")
    }

    /// Waits for packets until `take` is satisfied.
    fn pump(&mut self, mut take: impl FnMut(Event) -> bool) {
        let deadline = Instant::now() + AT_MOST;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.waiter.wait(Some(left)).expect("the port works") {
                Wait::Packets(packets) => {
                    let mut satisfied = false;
                    for packet in packets {
                        satisfied |= take(packet.event);
                    }
                    if satisfied {
                        return;
                    }
                }
                other => panic!("{other:?} instead of the expected packets"),
            }
        }
    }

    fn accepted(&mut self) -> Accepted {
        let mut found = None;
        self.pump(|event| {
            if let Event::Accepted(accepted) = event {
                assert!(found.is_none(), "one client connected");
                found = Some(accepted);
            }
            found.is_some()
        });
        found.expect("found above")
    }
}

#[test]
fn a_listener_that_can_post_nothing_pauses_and_comes_back() {
    let mut server = Server::new(Port::builder());
    FAULTS.set((3, 0));
    server
        .listener
        .socket()
        .accept()
        .expect("nothing accepts yet");
    assert_eq!(server.port.stats().accepts_posted, 0);
    assert_eq!(server.port.stats().listeners_paused, 1);
    let client = server.connect();
    let mut received = Vec::new();
    server.pump(|event| {
        received.push(match event {
            Event::Paused { reason, .. } => format!("paused {reason:?}"),
            Event::Resumed => "resumed".into(),
            Event::Accepted(_) => "accepted".into(),
            other => panic!("{other:?}"),
        });
        received.len() == 3
    });
    assert_eq!(received, ["paused TooManyOpenFiles", "resumed", "accepted"]);
    assert_eq!(FAULTS.get(), (0, 3), "every planted fault was met");
    assert_eq!(server.port.stats().listeners_paused, 0);
    assert_eq!(server.port.stats().accepts_posted, 16);
    drop(client);
}

#[test]
fn the_next_refill_makes_up_for_one_that_fails() {
    let mut server = Server::new(Port::builder().accepts_posted(8));
    server
        .listener
        .socket()
        .accept()
        .expect("nothing accepts yet");
    assert_eq!(server.port.stats().accepts_posted, 8);
    FAULTS.set((2, 0));
    let mut held = Vec::new();
    let mut posted = Vec::new();
    for _ in 0..3 {
        let client = server.connect();
        held.push((server.accepted(), client));
        posted.push(server.port.stats().accepts_posted);
    }
    assert_eq!(posted, [7, 6, 8], "no pause, and nothing stays missing");
    assert_eq!(FAULTS.get(), (0, 2), "every planted fault was met");
}

#[test]
fn no_more_accepts_are_posted_than_slots_are_free() {
    let server = Server::new(Port::builder().sockets_max(4));
    server
        .listener
        .socket()
        .accept()
        .expect("nothing accepts yet");
    // The listener has one of the four slots itself.
    assert_eq!(server.port.stats().accepts_posted, 3);
    assert_eq!(server.port.stats().sockets, 1);
}

/// If the free slots are gone, connections that the system has accepted wait like those in the
/// backlog. They are delivered in order once slots are free again.
#[test]
fn connections_without_a_free_slot_wait_and_are_not_lost() {
    let mut server = Server::new(Port::builder().sockets_max(4));
    server
        .listener
        .socket()
        .accept()
        .expect("nothing accepts yet");
    assert_eq!(server.port.stats().accepts_posted, 3);
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let other = elsewhere.local_addr().expect("it listens");
    let taken: Vec<SocketRef> = (0..3)
        .map(|key| {
            let socket = TcpStream::connect(other).expect("it listens");
            let stream = server.port.associate(socket, Key(key));
            stream.expect("the posted accepts hold no slot").set_aside()
        })
        .collect();
    let clients: Vec<TcpStream> = (0..3).map(|_| server.connect()).collect();
    let mut reasons = Vec::new();
    server.pump(|event| {
        match event {
            Event::Paused { reason, .. } => reasons.push(reason),
            other => panic!("{other:?} without a free slot"),
        }
        true
    });
    assert_eq!(reasons, [PauseReason::SocketsMax]);
    for socket in taken {
        socket.close(Close::Reset).expect("open until now");
    }
    let mut peers = Vec::new();
    let mut held = Vec::new();
    server.pump(|event| {
        match event {
            Event::Accepted(accepted) => {
                peers.push(accepted.peer_addr().expect("reported by the accept"));
                held.push(accepted);
            }
            Event::Closed | Event::Resumed | Event::Paused { .. } => {}
            other => panic!("{other:?}"),
        }
        peers.len() == 3
    });
    let mut expected: Vec<_> = clients
        .iter()
        .map(|client| crate::Address::from(client.local_addr().expect("connected")))
        .collect();
    expected.sort_by_key(ToString::to_string);
    peers.sort_by_key(ToString::to_string);
    assert_eq!(peers, expected);
}

/// A listener with a cancelled accept is undefined by Microsoft. So posted accepts stay posted, and
/// a client that they take is delivered with the caller's next accept.
#[test]
fn posted_accepts_stay_when_the_accept_is_cancelled() {
    let mut server = Server::new(Port::builder());
    let accept = server
        .listener
        .socket()
        .accept()
        .expect("nothing accepts yet");
    let client = server.connect();
    drop(server.accepted());
    let posted = server.port.stats().accepts_posted;
    assert_eq!(server.port.cancel(accept), crate::Cancel::Requested);
    server.pump(|event| {
        let Event::Ended { how, .. } = event else {
            panic!("{event:?} after the cancel");
        };
        assert_eq!(how, crate::End::Cancelled);
        true
    });
    assert_eq!(server.port.stats().accepts_posted, posted);
    let meanwhile = server.connect();
    // The packet of its accept is in, and no packet is delivered.
    let until = Instant::now() + AT_MOST;
    while server.port.stats().accepts_posted == posted {
        let wait = server.waiter.wait(Some(Duration::from_millis(1)));
        assert!(matches!(wait, Ok(Wait::TimedOut)), "nothing accepts");
        assert!(Instant::now() < until, "the accept never ends");
    }
    server.listener.socket().accept().expect("accepts again");
    let peer = server
        .accepted()
        .peer_addr()
        .expect("reported by the accept");
    let address = meanwhile.local_addr().expect("connected");
    assert_eq!(peer, crate::Address::from(address));
    assert_eq!(server.port.stats().foreign_packets, 0);
    drop(client);
}

/// The same for a receive: its end is reported at once, and the request with the system serves the
/// next one.
#[test]
fn a_cancelled_receive_ends_without_the_system() {
    let mut server = Server::new(Port::builder());
    server
        .listener
        .socket()
        .accept()
        .expect("nothing accepts yet");
    let mut client = server.connect();
    let accepted = server.accepted();
    let stream = server
        .port
        .associate(accepted, Key(1))
        .expect("a free slot");
    for _ in 0..3 {
        let receive = stream.socket().receive().expect("nothing else reads");
        assert_eq!(server.port.cancel(receive), crate::Cancel::Requested);
        let wait = server.waiter.wait(Some(Duration::ZERO));
        let Ok(Wait::Packets(mut packets)) = wait else {
            panic!("the end waits for the system: {wait:?}");
        };
        let event = packets.next().expect("a batch is never empty").event;
        assert!(matches!(event, Event::Ended { .. }), "{event:?}");
    }
    stream.socket().receive().expect("nothing else reads");
    std::io::Write::write_all(&mut client, b"hello").expect("five bytes fit");
    let mut received = Vec::new();
    server.pump(|event| {
        if let Event::Received(lease) = event {
            received.extend_from_slice(&lease);
        }
        received.len() == 5
    });
    assert_eq!(received, b"hello");
    assert_eq!(server.port.stats().foreign_packets, 0);
}
