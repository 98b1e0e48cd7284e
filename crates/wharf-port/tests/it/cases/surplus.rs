//! More connections than slots: some drivers have accepted one before its slot is taken by another.
//! Those are delivered first and in their order, and end with their listener.

use std::time::Duration;

use wharf_port::{Address, Event, Key, Listener, PauseReason};

use crate::rig::Rig;
use crate::rig::case::{Case, Driver, Where, case};
use crate::rig::peer::{Heard, Peer};

pub(crate) const CASES: &[Case] = &[
    case!(
        connections_beyond_the_slots_are_delivered_in_order,
        [C12, C13],
        "a mutation that delivered the last one first"
    ),
    case!(
        connections_beyond_the_slots_come_before_later_ones,
        [C12, C13],
        "a mutation that let the later one pass by"
    ),
    case!(
        connections_beyond_the_places_end_with_their_listener,
        [C12, C11],
        "a mutation that forgot them"
    ),
];

/// Slots in addition to that of the listener.
const PLACES: usize = 5;

/// A listener with accepts in the system, and other listeners that have then taken all the slots.
fn without_places(rig: &mut Rig) -> (Listener, Address, Vec<Listener>) {
    let listener = rig.listen(([127, 0, 0, 1], 0));
    let address = listener.local_addr().expect("an address");
    rig.pump(Duration::ZERO);
    (listener, address, take_places(rig))
}

fn take_places(rig: &mut Rig) -> Vec<Listener> {
    let other = |_| rig.port.listen(([127, 0, 0, 1], 0), Key(1));
    (0..PLACES)
        .map(|number| other(number).expect("a place"))
        .collect()
}

fn with_few_places(at: &Where) -> Rig {
    let mut rig = Rig::with(at, |builder| builder.sockets_max(1 + PLACES as u32));
    // Another case checks how often a listener pauses.
    rig.allowed.packets = true;
    rig
}

fn connect(rig: &mut Rig, address: &Address) -> Box<dyn Peer> {
    let client = rig.network.connect(address);
    rig.pump(Duration::ZERO);
    client
}

fn expect_pause(rig: &mut Rig) {
    rig.expect("a pause", |packet| {
        let reason = PauseReason::SocketsMax;
        matches!(packet.event, Event::Paused { reason: it, .. } if it == reason)
    });
    assert!(rig.find_accepted().is_none(), "there was no place");
}

fn connections_beyond_the_slots_are_delivered_in_order(at: &Where) {
    let mut rig = with_few_places(at);
    let (_listener, address, mut others) = without_places(&mut rig);
    for _ in 0..2 {
        let client = |_| rig.network.connect(&address);
        let clients: Vec<_> = (0..PLACES).map(client).collect();
        expect_pause(&mut rig);
        let mut taken = Vec::new();
        for client in &clients {
            drop(others.pop());
            let accepted = rig.accepted();
            let peer = accepted.peer_addr().expect("the clients stay");
            assert_eq!(peer, client.address(), "in their order");
            taken.push(accepted);
        }
        drop(taken);
        // With enough slots a new client is served as usual, and then the slots are gone again.
        let _late = connect(&mut rig, &address);
        drop(rig.accepted());
        rig.until_stats("every place is free", |stats| stats.sockets == 1);
        rig.pump(Duration::ZERO);
        others = take_places(&mut rig);
    }
}

fn connections_beyond_the_slots_come_before_later_ones(at: &Where) {
    let mut rig = with_few_places(at);
    let (_listener, address, mut others) = without_places(&mut rig);
    let first = connect(&mut rig, &address);
    // There is a slot before the port looks at the second one.
    let second = rig.network.connect(&address);
    drop(others.pop());
    for client in [first, second] {
        let accepted = rig.accepted();
        let peer = accepted.peer_addr().expect("the clients stay");
        assert_eq!(peer, client.address(), "in their order");
        drop(accepted);
    }
}

fn connections_beyond_the_places_end_with_their_listener(at: &Where) {
    let mut rig = with_few_places(at);
    let (listener, address, _others) = without_places(&mut rig);
    let mut clients: Vec<_> = (0..PLACES).map(|_| connect(&mut rig, &address)).collect();
    expect_pause(&mut rig);
    let socket = listener.socket();
    listener.close().expect("it is open");
    rig.expect("the listener's end", |packet| {
        packet.socket == socket && matches!(packet.event, Event::Closed)
    });
    for client in &mut clients {
        rig.until("an end for the client", |_| match client.try_receive(1) {
            Heard::Nothing => None,
            Heard::Bytes(bytes) => panic!("nobody said that: {bytes:?}"),
            Heard::Finished | Heard::Reset => Some(()),
        });
    }
    // The port counts what a driver had accepted; the others were in the backlog.
    let untaken = rig.port.stats().accepted_untaken;
    let least = u64::from(at.driver == Driver::Uring);
    assert!(
        (least..=PLACES as u64).contains(&untaken),
        "{untaken} were accepted"
    );
    rig.allowed.accepted_untaken = untaken;
}
