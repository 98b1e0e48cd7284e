//! Packets that the program does not take: ends of operations and accepted connections count
//! against the bound of what made them, until they are taken.
//!
//! A program that submits and cancels without end, and never looks at the outcomes, must be refused
//! before it fills the memory. The cases wait, so that the driver goes on, and take nothing.

use std::time::{Duration, Instant};

use wharf_port::{Error, ErrorKind, Event, Key, Op, Port, SocketRef};

use crate::rig::case::{Case, Where, case, real_time};
use crate::rig::system::{allow_descriptors, patience};
use crate::rig::{LISTENER, Rig};

pub(crate) const CASES: &[Case] = &[
    case!(
        untaken_ends_of_receives_are_bounded,
        [C13],
        "found from outside: a million ends in memory"
    )
    .skip(real_time),
    case!(
        untaken_ends_of_receives_into_are_bounded,
        [C13, C3],
        "found from outside: a million ends in memory"
    )
    .skip(real_time),
    case!(
        untaken_ends_of_watches_are_bounded,
        [C13],
        "found from outside: a million ends in memory"
    )
    .skip(real_time),
    case!(
        untaken_ends_of_accepts_are_bounded,
        [C13],
        "found from outside: a million ends in memory"
    )
    .skip(real_time),
    case!(
        untaken_ends_of_shutdowns_are_bounded,
        [C13],
        "found from outside: a million ends in memory"
    ),
    case!(
        untaken_ends_of_sends_are_bounded,
        [C13, C7],
        "found from outside: a million ends in memory"
    ),
    case!(
        untaken_ends_of_timers_are_bounded,
        [C13, C17],
        "found from outside: a million ends in memory"
    ),
    case!(
        connections_that_are_not_taken_stay_in_the_backlog,
        [C13, C12],
        "contract"
    ),
    case!(
        a_request_for_many_connections_ends_if_they_are_not_taken,
        [C13, C12],
        "a mutation: the one request of io_uring went on"
    ),
];

/// The bound, and the capacity of a batch.
const MOST: usize = 4;

fn rig(at: &Where) -> Rig {
    Rig::with(at, |builder| {
        builder
            .operations_per_socket_max(MOST as u32)
            .timers_max(MOST as u32)
            .batch_max(MOST as u32)
            .send_queue_bytes_max(64 << 20)
    })
}

/// Submits and cancels until it is refused, while a waiter waits and takes nothing. Then takes all,
/// and submits once more.
fn ask_and_cancel(rig: &mut Rig, ask: impl Fn(&Port) -> Result<Op, Error>) {
    let deadline = Instant::now() + patience(20);
    let mut asked = 0;
    loop {
        match ask(&rig.port) {
            Ok(op) => {
                asked += 1;
                let _ = rig.port.cancel(op);
            }
            Err(error) if error.kind() == ErrorKind::Busy => {}
            Err(error) => break assert_eq!(error.kind(), ErrorKind::Full, "{error}"),
        }
        assert!(asked <= 10 * MOST, "nobody took one of {asked} ends");
        assert!(Instant::now() < deadline, "no end comes after {asked}");
        let waited = rig.waiter().wait(Some(Duration::ZERO));
        drop(waited.expect("waits"));
    }
    assert!(asked >= MOST, "refused after {asked}");
    for _ in 0..asked {
        rig.expect("the end of each", |packet| {
            !matches!(packet.event, Event::SendReady)
        });
    }
    ask(&rig.port).expect("all of them were taken");
    rig.allowed.packets = true;
}

fn without_buffer<T>(result: Result<Op, wharf_port::Refused<T>>) -> Result<Op, Error> {
    result.map_err(|refused| refused.error)
}

/// Submits on an idle connection.
fn of_idle(at: &Where, ask: impl Fn(SocketRef) -> Result<Op, Error>) {
    let mut rig = rig(at);
    let (stream, _peer) = rig.connection();
    let socket = stream.socket();
    ask_and_cancel(&mut rig, |_| ask(socket));
}

