//! Sockets without descriptors, and listeners that several ports share: defects that only these can
//! have.
//!
//! Everything else about them is in the other cases, which run on such ports as on any.

use std::collections::HashSet;
use std::thread;

use wharf_port::{
    Address, Close, DriverChoice, DriverKind, ErrorKind, Event, Key, Operation, Packet, Port,
};

use crate::rig::case::{Case, Where, a_system, case, direct};
use crate::rig::peer::{Heard, Peer};
use crate::rig::system;
use crate::rig::{LISTENER, Rig, noise};

pub(crate) const CASES: &[Case] = &[
    case!(
        neither_accepted_nor_connected_sockets_take_descriptors,
        [C13],
        "contract: a table for each port"
    )
    .skip(direct)
    .alone(),
    case!(
        a_full_table_pauses_and_loses_no_connection,
        [C12, C13],
        "measured: a streaming accept closes who finds no place"
    )
    .skip(direct),
    case!(
        a_listener_leaves_places_to_others,
        [C12, C13],
        "found in review: one listener had reserved the whole table"
    )
    .skip(direct),
    case!(
        a_connection_that_is_not_taken_frees_its_slot,
        [C2, C13],
        "contract: closed and counted"
    )
    .skip(direct),
    case!(
        a_connect_without_a_place_is_refused,
        [C13],
        "contract: refused at a bound"
    )
    .skip(direct),
    case!(
        a_connect_that_is_refused_keeps_no_place,
        [C13],
        "a mutant that survived"
    )
    .skip(direct),
    case!(
        another_thread_ends_sockets_of_a_rings_thread,
        [C4, C11],
        "io_uring_setup(2): one thread enters"
    )
    .skip(direct),
    case!(
        peers_hear_of_an_end_before_the_ring_is_entered_again,
        [C11],
        "found by a peer that was waited for"
    )
    .skip(direct),
    case!(
        another_thread_connects_without_descriptors,
        [C4, C13],
        "io_uring_setup(2): one thread enters"
    )
    .skip(direct)
    .alone(),
    case!(
        addresses_are_readable_on_the_rings_thread_only,
        [C9, C19],
        "contract: an error of a named kind"
    )
    .skip(direct),
    case!(
        another_port_refuses_a_socket_that_it_cannot_have,
        [C1, C3],
        "contract: a refusal returns its value"
    )
    .skip(direct),
    case!(
        sockets_of_a_table_end_with_their_thread,
        [C14, C4],
        "io_uring_register(2): one thread may"
    )
    .skip(direct),
    case!(
        a_senseless_table_is_refused_with_a_hint,
        [C13, C15],
        "contract"
    )
    .skip(direct),
    case!(
        full_ports_leave_connections_of_a_shared_listener_to_others,
        [C12, C13],
        "SO_REUSEPORT: a full listener strands its backlog"
    )
    .skip(shared_listeners),
    case!(
        one_port_leaves_a_shared_listener_and_the_other_goes_on,
        [C11, C12],
        "shutdown(2) ends a listener for all who have it"
    )
    .skip(shared_listeners),
];

fn shared_listeners(at: &Where) -> Option<&'static str> {
    a_system(at)
        .or_else(|| (!at.linux && cfg!(windows)).then_some(NOT_ON_WINDOWS))
        .or_else(|| (at.driver == crate::rig::case::Driver::Iocp).then_some(NOT_ON_WINDOWS))
}

const NOT_ON_WINDOWS: &str = "a socket belongs to one completion port";

fn is_connected(packet: &Packet) -> bool {
    matches!(packet.event, Event::Connected(_))
}

fn neither_accepted_nor_connected_sockets_take_descriptors(at: &Where) {
    const PAIRS: u64 = 50;
    let mut rig = Rig::new(at);
    let address = rig.address();
    let before = system::descriptors();
    let mut ends = Vec::new();
    for number in 0..PAIRS {
        rig.port
            .connect(address.clone(), Key(1000 + number))
            .expect("room");
        let accepted = rig.accepted();
        ends.push(rig.port.associate(accepted, Key(number)).expect("room"));
        if let Event::Connected(stream) = rig.expect("the stream", is_connected).event {
            ends.push(stream);
        }
    }
    assert_eq!(ends.len() as u64, 2 * PAIRS);
    system::assert_descriptors(before);
    // They serve like any: a message of each client to its server.
    for pair in ends.chunks(2) {
        pair[0].socket().receive().expect("nothing else reads");
        pair[1].send("hello").expect("an empty queue");
        assert_eq!(rig.receive(pair[0].socket(), 5), b"hello");
    }
    rig.allowed.packets = true;
}

