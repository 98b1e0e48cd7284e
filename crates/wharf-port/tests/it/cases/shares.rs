//! Shares: a connection with much data does not shut out others, and equals get equal shares.

use std::time::{Duration, Instant};

use wharf_port::{Address, Event, Key, Packet, Stream, Wait};

use crate::rig::case::{Case, Where, case, unix_sockets};
use crate::rig::peer::Peer;
use crate::rig::system::{Directory, patience};
use crate::rig::{FIRST, Rig, noise};

/// The key of sockets that always have more.
const BUSY_KEY: Key = Key(1);

pub(crate) const CASES: &[Case] = &[
    case!(a_busy_socket_does_not_shut_out_others, [C5], "contract"),
    case!(
        bulk_does_not_keep_others_from_being_found,
        [C5],
        "found in review: a full batch asked for one event"
    )
    .skip(unix_sockets),
    case!(
        equal_bulk_has_equal_shares,
        [C5],
        "found in review: the last of several in a batch stood behind the others"
    )
    .skip(unix_sockets),
    case!(
        a_storm_of_connections_leaves_room_for_a_stream,
        [C5, C12],
        "found from outside: 64 accepts before one ready stream"
    ),
    case!(
        a_batch_holds_few_packets_of_one_socket,
        [C5, C13],
        "contract"
    ),
];

fn a_busy_socket_does_not_shut_out_others(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.batch_max(8));
    let (busy, mut busy_peer) = rig.connection();
    let (quiet, mut quiet_peer) = rig.connection();
    busy.socket().receive().expect("nothing else reads");
    quiet.socket().receive().expect("nothing else reads");
    let bytes = noise(64 << 10);
    for round in 0..20u8 {
        // As much as the system takes: there is always more of the busy one.
        fill(&mut busy_peer, &bytes);
        rig.say(&mut quiet_peer, &[round]);
        let mut of_busy = 0;
        rig.until("the quiet one's byte", |rig| {
            while rig.find(|packet| packet.socket == busy.socket()).is_some() {
                of_busy += 1;
                let _ = busy_peer.try_send(&bytes);
            }
            rig.find(|packet| packet.socket == quiet.socket())
        });
        assert!(of_busy < 10_000, "{of_busy} packets before it");
    }
    rig.allowed.packets = true;
}

/// Connections with these keys. On them space at a peer shows at once; TCP opens its window late.
fn unix_connections(
    rig: &mut Rig,
    keys: impl Iterator<Item = Key>,
) -> Vec<(Stream, Box<dyn Peer>)> {
    let directory = Directory::new();
    let address = Address::unix(directory.path().join("socket"));
    let _listener = rig.listen(address.clone());
    let connections = keys.map(|key| {
        let peer = rig.network.connect(&address);
        let accepted = rig.accepted();
        (rig.port.associate(accepted, key).expect("room"), peer)
    });
    connections.collect()
}

/// Lets the peer send as much as the system takes.
fn fill(peer: &mut Box<dyn Peer>, bytes: &[u8]) {
    while peer.try_send(bytes).is_some_and(|count| count > 0) {}
}

/// Sockets that always have more fill every batch, while many others become ready at once. The case
/// counts waits: the time of one depends on the machine.
fn bulk_does_not_keep_others_from_being_found(at: &Where) {
    const BUSY: usize = 40;
    const QUIET: usize = 40;
    const WAITS_MAX: usize = 100;
    // So small that a read of a busy one always fills it.
    let pool = wharf_port::PoolOptions::new().buffer_bytes(4096);
    let mut rig = Rig::with(at, |builder| builder.pool(pool).batch_max(256));
    let mut quiet: Vec<_> = (0..QUIET).map(|_| rig.connection()).collect();
    let mut busy = unix_connections(&mut rig, (0..BUSY).map(|_| BUSY_KEY));
    for (stream, _) in busy.iter().chain(&quiet) {
        stream.socket().receive().expect("nothing else reads");
    }
    let bytes = noise(64 << 10);
    let mut fill_all = || busy.iter_mut().for_each(|(_, peer)| fill(peer, &bytes));
    for _ in 0..20 {
        fill_all();
        rig.pump(Duration::from_millis(1));
        rig.forget(|_| true);
    }
    for (_, peer) in &mut quiet {
        assert_eq!(peer.try_send(b"x"), Some(1), "a byte always fits");
    }
    let mut waits = 0;
    for (stream, _) in &quiet {
        rig.until("a quiet one's byte", |rig| {
            let told = rig.find(|packet| packet.socket == stream.socket());
            if told.is_none() {
                rig.forget(|packet| packet.key == BUSY_KEY);
                fill_all();
                waits += 1;
            }
            told
        });
    }
    assert!(waits <= WAITS_MAX, "{waits} waits for {QUIET} sockets");
    rig.allowed.packets = true;
}

