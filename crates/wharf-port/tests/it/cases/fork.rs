//! Forks: a child can neither use nor end what its parent's ports hold.
//!
//! Each case has its own process, and the child does anything with its copies: the parent must not
//! notice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wharf_port::{
    Accepted, Address, Cancel, Close, ErrorKind, Event, Key, Lease, Listener, Op, Packet, Port,
    SocketRef, Stats, Stream, Wait, Waiter,
};

use crate::rig::Rig;
use crate::rig::case::{Case, Driver, Mode, Where, a_system, case};
use crate::rig::peer::{Heard, Peer};
use crate::rig::system::{descriptors, patience};

pub(crate) const CASES: &[Case] = &[
    case!(
        a_forks_child_neither_uses_nor_ends_what_its_parent_has,
        [C20, C14],
        "found in review: drops in a child ended connections of its parent"
    )
    .skip(forks)
    .alone(),
    case!(
        a_forks_child_waits_for_no_thread_of_its_parent,
        [C20],
        "pthread_atfork(3): locks that other threads held stay locked"
    )
    .skip(forks)
    .alone()
    .seconds_max(60),
];

fn forks(at: &Where) -> Option<&'static str> {
    let elsewhere = at.driver == Driver::Iocp;
    a_system(at).or(elsewhere.then_some("Windows has no fork"))
}

/// The process that continues here.
#[cfg_attr(
    not(unix),
    allow(dead_code, reason = "where there is no fork nothing makes one")
)]
enum Side {
    Child,
    /// With the process id of the child.
    Parent(i32),
}

#[cfg(unix)]
fn fork() -> Side {
    // SAFETY: the other threads of this case's process are its watchdog, which only sleeps, and those
    // of the case. What they hold of the port is what the case is about, and what they hold of the
    // system's allocator glibc sees to.
    match unsafe { libc::fork() } {
        0 => Side::Child,
        child => Side::Parent(child),
    }
}

/// Whether the child ended and said that all was well.
#[cfg(unix)]
fn ended_well(child: i32) -> bool {
    use rustix::process::{Pid, WaitOptions, waitpid};

    let child = Pid::from_raw(child).expect("the system forks");
    let waited = waitpid(Some(child), WaitOptions::empty()).expect("it is a child of this process");
    let (_, status) = waited.expect("it has ended");
    status.exit_status() == Some(0)
}

/// Ends the child without touching what other threads of its parent may have locked.
#[cfg(unix)]
fn end_child(well: bool) -> ! {
    // SAFETY: it ends the process at once.
    unsafe { libc::_exit(i32::from(!well)) }
}

#[cfg(not(unix))]
fn end_child(_: bool) -> ! {
    unreachable!("the case is skipped where there is no fork")
}

/// Whether the child ends well before it counts as hung; then it is killed.
#[cfg(unix)]
fn ends_in_time(child: i32) -> bool {
    use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

    let child = Pid::from_raw(child).expect("the system forks");
    let deadline = Instant::now() + patience(10);
    loop {
        let waited =
            waitpid(Some(child), WaitOptions::NOHANG).expect("it is a child of this process");
        if let Some((_, status)) = waited {
            return status.exit_status() == Some(0);
        }
        if Instant::now() > deadline {
            kill_process(child, Signal::KILL).expect("nobody has waited for it");
            let _ = waitpid(Some(child), WaitOptions::empty());
            return false;
        }
        std::thread::yield_now();
    }
}

#[cfg(not(unix))]
fn ends_in_time(_: i32) -> bool {
    unreachable!("the case is skipped where there is no fork")
}

#[cfg(not(unix))]
fn fork() -> Side {
    unreachable!("the case is skipped where there is no fork")
}

#[cfg(not(unix))]
fn ended_well(_: i32) -> bool {
    unreachable!("the case is skipped where there is no fork")
}

/// Everything that a child has a copy of.
struct Copies {
    port: Port,
    waiter: Waiter,
    streams: Vec<Stream>,
    leases: Vec<Lease>,
    accepted: Accepted,
    listener: Listener,
    timer: Op,
    address: Address,
}

