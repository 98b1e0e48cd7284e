//! Ending only the write side: after the sends, while receiving goes on.

use wharf_port::{Cancel, End, ErrorKind, Event};

use crate::rig::case::{Case, Where, case};
use crate::rig::peer::Heard;
use crate::rig::{Rig, noise};

pub(crate) const CASES: &[Case] = &[
    case!(a_shutdown_waits_behind_the_sends, [C11], "contract"),
    case!(
        a_shutdown_leaves_no_send_ready_owed,
        [C7, C11],
        "the seeds of the simulated network"
    ),
    case!(
        a_cancelled_shutdown_leaves_the_write_side_open,
        [C10, C11],
        "contract"
    ),
    case!(an_accepted_socket_can_be_shut_down, [C11], "nng #1604"),
    case!(
        after_a_shutdown_sends_are_refused_and_receives_go_on,
        [C11, C3],
        "contract"
    ),
    case!(
        half_closing_an_echo_loses_nothing,
        [C11, C8],
        "reliability: half-close, then read"
    ),
];

fn a_shutdown_waits_behind_the_sends(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let bytes = noise(8 << 20);
    stream.send(bytes.clone()).expect("an empty queue");
    let op = stream.shutdown().expect("the first");
    rig.expect_nothing();
    let (heard, end) = rig.hear_end(&mut peer);
    assert_eq!((heard.len(), end), (bytes.len(), Heard::Finished));
    assert!(heard == bytes, "the bytes differ");
    let ended = rig.ended(op);
    assert_eq!((ended.how, ended.buffer), (End::Finished, None));
    rig.expect_nothing();
}

/// The shutdown takes an entry of the queue as well: with it at the end, what follows `Full` must
/// not wait for a send that goes out after it.
fn a_shutdown_leaves_no_send_ready_owed(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.operations_per_socket_max(1));
    let (stream, mut peer) = rig.connection();
    let bytes = noise(8 << 20);
    stream.send(bytes.clone()).expect("an empty queue");
    let refused = stream.send("x").expect_err("one place");
    assert_eq!(refused.error.kind(), ErrorKind::Full);
    let op = stream.shutdown().expect("the first");
    assert_eq!(rig.hear(&mut peer, bytes.len()).len(), bytes.len());
    assert_eq!(rig.ended(op).how, End::Finished);
    rig.expect("what is owed", |packet| {
        matches!(packet.event, Event::SendReady)
    });
    rig.hear_finish(&mut peer);
    rig.expect_nothing();
}

fn a_cancelled_shutdown_leaves_the_write_side_open(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.send_queue_bytes_max(64 << 20));
    let (stream, mut peer) = rig.connection();
    let bytes = noise(16 << 20);
    stream.send(bytes.clone()).expect("an empty queue");
    let op = stream.shutdown().expect("the first");
    assert_eq!(rig.port.cancel(op), Cancel::Requested);
    assert_eq!(rig.ended(op).how, End::Cancelled);
    stream.send("and more").expect("nothing was shut down");
    let again = stream.shutdown().expect("the first was cancelled");
    let (heard, end) = rig.hear_end(&mut peer);
    assert_eq!((heard.len(), end), (bytes.len() + 8, Heard::Finished));
    assert!(heard.starts_with(&bytes) && heard.ends_with(b"and more"));
    assert_eq!(rig.ended(again).how, End::Finished);
    rig.expect_nothing();
}

fn an_accepted_socket_can_be_shut_down(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let op = stream.shutdown().expect("the first");
    assert_eq!(rig.ended(op).how, End::Finished);
    rig.hear_finish(&mut peer);
}

fn after_a_shutdown_sends_are_refused_and_receives_go_on(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let op = stream.shutdown().expect("the first");
    let refused = stream.send("late").expect_err("the write side is over");
    assert_eq!(
        (refused.error.kind(), &*refused.value),
        (ErrorKind::BrokenPipe, &b"late"[..])
    );
    let late: std::io::Error = refused.error.into();
    assert_eq!(late.kind(), std::io::ErrorKind::BrokenPipe);
    let again = stream.shutdown().expect_err("the write side is over");
    assert_eq!(again.kind(), ErrorKind::BrokenPipe);
    assert_eq!(rig.ended(op).how, End::Finished);
    stream.socket().receive().expect("nothing else reads");
    rig.say(&mut peer, b"still heard");
    assert_eq!(rig.receive(stream.socket(), 11), b"still heard");
}

fn half_closing_an_echo_loses_nothing(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let receive = stream.socket().receive().expect("nothing else reads");
    let bytes = noise(4 << 20);
    let (mut said, mut heard, mut shutdown) = (0, Vec::new(), None);
    let end = rig.until("the echo and its end", |rig| {
        while let Some(packet) = rig.find(|_| true) {
            match packet.event {
                Event::Received(lease) => {
                    stream
                        .send(lease)
                        .expect("leases are fewer than the queue holds");
                }
                Event::Ended {
                    how: End::Finished, ..
                } if packet.op == receive => {
                    shutdown = Some(stream.shutdown().expect("the first"));
                }
                Event::ShutDown {
                    how: End::Finished, ..
                } => assert_eq!(Some(packet.op), shutdown),
                other => panic!("not asked for: {other:?}"),
            }
        }
        if said < bytes.len() {
            said += peer
                .try_send(&bytes[said..])
                .expect("the port's side stays");
            if said == bytes.len() {
                peer.finish();
            }
        }
        match peer.try_receive(64 << 10) {
            Heard::Bytes(some) => heard.extend(some),
            Heard::Nothing => {}
            end => return Some(end),
        }
        None
    });
    assert_eq!((heard.len(), end), (bytes.len(), Heard::Finished));
    assert!(heard == bytes, "the bytes differ");
    rig.allowed.packets = true;
}
