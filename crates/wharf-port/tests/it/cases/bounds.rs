//! Bounds: set when the port is built, refused with the value when reached, never exceeded.

use std::time::{Duration, Instant};

use wharf_port::{Builder, Close, ErrorKind, Event, Key, Op, Operation, PoolOptions, Stream};

use crate::cases::connect::{connected, taken};
use crate::rig::case::{Case, Driver, Where, case, direct};

use crate::rig::peer::{Host, Peer};
use crate::rig::system::patience;
use crate::rig::{Rig, noise};

pub(crate) const CASES: &[Case] = &[
    case!(
        a_full_table_refuses_every_kind_of_socket,
        [C13, C3],
        "contract"
    )
    .skip(crate::rig::case::descriptors),
    case!(
        an_accepted_socket_has_its_place_already,
        [C13, C12],
        "contract"
    ),
    case!(
        untaken_outcomes_are_bounded,
        [C13, C7],
        "found in review: 200,000 reports of one socket"
    ),
    case!(
        small_sends_that_found_no_room_go_out_later,
        [C2, C7],
        "planted: no SendReady was delivered"
    ),
    case!(room_is_room_again_once_a_socket_is_gone, [C13], "contract"),
    case!(bounds_that_make_no_sense_are_refused, [C13], "contract"),
    case!(pools_that_make_no_sense_are_refused, [C13], "contract"),
    case!(times_that_make_no_sense_are_refused, [C13], "a review"),
    case!(the_ledger_counts_sockets_exactly, [C13], "contract"),
    case!(
        dropped_sockets_are_no_bound,
        [C13, C11],
        "found by reading: Full where nothing was held"
    )
    .skip(ends_at_once),
    case!(
        places_that_are_given_up_are_no_bound,
        [C13],
        "found by reading: Full where nothing was held"
    )
    .skip(direct),
];

fn ends_at_once(at: &Where) -> Option<&'static str> {
    (at.driver == Driver::Sim)
        .then_some("the simulated system tells what has ended when its clock moves, in a wait")
}

fn a_full_table_refuses_every_kind_of_socket(at: &Where) {
    let mut other = Rig::new(at);
    let mut rig = Rig::with(at, |builder| builder.sockets_max(2));
    rig.allowed.packets = true; // A listener at the bound says that it pauses.
    let mut host = other.network.listen();
    let (stream, _peer) = rig.connection();
    assert_eq!(rig.port.stats().sockets, 2, "a listener and a connection");
    let error = rig
        .port
        .listen(([127, 0, 0, 1], 0), Key(1))
        .expect_err("no room");
    assert_eq!(
        (error.kind(), error.operation()),
        (ErrorKind::Full, Operation::Listen)
    );
    assert!(error.to_string().contains("raise the bound"), "{error}");
    let error = rig
        .port
        .connect(host.address(), Key(1))
        .expect_err("no room");
    assert_eq!(
        (error.kind(), error.operation()),
        (ErrorKind::Full, Operation::Connect)
    );
    assert!(host.try_accept().is_none(), "nobody connected");
    // Another port's socket comes back whole, and serves elsewhere.
    let mut peer = other.dial();
    let accepted = other.accepted();
    let refused = rig.port.associate(accepted, Key(1)).expect_err("no room");
    assert_eq!(refused.error.kind(), ErrorKind::Full);
    let back = other
        .port
        .associate(refused.value, Key(2))
        .expect("room there");
    back.send("whole").expect("an empty queue");
    assert_eq!(other.hear(&mut peer, 5), b"whole");
    assert_eq!(rig.port.stats().sockets, 2);
    drop(stream);
}

fn an_accepted_socket_has_its_place_already(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.sockets_max(2));
    rig.allowed.packets = true; // A listener at the bound says that it pauses.
    let _peer = rig.dial();
    let accepted = rig.accepted();
    assert_eq!(
        rig.port.stats().sockets,
        2,
        "it counts before it is associated"
    );
    let error = rig
        .port
        .listen(([127, 0, 0, 1], 0), Key(1))
        .expect_err("no room");
    assert_eq!(error.kind(), ErrorKind::Full);
    let _stream = rig
        .port
        .associate(accepted, Key(1))
        .expect("its place was kept");
    assert_eq!(rig.port.stats().sockets, 2);
}