/// Submits on a connection whose peer does not read.
fn of_blocked(at: &Where, ask: impl Fn(SocketRef) -> Result<Op, Error>) {
    let mut rig = rig(at);
    let (stream, peer) = rig.connection();
    stream.send(vec![0; 16 << 20]).expect("an empty queue");
    rig.pump(Duration::ZERO);
    let socket = stream.socket();
    ask_and_cancel(&mut rig, |_| ask(socket));
    peer.reset();
}

fn untaken_ends_of_receives_are_bounded(at: &Where) {
    of_idle(at, |socket| socket.receive());
}

fn untaken_ends_of_receives_into_are_bounded(at: &Where) {
    of_idle(at, |socket| without_buffer(socket.receive_into(vec![0; 8])));
}

fn untaken_ends_of_watches_are_bounded(at: &Where) {
    of_idle(at, |socket| socket.watch());
}

fn untaken_ends_of_accepts_are_bounded(at: &Where) {
    let mut rig = rig(at);
    let listener = rig.port.listen(([127, 0, 0, 1], 0), LISTENER);
    let listener = listener.expect("loopback");
    ask_and_cancel(&mut rig, |_| listener.socket().accept());
}

fn untaken_ends_of_shutdowns_are_bounded(at: &Where) {
    of_blocked(at, |socket| socket.shutdown());
}

fn untaken_ends_of_sends_are_bounded(at: &Where) {
    of_blocked(at, |socket| without_buffer(socket.send("x")));
}

fn untaken_ends_of_timers_are_bounded(at: &Where) {
    let mut rig = rig(at);
    ask_and_cancel(&mut rig, |port| {
        port.timer(Instant::now() + Duration::from_secs(3_600), Key(5))
    });
}

fn connections_that_are_not_taken_stay_in_the_backlog(at: &Where) {
    const CLIENTS: usize = 64;
    let mut rig = rig(at);
    let listener = rig.port.listen(([127, 0, 0, 1], 0), LISTENER);
    let listener = listener.expect("loopback");
    let address = listener.local_addr().expect("an address");
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| rig.network.connect(&address))
        .collect();
    let _listener = listener.accept().expect("a fresh listener");
    for _ in 0..200 {
        let waited = rig.waiter().wait(Some(Duration::ZERO));
        drop(waited.expect("waits"));
    }
    let sockets = rig.port.stats().sockets as usize;
    assert!(sockets <= 1 + 2 * MOST + 1, "{sockets} sockets");
    // Once they are taken, the others come.
    let accepted: Vec<_> = (0..CLIENTS).map(|_| rig.accepted()).collect();
    rig.expect_nothing();
    drop((accepted, clients));
}

/// With a large bound, io_uring accepts one connection after the other by one request.
fn a_request_for_many_connections_ends_if_they_are_not_taken(at: &Where) {
    const MOST: usize = 512;
    const ROUNDS: usize = 15;
    const CLIENTS_OF_ROUND: usize = 100;
    allow_descriptors(4_096);
    let mut rig = Rig::with(at, |builder| builder.operations_per_socket_max(MOST as u32));
    let listener = rig.listen(([127, 0, 0, 1], 0));
    let address = listener.local_addr().expect("an address");
    let mut clients = Vec::new();
    for _ in 0..ROUNDS {
        clients.extend((0..CLIENTS_OF_ROUND).map(|_| rig.network.connect(&address)));
        for _ in 0..20 {
            let waited = rig.waiter().wait(Some(Duration::ZERO));
            drop(waited.expect("waits"));
        }
    }
    let sockets = rig.port.stats().sockets as usize;
    assert!(sockets <= 1 + 2 * MOST, "{sockets} sockets");
    // Once they are taken, the others come.
    clients.iter().for_each(|_| drop(rig.accepted()));
    rig.expect_nothing();
}