/// Everything that a child may try: none of it has any effect.
fn try_everything(at: &Where, copies: Copies) {
    let Copies {
        port,
        mut waiter,
        mut streams,
        mut leases,
        accepted,
        listener,
        timer,
        address,
    } = copies;
    let socket = streams[0].socket();
    let of_the_port = streams.len() + 1;
    let counted = at.linux && at.mode != Mode::Direct;
    let before = if counted { descriptors() } else { 0 };
    let far = Instant::now() + Duration::from_secs(3_600);
    let errors = [
        socket.receive().map(drop),
        socket.watch().map(drop),
        socket.shutdown().map(drop),
        socket.send("from a child").map(drop).map_err(|it| it.error),
        (socket.send(leases.remove(0)).map(drop)).map_err(|it| it.error),
        (socket.receive_into(vec![0; 9]).map(drop)).map_err(|it| it.error),
        socket.close(Close::Reset).map(drop),
        streams.remove(0).close(Close::Flush).map(drop),
        listener.socket().accept().map(drop),
        listener.share_with(&port, Key(1)).map(drop),
        port.post(Key(1), 1).map_err(|it| it.error),
        port.timer(far, Key(1)).map(drop),
        port.listen(([127, 0, 0, 1], 0), Key(1)).map(drop),
        port.connect(address, Key(1)).map(drop),
        port.waiter().map(drop),
        (port.associate(accepted, Key(1)).map(drop)).map_err(|it| it.error),
    ];
    for (place, error) in errors.into_iter().enumerate() {
        let kind = error.map_err(|error| error.kind());
        assert_eq!(kind, Err(ErrorKind::Closed), "number {place}");
    }
    assert_eq!(port.cancel(timer), Cancel::NotFound);
    assert_eq!(port.stats(), Stats::default());
    assert!(matches!(waiter.wait(None), Ok(Wait::Closed)));
    drop((streams, leases, listener));
    port.close();
    if counted {
        let gone = before.saturating_sub(descriptors());
        assert!(gone >= of_the_port, "the child's copies stay open");
    }
    drop((waiter, port));
    // A port of its own it may have.
    let own = at.builder().build().expect("as in the parent");
    let mut waiter = own.waiter().expect("a fresh port");
    own.post(Key(2), 2).expect("room");
    assert!(matches!(waiter.wait(None), Ok(Wait::Packets(_))));
}

fn a_forks_child_neither_uses_nor_ends_what_its_parent_has(at: &Where) {
    let mut rig = Rig::new(at);
    rig.drop_waiter();
    let port = rig.port.clone();
    let waiter = port.waiter().expect("the rig has none");
    let mut told = Told {
        waiter,
        packets: Vec::new(),
    };
    let listener = rig.listen(([127, 0, 0, 1], 0));
    let address = listener.local_addr().expect("a listener has an address");
    let mut ends: Vec<_> = (0..3).map(|_| told.connection(&rig, &address)).collect();
    let mut leases = Vec::new();
    for (stream, peer) in &mut ends {
        stream.socket().receive().expect("nothing else reads");
        assert_eq!(peer.try_send(b"lent"), Some(4));
        leases.push(told.lease(stream.socket()));
    }
    let _accepted_peer = rig.network.connect(&address);
    let accepted = told.accepted();
    let far = Instant::now() + Duration::from_secs(3_600);
    let timer = port.timer(far, Key(5)).expect("room");
    let before = port.stats();
    let (streams, mut peers): (Vec<_>, Vec<_>) = ends.into_iter().unzip();

    let child = match fork() {
        Side::Child => {
            let waiter = told.waiter;
            let copies = Copies {
                port,
                waiter,
                streams,
                leases,
                accepted,
                listener,
                timer,
                address,
            };
            let done = crate::rig::runner::caught(|| try_everything(at, copies));
            if let Err(said) = &done {
                println!("in the child: {said}");
            }
            // Runs what a program runs at its exit, including the destructors of this thread.
            std::process::exit(i32::from(done.is_err()));
        }
        Side::Parent(child) => child,
    };
    assert!(
        ended_well(child),
        "the child could do something, or not do all"
    );

    assert_eq!(port.stats(), before, "the child has changed something");
    let nothing = told.waiter.wait(Some(Duration::from_millis(20)));
    assert!(matches!(nothing, Ok(Wait::TimedOut)), "{nothing:?}");
    drop(nothing);
    assert!(leases.iter().all(|lease| **lease == *b"lent"));
    drop(leases);
    told.talk_on(&streams, &mut peers);
    let stream = port.associate(accepted, Key(6)).expect("there is room");
    let (_another, _peer) = told.connection(&rig, &address);
    assert_eq!(port.cancel(timer), Cancel::Requested);
    drop((stream, streams));
    rig.allowed.packets = true;
}

