//! Space for sends: what `SendReady` promises after a refusal, and which waiter gets it.
//!
//! Most peers here read little by little, so a queue goes through every state between full and
//! empty.

use std::time::Duration;

use wharf_port::{ErrorKind, Event, SocketRef};

use crate::cases::send::{fill, sent};
use crate::rig::Rig;
use crate::rig::case::{Case, Where, a_system, case};
use crate::rig::peer::{Heard, Peer, System};

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
    case!(
        send_ready_follows_a_refusal_though_the_sends_fail,
        [C7, C10],
        "contract"
    ),
    case!(
        a_last_send_that_found_no_space_goes_out_later,
        [C2, C7],
        "planted: a send that found no space was not registered"
    )
    .skip(a_system),
];

/// One request submits at most this much of a queue, less than half of the bound.
const EACH: usize = 64 << 10;
/// What a peer reads at a time.
const SIP: usize = 256 << 10;
/// A step of waiting for a report that may never come.
const STEP: Duration = Duration::from_millis(1);

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

/// One byte never goes out in part: the last send has found no space at all. No later call on the
/// socket makes the driver try again.
fn a_last_send_that_found_no_space_goes_out_later(at: &Where) {
    let mut rig = Rig::new(at);
    let (near, mut peer) = System.narrow_pair(4096);
    let stream = rig.associate(near);
    let mut count = 0;
    let waits = loop {
        let op = stream.send_reported("x").expect("all before it are out");
        count += 1;
        // A driver that submits sends reports them a little later.
        for _ in 0..5 {
            if !rig.has(op) {
                rig.pump(STEP);
            }
        }
        if !rig.has(op) {
            break op;
        }
        drop(sent(&mut rig, op));
    };
    rig.hear(&mut peer, count);
    drop(sent(&mut rig, waits));
    rig.expect_nothing();
}

/// A caller that waits for `SendReady` must not wait for ever. What it sends then is refused with
/// the reason.
fn send_ready_follows_a_refusal_though_the_sends_fail(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, peer) = rig.connection();
    let first = stream.send(vec![0; 16 << 20]).expect("an empty queue");
    let refused = stream.send("x").expect_err("the first is over the bound");
    assert_eq!(refused.error.kind(), ErrorKind::Full);
    rig.expect_nothing();
    peer.reset();
    assert_eq!(rig.ended(first).how.error_kind(), Some(ErrorKind::Reset));
    rig.expect("what is owed", |packet| {
        matches!(packet.event, Event::SendReady)
    });
    let refused = stream.send("x").expect_err("the write side is over");
    assert_eq!(refused.error.kind(), ErrorKind::Aborted);
    rig.expect_nothing();
}
