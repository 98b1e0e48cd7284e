//! Graceful shutdown of a port: it sends what is queued, sends FIN, and reports what it could not
//! do.

use std::net::{TcpListener, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use wharf_port::{Close, ErrorKind, Event, Key, Port, Wait};

use crate::rig::case::{Case, Where, case, several_waiters, threads_apart};
use crate::rig::peer::{Heard, Peer};
use crate::rig::system::{self, patience};
use crate::rig::{Rig, noise};

pub(crate) const CASES: &[Case] = &[
    case!(
        a_graceful_shutdown_sends_what_is_queued,
        [C14, C11],
        "contract"
    ),
    case!(
        a_port_whose_grace_is_over_cuts_the_rest_and_counts_it,
        [C14, C11],
        "contract"
    ),
    case!(
        a_port_that_ends_in_order_takes_nothing_new,
        [C14],
        "contract"
    ),
    case!(
        a_port_with_nothing_to_send_ends_without_its_grace,
        [C14, C11],
        "contract"
    ),
    case!(
        earlier_closes_are_reported_before_the_end,
        [C14, C11, C16],
        "contract"
    ),
    case!(every_waiter_sees_a_graceful_shutdown, [C14, C4], "contract").skip(apart),
    case!(
        a_port_without_a_waiter_ends_in_order_at_once,
        [C14],
        "contract"
    ),
    case!(
        a_port_whose_last_waiter_leaves_while_it_ends_is_closed,
        [C14],
        "found by reading: open for ever, its grace long over"
    ),
    case!(
        a_socket_that_comes_while_a_port_ends_does_not_hold_it_up,
        [C14, C4],
        "found from outside: 1 to 5 % of such ends took their whole grace"
    )
    .skip(threads_apart),
];

fn apart(at: &Where) -> Option<&'static str> {
    several_waiters(at).or(threads_apart(at))
}

const LONG: Duration = Duration::from_secs(3_600);

type Told = (Vec<u8>, Option<Heard>);

/// Waits until the port is closed while these peers listen; returns what each of them heard, and
/// the packets that came.
fn wait_for_the_end(
    rig: &mut Rig,
    peers: &mut [Box<dyn Peer>],
) -> (Vec<Told>, Vec<wharf_port::Packet>) {
    let deadline = Instant::now() + patience(20);
    let mut told: Vec<Told> = peers.iter().map(|_| (Vec::new(), None)).collect();
    let mut packets = Vec::new();
    loop {
        assert!(Instant::now() < deadline, "{:?}", rig.port.stats());
        let waited = rig.waiter().wait(Some(Duration::from_millis(1)));
        match waited.expect("the port is not broken") {
            Wait::Packets(batch) => packets.extend(batch),
            Wait::TimedOut => {}
            Wait::Closed => break,
        }
        for (peer, told) in peers.iter_mut().zip(&mut told) {
            hear(&mut **peer, told);
        }
    }
    (told, packets)
}

fn hear(peer: &mut dyn Peer, told: &mut Told) {
    while told.1.is_none() {
        match peer.try_receive(1 << 20) {
            Heard::Bytes(bytes) => told.0.extend(bytes),
            Heard::Nothing => return,
            end => told.1 = Some(end),
        }
    }
}

/// The rest of what a peer receives of a port that is gone.
fn hear_the_rest(peer: &mut dyn Peer, told: &mut Told) {
    let deadline = Instant::now() + patience(20);
    while told.1.is_none() {
        assert!(Instant::now() < deadline, "{} bytes, no end", told.0.len());
        hear(peer, told);
        thread::yield_now();
    }
}

fn a_graceful_shutdown_sends_what_is_queued(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.send_queue_bytes_max(64 << 20));
    let bytes = noise(8 << 20);
    let mut peers = Vec::new();
    for number in 0..5 {
        let (stream, peer) = rig.connection();
        peers.push(peer);
        if number != 1 {
            stream.socket().receive().expect("nothing else reads");
        }
        stream.send(bytes.clone()).expect("an empty queue");
        stream.send("the end").expect("room");
        match number {
            2 => drop(stream),
            3 => {
                stream.shutdown().expect("the first");
                stream.set_aside();
            }
            4 => rig.pump(Duration::ZERO),
            _ => {
                stream.set_aside();
            }
        }
    }
    rig.port.shutdown(LONG);
    let (mut told, packets) = wait_for_the_end(&mut rig, &mut peers);
    assert!(packets.is_empty(), "nobody is told: {packets:?}");
    rig.drop_waiter();
    for (peer, told) in peers.iter_mut().zip(&mut told) {
        hear_the_rest(&mut **peer, told);
        assert_eq!(told.1, Some(Heard::Finished));
        assert_eq!(told.0.len(), bytes.len() + 7);
        assert!(told.0.starts_with(&bytes) && told.0.ends_with(b"the end"));
    }
    let stats = rig.port.stats();
    assert_eq!((stats.streams_cut, stats.bytes_unsent), (0, 0));
    rig.allowed.packets = true;
}

