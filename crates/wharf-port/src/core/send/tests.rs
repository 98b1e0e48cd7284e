//! What the code of a failed send says about its connection. No system produces each of the codes
//! on demand, so these tests make up the driver's report, on the simulated network.

use std::time::Duration;

use crate::core::Out;
use crate::sim::{Network, SimOptions};
use crate::{End, ErrorKind, Event, Key, Port, Wait, Waiter, sys};

fn next(waiter: &mut Waiter) -> Event {
    match waiter.wait(Some(Duration::from_secs(60))) {
        Ok(Wait::Packets(mut batch)) => batch.next().expect("a batch has a packet").event,
        other => panic!("no packet came: {other:?}"),
    }
}

/// Returns how a stream ends if a send failed with this code and then the peer finished.
fn end_after(code: i32) -> End {
    let port = Port::builder().sim(SimOptions::new(1)).build();
    let port = port.expect("it is always there");
    let network: Network = port.sim().expect("it was asked for");
    let mut waiter = port.waiter().expect("the first");
    let anywhere = ([127, 0, 0, 1], 0).into();
    let mut host = network.listen(&anywhere, 1).expect("a number of its own");
    port.connect(host.address(), Key(1)).expect("room");
    let Event::Connected(stream) = next(&mut waiter) else {
        panic!("it listens");
    };
    let mut peer = host.try_accept().expect("it has connected");
    let id = stream.socket().slot_id();
    {
        let mut socket = port.core.lock(id, Out::queue()).expect("it is open");
        socket.send_failed(code);
    }
    stream.socket().receive().expect("nothing else reads");
    peer.finish();
    match next(&mut waiter) {
        Event::Ended { how, .. } => how,
        other => panic!("not asked for: {other:?}"),
    }
}

#[test]
fn what_this_machine_lacks_breaks_no_connection() {
    for lack in sys::LACKS {
        assert_eq!(end_after(lack), End::Finished, "{lack}");
    }
    let reset = end_after(sys::RESET).error_kind();
    assert_eq!(reset, Some(ErrorKind::Reset));
}

#[test]
fn a_send_that_came_after_a_fin_leaves_the_end_in_order() {
    for code in sys::WITHOUT_A_WORD {
        assert_eq!(end_after(*code), End::Finished, "{code}");
    }
}
