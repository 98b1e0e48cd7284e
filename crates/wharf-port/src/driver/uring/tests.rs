//! Events between two reports of the kernel, which no case can produce on demand. These tests make
//! the reports up, or request them.

use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::Uring;
use super::request::{self, Kind, Name};
use crate::core::{Core, Out};
use crate::sys::Handle;
use crate::{DriverChoice, DriverKind, Event, Key, Port, Wait, Waiter, lock};

/// Returns a shared port with `sockets_max` slots, and its driver, or `None` if io_uring is not
/// allowed.
fn port_with(sockets_max: u32) -> Option<(Port, *const Uring)> {
    let builder = Port::builder().driver(DriverChoice::Require(DriverKind::Uring));
    let like = builder.sockets_max(sockets_max).build();
    let like = like
        .inspect_err(|error| println!("skipped: {error}"))
        .ok()?;
    let options = *like.core.options();
    let uring = Box::new(Uring::new(&options).expect("as the other one"));
    let seen: *const Uring = &raw const *uring;
    let core = Core::new(options, uring, like.driver().clone());
    Some((Port { core }, seen))
}

/// Returns two sockets that are connected to each other.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("a bound socket");
    let near = TcpStream::connect(address).expect("it listens");
    let (far, _) = listener.accept().expect("it has connected");
    (near, far)
}

fn receive(waiter: &mut Waiter, text: &[u8]) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while Instant::now() < deadline {
        let waited = waiter.wait(Some(Duration::from_millis(100)));
        if let Wait::Packets(mut batch) = waited.expect("waits") {
            if let Some(packet) = batch.next() {
                assert!(matches!(&packet.event, Event::Received(lease) if **lease == *text));
                return;
            }
        }
    }
    panic!("nothing came");
}

/// The thread that asked the kernel to wait for the peer's end may be gone. The kernel then cancels
/// its request, but not the receive of the stream.
#[test]
fn a_cancelled_guard_is_armed_again() {
    use std::io::Write;
    let Some((port, uring)) = port_with(8) else {
        return;
    };
    // SAFETY: the port owns its driver, and lives as long as this test.
    let uring = unsafe { &*uring };
    let (near, mut far) = pair();
    let stream = port.associate(near, Key(1)).expect("room");
    let id = stream.socket().slot_id();
    let mut waiter = port.waiter().expect("a fresh port");
    stream.socket().receive().expect("nothing else reads");
    for text in ["one", "two"] {
        far.write_all(text.as_bytes()).expect("the peer stays");
        receive(&mut waiter, text.as_bytes());
    }
    let is_guarded = || {
        let state = port.core.lock(id, Out::queue()).expect("it is open");
        state.is_guarded()
    };
    if !uring.caps_streams {
        assert!(!is_guarded(), "each receive is of one shot there");
        return;
    }
    assert!(is_guarded());
    let name = Name::of(Kind::Guard, id);
    uring.ring.push(request::cancel(name));
    for _ in 0..5 {
        let waited = waiter.wait(Some(Duration::from_millis(5)));
        assert!(matches!(waited, Ok(Wait::TimedOut)));
    }
    assert!(is_guarded(), "it was armed again");
}

/// Another thread may give a place back between two reports of one listener.
#[test]
fn connections_without_a_place_are_delivered_in_order() {
    let Some((port, uring)) = port_with(2) else {
        return;
    };
    // SAFETY: the port owns its driver, and lives as long as this test.
    let uring = unsafe { &*uring };
    let listen = || port.listen(([127, 0, 0, 1], 0), Key(1)).expect("a place");
    let (listener, other) = (listen(), listen());
    listener.socket().accept().expect("a fresh listener");
    let id = listener.socket().slot_id();
    let (first, second) = pair();
    let came = [first.as_raw_fd(), second.as_raw_fd()];
    let deliver = |socket: TcpStream| {
        let mut locked = port.core.lock(id, Out::queue()).expect("it is open");
        uring.deliver_accepted(&mut locked, Handle::from(socket));
    };
    deliver(first);
    drop(other);
    assert_eq!(port.stats().sockets, 1, "there is a place now");
    deliver(second);
    let numbers = |undelivered: &[(_, Handle)]| -> Vec<_> {
        undelivered.iter().map(|(_, it)| it.as_raw_fd()).collect()
    };
    assert_eq!(
        numbers(&lock(&uring.undelivered)),
        came,
        "in the order in which they came"
    );
    drop(listener);
    port.close();
    assert_eq!(port.stats().accepted_untaken, 2, "no caller took them");
}
