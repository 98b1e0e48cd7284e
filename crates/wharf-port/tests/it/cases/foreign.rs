//! Sockets that the caller has created: which ones a port takes, and what the caller has set or
//! kept.

use std::io::{Read as _, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::Socket;
use wharf_port::{
    Cancel, Close, End, ErrorKind, Event, Key, Leave, Operation, OwnedDescriptor, Unassociated,
};

use crate::rig::case::{Case, Driver, Where, a_system, case, linux};
use crate::rig::peer::System;
use crate::rig::system;
use crate::rig::{Rig, noise};

pub(crate) const CASES: &[Case] = &[
    case!(
        what_is_no_stream_is_refused_with_its_name,
        [C9, C13],
        "contract"
    )
    .skip(a_system),
    case!(
        a_duplicate_that_was_kept_keeps_no_socket_out,
        [C1, C11],
        "epoll(7), Q6"
    )
    .skip(duplicates)
    .alone(),
    case!(
        nothing_that_is_closed_stays_registered,
        [C11, C19],
        "epoll(7), Q6"
    )
    .skip(registrations)
    .alone(),
    case!(
        the_callers_linger_holds_up_no_close,
        [C11, C19],
        "socket(7): SO_LINGER"
    )
    .skip(a_system),
    case!(
        a_socket_that_does_not_block_waits_like_others,
        [C2, C7],
        "fcntl(2): O_NONBLOCK"
    )
    .skip(linux)
    .alone(),
    case!(
        a_mode_that_changes_later_loses_nothing,
        [C2, C7],
        "fcntl(2): O_NONBLOCK"
    )
    .skip(modes),
    case!(
        a_large_send_goes_out_in_parts_that_end,
        [C4, C7],
        "contract"
    )
    .skip(large_sends),
    case!(
        messages_in_the_error_queue_end_nothing,
        [C10, C19],
        "found by reading a mutant that survived: POLLERR without an error"
    )
    .skip(time_stamps),
];

fn time_stamps(at: &Where) -> Option<&'static str> {
    linux(at).or_else(|| a_system(at))
}

fn duplicates(at: &Where) -> Option<&'static str> {
    a_system(at).or_else(|| {
        (at.driver == Driver::Iocp).then_some(
            "on Windows a socket belongs to its first port as long as any handle of it is open",
        )
    })
}

fn modes(at: &Where) -> Option<&'static str> {
    a_system(at).or_else(|| {
        (at.driver == Driver::Iocp)
            .then_some("no call of Windows reads without waiting but by the mode of its socket")
    })
}

fn registrations(at: &Where) -> Option<&'static str> {
    linux(at).or_else(|| {
        (at.driver != Driver::Poll || cfg!(wharf_polling))
            .then_some("it is about what is registered with epoll")
    })
}

fn large_sends(at: &Where) -> Option<&'static str> {
    linux(at).or_else(|| {
        (at.driver != Driver::Poll)
            .then_some("it is about sends that a thread carries out itself; others are handed over")
    })
}

/// Two connected sockets that no port has created.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback listens");
    let address = listener.local_addr().expect("a bound socket");
    let far = TcpStream::connect(address).expect("it listens");
    let (near, _) = listener.accept().expect("it has connected");
    for end in [&near, &far] {
        end.set_nodelay(true).expect("an open socket");
    }
    (near, far)
}

fn what_is_no_stream_is_refused_with_its_name(at: &Where) {
    let rig = Rig::new(at);
    let datagrams = UdpSocket::bind("127.0.0.1:0").expect("loopback has a free port");
    let listens = TcpListener::bind("127.0.0.1:0").expect("loopback listens");
    let address = listens.local_addr().expect("a bound socket");
    for (socket, word) in [
        (OwnedDescriptor::from(datagrams), "another type"),
        (OwnedDescriptor::from(listens), "listening"),
    ] {
        let refused = rig.port.associate(socket, Key(1)).expect_err("no stream");
        let error = refused.error;
        assert_eq!(
            (error.operation(), error.kind()),
            (Operation::Associate, ErrorKind::InvalidInput)
        );
        assert!(error.to_string().contains(word), "{error}");
        if word == "listening" {
            // It came back as it was.
            let value: Unassociated = refused.value;
            TcpStream::connect(address).expect("it listens still");
            drop(value);
        }
    }
    assert_eq!(rig.port.stats().sockets, 0);
}

