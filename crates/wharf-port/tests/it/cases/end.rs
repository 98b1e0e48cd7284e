//! The end of a port: it always works, wakes every waiter, and leaves nothing that could be written
//! to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use wharf_port::{Close, ErrorKind, Event, Key, Packet, PoolOptions, Wait};

use crate::rig::case::{Case, Where, another_port, case, linux, open_files, waiters_elsewhere};
use crate::rig::crew::crew;
use crate::rig::peer::Heard;
use crate::rig::system;
use crate::rig::{Rig, noise};

pub(crate) const CASES: &[Case] = &[
    case!(dropping_the_last_handle_closes_the_port, [C14], "contract"),
    case!(
        dropping_a_port_with_everything_in_flight,
        [C14, C3],
        "tigerbeetle #2430, ponyc #5046, compio #1018"
    )
    .alone(),
    case!(
        ports_come_and_go_without_a_trace,
        [C14],
        "compio #769, #943"
    )
    .skip(open_files)
    .alone(),
    case!(
        no_thread_keeps_an_ended_port_open,
        [C14],
        "found in review: a ring and its eventfd in a thread's cache"
    )
    .skip(linux)
    .alone(),
    case!(
        handles_of_a_closed_port_return_closed,
        [C14, C3],
        "contract"
    )
    .skip(another_port),
    case!(
        closing_from_many_threads_at_once_is_one_close,
        [C14],
        "contract"
    ),
    case!(closing_under_load_hangs_no_thread, [C14, C4], "contract").skip(waiters_elsewhere),
    case!(peers_hear_that_the_port_is_gone, [C14, C11], "contract"),
    case!(
        a_port_that_ends_cuts_streams_off_audibly,
        [C14, C11],
        "contract"
    ),
];

fn dropping_the_last_handle_closes_the_port(at: &Where) {
    let port = at.builder().build().expect("the driver was present before");
    let other = port.clone();
    let (tell, told) = std::sync::mpsc::channel();
    let sleeper = thread::spawn(move || {
        let mut waiter = port.waiter().expect("a fresh port");
        drop(port);
        tell.send(()).expect("the other thread listens");
        matches!(waiter.wait(None), Ok(Wait::Closed))
    });
    told.recv().expect("it has its waiter");
    drop(other);
    assert!(sleeper.join().expect("it wakes"), "it hears of the close");
}

/// Starts one of each operation, and leaves it pending.
pub(crate) fn start_everything(rig: &mut Rig) -> Vec<Box<dyn crate::rig::peer::Peer>> {
    let mut peers = Vec::new();
    let mut connection = |rig: &mut Rig| {
        let (stream, peer) = rig.connection();
        peers.push(peer);
        stream.set_aside()
    };
    connection(rig).receive().expect("nothing else reads");
    let into = connection(rig);
    into.receive_into(vec![1; 4_096])
        .expect("nothing else reads");
    into.receive_into(vec![2; 4_096]).expect("room");
    connection(rig).watch().expect("nothing else reads");
    let sending = connection(rig);
    sending.send(vec![3; 16 << 20]).expect("an empty queue");
    let shutting = connection(rig);
    shutting
        .send_reported(vec![4; 16 << 20])
        .expect("an empty queue");
    shutting.shutdown().expect("the first");
    let closing = connection(rig);
    closing.receive().expect("nothing else reads");
    closing.send(vec![5; 16 << 20]).expect("an empty queue");
    closing.close(Close::Flush).expect("it is open");
    let both = connection(rig);
    both.receive().expect("nothing else reads");
    both.send(vec![6; 16 << 20]).expect("an empty queue");
    rig.pump(Duration::ZERO);
    for value in 0..10 {
        rig.port.post(Key(value), value).expect("room");
    }
    let far = Instant::now() + Duration::from_secs(60);
    rig.port.timer(far, Key(1)).expect("room");
    peers
}

fn dropping_a_port_with_everything_in_flight(at: &Where) {
    let pool = PoolOptions::new().revoke_returned(true).buffer_bytes(4_096);
    for round in 0..10 {
        let mut rig = Rig::with(at, |builder| builder.pool(pool));
        rig.allowed.packets = true;
        let (talking, mut talker) = rig.connection();
        talking.socket().receive().expect("nothing else reads");
        rig.say(&mut talker, b"lent");
        let lease = rig.lease(talking.socket());
        rig.allowed.leases = 1;
        let mut peers = start_everything(&mut rig);
        let (silent, guard) = rig.network.silent();
        rig.port.connect(silent, Key(7)).expect("room");
        if round % 2 == 0 {
            rig.pump(Duration::from_millis(1));
        }
        drop(rig);
        // Data that comes now must go nowhere: the pages it could go to are revoked.
        for peer in &mut peers {
            let _ = peer.try_send(&noise(4_096));
        }
        let _ = talker.try_send(&noise(4_096));
        assert_eq!(&*lease, b"lent", "what was lent stays lent");
        drop((talking, guard));
    }
}

