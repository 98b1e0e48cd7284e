//! Watching: when the peer leaves, and how, without reading what it sent.

use wharf_port::{End, ErrorKind, Event, Leave};

use crate::cases::receive::failed_as;
use crate::rig::Rig;
use crate::rig::case::{Case, Driver, Where, case};

pub(crate) const CASES: &[Case] = &[
    case!(a_watch_reports_a_fin, [C2, C9], "wepoll"),
    case!(a_watch_reports_a_reset, [C2, C9], "wepoll"),
    case!(
        a_watch_reports_a_leave_that_came_before_it,
        [C2, C9],
        "wepoll, design 5"
    ),
    case!(data_does_not_end_a_watch, [C8], "wepoll"),
    case!(a_watch_sees_a_fin_behind_unread_data, [C9], "wepoll").skip(fin_behind_data),
];

pub(crate) fn fin_behind_data(at: &Where) -> Option<&'static str> {
    let by_polling =
        at.driver == Driver::Poll && cfg!(any(not(target_os = "linux"), wharf_polling));
    if by_polling {
        return Some("the crate `polling` does not tell of a FIN behind unread data");
    }
    at.wine
        .then_some("Wine does not tell of a FIN behind unread data")
}

fn leave(rig: &mut Rig) -> Leave {
    match rig.next("the peer's leaving").event {
        Event::PeerLeft(leave) => leave,
        other => panic!("not asked for: {other:?}"),
    }
}

fn a_watch_reports_a_fin(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    stream.socket().watch().expect("nothing else reads");
    rig.expect_nothing();
    peer.finish();
    assert_eq!(leave(&mut rig), Leave::Finished);
    rig.expect_nothing();
}

fn a_watch_reports_a_reset(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, peer) = rig.connection();
    stream.socket().watch().expect("nothing else reads");
    rig.expect_nothing();
    peer.reset();
    assert_eq!(leave(&mut rig), Leave::Reset);
    rig.expect_nothing();
    let again = stream.socket().receive().expect("the watch is over");
    assert_eq!(failed_as(rig.ended(again).how), ErrorKind::Reset);
}

/// A late watch must not wait for ever: leaving is a state, not an event.
fn a_watch_reports_a_leave_that_came_before_it(at: &Where) {
    let mut rig = Rig::new(at);
    for reset in [false, true] {
        let (stream, mut peer) = rig.connection();
        let expected = if reset {
            peer.reset();
            Leave::Reset
        } else {
            peer.finish();
            Leave::Finished
        };
        rig.expect_nothing();
        stream.socket().watch().expect("nothing else reads");
        assert_eq!(leave(&mut rig), expected);
        rig.expect_nothing();
    }
}

fn data_does_not_end_a_watch(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let watch = stream.socket().watch().expect("nothing else reads");
    rig.say(&mut peer, b"kept");
    rig.expect_nothing();
    rig.port.cancel(watch);
    assert_eq!(rig.ended(watch).how, End::Cancelled);
    stream.socket().receive().expect("the watch is over");
    assert_eq!(rig.receive(stream.socket(), 4), b"kept");
}

fn a_watch_sees_a_fin_behind_unread_data(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    stream.socket().watch().expect("nothing else reads");
    rig.say(&mut peer, b"kept");
    peer.finish();
    assert_eq!(leave(&mut rig), Leave::Finished);
    let op = stream.socket().receive().expect("the watch is over");
    assert_eq!(rig.receive(stream.socket(), 4), b"kept");
    assert_eq!(rig.ended(op).how, End::Finished);
}