/// If sends go out at once, none of them waits in a queue, but their reports do.
fn untaken_outcomes_are_bounded(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.operations_per_socket_max(8));
    let (stream, mut peer) = rig.connection();
    for _ in 0..3 {
        for _ in 0..8 {
            stream.send_reported("report").expect("room for eight");
        }
        let refused = stream.send_reported("one too many").unwrap_err();
        assert_eq!(refused.error.kind(), ErrorKind::Full);
        assert_eq!(refused.value.len(), 12, "it comes back");
        for _ in 0..8 {
            rig.expect("a report", |it| matches!(it.event, Event::Sent { .. }));
        }
        rig.expect("room again", |it| matches!(it.event, Event::SendReady));
        rig.expect_nothing();
        assert_eq!(rig.hear(&mut peer, 48), b"report".repeat(8));
    }
    stream.send("room").expect("an empty queue");
    assert_eq!(rig.hear(&mut peer, 4), b"room");
}

/// The caller goes on until the queue is full. A send that nothing follows has a case in `room`.
fn small_sends_that_found_no_room_go_out_later(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let bytes = noise(1 << 20);
    let mut messages = bytes.chunks(64).cycle();
    let mut expected = Vec::new();
    loop {
        let message = messages.next().expect("it goes round");
        match stream.send(message.to_vec()) {
            Ok(_) => expected.extend_from_slice(message),
            Err(refused) => break assert_eq!(refused.error.kind(), ErrorKind::Full),
        }
    }
    assert!(rig.hear(&mut peer, expected.len()) == expected, "in order");
    let ready = rig.next("room again");
    assert!(matches!(ready.event, Event::SendReady));
}

fn room_is_room_again_once_a_socket_is_gone(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.sockets_max(3));
    rig.allowed.packets = true; // A listener at the bound says that it pauses.
    for _ in 0..100 {
        let (first, first_peer) = rig.connection();
        let (second, second_peer) = rig.connection();
        let full = rig.port.listen(([127, 0, 0, 1], 0), Key(1));
        assert_eq!(full.expect_err("no room").kind(), ErrorKind::Full);
        drop((first, second));
        rig.until_stats("both are gone", |stats| stats.sockets == 1);
        drop((first_peer, second_peer));
    }
}

fn bounds_that_make_no_sense_are_refused(at: &Where) {
    let builder = at.builder();
    refused(&[
        (
            "sockets_max is 0: set it from 1 to 16777216",
            builder.sockets_max(0),
        ),
        (
            "sockets_max is 16777217: set it from 1 to 16777216",
            builder.sockets_max((1 << 24) + 1),
        ),
        (
            "timers_max is 0: set it to at least 1",
            builder.timers_max(0),
        ),
        (
            "waiters_max is 65536: set it from 1 to 65535",
            builder.waiters_max(1 << 16),
        ),
        (
            "batch_max is 0: set it from 1 to 4096",
            builder.batch_max(0),
        ),
        (
            "batch_max is 1048576: set it from 1 to 4096",
            builder.batch_max(1 << 20),
        ),
        (
            "turn_packets_max is 0: set it from 1 to 255",
            builder.turn_packets_max(0),
        ),
        (
            "turn_packets_max is 256: set it from 1 to 255",
            builder.turn_packets_max(256),
        ),
        (
            "leases_per_socket is 0: set it from 1 to 65535",
            builder.leases_per_socket(0),
        ),
        (
            "operations_per_socket_max is 0: set it to at least 1",
            builder.operations_per_socket_max(0),
        ),
        (
            "accepts_posted is 65536: set it to at most 65535",
            builder.accepts_posted(1 << 16),
        ),
    ]);
    // A value that a later call replaces is no mistake.
    assert!(builder.batch_max(0).batch_max(1).build().is_ok());
    assert!(builder.build().is_ok(), "what is left alone makes sense");
}

fn pools_that_make_no_sense_are_refused(at: &Where) {
    let builder = at.builder();
    let pool = |buffer_bytes, pool_bytes_max| {
        builder.pool(
            PoolOptions::new()
                .buffer_bytes(buffer_bytes)
                .pool_bytes_max(pool_bytes_max),
        )
    };
    refused(&[
        (
            "buffer_bytes of the pool is 8 bytes: set it from 512 bytes to 1048576 bytes",
            pool(8, 1 << 20),
        ),
        (
            "buffer_bytes of the pool is 1048577 bytes: set it from 512 bytes to 1048576 bytes",
            pool((1 << 20) + 1, 1 << 31),
        ),
        (
            "pool_bytes_max of the pool is 4095 bytes: set it to buffer_bytes at least",
            pool(4_096, 4_095),
        ),
    ]);
}

