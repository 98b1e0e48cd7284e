//! How a packet gets to a waiter. Whether one waits when the next is reported depends on other
//! threads. So these tests set up both cases, on the simulated network.

use std::time::Duration;

use super::Out;
use crate::core::local::Local;
use crate::core::slot::flag;
use crate::error::Operation;
use crate::sim::{Network, SimOptions};
use crate::{Event, Key, Port, Wait};

/// Makes a port that may have several waiters, and a stream of it without a turn.
fn with_stream() -> (Port, crate::Stream) {
    let port = Port::builder().sim(SimOptions::new(1)).build();
    let port = port.expect("it is always there");
    let network: Network = port.sim().expect("it was asked for");
    let mut waiter = port.waiter().expect("the first");
    let anywhere = ([127, 0, 0, 1], 0).into();
    let host = network.listen(&anywhere, 1).expect("a number of its own");
    port.connect(host.address(), Key(1)).expect("room");
    let stream = match waiter.wait(Some(Duration::from_secs(60))) {
        Ok(Wait::Packets(mut batch)) => match batch.next().expect("it has a packet").event {
            Event::Connected(stream) => stream,
            other => panic!("not asked for: {other:?}"),
        },
        other => panic!("no packet came: {other:?}"),
    };
    // The turn of that packet ends.
    assert!(matches!(
        waiter.wait(Some(Duration::ZERO)),
        Ok(Wait::TimedOut)
    ));
    drop(waiter);
    (port, stream)
}

/// In the queue the socket would wake another waiter, which could not have it.
#[test]
fn what_has_more_is_in_no_queue_while_a_waiter_has_its_turn() {
    let (port, stream) = with_stream();
    let id = stream.socket().slot_id();
    let mut local = Local::new(7, false);
    local.begin(8);
    {
        let mark = local.mark;
        let out = Out::batch(&mut local);
        let mut socket = port.core.lock(id, out).expect("it is open");
        socket.turn = mark;
        socket.look_again();
        assert!(!socket.has(flag::QUEUED));
        // Once the turn is over, the next waiter gets it.
        socket.turn = 0;
        socket.look_again();
        assert!(socket.has(flag::QUEUED));
    }
    assert!(local.later.is_empty());
    assert!(!port.core.ready.is_empty());
}

#[test]
fn a_report_goes_into_the_batch_at_hand_unless_another_waits_before_it() {
    let (port, stream) = with_stream();
    let id = stream.socket().slot_id();
    let mut local = Local::new(7, false);
    local.begin(8);
    let deliver = |sequence: u32, here: bool, local: &mut Local| {
        let out = if here {
            Out::batch(local)
        } else {
            Out::queue()
        };
        let mut socket = port.core.lock(id, out).expect("it is open");
        socket.deliver((sequence, Operation::Send), Event::SendReady);
        socket.work.as_ref().map_or(0, |work| work.pending.len())
    };
    assert_eq!(deliver(1, true, &mut local), 0, "nothing waits");
    assert_eq!(deliver(2, false, &mut local), 1, "another thread reports");
    assert_eq!(
        deliver(3, true, &mut local),
        2,
        "it would overtake the other"
    );
    assert_eq!(local.packets.len(), 1);
}
