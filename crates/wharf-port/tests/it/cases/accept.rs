//! Accepting: every client once, with the listener's key, whatever happens to the others.

use std::collections::HashSet;
use std::net::Ipv6Addr;

use socket2::{Domain, Socket, Type};
use wharf_port::{
    Accepted, Address, Cancel, Close, End, ErrorKind, Event, Key, ListenOptions, Wait, Waiter,
};

use crate::rig::case::{
    Case, Inapplicable, Where, a_system, another_port, case, ipv6, linux, unix_sockets,
};
use crate::rig::peer::Peer;
use crate::rig::system;
use crate::rig::{LISTENER, Rig};

pub(crate) const CASES: &[Case] = &[
    case!(
        an_accept_carries_the_listeners_key,
        [C1],
        "wine sock.c, the series"
    ),
    case!(several_listeners_may_share_a_key, [C1], "contract"),
    case!(
        closing_a_listener_ends_its_accept_then_delivers_closed,
        [C2, C11],
        "wine sock.c"
    ),
    case!(
        an_accept_not_yet_taken_survives_the_listeners_close,
        [C2],
        "wine sock.c"
    ),
    case!(
        a_client_that_says_nothing_is_accepted_at_once,
        [C2],
        "AcceptEx documentation, wine sock.c"
    ),
    case!(a_second_accept_is_refused_as_busy, [C13], "wine sock.c"),
    case!(
        a_client_that_resets_first_leaves_the_listener_armed,
        [C12],
        "cpython #93821, twisted #10956"
    ),
    case!(
        both_addresses_are_known_v4,
        [C19],
        "twisted test_iocp.py, asio tcp.cpp"
    ),
    case!(
        both_addresses_are_known_v6,
        [C19],
        "twisted test_iocp.py, asio tcp.cpp"
    )
    .skip(ipv6),
    case!(
        sixty_four_clients_are_accepted_once_each,
        [C2],
        "libuv tcp.c"
    ),
    case!(
        a_cancelled_accept_leaves_clients_waiting_for_the_next,
        [C2, C10],
        "libxev iocp.zig"
    ),
    case!(
        accepts_that_were_not_taken_are_closed_and_counted,
        [C2, C14],
        "tokio-uring #129, compio #315"
    ),
    case!(an_accepted_socket_may_join_another_port, [C1], "contract").skip(another_port),
    case!(
        dropping_an_accepted_socket_closes_it,
        [C2, C13],
        "tokio #7979"
    ),
    case!(
        cancelling_in_a_loop_loses_no_client_and_no_descriptor,
        [C2, C10],
        "tokio-uring #129, a10 #10, monoio #318"
    )
    .skip(linux)
    .alone(),
    case!(a_dual_stack_listener_takes_both_versions, [C19], "contract").skip(dual_stack),
    case!(a_version_6_listener_takes_no_version_4, [C19], "contract").skip(dual_stack),
    case!(unix_sockets_are_accepted, [C1], "contract").skip(unix_sockets),
];

pub(crate) const INAPPLICABLE: &[Inapplicable] = &[
    Inapplicable {
        name: "associate_twice_fails",
        source: "wine kernel32 sync.c",
        reason: "associating moves the socket into the port: there is nothing left to associate; a \
                 clone of it is in `a_clone_of_an_associated_socket_is_taken_or_refused_with_a_hint`",
    },
    Inapplicable {
        name: "associate_after_issue",
        source: "wine ntdll file.c",
        reason: "only an associated socket has operations",
    },
    Inapplicable {
        name: "non_overlapped_refused",
        source: "wine ntdll file.c, kernel32 file.c",
        reason: "the types take sockets only, and those are overlapped however they are made",
    },
    Inapplicable {
        name: "dup_handle_shares_key",
        source: "wine sock.c",
        reason: "the port duplicates no handle; what a caller does with a duplicate of its own is \
                 between it and the system",
    },
    Inapplicable {
        name: "accept_close_acceptor",
        source: "wine sock.c",
        reason: "the socket that takes a connection is the port's own until it is accepted",
    },
    Inapplicable {
        name: "accept_recv_len_waits_for_data, accept_recv_len_peer_closes",
        source: "wine sock.c",
        reason: "accepts ask for no first bytes, because a client that says nothing would never \
                 be accepted",
    },
    Inapplicable {
        name: "same_acceptor_twice",
        source: "wine sock.c",
        reason: "the socket that takes a connection is the port's own until it is accepted",
    },
];

fn dual_stack(at: &Where) -> Option<&'static str> {
    a_system(at).or_else(|| ipv6(at))
}

