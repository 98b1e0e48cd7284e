//! Out of descriptors or slots: the listener pauses, nothing spins, and nothing is lost.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use wharf_port::{Accepted, Address, ErrorKind, Event, Key, PauseReason};

use crate::rig::case::{Case, Where, case, descriptors, linux};
use crate::rig::peer::Peer;
use crate::rig::system;
use crate::rig::{LISTENER, Rig};

pub(crate) const CASES: &[Case] = &[
    case!(
        a_listener_at_the_ports_bound_pauses_and_resumes,
        [C12, C13],
        "contract"
    ),
    case!(
        a_listener_out_of_descriptors_pauses_and_resumes,
        [C12],
        "libuv #690, tokio #3529, bun #32705"
    )
    .skip(out_of_descriptors)
    .alone(),
    case!(
        a_paused_listener_resumes_by_itself,
        [C12],
        "measured: armed under the old limit, EMFILE"
    )
    .skip(out_of_descriptors)
    .alone(),
    case!(
        a_paused_listener_resumes_by_itself_though_all_timers_are_set,
        [C12, C17],
        "found by reading: deaf for good"
    )
    .skip(out_of_descriptors)
    .alone(),
    case!(
        a_paused_listener_does_not_spin,
        [C12],
        "measured: 352,218 failures in 200 ms"
    )
    .skip(out_of_descriptors)
    .alone(),
    case!(
        a_paused_listener_has_one_timer,
        [C12, C13],
        "found from outside: 2,200 timers after 6 s of overload"
    ),
    case!(
        the_surplus_of_connections_stays_in_the_backlog,
        [C12, C13],
        "found from outside: 1,901 descriptors beyond a bound of 600"
    )
    .skip(out_of_descriptors)
    .alone(),
    case!(
        a_paused_listener_may_be_cancelled_and_closed,
        [C12, C10],
        "contract"
    ),
    case!(
        streams_wait_while_the_system_gives_no_memory,
        [C8, C5],
        "found in review: 46,762 failed waits in half a second"
    )
    .skip(linux)
    .alone(),
    case!(out_of_descriptors_has_its_kind_and_a_hint, [C9], "contract")
        .skip(linux)
        .alone(),
    case!(
        a_storm_of_resets_hurts_no_other_client,
        [C12],
        "reliability: RST before accept"
    )
    .seconds_max(60),
];

/// The history of a listener: the connections it took, and how often it paused and resumed.
fn out_of_descriptors(at: &Where) -> Option<&'static str> {
    linux(at).or_else(|| descriptors(at))
}

#[derive(Default)]
struct Seen {
    accepted: Vec<Accepted>,
    paused: usize,
    resumed: usize,
}

impl Seen {
    /// Takes what has come, and pumps once.
    fn look(&mut self, rig: &mut Rig, expected: PauseReason) {
        while let Some(packet) = rig.find(|_| true) {
            assert_eq!(packet.key, LISTENER);
            match packet.event {
                Event::Accepted(accepted) => self.accepted.push(accepted),
                Event::Paused {
                    reason, retry_in, ..
                } => {
                    assert_eq!(reason, expected);
                    assert_eq!(retry_in, Duration::from_millis(10), "the first pause");
                    self.paused += 1;
                }
                Event::Resumed => self.resumed += 1,
                other => panic!("not asked for: {other:?}"),
            }
        }
        rig.pump(Duration::from_millis(1));
    }

    fn until(&mut self, rig: &mut Rig, reason: PauseReason, done: impl Fn(&Seen) -> bool) {
        let deadline = Instant::now() + system::patience(20);
        while !done(self) {
            if Instant::now() > deadline {
                rig.fail("the listener did not come to it");
            }
            self.look(rig, reason);
        }
    }

    fn peers(&self) -> HashSet<Address> {
        let peer = |accepted: &Accepted| accepted.peer_addr().expect("the clients stay");
        self.accepted.iter().map(peer).collect()
    }
}