fn a_port_whose_grace_is_over_cuts_the_rest_and_counts_it(at: &Where) {
    const BYTES: usize = 64 << 20;
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let (other, other_peer) = rig.connection();
    stream.send(vec![7; BYTES]).expect("an empty queue");
    other.send("short").expect("an empty queue");
    stream.set_aside();
    other.set_aside();
    rig.port.shutdown(Duration::from_millis(50));
    let mut others = [other_peer];
    let (mut told, _) = wait_for_the_end(&mut rig, &mut others);
    rig.drop_waiter();
    hear_the_rest(&mut *others[0], &mut told[0]);
    assert_eq!(told[0], (b"short".to_vec(), Some(Heard::Finished)));
    let stats = rig.port.stats();
    assert_eq!(stats.streams_cut, 1);
    assert!(
        (1..=BYTES as u64).contains(&stats.bytes_unsent),
        "{stats:?}"
    );
    assert_eq!(system::hear_the_end(&mut peer), Heard::Reset);
}

fn a_port_that_ends_in_order_takes_nothing_new(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, _peer) = rig.connection();
    let _waiting = rig.dial();
    let accepted = rig.accepted();
    stream.send(vec![7; 64 << 20]).expect("an empty queue");
    rig.port.shutdown(LONG);
    let closed = ErrorKind::Closed;
    assert_eq!(stream.send("x").unwrap_err().error.kind(), closed);
    assert_eq!(stream.socket().receive().unwrap_err().kind(), closed);
    let refused = rig.port.associate(accepted, Key(1)).unwrap_err();
    assert_eq!(refused.error.kind(), closed);
    let listened = rig.port.listen(([127, 0, 0, 1], 0), Key(1));
    assert_eq!(listened.unwrap_err().kind(), closed);
    let connected = rig.port.connect(([127, 0, 0, 1], 9), Key(1));
    assert_eq!(connected.unwrap_err().kind(), closed);
    // The time can only become shorter.
    rig.port.shutdown(Duration::ZERO);
    rig.port.shutdown(LONG);
    let (_, packets) = wait_for_the_end(&mut rig, &mut []);
    assert!(packets.is_empty(), "nobody is told: {packets:?}");
    drop(refused);
}

fn a_port_with_nothing_to_send_ends_without_its_grace(at: &Where) {
    let mut rig = Rig::new(at);
    let (idle, idle_peer) = rig.connection();
    let (reading, reading_peer) = rig.connection();
    let (watching, watching_peer) = rig.connection();
    reading.socket().receive().expect("nothing else reads");
    watching.socket().watch().expect("nothing else reads");
    let (silent, _guard) = rig.network.silent();
    rig.port.connect(silent, Key(7)).expect("room");
    let far = Instant::now() + LONG;
    rig.port.timer(far, Key(1)).expect("room");
    rig.pump(Duration::ZERO);
    rig.port.shutdown(Duration::MAX);
    let mut peers = [idle_peer, reading_peer, watching_peer];
    let (mut told, packets) = wait_for_the_end(&mut rig, &mut peers);
    assert!(packets.is_empty(), "nobody is told: {packets:?}");
    rig.drop_waiter();
    for (peer, told) in peers.iter_mut().zip(&mut told) {
        hear_the_rest(&mut **peer, told);
        assert_eq!(*told, (Vec::new(), Some(Heard::Finished)));
    }
    drop((idle, reading, watching));
}

fn earlier_closes_are_reported_before_the_end(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, peer) = rig.connection();
    let bytes = noise(4 << 20);
    let sent = stream.send_reported(bytes.clone()).expect("an empty queue");
    let close = stream.close(Close::Flush).expect("it is open");
    rig.port.post(Key(3), 33).expect("room");
    rig.port.shutdown(LONG);
    let mut peers = [peer];
    let (mut told, packets) = wait_for_the_end(&mut rig, &mut peers);
    rig.drop_waiter();
    hear_the_rest(&mut *peers[0], &mut told[0]);
    assert_eq!(told[0].1, Some(Heard::Finished));
    assert!(told[0].0 == bytes, "the bytes differ");
    let of = |op| packets.iter().filter(move |packet| packet.op == op);
    let outcome = of(sent).next().map(|packet| &packet.event);
    assert!(matches!(outcome, Some(Event::Sent { .. })), "{packets:?}");
    let outcome = of(close).next().map(|packet| &packet.event);
    assert!(matches!(outcome, Some(Event::Closed)), "{packets:?}");
    let posted = |packet: &&wharf_port::Packet| matches!(packet.event, Event::Posted(33));
    assert_eq!(packets.iter().filter(posted).count(), 1);
    assert_eq!(packets.len(), 3, "{packets:?}");
}

