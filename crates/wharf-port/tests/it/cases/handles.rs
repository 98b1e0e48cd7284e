//! Handles and their options: what children inherit, what accepted sockets inherit from a listener,
//! and which programs may bind.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use wharf_port::{
    Close, ConnectOptions, ErrorKind, Event, Keepalive, Key, ListenOptions, SocketRef,
};

use crate::rig::Rig;
use crate::rig::case::{Case, Driver, Where, a_system, case, descriptors, open_files};
use crate::rig::system;

pub(crate) const CASES: &[Case] = &[
    case!(
        no_handle_is_inherited,
        [C19],
        "reliability: descriptors that leak to children"
    )
    .skip(open_files)
    .alone(),
    case!(
        closed_sockets_give_their_handles_back,
        [C11, C19],
        "libuv: handles that leak for each accept"
    )
    .skip(open_files)
    .alone(),
    case!(
        small_sends_go_out_at_once_unless_asked_otherwise,
        [C19],
        "contract"
    )
    .skip(looked_at),
    case!(
        congestion_control_is_set_at_both_ends_or_refused,
        [C19, C9],
        "servers: bbr paces on loopback too"
    )
    .skip(descriptors),
    case!(
        silent_peers_are_asked_where_that_is_wanted,
        [C19, C9],
        "peers that vanished were held for ever"
    )
    .skip(looked_at),
    case!(
        keepalive_may_be_asked_for_on_every_system,
        [C19],
        "no server started where a count of probes is unknown"
    ),
    case!(
        a_listener_may_start_again_at_once,
        [C19],
        "nginx: SO_REUSEADDR"
    )
    .skip(a_system),
    case!(
        two_listeners_never_share_by_accident,
        [C19, C9],
        "win32 documentation: SO_EXCLUSIVEADDRUSE"
    )
    .skip(a_system),
    case!(listeners_share_a_port_where_asked_to, [C19], "contract").skip(a_system),
    case!(
        a_clone_of_an_associated_socket_is_taken_or_refused_with_a_hint,
        [C9, C19],
        "CreateIoCompletionPort documentation"
    )
    .skip(a_system),
];

/// Both results: elsewhere each handle of a socket is separate, Windows gives the socket itself to
/// one port for good.
fn a_clone_of_an_associated_socket_is_taken_or_refused_with_a_hint(at: &Where) {
    let mut rig = Rig::new(at);
    let socket = TcpStream::connect(rig.address().as_socket_addr().expect("an internet address"));
    let socket = socket.expect("the rig listens");
    let clone = socket.try_clone().expect("a handle is free");
    let stream = rig.port.associate(socket, Key(1)).expect("room");
    match rig.port.associate(clone, Key(2)) {
        Ok(second) if at.driver != Driver::Iocp => assert_eq!(second.key().ok(), Some(Key(2))),
        Err(refused) if at.driver == Driver::Iocp => {
            assert_eq!(refused.error.kind(), ErrorKind::InvalidInput);
            let text = refused.to_string();
            assert!(text.contains("share its SocketRef"), "{text}");
        }
        other => panic!("neither answer: {other:?}"),
    }
    assert_eq!(stream.key().ok(), Some(Key(1)), "the first is as it was");
}

fn looked_at(at: &Where) -> Option<&'static str> {
    a_system(at).or_else(|| descriptors(at)).or_else(|| {
        (!at.linux).then_some("the options are looked at through pidfd_getfd, which Linux has")
    })
}