fn a_listener_at_the_ports_bound_pauses_and_resumes(at: &Where) {
    const REASON: PauseReason = PauseReason::SocketsMax;
    let mut rig = Rig::with(at, |builder| builder.sockets_max(3));
    let clients: Vec<_> = (0..5).map(|_| rig.dial()).collect();
    let mut seen = Seen::default();
    seen.until(&mut rig, REASON, |seen| seen.paused == 1);
    assert_eq!((seen.accepted.len(), seen.resumed), (2, 0));
    assert_eq!(rig.port.stats().listeners_paused, 1);
    let mut peers = seen.peers();
    for _ in 0..3 {
        // Space for one: it is taken at once, whenever the next attempt is due.
        drop(seen.accepted.remove(0));
        seen.until(&mut rig, REASON, |seen| seen.accepted.len() == 2);
        peers.extend(seen.peers());
    }
    assert_eq!(peers.len(), 5, "each client once");
    // With enough space nothing pauses any more, and later clients are served as usual.
    seen.accepted.clear();
    drop(clients);
    for _ in 0..100 {
        seen.look(&mut rig, REASON);
    }
    let _late = rig.dial();
    seen.until(&mut rig, REASON, |seen| seen.accepted.len() == 1);
    assert_eq!(seen.resumed, seen.paused);
    assert_eq!(rig.port.stats().listeners_paused, 0);
}

/// Connects clients that wait in the backlog of a listener without accepts.
fn waiting_clients(rig: &Rig, count: usize) -> (wharf_port::Listener, Vec<Box<dyn Peer>>) {
    let listener = rig
        .port
        .listen(([127, 0, 0, 1], 0), LISTENER)
        .expect("loopback");
    let address = listener.local_addr().expect("an address");
    let clients = (0..count).map(|_| rig.network.connect(&address)).collect();
    (listener, clients)
}

fn a_listener_out_of_descriptors_pauses_and_resumes(at: &Where) {
    const REASON: PauseReason = PauseReason::TooManyOpenFiles;
    let mut rig = Rig::new(at);
    let (listener, clients) = waiting_clients(&rig, 10);
    let _hoard = system::leave_descriptors(3);
    listener.socket().accept().expect("a fresh listener");
    let mut seen = Seen::default();
    seen.until(&mut rig, REASON, |seen| seen.paused == 1);
    for _ in 0..300 {
        seen.look(&mut rig, REASON);
    }
    let so_far = (seen.accepted.len(), seen.paused, seen.resumed);
    assert_eq!(so_far, (3, 1, 0), "it says so once");
    let mut peers = seen.peers();
    // One leaves, one comes, until all were there.
    while peers.len() < clients.len() {
        let accepted = seen.accepted.remove(0);
        let stream = rig.port.associate(accepted, Key(1)).expect("room");
        drop(stream);
        let before = seen.accepted.len();
        seen.until(&mut rig, REASON, |seen| seen.accepted.len() > before);
        peers.extend(seen.peers());
    }
    assert!(seen.resumed >= 1, "it says that it goes on");
    assert!(
        seen.paused - seen.resumed <= 1,
        "{} and {}",
        seen.paused,
        seen.resumed
    );
    rig.allowed.packets = true;
}

fn a_paused_listener_resumes_by_itself(at: &Where) {
    const REASON: PauseReason = PauseReason::TooManyOpenFiles;
    let mut rig = Rig::new(at);
    let (listener, clients) = waiting_clients(&rig, 20);
    let hoard = system::leave_descriptors(5);
    listener.socket().accept().expect("a fresh listener");
    let mut seen = Seen::default();
    seen.until(&mut rig, REASON, |seen| seen.paused == 1);
    // Nothing of the port closes; the process just has descriptors again.
    drop(hoard);
    seen.until(&mut rig, REASON, |seen| seen.accepted.len() == 20);
    assert_eq!((seen.peers().len(), seen.paused), (clients.len(), 1));
    seen.until(&mut rig, REASON, |seen| seen.resumed == 1);
    assert_eq!(rig.port.stats().listeners_paused, 0);
}