/// Connections of this rig that were accepted, and how often its listener paused.
fn accepted_by(rig: &mut Rig, taken: &mut Vec<wharf_port::Stream>, peers: &mut HashSet<Address>) {
    rig.pump(std::time::Duration::from_millis(1));
    while let Some(accepted) = rig.find_accepted() {
        peers.insert(accepted.peer_addr().expect("the clients stay"));
        taken.push(
            rig.port
                .associate(accepted, Key(7))
                .expect("its place is kept"),
        );
    }
}

fn a_full_table_pauses_and_loses_no_connection(at: &Where) {
    const CLIENTS: usize = 20;
    let mut rig = Rig::with(at, |builder| at.with_places(builder, 3));
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| rig.dial()).collect();
    let mut pauses = 0;
    let (mut taken, mut peers) = (Vec::new(), HashSet::new());
    rig.until("every client, three at a time", |rig| {
        accepted_by(rig, &mut taken, &mut peers);
        assert!(taken.len() <= 3, "a table of three places");
        while let Some(packet) = rig.find(|packet| packet.op.operation() == Operation::Accept) {
            pauses += u32::from(matches!(packet.event, Event::Paused { .. }));
        }
        if taken.len() == 3 && pauses > 0 {
            drop(taken.remove(0)); // One goes, one comes.
        }
        (peers.len() == CLIENTS).then_some(())
    });
    assert!(pauses >= 1, "the listener says that it pauses");
    // Clients that were served have seen the end; those that were not see no end.
    let ended = clients.iter_mut().map(|client| client.try_receive(1));
    let reset = ended.filter(|heard| *heard == Heard::Reset);
    assert_eq!(reset.count(), 0, "nobody was turned away");
    rig.allowed.packets = true;
}

fn a_listener_leaves_places_to_others(at: &Where) {
    let mut rig = Rig::with(at, |builder| at.with_places(builder, 20));
    // The kernel has its accepts, and no client connects.
    rig.address();
    rig.pump(std::time::Duration::ZERO);
    let second = rig.listen(([127, 0, 0, 1], 0));
    let address = second.local_addr().expect("it listens");
    let _peer = rig.network.connect(&address);
    let accepted = rig.accepted();
    rig.port.connect(address, Key(1)).expect("a free place");
    let connected = rig.expect("the stream", is_connected);
    drop((accepted, connected, rig.accepted()));
}

fn a_connection_that_is_not_taken_frees_its_slot(at: &Where) {
    let mut rig = Rig::with(at, |builder| at.with_places(builder, 2));
    for _ in 0..6 {
        let mut peer = rig.dial();
        drop(rig.accepted());
        rig.hear_finish(&mut peer);
    }
    rig.allowed.packets = true; // Where both places were taken for a moment, it says so.
}

fn a_connect_without_a_place_is_refused(at: &Where) {
    let mut rig = Rig::with(at, |builder| at.with_places(builder, 1));
    let host = rig.network.listen();
    rig.port.connect(host.address(), Key(1)).expect("a place");
    let connected = rig.expect("the stream", is_connected);
    let refused = rig.port.connect(host.address(), Key(2)).unwrap_err();
    assert_eq!(
        (refused.kind(), refused.operation()),
        (ErrorKind::Full, Operation::Connect)
    );
    assert!(refused.to_string().contains("raise the bound"), "{refused}");
    let socket = connected.socket;
    drop(connected);
    rig.until("the place is free", |rig| {
        rig.pump(std::time::Duration::from_millis(1));
        rig.port.connect(host.address(), Key(3)).ok()
    });
    assert_ne!(rig.expect("the next stream", is_connected).socket, socket);
}

fn a_connect_that_is_refused_keeps_no_place(at: &Where) {
    let mut rig = Rig::with(at, |builder| at.with_places(builder, 4));
    let host = rig.network.listen();
    for waits in [true, false] {
        for _ in 0..8 {
            let too_long = Address::unix("a/".repeat(200));
            let refused = rig.port.connect(too_long, Key(2)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput);
            if waits {
                // The kernel frees the entry when a thread enters the ring.
                rig.pump(std::time::Duration::from_millis(1));
            }
        }
    }
    let connected = rig.port.connect(host.address(), Key(3));
    connected.expect("nothing has a place");
    rig.expect("the stream", is_connected);
}