fn ports_come_and_go_without_a_trace(at: &Where) {
    let once = |at: &Where| {
        let mut rig = Rig::new(at);
        rig.allowed.packets = true;
        let peers = start_everything(&mut rig);
        drop((rig, peers));
    };
    once(at);
    let before = system::descriptors();
    for _ in 0..30 {
        once(at);
    }
    system::assert_descriptors(before);
}

fn no_thread_keeps_an_ended_port_open(at: &Where) {
    let before = system::descriptors();
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let socket = stream.socket();
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let (sent, has_sent) = std::sync::mpsc::channel();
    let user = thread::spawn(move || {
        socket.send("x").expect("an empty queue");
        sent.send(()).expect("the case listens");
        // It lives on, without the port.
        let _ = told.recv();
    });
    has_sent.recv().expect("it sends");
    assert_eq!(rig.hear(&mut peer, 1), b"x");
    drop((stream, rig));
    drop(peer);
    system::assert_descriptors(before);
    drop(tell);
    user.join().expect("it ends");
}

fn handles_of_a_closed_port_return_closed(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let listener = rig
        .port
        .listen(([127, 0, 0, 1], 0), Key(1))
        .expect("loopback");
    let _waiting = rig.dial();
    let accepted = rig.accepted();
    rig.port.close();
    rig.drop_waiter();
    system::hear_the_end(&mut peer);
    let closed = ErrorKind::Closed;
    assert_eq!(stream.socket().receive().unwrap_err().kind(), closed);
    let refused = stream.send(vec![9; 9]).unwrap_err();
    assert_eq!(
        (refused.error.kind(), &*refused.value),
        (closed, &[9; 9][..])
    );
    assert_eq!(listener.socket().accept().unwrap_err().kind(), closed);
    assert_eq!(
        rig.port
            .listen(([127, 0, 0, 1], 0), Key(1))
            .unwrap_err()
            .kind(),
        closed
    );
    assert_eq!(
        rig.port
            .connect(([127, 0, 0, 1], 9), Key(1))
            .unwrap_err()
            .kind(),
        closed
    );
    assert_eq!(
        rig.port.timer(Instant::now(), Key(1)).unwrap_err().kind(),
        closed
    );
    let refused = rig.port.associate(accepted, Key(1)).unwrap_err();
    assert_eq!(refused.error.kind(), closed);
    // It may still join another port.
    let other = Rig::new(at);
    drop(
        other
            .port
            .associate(refused.value, Key(1))
            .expect("room there"),
    );
    drop((stream, listener));
}

fn closing_from_many_threads_at_once_is_one_close(at: &Where) {
    for _ in 0..20 {
        let mut rig = Rig::new(at);
        let (_stream, _peer) = rig.connection();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| rig.port.close());
            }
        });
        assert!(matches!(rig.waiter().wait(None), Ok(Wait::Closed)));
    }
}

fn closing_under_load_hangs_no_thread(at: &Where) {
    let threads = if at.shared() { 4 } else { 1 };
    for round in 0..10u64 {
        let mut rig = Rig::new(at);
        let mut ends: Vec<_> = (0..8).map(|_| rig.connection()).collect();
        for (stream, _) in &ends {
            stream.socket().receive().expect("nothing else reads");
        }
        rig.drop_waiter();
        let packets = AtomicUsize::new(0);
        let handle = |_: usize, packet: Packet| {
            packets.fetch_add(1, Ordering::Relaxed);
            if let Event::Received(lease) = packet.event {
                // The port may close between the packet and the reply.
                let _ = packet.socket.send(lease);
            }
        };
        let port = rig.port.clone();
        crew(&rig.port, threads, handle, || {
            let closer = thread::spawn(move || {
                thread::sleep(Duration::from_micros(round * 500));
                port.close();
            });
            for turn in 0..400 {
                let (_, peer) = &mut ends[turn % 8];
                let _ = peer.try_send(&[0; 100]);
                let _ = peer.try_receive(1_000);
                let _ = rig.port.post(Key(1), 1);
            }
            closer.join().expect("it closes");
        });
    }
}

fn peers_hear_that_the_port_is_gone(at: &Where) {
    let mut rig = Rig::new(at);
    let mut peers = Vec::new();
    for armed in [true, false] {
        let (stream, peer) = rig.connection();
        if armed {
            stream.socket().receive().expect("nothing else reads");
        }
        stream.set_aside();
        peers.push(peer);
    }
    rig.pump(Duration::ZERO);
    drop(rig);
    for peer in &mut peers {
        system::hear_the_end(peer);
    }
}

/// A send that the end of the port had cut short used to be followed by a FIN, as if everything had
/// been sent. On the simulated network that send was never ended: it leaked.
fn a_port_that_ends_cuts_streams_off_audibly(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    stream.send(vec![7; 64 << 20]).expect("an empty queue");
    rig.pump(Duration::ZERO);
    rig.allowed.packets = true;
    drop(rig);
    assert_eq!(system::hear_the_end(&mut peer), Heard::Reset);
}