fn a_paused_listener_resumes_by_itself_though_all_timers_are_set(at: &Where) {
    const REASON: PauseReason = PauseReason::TooManyOpenFiles;
    let mut rig = Rig::with(at, |builder| builder.timers_max(1));
    let far = Instant::now() + Duration::from_secs(3_600);
    let timer = rig.port.timer(far, Key(1)).expect("the first");
    let (listener, clients) = waiting_clients(&rig, 20);
    let hoard = system::leave_descriptors(5);
    listener.socket().accept().expect("a fresh listener");
    let mut seen = Seen::default();
    seen.until(&mut rig, REASON, |seen| seen.paused == 1);
    drop(hoard);
    seen.until(&mut rig, REASON, |seen| seen.accepted.len() == 20);
    assert_eq!(seen.peers().len(), clients.len());
    seen.until(&mut rig, REASON, |seen| seen.resumed == 1);
    rig.port.cancel(timer);
    rig.expect("its end", |packet| packet.op == timer);
}

fn a_paused_listener_does_not_spin(at: &Where) {
    const REASON: PauseReason = PauseReason::TooManyOpenFiles;
    let mut rig = Rig::new(at);
    let (listener, _clients) = waiting_clients(&rig, 10);
    let before = system::processor_time();
    let hoard = system::leave_descriptors(2);
    listener.socket().accept().expect("a fresh listener");
    let mut seen = Seen::default();
    seen.until(&mut rig, REASON, |seen| seen.paused == 1);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        rig.pump(Duration::from_secs(1));
    }
    drop(hoard);
    let used = system::processor_time() - before;
    assert!(
        used < start.elapsed() / 10,
        "{used:?} of processor time while it pauses"
    );
    rig.allowed.packets = true;
}

/// Each socket that closes wakes the listener, which finds space for one and is full again.
fn a_paused_listener_has_one_timer(at: &Where) {
    const REASON: PauseReason = PauseReason::SocketsMax;
    let mut rig = Rig::with(at, |builder| builder.sockets_max(3));
    let (listener, clients) = waiting_clients(&rig, 60);
    let listener = listener.accept().expect("a fresh listener");
    let mut seen = Seen::default();
    seen.until(&mut rig, REASON, |seen| seen.paused == 1);
    for _ in 0..50 {
        let stats = rig.port.stats();
        assert!(stats.timers <= 1, "{} timers", stats.timers);
        drop(seen.accepted.remove(0));
        seen.until(&mut rig, REASON, |seen| seen.accepted.len() == 2);
    }
    drop(listener);
    drop(seen);
    assert_eq!(rig.port.stats().timers, 0, "it went with the listener");
    rig.allowed.packets = true;
    rig.allowed.accepted_untaken = rig.port.stats().accepted_untaken;
    drop(clients);
}

fn the_surplus_of_connections_stays_in_the_backlog(at: &Where) {
    const REASON: PauseReason = PauseReason::SocketsMax;
    system::allow_descriptors(4_096);
    let mut rig = Rig::with(at, |builder| builder.sockets_max(600));
    let (listener, clients) = waiting_clients(&rig, 1_200);
    let before = system::descriptors();
    let listener = listener.accept().expect("a fresh listener");
    let mut seen = Seen::default();
    seen.until(&mut rig, REASON, |seen| seen.paused > 0);
    assert_eq!(seen.accepted.len(), 599, "and the listener itself");
    let surplus = system::descriptors() - before - seen.accepted.len();
    assert!(surplus <= 1, "{surplus} descriptors beyond the bound");
    drop(listener);
    rig.until_stats("the listener is gone", |stats| stats.sockets == 599);
    let untaken = rig.port.stats().accepted_untaken;
    assert_eq!(untaken, surplus as u64, "what nobody took is counted");
    rig.allowed.accepted_untaken = untaken;
    drop((seen, clients));
}

fn a_paused_listener_may_be_cancelled_and_closed(at: &Where) {
    let mut rig = Rig::with(at, |builder| builder.sockets_max(2));
    let (listener, _clients) = waiting_clients(&rig, 3);
    let accept = listener.socket().accept().expect("a fresh listener");
    let mut seen = Seen::default();
    seen.until(&mut rig, PauseReason::SocketsMax, |seen| seen.paused == 1);
    assert_eq!(rig.port.cancel(accept), wharf_port::Cancel::Requested);
    assert_eq!(rig.ended(accept).how, wharf_port::End::Cancelled);
    assert_eq!(rig.port.stats().listeners_paused, 0);
    seen.accepted.clear();
    rig.expect_nothing();
    let accept = listener.socket().accept().expect("the first is over");
    seen.until(&mut rig, PauseReason::SocketsMax, |seen| seen.paused == 2);
    let socket = listener.socket();
    listener.close().expect("it is open");
    assert_eq!(rig.ended(accept).how, wharf_port::End::Aborted);
    rig.closed(socket);
    assert_eq!(rig.port.stats().listeners_paused, 0);
    seen.accepted.clear();
    rig.expect_nothing();
    assert_eq!(rig.port.stats().sockets, 0);
}