fn every_waiter_sees_a_graceful_shutdown(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, peer) = rig.connection();
    let bytes = noise(8 << 20);
    stream.send(bytes.clone()).expect("an empty queue");
    stream.set_aside();
    let (port, ready) = (rig.port.clone(), Barrier::new(5));
    let (mut told, peers) = thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut waiter = port.waiter().expect("room for a few");
                ready.wait();
                loop {
                    match waiter.wait(None).expect("the port is not broken") {
                        Wait::Packets(batch) => batch.for_each(drop),
                        Wait::TimedOut => panic!("there was no limit"),
                        Wait::Closed => return,
                    }
                }
            });
        }
        ready.wait();
        port.shutdown(LONG);
        let mut peers = [peer];
        let (told, _) = wait_for_the_end(&mut rig, &mut peers);
        (told, peers)
    });
    rig.drop_waiter();
    for (mut peer, told) in peers.into_iter().zip(&mut told) {
        hear_the_rest(&mut *peer, told);
        assert_eq!(told.1, Some(Heard::Finished));
        assert!(told.0 == bytes, "the bytes differ");
    }
}

fn a_port_without_a_waiter_ends_in_order_at_once(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    stream.set_aside();
    rig.drop_waiter();
    rig.port.shutdown(LONG);
    assert_eq!(system::hear_the_end(&mut peer), Heard::Finished);
    assert_eq!(rig.port.waiter().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(rig.port.stats().sockets, 0);
}

fn a_port_whose_last_waiter_leaves_while_it_ends_is_closed(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    stream.send(vec![7; 64 << 20]).expect("an empty queue");
    stream.set_aside();
    rig.port.shutdown(LONG);
    assert_eq!(rig.port.stats().streams_cut, 0);
    rig.drop_waiter();
    let refused = rig.port.post(Key(1), 1).unwrap_err();
    assert_eq!(refused.error.kind(), ErrorKind::Closed);
    assert_eq!(rig.port.stats().streams_cut, 1);
    assert_eq!(system::hear_the_end(&mut peer), Heard::Reset);
}

/// Requests of a thread on a port that another thread ends meanwhile.
fn come_in(port: &Port, round: usize, to: std::net::SocketAddr, sockets: Vec<TcpStream>) {
    match round % 3 {
        0 => sockets.into_iter().for_each(|socket| {
            if let Ok(stream) = port.associate(socket, Key(1)) {
                stream.set_aside();
            }
        }),
        1 => (0..8).for_each(|_| _ = port.connect(to, Key(2))),
        _ => (0..8).for_each(|_| {
            // It stays open, as long as the port lets it.
            std::mem::forget(port.listen(([127, 0, 0, 1], 0), Key(3)));
        }),
    }
}

fn a_socket_that_comes_while_a_port_ends_does_not_hold_it_up(at: &Where) {
    // Each has many system calls, which take long under Wine.
    let rounds = if at.wine { 30 } else { 240 };
    for round in 0..rounds {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let to = listener.local_addr().expect("a bound socket");
        let mut ends = Vec::new();
        let mut connect = || {
            ends.push(TcpStream::connect(to).expect("it listens"));
            listener.accept().expect("it has connected").0
        };
        let count = if round % 3 == 0 { 8 } else { 0 };
        let sockets: Vec<TcpStream> = (0..count).map(|_| connect()).collect();
        let port = at.builder().build().expect("the driver was present before");
        let mut waiter = port.waiter().expect("a fresh port has room");
        let go = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                go.wait();
                come_in(&port, round, to, sockets);
            });
            go.wait();
            (0..round % 40 * 20).for_each(|_| std::hint::spin_loop());
            port.shutdown(LONG);
        });
        let deadline = Instant::now() + patience(20);
        while !matches!(waiter.wait(Some(Duration::from_secs(1))), Ok(Wait::Closed)) {
            assert!(Instant::now() < deadline, "{round}: {:?}", port.stats());
        }
    }
}