/// On Unix a child lists its descriptors; on Windows we check each open handle of this process,
/// including those that the driver posts for accepts and the device that watches.
fn no_handle_is_inherited(at: &Where) {
    let before = system::inherited_handles();
    let mut rig = Rig::new(at);
    let mut host = rig.network.listen();
    let (stream, _peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    rig.port.connect(host.address(), Key(1)).expect("room");
    let connected = rig.next("the stream");
    assert!(matches!(connected.event, Event::Connected(_)));
    let _far = rig.until("the far end", |_| host.try_accept());
    let _waiting = rig.dial();
    let accepted = rig.accepted();
    let (watched, _other) = rig.connection();
    watched.socket().watch().expect("nothing reads");
    if at.driver == Driver::Iocp {
        assert_eq!(system::inherited_handles(), before);
        return;
    }
    let mut child = Command::new("cat");
    child.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = child.spawn().expect("there is a cat");
    // It waits for its input, so that we can examine its descriptors. A started process still has
    // those of its parent for a moment: until it has written, they may still be there.
    let (input, output) = (child.stdin.as_mut(), child.stdout.as_mut());
    let mut written = [0];
    input.expect("a pipe").write_all(b"!").expect("it reads");
    output
        .expect("a pipe")
        .read_exact(&mut written)
        .expect("it writes");
    let handles = handles_of(child.id());
    drop(child.stdin.take());
    child.wait().expect("it ends with its input");
    assert!(handles.len() >= 3, "its standard streams: {handles:?}");
    for what in ["socket:", "anon_inode:"] {
        let inherited = handles.iter().any(|handle| handle.contains(what));
        assert!(!inherited, "a child has {handles:?}");
    }
    drop((connected, accepted));
}

/// The first connections include objects that are created once.
fn closed_sockets_give_their_handles_back(at: &Where) {
    const COUNT: usize = 50;
    let mut rig = Rig::new(at);
    let mut host = rig.network.listen();
    let mut each = |rig: &mut Rig| {
        let (stream, peer) = rig.connection();
        stream.socket().watch().expect("nothing reads");
        drop((stream, peer));
        rig.port.connect(host.address(), Key(1)).expect("room");
        let connected = rig.expect("the stream", |packet| {
            matches!(packet.event, Event::Connected(_))
        });
        let far = rig.until("the far end", |_| host.try_accept());
        drop((connected, far));
        rig.until_stats("the listener alone", |stats| stats.sockets == 1);
    };
    for _ in 0..COUNT {
        each(&mut rig);
    }
    let before = system::descriptors();
    for _ in 0..COUNT {
        each(&mut rig);
    }
    let left = system::descriptors().saturating_sub(before);
    // Closing the last ones may still be under way.
    assert!(left < COUNT / 5, "{left} are left of {COUNT} times two");
}

/// The descriptors of a process, and what they refer to.
fn handles_of(process: u32) -> Vec<String> {
    let listed = std::fs::read_dir(format!("/proc/{process}/fd")).expect("it lives");
    let handles = listed.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    handles
        .map(|to| to.to_string_lossy().into_owned())
        .collect()
}

fn goes_out_at_once(socket: SocketRef) -> bool {
    system::no_delay(socket.raw_descriptor().expect("it is open"))
}

fn small_sends_go_out_at_once_unless_asked_otherwise(at: &Where) {
    let mut rig = Rig::new(at);
    for asked in [None, Some(true), Some(false)] {
        let mut options = ListenOptions::new(([127, 0, 0, 1], 0));
        if let Some(no_delay) = asked {
            options = options.nodelay(no_delay);
        }
        let listener = rig.listen(options);
        let address = listener.local_addr().expect("a listener has an address");
        let mut options = ConnectOptions::new(address);
        if let Some(no_delay) = asked {
            options = options.nodelay(no_delay);
        }
        rig.port.connect(options, Key(1)).expect("room");
        let connected = rig.expect("the stream", |packet| {
            matches!(packet.event, Event::Connected(_))
        });
        let accepted = rig.accepted();
        let server = rig.port.associate(accepted, Key(2)).expect("room");
        let expected = asked.unwrap_or(true);
        assert_eq!(
            goes_out_at_once(server.socket()),
            expected,
            "accepted, {asked:?}"
        );
        assert_eq!(
            goes_out_at_once(connected.socket),
            expected,
            "connected, {asked:?}"
        );
    }
}

fn congestion_control_is_set_at_both_ends_or_refused(at: &Where) {
    let mut rig = Rig::new(at);
    let place = ([127, 0, 0, 1], 0);
    // Every kernel has this one, and every user may choose it.
    let listening = ListenOptions::new(place).congestion_control("reno");
    let refused = |error: wharf_port::Error| error.kind();
    if !at.linux || at.driver == Driver::Sim {
        let error = rig.port.listen(listening, Key(1)).expect_err("no option");
        assert_eq!(refused(error), ErrorKind::Unsupported);
        let to = ConnectOptions::new(rig.address()).congestion_control("reno");
        let error = rig.port.connect(to, Key(1)).expect_err("no option");
        assert_eq!(refused(error), ErrorKind::Unsupported);
        return;
    }
    let listener = rig.listen(listening);
    let address = listener.local_addr().expect("a listener has an address");
    let to = ConnectOptions::new(address.clone()).congestion_control("reno");
    rig.port.connect(to, Key(1)).expect("room");
    let connected = rig.expect("the stream", |packet| {
        matches!(packet.event, Event::Connected(_))
    });
    let accepted = rig.accepted();
    let server = rig.port.associate(accepted, Key(2)).expect("room");
    for end in [server.socket(), connected.socket] {
        let number = end.raw_descriptor().expect("it is open");
        assert_eq!(system::congestion_control(number), "reno");
    }
    let unknown = ListenOptions::new(place).congestion_control("no-such-name");
    let error = rig.port.listen(unknown, Key(1)).expect_err("no such name");
    assert_eq!(refused(error), ErrorKind::InvalidInput);
    let unknown = ConnectOptions::new(address).congestion_control("no-such-name");
    let error = rig.port.connect(unknown, Key(1)).expect_err("no such name");
    assert_eq!(refused(error), ErrorKind::InvalidInput);
}

fn silent_peers_are_asked_where_that_is_wanted(at: &Where) {
    let mut rig = Rig::new(at);
    let seconds = Duration::from_secs;
    let ours = Keepalive::after(Duration::from_millis(59_001))
        .interval(seconds(7))
        .probes(4);
    for (asked, expected) in [
        (None, None),
        (Some(ours), Some((seconds(60), seconds(7), 4))),
    ] {
        let mut options = ListenOptions::new(([127, 0, 0, 1], 0));
        options = asked.map_or(options.clone(), |asked| options.keepalive(asked));
        let listener = rig.listen(options);
        let address = listener.local_addr().expect("a listener has an address");
        let mut options = ConnectOptions::new(address);
        options = asked.map_or(options.clone(), |asked| options.keepalive(asked));
        rig.port.connect(options, Key(1)).expect("room");
        let connected = rig.expect("the stream", |packet| {
            matches!(packet.event, Event::Connected(_))
        });
        let accepted = rig.accepted();
        let server = rig.port.associate(accepted, Key(2)).expect("room");
        for end in [server.socket(), connected.socket] {
            let number = end.raw_descriptor().expect("it is open");
            assert_eq!(system::keepalive(number), expected, "{asked:?}");
        }
    }
    // No time at all, and more probes than any system takes.
    for wrong in [Keepalive::after(Duration::ZERO), ours.probes(1_000_000)] {
        let at = ListenOptions::new(([127, 0, 0, 1], 0)).keepalive(wrong);
        let error = rig.port.listen(at, Key(1)).expect_err("it makes no sense");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        let to = ConnectOptions::new(rig.address()).keepalive(wrong);
        let error = rig.port.connect(to, Key(1)).expect_err("it makes no sense");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
}

fn keepalive_may_be_asked_for_on_every_system(at: &Where) {
    let mut rig = Rig::new(at);
    let keepalive = Keepalive::after(Duration::from_secs(60));
    let options = ListenOptions::new(([127, 0, 0, 1], 0)).keepalive(keepalive);
    let listener = rig.listen(options);
    let address = listener.local_addr().expect("a listener has an address");
    let options = ConnectOptions::new(address).keepalive(keepalive);
    rig.port.connect(options, Key(1)).expect("it is taken");
    rig.expect("the stream", |packet| {
        matches!(packet.event, Event::Connected(_))
    });
    drop(rig.accepted());
}

fn a_listener_may_start_again_at_once(at: &Where) {
    let mut rig = Rig::new(at);
    let listener = rig.listen(([127, 0, 0, 1], 0));
    let address = listener.local_addr().expect("a listener has an address");
    let mut peer = rig.network.connect(&address);
    let accepted = rig.accepted();
    let stream = rig.port.associate(accepted, Key(1)).expect("room");
    // The side that closes first keeps the connection in TIME_WAIT.
    let socket = stream.socket();
    stream.close(Close::Flush).expect("it is open");
    rig.closed(socket);
    rig.hear_finish(&mut peer);
    drop((peer, listener));
    let again = rig.listen(address.clone());
    let _peer = rig.network.connect(&address);
    drop((rig.accepted(), again));
}

fn two_listeners_never_share_by_accident(at: &Where) {
    let mut rig = Rig::new(at);
    let address = rig.address();
    for _ in 0..3 {
        let error = rig
            .port
            .listen(address.clone(), Key(1))
            .expect_err("it is taken");
        assert_eq!(error.kind(), ErrorKind::AddressInUse);
    }
    // Not even by a program that requests reuse.
    let foreign = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let foreign = foreign.expect("a socket");
    foreign.set_reuse_address(true).expect("a known option");
    let taken: SocketAddr = address.as_socket_addr().expect("an internet address");
    let both = foreign.bind(&taken.into()).and_then(|()| foreign.listen(1));
    assert!(both.is_err(), "two listen at {taken}");
}

fn listeners_share_a_port_where_asked_to(at: &Where) {
    let mut rig = Rig::new(at);
    let options = ListenOptions::new(([127, 0, 0, 1], 0)).reuse_port(true);
    if at.driver == Driver::Iocp {
        let error = rig
            .port
            .listen(options, Key(1))
            .expect_err("Windows cannot");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        return;
    }
    let first = rig.listen(options);
    let address = first.local_addr().expect("a listener has an address");
    let second = rig.listen(ListenOptions::new(address.clone()).reuse_port(true));
    let clients: Vec<_> = (0..64).map(|_| rig.network.connect(&address)).collect();
    let mut taken = [0, 0];
    for _ in &clients {
        let packet = rig.next("an accepted connection");
        assert!(matches!(packet.event, Event::Accepted(_)));
        taken[usize::from(packet.socket == second.socket())] += 1;
    }
    if at.linux {
        assert!(taken[0] > 0 && taken[1] > 0, "dealt out as {taken:?}");
    }
    rig.expect_nothing();
}