fn out_of_descriptors_has_its_kind_and_a_hint(at: &Where) {
    let mut rig = Rig::new(at);
    let address = rig.address();
    let hoard = system::leave_descriptors(0);
    let listening = rig.port.listen(([127, 0, 0, 1], 0), Key(1)).map(drop);
    let connecting = rig.port.connect(address, Key(1)).map(drop);
    for result in [listening, connecting] {
        let error = result.expect_err("there is no descriptor");
        assert_eq!(error.kind(), ErrorKind::TooManyOpenFiles);
        let text = error.to_string();
        assert!(text.contains("limit"), "the limit and what to do: {text}");
    }
    drop(hoard);
    assert_eq!(rig.port.stats().sockets, 1, "nothing is left of them");
    let (stream, mut peer) = rig.connection();
    stream.send("on").expect("an empty queue");
    assert_eq!(rig.hear(&mut peer, 2), b"on");
}

fn a_storm_of_resets_hurts_no_other_client(at: &Where) {
    let mut rig = Rig::new(at);
    rig.allowed.packets = true;
    let (good, mut good_peer) = rig.connection();
    good.socket().receive().expect("nothing else reads");
    for round in 0..20u8 {
        let mut storm = 50;
        while storm > 0 {
            rig.dial().reset();
            storm -= 1;
        }
        // A client that stays is served among them, and so is one from before.
        let mut peer = rig.dial();
        rig.say(&mut peer, &[round]);
        rig.say(&mut good_peer, &[round]);
        assert_eq!(rig.receive(good.socket(), 1), [round]);
        rig.until("the one that stays", |rig| {
            while let Some(accepted) = rig.find_accepted() {
                let stream = rig.port.associate(accepted, Key(1)).expect("room");
                stream.set_aside().receive().expect("nothing else reads");
            }
            let done = rig.find(
                |packet| matches!(&packet.event, Event::Received(lease) if **lease == [round]),
            );
            while let Some(packet) = rig.find(|packet| matches!(packet.event, Event::Ended { .. }))
            {
                packet
                    .socket
                    .close(wharf_port::Close::Reset)
                    .expect("it is open");
            }
            done
        });
    }
    let paused = rig.find(|packet| matches!(packet.event, Event::Paused { .. }));
    assert!(paused.is_none(), "an attacker could pause the listener");
}

/// No lease is out that could return, so only the port itself can try again.
fn streams_wait_while_the_system_gives_no_memory(at: &Where) {
    const STREAMS: usize = 5;
    let mut rig = Rig::new(at);
    let mut ends: Vec<_> = (0..STREAMS).map(|_| rig.connection()).collect();
    for (_, peer) in &mut ends {
        rig.say(peer, b"x");
    }
    // The memory for timers is allocated already: a program without heap memory aborts.
    let timer = rig.port.timer(Instant::now(), Key(1)).expect("room");
    rig.expect("a timer", |packet| packet.op == timer);
    let limit = system::leave_no_memory();
    for (stream, _) in &ends {
        stream.socket().receive().expect("nothing else reads");
    }
    for _ in 0..20 {
        // No error of the wait, and no packet.
        rig.pump(Duration::from_millis(1));
        let timers = rig.port.stats().timers;
        assert!(timers <= 1, "one try is due for all of them");
    }
    // On a slow machine that try was made in the last of these waits, and the next one asks again.
    rig.until_stats("a try that is due", |stats| stats.timers == 1);
    assert!(rig.find(|_| true).is_none(), "there was memory");
    rig.port.post(Key(1), 1).expect("room");
    let posted = rig.expect("a post", |packet| packet.key == Key(1));
    drop((posted, limit));
    for (stream, _) in &ends {
        assert_eq!(rig.receive(stream.socket(), 1), b"x");
    }
    rig.until_stats("the timer to be over", |stats| stats.timers == 0);
}
