//! Space for sends: what `SendReady` promises after a refusal, and which waiter gets it.
//!
//! The peers here read little by little, so a queue goes through every state between full and
//! empty.

use wharf_port::{Event, SocketRef};

use crate::cases::send::fill;
use crate::rig::Rig;
use crate::rig::case::{Case, Where, case};
use crate::rig::peer::{Heard, Peer};

pub(crate) const CASES: &[Case] = &[
    case!(
        send_ready_means_room_for_half_of_the_bytes,
        [C7],
        "a mutation that reported it at any space"
    ),
    case!(
        send_ready_means_room_for_half_of_the_sends,
        [C7, C13],
        "a mutation that reported it at any space"
    ),
];

/// One request submits at most this much of a queue, less than half of the bound.
const EACH: usize = 64 << 10;
/// What a peer reads at a time.
const SIP: usize = 256 << 10;

/// Fills the queue, and lets the peer read until there is space; returns the number of bytes it has
/// not read yet.
fn fill_until_ready(rig: &mut Rig, socket: SocketRef, peer: &mut Box<dyn Peer>) -> usize {
    let mut left = fill(socket, EACH);
    rig.until("room again", |rig| {
        match peer.try_receive(SIP) {
            Heard::Bytes(bytes) => left -= bytes.len(),
            Heard::Nothing => {}
            end => rig.fail(&format!("{end:?} with {left} bytes left")),
        }
        rig.find(|packet| matches!(packet.event, Event::SendReady))
    });
    left
}

fn send_ready_means_room_for_half_of_the_bytes(at: &Where) {
    const BOUND: usize = 16 << 20;
    let mut rig = Rig::with(at, |builder| builder.send_queue_bytes_max(BOUND));
    let (stream, mut peer) = rig.connection();
    let left = fill_until_ready(&mut rig, stream.socket(), &mut peer);
    let half = vec![b'.'; BOUND / 2];
    stream.send(half).expect("room for half of the bound");
    rig.hear(&mut peer, left + BOUND / 2);
    rig.expect_nothing();
}

fn send_ready_means_room_for_half_of_the_sends(at: &Where) {
    const SENDS: usize = 256;
    let mut rig = Rig::with(at, |builder| {
        builder
            .send_queue_bytes_max(1 << 30)
            .operations_per_socket_max(SENDS as u32)
    });
    let (stream, mut peer) = rig.connection();
    let left = fill_until_ready(&mut rig, stream.socket(), &mut peer);
    for _ in 0..SENDS / 2 {
        stream.send("x").expect("room for half of the sends");
    }
    rig.hear(&mut peer, left + SENDS / 2);
    rig.expect_nothing();
}