fn an_accept_carries_the_listeners_key(at: &Where) {
    let mut rig = Rig::new(at);
    let other = rig
        .port
        .listen(([127, 0, 0, 1], 0), Key(u64::MAX))
        .expect("loopback");
    other.socket().accept().expect("a fresh listener");
    let _first = rig.dial();
    let _second = rig
        .network
        .connect(&other.local_addr().expect("an address"));
    let mut keys = HashSet::new();
    for _ in 0..2 {
        let packet = rig.next("an accepted connection");
        let of = if packet.key == LISTENER {
            None
        } else {
            Some(other.socket())
        };
        assert!(of.is_none_or(|of| of == packet.socket), "and its reference");
        assert!(matches!(packet.event, Event::Accepted(_)));
        keys.insert(packet.key);
    }
    assert_eq!(keys, HashSet::from([LISTENER, Key(u64::MAX)]));
}

fn several_listeners_may_share_a_key(at: &Where) {
    let mut rig = Rig::new(at);
    let other = rig.listen(([127, 0, 0, 1], 0));
    let _first = rig.dial();
    let _second = rig
        .network
        .connect(&other.local_addr().expect("an address"));
    drop((rig.accepted(), rig.accepted()));
}

fn closing_a_listener_ends_its_accept_then_delivers_closed(at: &Where) {
    let mut rig = Rig::new(at);
    let listener = rig
        .port
        .listen(([127, 0, 0, 1], 0), LISTENER)
        .expect("loopback");
    let accept = listener.socket().accept().expect("a fresh listener");
    let socket = listener.socket();
    let close = listener.close().expect("it is open");
    let packet = rig.next("the end of the accept");
    assert_eq!((packet.op, packet.key), (accept, LISTENER));
    assert!(matches!(
        packet.event,
        Event::Ended {
            how: End::Aborted,
            buffer: None,
            ..
        }
    ));
    let packet = rig.next("the end of the listener");
    assert_eq!(
        (packet.op, packet.key, packet.socket),
        (close, LISTENER, socket)
    );
    assert!(matches!(packet.event, Event::Closed));
    rig.expect_nothing();
    assert_eq!(rig.port.stats().sockets, 0);
}

/// Waits until a batch has packets, and leaves them there.
fn leave_a_batch(waiter: &mut Waiter) {
    while !matches!(waiter.wait(None).expect("waits"), Wait::Packets(_)) {}
}

fn an_accept_not_yet_taken_survives_the_listeners_close(at: &Where) {
    let mut rig = Rig::new(at);
    let listener = rig.listen(([127, 0, 0, 1], 0));
    let mut peer = rig
        .network
        .connect(&listener.local_addr().expect("an address"));
    leave_a_batch(rig.waiter());
    let socket = listener.socket();
    listener.close().expect("it is open");
    let accepted = rig.accepted();
    let packet = rig.next("the end of the accept");
    assert!(matches!(
        packet.event,
        Event::Ended {
            how: End::Aborted,
            ..
        }
    ));
    rig.closed(socket);
    let stream = rig.port.associate(accepted, Key(1)).expect("room");
    stream.send("still here").expect("an empty queue");
    assert_eq!(rig.hear(&mut peer, 10), b"still here");
}

fn a_client_that_says_nothing_is_accepted_at_once(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    stream.send("hello").expect("an empty queue");
    assert_eq!(rig.hear(&mut peer, 5), b"hello");
}

fn a_second_accept_is_refused_as_busy(at: &Where) {
    let mut rig = Rig::new(at);
    let listener = rig.listen(([127, 0, 0, 1], 0));
    assert_eq!(
        listener.socket().accept().unwrap_err().kind(),
        ErrorKind::Busy
    );
    let _peer = rig
        .network
        .connect(&listener.local_addr().expect("an address"));
    drop(rig.accepted());
    rig.expect_nothing();
}

/// Takes connections until one of them says `word`; the others must have been reset.
fn find_the_one_that_says(rig: &mut Rig, word: &[u8]) {
    rig.until("the client that stays", |rig| {
        let packet = rig.find(|_| true)?;
        match packet.event {
            Event::Accepted(accepted) => {
                // The peer may be gone, and with it its address.
                let peer = accepted.peer_addr().map_err(|error| error.kind());
                assert!(
                    peer.is_ok() || peer == Err(ErrorKind::NotConnected),
                    "{peer:?}"
                );
                let stream = rig.port.associate(accepted, Key(1)).expect("room");
                stream.set_aside().receive().expect("nothing else reads");
                None
            }
            Event::Received(lease) => {
                assert_eq!(&*lease, word);
                packet.socket.close(Close::Flush).expect("it is open");
                Some(())
            }
            Event::Ended { how, .. } => {
                let kind = how.error_kind();
                let expected = [Some(ErrorKind::Reset), Some(ErrorKind::Aborted)];
                assert!(expected.contains(&kind), "{how:?}");
                // The one that stayed is closing already.
                let _ = packet.socket.close(Close::Reset);
                None
            }
            Event::Closed => None,
            other => panic!("not asked for: {other:?}"),
        }
    });
}