fn another_thread_ends_sockets_of_a_rings_thread(at: &Where) {
    let mut rig = Rig::new(at);
    let (flushed, mut left_in_order) = rig.connection();
    let (reset, mut left_by_reset) = rig.connection();
    let (finished, mut half) = rig.connection();
    let (idle, mut told) = rig.connection();
    // Unread bytes would turn a clean close into a reset.
    rig.say(&mut left_in_order, b"unread");
    let message = noise(50_000);
    let (flushed, reset) = (flushed.set_aside(), reset.set_aside());
    let shut = thread::scope(|scope| {
        let ends = scope.spawn(|| {
            flushed.send(message.clone()).expect("an empty queue");
            flushed.close(Close::Flush).expect("it is open");
            reset.close(Close::Reset).expect("it is open");
            drop(idle);
            finished.shutdown().expect("the write side is open")
        });
        ends.join().expect("no call panics")
    });
    let heard = rig.hear_end(&mut left_in_order);
    assert_eq!(heard.1, Heard::Finished, "after all of it");
    assert_eq!(heard.0, message);
    rig.hear_reset(&mut left_by_reset);
    rig.hear_finish(&mut half);
    rig.hear_finish(&mut told);
    assert_eq!(rig.ended(shut).how, wharf_port::End::Finished);
    rig.closed(flushed);
    rig.closed(reset);
}

fn peers_hear_of_an_end_before_the_ring_is_entered_again(at: &Where) {
    let mut rig = Rig::new(at);
    let (flushed, mut in_order) = rig.connection();
    let (reset, mut by_reset) = rig.connection();
    let (dropped, mut quietly) = rig.connection();
    flushed.close(Close::Flush).expect("it is open");
    reset.close(Close::Reset).expect("it is open");
    drop(dropped);
    // No thread pumps the port meanwhile.
    assert_eq!(system::hear_the_end(&mut in_order), Heard::Finished);
    assert_eq!(system::hear_the_end(&mut by_reset), Heard::Reset);
    assert_eq!(system::hear_the_end(&mut quietly), Heard::Finished);
    rig.closed_quietly();
    rig.closed_quietly();
}

fn another_thread_connects_without_descriptors(at: &Where) {
    let mut rig = Rig::new(at);
    let address = rig.address();
    let before = system::descriptors();
    let port = &rig.port;
    thread::scope(|scope| {
        let connect = || {
            port.connect(address.clone(), Key(5)).expect("room");
        };
        scope.spawn(connect);
        scope.spawn(connect);
    });
    let first = rig.expect("a stream", is_connected);
    let second = rig.expect("a stream", is_connected);
    let accepted = (rig.accepted(), rig.accepted());
    system::assert_descriptors(before);
    drop((first, second, accepted));
}