fn a_duplicate_that_was_kept_keeps_no_socket_out(at: &Where) {
    let mut rig = Rig::new(at);
    let (kept, mut far) = pair();
    let before = system::descriptors();
    for _ in 0..3 {
        let again = kept.try_clone().expect("room for a descriptor");
        let stream = rig.port.associate(again, Key(1)).expect("room");
        let op = stream
            .socket()
            .receive_into(vec![0; 5])
            .expect("nothing else reads");
        // Nothing is there yet, so that the driver has to wait for it.
        rig.expect_nothing();
        far.write_all(b"hello").expect("it is connected");
        let packet = rig.expect("the bytes", |packet| packet.op == op);
        assert!(matches!(packet.event, Event::ReceivedInto { count: 5, .. }));
        drop(stream);
        rig.until_stats("the close", |stats| stats.sockets == 0);
        // The next one gets the same number.
        system::assert_descriptors(before);
    }
}

/// If another port or the caller has a descriptor of it, it goes on reporting events unless it is
/// removed from the set.
fn nothing_that_is_closed_stays_registered(at: &Where) {
    let mut rig = Rig::new(at);
    let other = Rig::new(at);
    let empty = system::epoll_members();
    let listener = rig.listen(([127, 0, 0, 1], 0));
    let shared = listener.share_with(&other.port, Key(1)).expect("room");
    shared.socket().accept().expect("a fresh listener accepts");
    assert_eq!(system::epoll_members(), empty + 2);
    drop(shared);
    assert_eq!(system::epoll_members(), empty + 1, "the shared listener");
    let (near, far) = pair();
    let kept = near.try_clone().expect("room for a descriptor");
    let stream = rig.associate(near);
    stream.socket().receive().expect("nothing else reads");
    assert_eq!(system::epoll_members(), empty + 2);
    drop(stream);
    rig.expect_nothing();
    assert_eq!(system::epoll_members(), empty + 1, "a socket of the caller");
    drop((kept, far, listener));
    assert_eq!(system::epoll_members(), empty);
}

/// With the caller's option the close would wait ten minutes for a peer that does not read, or
/// reset the connection.
fn the_callers_linger_holds_up_no_close(at: &Where) {
    let mut rig = Rig::new(at);
    for seconds in [600, 0] {
        let (mut near, mut far) = System.narrow_pair(4096);
        let linger = Some(Duration::from_secs(seconds));
        near.set_linger(linger).expect("an open socket");
        // As much as the system takes, so that a part is still on this side.
        near.set_nonblocking(true).expect("an open socket");
        let mut count = 0;
        while let Ok(written) = near.write(&[7; 512]) {
            count += written;
        }
        let stream = rig.associate(near);
        let socket = stream.socket();
        stream.close(Close::Flush).expect("it is open");
        rig.closed(socket);
        assert_eq!(rig.hear(&mut far, count), vec![7; count]);
        rig.hear_finish(&mut far);
    }
}

/// A request that fails where it should wait would be repeated at once, without end. On io_uring
/// only one fails that the kernel gives to one of its worker threads, which no test can cause. The
/// socket must block, because that thread then waits.
fn a_socket_that_does_not_block_waits_like_others(at: &Where) {
    let mut rig = Rig::new(at);
    let (near, mut far) = System.narrow_pair(4096);
    near.set_nonblocking(true).expect("an open socket");
    let kept = near.try_clone().expect("room for a descriptor");
    let stream = rig.associate(near);
    assert_ne!(blocks(&kept), Some(at.driver != Driver::Uring));
    let op = stream.socket().receive().expect("nothing else reads");
    let bytes = noise(1 << 20);
    stream.send(bytes.clone()).expect("an empty queue");
    rig.expect_nothing();
    let (before, start) = (system::processor_time(), Instant::now());
    while start.elapsed() < Duration::from_millis(500) {
        rig.pump(Duration::from_millis(500));
    }
    let used = system::processor_time() - before;
    assert!(
        used < start.elapsed() / 4,
        "{used:?} of processor time while both wait"
    );
    assert_eq!(rig.hear(&mut far, bytes.len()), bytes);
    rig.say(&mut far, b"hello");
    assert_eq!(rig.receive(stream.socket(), 5), b"hello");
    rig.port.cancel(op);
    assert_eq!(rig.ended(op).how, End::Cancelled);
}

/// Whether a socket blocks, if the system reports it.
#[cfg(unix)]
fn blocks(socket: &Socket) -> Option<bool> {
    let flags = rustix::fs::fcntl_getfl(socket).expect("an open socket");
    Some(!flags.contains(rustix::fs::OFlags::NONBLOCK))
}

#[cfg(not(unix))]
fn blocks(_: &Socket) -> Option<bool> {
    None
}