/// The other threads are inside the ports at nearly every moment, and hold locks for which a child
/// would wait without end.
fn a_forks_child_waits_for_no_thread_of_its_parent(at: &Where) {
    const FORKS: usize = 100;
    let ports = [(); 2].map(|()| at.builder().build().expect("the driver was present before"));
    let gone: Vec<SocketRef> = ports.iter().map(gone_socket).collect();
    let over = AtomicBool::new(false);
    // Each finds its port by number, another one than the last time.
    let finds = || gone.iter().for_each(|socket| _ = socket.receive());
    let asks = || ports.iter().for_each(|port| _ = port.stats());
    let far = Instant::now() + Duration::from_secs(3_600);
    let sets = || {
        for port in &ports {
            if let Ok(timer) = port.timer(far, Key(1)) {
                port.cancel(timer);
            }
        }
    };
    let busy: [&(dyn Fn() + Sync); 3] = [&finds, &asks, &sets];
    std::thread::scope(|scope| {
        for busy in busy {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    busy();
                }
            });
        }
        let hung = (0..FORKS).find(|_| match fork() {
            Side::Child => end_child(stats_and_a_port_of_its_own(at, &ports[0])),
            Side::Parent(child) => !ends_in_time(child),
        });
        over.store(true, Ordering::Relaxed);
        assert_eq!(hung, None, "this child did not end, or not well");
    });
}

fn stats_and_a_port_of_its_own(at: &Where, parents: &Port) -> bool {
    let nothing = parents.stats() == Stats::default();
    let Ok(own) = at.builder().build() else {
        return false;
    };
    let Ok(mut waiter) = own.waiter() else {
        return false;
    };
    let posted = own.post(Key(2), 2).is_ok() && own.stats().posts == 1;
    nothing && posted && matches!(waiter.wait(None), Ok(Wait::Packets(_)))
}

/// The number of a socket that is over.
fn gone_socket(port: &Port) -> SocketRef {
    let listener = port.listen(([127, 0, 0, 1], 0), Key(1)).expect("loopback");
    let socket = listener.socket();
    drop(listener);
    assert!(socket.receive().is_err(), "it is dropped");
    socket
}

/// A waiter of the case itself, because a child drops its copy, and the packets it has taken.
struct Told {
    waiter: Waiter,
    packets: Vec<Packet>,
}

impl Told {
    fn until<T>(&mut self, mut done: impl FnMut(&mut Vec<Packet>) -> Option<T>) -> T {
        let deadline = Instant::now() + patience(20);
        loop {
            if let Some(done) = done(&mut self.packets) {
                return done;
            }
            assert!(
                Instant::now() < deadline,
                "it never came: {:?}",
                self.packets
            );
            let step = Some(Duration::from_millis(1));
            if let Wait::Packets(batch) = self.waiter.wait(step).expect("waits") {
                self.packets.extend(batch);
            }
        }
    }

    fn next(&mut self, which: impl Fn(&Packet) -> bool) -> Event {
        self.until(|packets| {
            let place = packets.iter().position(&which)?;
            Some(packets.remove(place).event)
        })
    }

    fn accepted(&mut self) -> Accepted {
        match self.next(|packet| matches!(packet.event, Event::Accepted(_))) {
            Event::Accepted(accepted) => accepted,
            _ => unreachable!("asked for"),
        }
    }

    fn connection(&mut self, rig: &Rig, to: &Address) -> (Stream, Box<dyn Peer>) {
        let peer = rig.network.connect(to);
        let accepted = self.accepted();
        let stream = rig.port.associate(accepted, Key(4)).expect("there is room");
        (stream, peer)
    }

    fn lease(&mut self, socket: SocketRef) -> Lease {
        let event = self.next(|it| it.socket == socket && matches!(it.event, Event::Received(_)));
        match event {
            Event::Received(lease) => lease,
            _ => unreachable!("asked for"),
        }
    }

    fn hears(&mut self, peer: &mut Box<dyn Peer>, bytes: &[u8]) {
        let mut heard = Vec::new();
        self.until(|_| match peer.try_receive(bytes.len()) {
            Heard::Bytes(more) => {
                heard.extend(more);
                (heard == bytes).then_some(())
            }
            Heard::Nothing => None,
            end => panic!("{end:?} instead of {bytes:?}"),
        });
    }

    /// The connections are as they were.
    fn talk_on(&mut self, streams: &[Stream], peers: &mut [Box<dyn Peer>]) {
        for (stream, peer) in streams.iter().zip(peers) {
            let sent = peer.try_send(b"still here");
            assert_eq!(sent, Some(10), "the connection is gone");
            assert_eq!(*self.lease(stream.socket()), *b"still here");
            stream.send("as before").expect("an empty queue");
            self.hears(peer, b"as before");
        }
    }
}