fn addresses_are_readable_on_the_rings_thread_only(at: &Where) {
    let mut rig = Rig::new(at);
    let address = rig.address();
    let peer = rig.dial();
    let accepted = rig.accepted();
    assert_eq!(accepted.peer_addr().expect("here"), peer.address());
    let elsewhere = thread::scope(|scope| scope.spawn(|| accepted.peer_addr()).join());
    let error = elsewhere.expect("no panic").unwrap_err();
    assert_eq!(
        (error.kind(), error.operation()),
        (ErrorKind::Unsupported, Operation::Address)
    );
    assert!(error.to_string().contains("thread that waits"), "{error}");
    let stream = rig.port.associate(accepted, Key(1)).expect("room");
    assert_eq!(stream.peer_addr().expect("here"), peer.address());
    assert_eq!(stream.local_addr().expect("here"), address);
    let elsewhere = thread::scope(|scope| scope.spawn(|| stream.local_addr()).join());
    let error = elsewhere.expect("no panic").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

fn another_port_refuses_a_socket_that_it_cannot_have(at: &Where) {
    let mut rig = Rig::new(at);
    let mut peer = rig.dial();
    let mut socket = rig.accepted().into();
    let other = Rig::new(at);
    for other in [&other.port, &readiness()] {
        let Err(refused) = other.associate(socket, Key(1)) else {
            panic!("another port took it");
        };
        assert_eq!(refused.error.operation(), Operation::Associate);
        assert_eq!(refused.error.kind(), ErrorKind::Unsupported);
        let text = refused.error.to_string();
        assert!(text.contains("the port that accepted it"), "{text}");
        socket = refused.value;
    }
    // It came back intact.
    let stream = rig.port.associate(socket, Key(2)).expect("its own port");
    stream.send("whole").expect("an empty queue");
    assert_eq!(rig.hear(&mut peer, 5), b"whole");
}

fn readiness() -> Port {
    let builder = Port::builder().driver(DriverChoice::Require(DriverKind::Poll));
    builder
        .build()
        .expect("readiness is everywhere but on Windows")
}

fn sockets_of_a_table_end_with_their_thread(at: &Where) {
    // Two ports, because the thread that had both must remember both.
    let left = thread::scope(|scope| {
        let rings = scope.spawn(|| {
            [(), ()].map(|()| {
                let mut rig = Rig::new(at);
                let (stream, peer) = rig.connection();
                let socket = stream.set_aside();
                socket.receive().expect("nothing else reads");
                let port = rig.port.clone();
                rig.drop_waiter();
                std::mem::forget(rig);
                (peer, port, socket)
            })
        });
        rings.join().expect("no panic")
    });
    for (mut peer, port, held) in left {
        system::hear_the_end(&mut peer);
        assert!(
            held.key().is_ok(),
            "the port is open, if of no use any more"
        );
        port.close();
        assert_eq!(held.key().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(port.stats().operations_leaked, 0);
    }
}

fn a_senseless_table_is_refused_with_a_hint(at: &Where) {
    let single = || Port::builder().single_waiter();
    let poll = DriverChoice::Require(DriverKind::Poll);
    let refused = [
        (
            Port::builder().shared().direct_descriptors(10),
            "single-waiter port",
        ),
        (single().driver(poll).direct_descriptors(10), "driver uring"),
        (
            single().direct_descriptors(u32::MAX),
            "direct_descriptors is 4294967295: set it to at most 1048576",
        ),
        (single().direct_descriptors(1 << 20), "ulimit -n"),
    ];
    for (builder, cure) in refused {
        // A user may have a limit as large as the largest table.
        if let Err(error) = builder.build() {
            assert_eq!(error.operation(), Operation::Build);
            assert!(error.to_string().contains(cure), "{error}");
        }
    }
    // Without a driver choice it is the one that can, and it says so.
    let port = single()
        .direct_descriptors(10)
        .build()
        .expect("it works here");
    assert_eq!(port.driver().kind, at.driver.kind());
    assert!(port.driver().features.contains(&"direct descriptors"));
}

fn full_ports_leave_connections_of_a_shared_listener_to_others(at: &Where) {
    let bound = |sockets_max| move |builder: wharf_port::Builder| builder.sockets_max(sockets_max);
    let mut first = Rig::with(at, bound(3));
    let mut second = Rig::with(at, bound(5));
    let listener = first
        .port
        .listen(([127, 0, 0, 1], 0), LISTENER)
        .expect("loopback");
    let shared = listener
        .share_with(&second.port, LISTENER)
        .expect("one kind of driver");
    let address = listener.local_addr().expect("it listens");
    assert_eq!(shared.local_addr().expect("it listens"), address);
    listener.socket().accept().expect("a fresh listener");
    shared.socket().accept().expect("a fresh listener");
    let mut clients: Vec<Box<dyn Peer>> = Vec::new();
    let (mut of_first, mut of_second) = (Vec::new(), Vec::new());
    let mut peers = HashSet::new();
    for count in 1..=6 {
        clients.push(first.network.connect(&address));
        first.until("who has room takes it", |first| {
            accepted_by(first, &mut of_first, &mut peers);
            accepted_by(&mut second, &mut of_second, &mut peers);
            (peers.len() == count).then_some(())
        });
    }
    assert_eq!(
        (of_first.len(), of_second.len()),
        (2, 4),
        "each has its fill"
    );
    clients.push(first.network.connect(&address));
    drop(of_first.remove(0));
    first.until("a place is enough", |first| {
        accepted_by(first, &mut of_first, &mut peers);
        accepted_by(&mut second, &mut of_second, &mut peers);
        (peers.len() == 7).then_some(())
    });
    first.allowed.packets = true;
    second.allowed.packets = true;
}

fn one_port_leaves_a_shared_listener_and_the_other_goes_on(at: &Where) {
    let mut first = Rig::new(at);
    let mut second = Rig::new(at);
    let listener = first.port.listen(([127, 0, 0, 1], 0), LISTENER);
    let listener = listener.expect("loopback");
    let accept = listener.socket().accept().expect("a fresh listener");
    let address = listener.local_addr().expect("it listens");
    let shared = listener
        .share_with(&second.port, LISTENER)
        .expect("one kind of driver");
    shared.socket().accept().expect("a fresh listener");
    let gone = listener.socket();
    listener.close().expect("it is open");
    first.ended(accept);
    first.closed(gone);
    for _ in 0..3 {
        let _peer = second.network.connect(&address);
        drop(second.accepted());
        first.expect_nothing();
    }
    let other = Port::builder().driver(DriverChoice::Require(DriverKind::Sim));
    let other = other.build().expect("the simulated network is everywhere");
    let error = shared.share_with(&other, LISTENER).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}