/// The mode belongs to the socket, and a duplicate changes it at any time.
fn a_mode_that_changes_later_loses_nothing(at: &Where) {
    let mut rig = Rig::new(at);
    let (near, mut far) = System.narrow_pair(4096);
    let kept = near.try_clone().expect("room for a descriptor");
    let stream = rig.associate(near);
    for nonblocking in [true, false, true] {
        kept.set_nonblocking(nonblocking).expect("an open socket");
        let bytes = noise(100_000);
        let sent = stream.send_reported(bytes.clone()).expect("a short queue");
        let op = stream
            .socket()
            .receive_into(vec![0; 5])
            .expect("nothing else reads");
        rig.expect_nothing();
        assert_eq!(rig.hear(&mut far, bytes.len()), bytes);
        let packet = rig.expect("the outcome of a send", |packet| packet.op == sent);
        assert!(matches!(packet.event, Event::Sent { .. }), "{packet:?}");
        rig.say(&mut far, b"hello");
        let packet = rig.expect("the bytes", |packet| packet.op == op);
        assert!(matches!(packet.event, Event::ReceivedInto { count: 5, .. }));
    }
}

/// With a peer that reads as fast as this side sends, a call would go on as long as there are
/// bytes, with the socket locked for every other thread.
fn a_large_send_goes_out_in_parts_that_end(at: &Where) {
    const BYTES: usize = 64 << 20;
    /// Several times, because the far end may not be running meanwhile.
    const SENDS: usize = 8;
    let mut rig = Rig::new(at);
    let (near, far) = pair();
    let stream = rig.associate(near);
    let came = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&came);
    let reader = thread::spawn(move || {
        let mut buffer = vec![0; 1 << 22];
        while count.load(Ordering::Acquire) < SENDS * BYTES {
            let read = system::read_away(&far, &mut buffer);
            if read == 0 {
                return; // The case has failed.
            }
            count.fetch_add(read, Ordering::Release);
        }
    });
    let mut bytes = vec![7; BYTES];
    for round in 0..SENDS {
        let op = stream.send_reported(bytes).expect("an empty queue");
        let sent = came.load(Ordering::Acquire) - round * BYTES;
        assert!(sent <= 8 << 20, "nobody waits, and {sent} bytes are out");
        let packet = rig.expect("the outcome of a send", |packet| packet.op == op);
        bytes = match packet.event {
            Event::Sent { buffer, .. } => buffer.into_vec(),
            other => panic!("not asked for: {other:?}"),
        };
        rig.until("what was sent", |_| {
            (came.load(Ordering::Acquire) == (round + 1) * BYTES).then_some(())
        });
    }
    reader.join().expect("it only reads");
}

/// The caller asks for the time stamps of its sends. The system queues them as messages of the
/// socket's error queue, and reports POLLERR as long as they are there.
fn messages_in_the_error_queue_end_nothing(at: &Where) {
    let mut rig = Rig::new(at);
    let (near, mut far) = pair();
    system::stamp_sends(&near);
    let stream = rig.associate(near);
    let socket = stream.socket();
    let send = |rig: &mut Rig, far: &mut TcpStream| {
        stream.send("stamped").expect("an empty queue");
        rig.expect_nothing();
        far.read_exact(&mut [0; 7]).expect("it was sent");
    };
    let watch = socket.watch().expect("nothing else reads");
    (0..3).for_each(|_| send(&mut rig, &mut far));
    assert_eq!(rig.port.cancel(watch), Cancel::Requested);
    assert_eq!(rig.ended(watch).how, End::Cancelled);
    // A receive into an empty buffer waits for bytes.
    let nothing = socket.receive_into(Vec::new()).expect("nothing else reads");
    send(&mut rig, &mut far);
    far.write_all(b"hello").expect("an open connection");
    let packet = rig.expect("something to read", |packet| packet.op == nothing);
    let was_read = matches!(packet.event, Event::ReceivedInto { count: 0, .. });
    assert!(was_read, "{packet:?}");
    let into = socket.receive_into(vec![0; 5]).expect("nothing else reads");
    let packet = rig.expect("the bytes", |packet| packet.op == into);
    let was_read = matches!(packet.event, Event::ReceivedInto { count: 5, .. });
    assert!(was_read, "{packet:?}");
    // A watch that begins with messages in the queue waits as well, and reports the real end.
    let watch = socket.watch().expect("nothing else reads");
    send(&mut rig, &mut far);
    drop(far);
    let packet = rig.expect("the peer's end", |packet| packet.op == watch);
    assert!(
        matches!(packet.event, Event::PeerLeft(Leave::Finished)),
        "{packet:?}"
    );
}