fn times_that_make_no_sense_are_refused(at: &Where) {
    let builder = at.builder();
    let over_a_second = Duration::from_nanos(1_000_000_001);
    refused(&[
        (
            "flush_max is at least 4294967.295s: set it to at most 4294967.295s",
            builder.flush_max(Duration::MAX),
        ),
        (
            "spin_max is 1.000001s: set it to at most 1s",
            builder.spin_max(over_a_second),
        ),
        (
            "spin_max is at least 4294.967295s: set it to at most 1s",
            builder.spin_max(Duration::MAX),
        ),
    ]);
    let longest = Duration::from_millis(u64::from(u32::MAX));
    assert!(builder.flush_max(longest).build().is_ok());
}

/// Each of these builders is refused with its text.
fn refused(nonsense: &[(&str, Builder)]) {
    for (what, builder) in nonsense {
        let error = builder.build().err();
        let error = error.unwrap_or_else(|| panic!("{what} was taken"));
        let expected = (ErrorKind::InvalidInput, Operation::Build);
        assert_eq!((error.kind(), error.operation()), expected, "{what}");
        assert_eq!(error.to_string(), format!("build the port: {what}"));
    }
}

fn the_ledger_counts_sockets_exactly(at: &Where) {
    let mut rig = Rig::new(at);
    assert_eq!(rig.port.stats().sockets, 0);
    let mut ends = Vec::new();
    for count in 0..20 {
        ends.push(rig.connection());
        assert_eq!(rig.port.stats().sockets, 2 + count, "and the listener");
    }
    for left in (0..20u32).rev() {
        let (stream, _peer) = ends.pop().expect("there are so many");
        let socket = stream.socket();
        stream.close(Close::Flush).expect("it is open");
        rig.closed(socket);
        assert_eq!(rig.port.stats().sockets, 1 + left);
    }
}

/// Streams, as many as fit. Between two attempts no thread waits on the port.
fn fill(rig: &mut Rig, host: &mut Box<dyn Host>, room: u32) -> Vec<(Stream, Box<dyn Peer>)> {
    let deadline = Instant::now() + patience(5);
    let connect = |_| loop {
        match rig.port.connect(host.address(), Key(3)) {
            Ok(op) => break op,
            // The system may take a moment to end its requests.
            Err(error) if error.kind() == ErrorKind::Full && Instant::now() < deadline => {}
            Err(error) => panic!("nothing has a place that is not given up: {error}"),
        }
    };
    let ops: Vec<Op> = (0..room).map(connect).collect();
    let streams = ops.into_iter().map(|op| {
        let stream = connected(rig, op);
        (stream, taken(rig, host))
    });
    let streams = streams.collect();
    let full = rig.port.connect(host.address(), Key(3)).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Full);
    streams
}

/// An entry is free when the ring's thread has entered; until then its release is queued.
fn places_that_are_given_up_are_no_bound(at: &Where) {
    const PLACES: u32 = 4;
    let mut rig = Rig::with(at, |builder| at.with_places(builder, PLACES));
    let mut host = rig.network.listen();
    for _ in 0..5 {
        for (place, (stream, _)) in fill(&mut rig, &mut host, PLACES).into_iter().enumerate() {
            let how = if place % 2 == 0 {
                Close::Flush
            } else {
                Close::Reset
            };
            stream.close(how).expect("it is open");
        }
    }
    for _ in 0..5 * PLACES {
        rig.closed_quietly();
    }
}

/// Also if the system has reported their ends and no thread has waited since.
fn dropped_sockets_are_no_bound(at: &Where) {
    const SOCKETS: u32 = 4;
    let mut rig = Rig::with(at, |builder| builder.sockets_max(SOCKETS));
    let mut host = rig.network.listen();
    for _ in 0..5 {
        let streams = fill(&mut rig, &mut host, SOCKETS);
        for (stream, _) in &streams {
            stream.socket().receive().expect("nothing else reads");
        }
        rig.expect_nothing();
        drop(streams);
    }
}