fn a_client_that_resets_first_leaves_the_listener_armed(at: &Where) {
    let mut rig = Rig::new(at);
    rig.allowed.packets = true;
    let listener = rig
        .port
        .listen(([127, 0, 0, 1], 0), LISTENER)
        .expect("loopback");
    let address = listener.local_addr().expect("an address");
    for _ in 0..3 {
        rig.network.connect(&address).reset();
    }
    listener.socket().accept().expect("a fresh listener");
    for word in [&b"first"[..], b"second"] {
        let mut peer = rig.network.connect(&address);
        rig.say(&mut peer, word);
        find_the_one_that_says(&mut rig, word);
        rig.network.connect(&address).reset();
    }
}

fn both_addresses_are_known(rig: &mut Rig, address: &Address, peer: &dyn Peer) {
    let accepted: Accepted = rig.accepted();
    assert_eq!(
        accepted.peer_addr().expect("the peer stays"),
        peer.address()
    );
    let stream = rig.port.associate(accepted, Key(1)).expect("room");
    assert_eq!(stream.peer_addr().expect("the peer stays"), peer.address());
    assert_eq!(stream.local_addr().expect("it is open"), *address);
}

fn both_addresses_are_known_v4(at: &Where) {
    let mut rig = Rig::new(at);
    let peer = rig.dial();
    let address = rig.address();
    both_addresses_are_known(&mut rig, &address, &*peer);
}

fn both_addresses_are_known_v6(at: &Where) {
    let mut rig = Rig::new(at);
    let listener = rig.listen((Ipv6Addr::LOCALHOST, 0));
    let address = listener.local_addr().expect("an address");
    let peer = rig.network.connect(&address);
    both_addresses_are_known(&mut rig, &address, &*peer);
}

fn sixty_four_clients_are_accepted_once_each(at: &Where) {
    let mut rig = Rig::new(at);
    let peers: Vec<_> = (0..64).map(|_| rig.dial()).collect();
    let mut left: HashSet<_> = peers.iter().map(|peer| peer.address()).collect();
    for _ in 0..64 {
        let peer = rig.accepted().peer_addr().expect("the peers stay");
        assert!(left.remove(&peer), "{peer} was accepted twice");
    }
    rig.expect_nothing();
}

fn a_cancelled_accept_leaves_clients_waiting_for_the_next(at: &Where) {
    let mut rig = Rig::new(at);
    let listener = rig
        .port
        .listen(([127, 0, 0, 1], 0), LISTENER)
        .expect("loopback");
    let accept = listener.socket().accept().expect("a fresh listener");
    assert_eq!(rig.port.cancel(accept), Cancel::Requested);
    assert_eq!(rig.ended(accept).how, End::Cancelled);
    let _peer = rig
        .network
        .connect(&listener.local_addr().expect("an address"));
    rig.expect_nothing();
    listener.socket().accept().expect("the first is over");
    drop(rig.accepted());
}

fn accepts_that_were_not_taken_are_closed_and_counted(at: &Where) {
    let mut rig = Rig::new(at);
    let mut peer = rig.dial();
    leave_a_batch(rig.waiter());
    rig.port.close();
    rig.drop_waiter();
    assert_eq!(rig.port.stats().accepted_untaken, 1);
    rig.allowed.accepted_untaken = 1;
    system::hear_the_end(&mut peer);
}

fn an_accepted_socket_may_join_another_port(at: &Where) {
    let mut rig = Rig::new(at);
    let mut other = Rig::new(at);
    let mut peer = rig.dial();
    let accepted = rig.accepted();
    let stream = other.port.associate(accepted, Key(7)).expect("room");
    let before = rig.port.stats().sockets;
    assert_eq!(
        (before, other.port.stats().sockets),
        (1, 1),
        "it left the first port"
    );
    stream.socket().receive().expect("nothing else reads");
    rig.say(&mut peer, b"hello");
    let packet = other.next("the bytes");
    assert_eq!(packet.key, Key(7));
    assert!(matches!(&packet.event, Event::Received(lease) if **lease == *b"hello"));
    rig.expect_nothing();
}