/// Sockets that always have more; each batch reads several of them. The case counts bytes after
/// many waits: a kernel's own order gives twice as much to some, and not ten times.
fn equal_bulk_has_equal_shares(at: &Where) {
    const SOCKETS: usize = 16;
    const WAITS: usize = 400;
    let mut rig = Rig::with(at, |builder| builder.batch_max(256));
    let keys = (0..SOCKETS as u64).map(|number| Key(FIRST.0 + number));
    let mut ends = unix_connections(&mut rig, keys);
    let bytes = noise(64 << 10);
    for (stream, peer) in &mut ends {
        fill(peer, &bytes);
        stream.socket().receive().expect("nothing else reads");
    }
    let mut taken = [0; SOCKETS];
    for _ in 0..WAITS {
        let Wait::Packets(batch) = rig.waiter().wait(None).expect("waits") else {
            panic!("there is always more");
        };
        for packet in batch {
            if let Event::Received(lease) = packet.event {
                taken[(packet.key.0 - FIRST.0) as usize] += lease.len();
            }
        }
        for (_, peer) in &mut ends {
            fill(peer, &bytes);
        }
    }
    let (least, most) = (taken.iter().min(), taken.iter().max());
    let (least, most) = least.zip(most).expect("there are sockets");
    assert!(*most <= 8 * *least, "no fair shares: {taken:?}");
    rig.allowed.packets = true;
}

fn a_batch_holds_few_packets_of_one_socket(at: &Where) {
    let pool = wharf_port::PoolOptions::new().buffer_bytes(512);
    let mut rig = Rig::with(at, |builder| {
        builder
            .pool(pool)
            .batch_max(64)
            .turn_packets_max(3)
            .leases_per_socket(32)
    });
    let (stream, mut peer) = rig.connection();
    rig.say(&mut peer, &noise(512 * 12));
    stream.socket().receive().expect("nothing else reads");
    let mut bytes = 0;
    while bytes < 512 * 12 {
        let Wait::Packets(batch) = rig.waiter().wait(None).expect("waits") else {
            panic!("bytes wait");
        };
        let packets: Vec<Packet> = batch.collect();
        assert!(
            packets.len() <= 3,
            "{} packets of one socket",
            packets.len()
        );
        for packet in packets {
            match packet.event {
                Event::Received(lease) => bytes += lease.len(),
                other => panic!("not asked for: {other:?}"),
            }
        }
    }
}

/// A backlog full of clients has no more of a batch than a stream may have.
fn a_storm_of_connections_leaves_room_for_a_stream(at: &Where) {
    const CLIENTS: usize = 64;
    let mut rig = Rig::with(at, |builder| builder.batch_max(64).turn_packets_max(4));
    let (stream, mut peer) = rig.connection();
    stream.socket().receive().expect("nothing else reads");
    let storm = rig
        .port
        .listen(([127, 0, 0, 1], 0), BUSY_KEY)
        .expect("loopback");
    let address = storm.local_addr().expect("an address");
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| rig.network.connect(&address))
        .collect();
    storm.socket().accept().expect("a fresh listener");
    rig.say(&mut peer, b"x");
    let (mut accepted, mut before) = (0, None);
    let deadline = Instant::now() + patience(20);
    while accepted < CLIENTS || before.is_none() {
        if Instant::now() > deadline {
            rig.fail("not all of them came");
        }
        let waited = rig.waiter().wait(Some(Duration::from_millis(1)));
        let Wait::Packets(batch) = waited.expect("waits") else {
            continue;
        };
        let mut of_batch = 0;
        for packet in batch {
            match packet.event {
                Event::Accepted(_) => of_batch += 1,
                Event::Received(_) => before = Some(accepted),
                other => panic!("not asked for: {other:?}"),
            }
        }
        assert!(of_batch <= 4, "{of_batch} of one listener in a batch");
        accepted += of_batch;
    }
    assert!(
        before.is_some_and(|before| before < CLIENTS),
        "{before:?} connections before its byte"
    );
    drop(clients);
}