fn dropping_an_accepted_socket_closes_it(at: &Where) {
    let mut rig = Rig::new(at);
    let mut peer = rig.dial();
    let accepted = rig.accepted();
    assert_eq!(rig.port.stats().sockets, 2, "it has its place");
    drop(accepted);
    rig.hear_finish(&mut peer);
    assert_eq!(rig.port.stats().sockets, 1, "only the listener is left");
}

fn cancelling_in_a_loop_loses_no_client_and_no_descriptor(at: &Where) {
    let before = system::descriptors();
    let mut rig = Rig::new(at);
    let listener = rig
        .port
        .listen(([127, 0, 0, 1], 0), LISTENER)
        .expect("loopback");
    let address = listener.local_addr().expect("an address");
    let mut seen = HashSet::new();
    for round in 0..200 {
        let accept = listener.socket().accept().expect("the one before is over");
        let peer = rig.network.connect(&address);
        if round % 2 == 0 {
            rig.pump(std::time::Duration::from_micros(round * 7));
        }
        let cancel = rig.port.cancel(accept);
        assert_eq!(cancel, Cancel::Requested, "the accept was going on");
        assert_eq!(rig.ended(accept).how, End::Cancelled);
        let mut accepted = rig.find_accepted();
        if accepted.is_none() {
            let again = listener.socket().accept().expect("the one before is over");
            accepted = Some(rig.accepted());
            rig.port.cancel(again);
            assert_eq!(rig.ended(again).how, End::Cancelled);
        }
        let accepted = accepted.and_then(|accepted| accepted.peer_addr().ok());
        assert_eq!(accepted, Some(peer.address()), "the client of this round");
        assert!(seen.insert(peer.address()), "once");
        // Clients must not use up their port numbers.
        peer.reset();
    }
    drop((listener, rig));
    system::assert_descriptors(before);
}

fn a_dual_stack_listener_takes_both_versions(at: &Where) {
    let mut rig = Rig::new(at);
    let options = ListenOptions::new((Ipv6Addr::UNSPECIFIED, 0)).dual_stack(true);
    let listener = rig.listen(options);
    let port = system::port_of(&listener);
    let v4 = rig.network.connect(&([127, 0, 0, 1], port).into());
    drop(rig.accepted());
    let v6 = rig.network.connect(&(Ipv6Addr::LOCALHOST, port).into());
    drop((rig.accepted(), v4, v6));
}

fn a_version_6_listener_takes_no_version_4(at: &Where) {
    let mut rig = Rig::new(at);
    let v4 = system::own_loopback();
    // The number is reserved for IPv4 as well: another program listened there once.
    let listen = || {
        let listener = rig.listen((Ipv6Addr::UNSPECIFIED, 0));
        let port = system::port_of(&listener);
        let kept = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        if cfg!(unix) {
            // Without it, Linux takes the IPv6 wildcard as an address of both versions.
            kept.set_reuse_address(true).expect("a fresh socket");
        }
        let here = std::net::SocketAddr::from((v4, port));
        kept.bind(&here.into())
            .ok()
            .map(|()| (listener, kept, port))
    };
    let found = std::iter::repeat_with(listen).take(10).flatten().next();
    let (_listener, _kept, port) = found.expect("it takes version 4 as well");
    let refused = std::net::TcpStream::connect((v4, port));
    assert_eq!(
        refused.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused
    );
    let _v6 = rig.network.connect(&(Ipv6Addr::LOCALHOST, port).into());
    drop(rig.accepted());
}

fn unix_sockets_are_accepted(at: &Where) {
    let mut rig = Rig::new(at);
    let directory = system::Directory::new();
    let address = Address::unix(directory.path().join("socket"));
    let listener = rig.listen(address.clone());
    assert_eq!(listener.local_addr().expect("it is open"), address);
    let mut peer = rig.network.connect(&address);
    let accepted = rig.accepted();
    let stream = rig.port.associate(accepted, Key(1)).expect("room");
    stream.socket().receive().expect("nothing else reads");
    rig.say(&mut peer, b"through a file");
    assert_eq!(rig.receive(stream.socket(), 14), b"through a file");
    stream.send("and back").expect("an empty queue");
    assert_eq!(rig.hear(&mut peer, 8), b"and back");
    peer.finish();
    let packet = rig.next("the end");
    assert!(matches!(
        packet.event,
        Event::Ended {
            how: End::Finished,
            ..
        }
    ));
}
