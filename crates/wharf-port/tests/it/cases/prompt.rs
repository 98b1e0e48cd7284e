//! Promptness: a send leaves the process even if no thread comes back to wait, and a full queue
//! means a slow peer.

use std::net::TcpListener;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use wharf_port::{Close, ErrorKind, Event, Key, Wait};

use crate::rig::case::{Case, Driver, Mode, Where, case, threads_apart};
use crate::rig::peer::{Heard, Network as _, Peer, System};
use crate::rig::system::patience;
use crate::rig::{Rig, noise};

pub(crate) const CASES: &[Case] = &[
    case!(
        a_send_of_another_thread_leaves_though_the_waiter_is_busy,
        [C7, C4],
        "measured: 270 ms late behind a handler that computed"
    )
    .skip(by_a_call),
    case!(
        a_send_leaves_though_its_thread_waited_on_a_port_that_has_ended,
        [C7, C4],
        "found by reading: half of them stayed, taken for a waiter's"
    )
    .skip(by_a_call),
    case!(
        another_thread_fills_a_queue_and_goes_on,
        [C7, C4],
        "a mutant that survived"
    )
    .skip(by_a_call),
    case!(
        a_handler_that_submits_need_not_come_back_to_wait,
        [C7],
        "contract"
    )
    .skip(moves_by_itself),
    case!(
        requests_of_another_thread_go_out_when_it_submits,
        [C4, C7],
        "a mutant that survived"
    )
    .skip(by_another_thread),
    case!(
        a_long_queue_goes_out_when_another_thread_submits,
        [C6, C7],
        "a mutant that no case came to"
    )
    .skip(by_a_call),
    case!(
        what_a_waiter_has_queued_goes_out_when_it_goes,
        [C4, C7],
        "a mutant that survived"
    )
    .skip(moves_by_itself),
    case!(
        sends_of_a_long_batch_go_out_before_it_is_over,
        [C7],
        "contract"
    )
    .skip(moves_by_itself),
    case!(
        after_a_long_handler_the_next_one_sends_at_once,
        [C7],
        "contract"
    )
    .skip(by_a_call),
    case!(
        a_handler_that_has_run_long_sends_at_once,
        [C7],
        "a mutant that survived"
    )
    .skip(by_a_call),
    case!(
        a_full_queue_has_space_once_the_peer_has_read_without_a_waiter,
        [C7],
        "measured: full after 64 KiB with a reader that was idle and fast"
    )
    .skip(moves_by_itself),
    case!(
        sends_keep_their_order_whichever_way_they_leave,
        [C6, C7],
        "contract"
    )
    .skip(by_a_call),
    case!(
        accepted_sends_go_out_though_the_port_closes,
        [C14, C11, C7],
        "measured: nothing was delivered, and the peer heard a reset"
    )
    .skip(moves_by_itself),
];

fn moves_by_itself(at: &Where) -> Option<&'static str> {
    threads_apart(at).and(Some(
        "the simulated network moves when somebody waits, and only then",
    ))
}

fn by_a_call(at: &Where) -> Option<&'static str> {
    let direct = (at.mode == Mode::Direct).then_some(
        "a send on a direct descriptor leaves when the thread of its ring waits or submits",
    );
    moves_by_itself(at).or(direct)
}

fn by_another_thread(at: &Where) -> Option<&'static str> {
    let bound = at.driver == Driver::Uring && !at.shared();
    let bound = bound.then_some("its ring is entered by its own thread alone");
    moves_by_itself(at).or(bound)
}

/// What the peer receives of `count` bytes while no thread waits on the port; calls `meanwhile`
/// again and again.
fn hear_without_waiting(peer: &mut dyn Peer, count: usize, mut meanwhile: impl FnMut()) -> Vec<u8> {
    let deadline = Instant::now() + patience(20);
    let mut heard = Vec::new();
    while heard.len() < count {
        assert!(
            Instant::now() < deadline,
            "{} of {count} bytes",
            heard.len()
        );
        match peer.try_receive(count - heard.len()) {
            Heard::Bytes(bytes) => heard.extend(bytes),
            Heard::Nothing => {
                meanwhile();
                thread::yield_now();
            }
            end => panic!("{end:?} after {} bytes", heard.len()),
        }
    }
    heard
}

/// What the peer receives of `count` bytes in good time.
fn hear_in_time(peer: &mut dyn Peer, count: usize) -> Vec<u8> {
    let deadline = Instant::now() + patience(20);
    let mut heard = Vec::new();
    while heard.len() < count && Instant::now() < deadline {
        if let Heard::Bytes(bytes) = peer.try_receive(count - heard.len()) {
            heard.extend(bytes);
        }
        thread::yield_now();
    }
    heard
}

/// The rig's waiter takes a posted packet, and does something while its batch is out.
fn within_a_batch<R>(rig: &mut Rig, handler: impl FnOnce(&mut dyn FnMut()) -> R) -> R {
    rig.port.post(Key(5), 1).expect("room");
    let found = rig.waiter().wait(None).expect("the port is not broken");
    let Wait::Packets(mut batch) = found else {
        panic!("{found:?} with a post at hand");
    };
    let posted = batch.next().expect("a batch is not empty");
    assert!(matches!(posted.event, Event::Posted(1)), "{posted:?}");
    handler(&mut || assert!(batch.next().is_none(), "one packet was posted"))
}

fn a_send_of_another_thread_leaves_though_the_waiter_is_busy(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let socket = stream.socket();
    within_a_batch(&mut rig, |_| {
        thread::scope(|scope| {
            scope.spawn(|| socket.send("hello").expect("an empty queue"));
        });
        assert_eq!(hear_without_waiting(&mut *peer, 5, || {}), b"hello");
    });
    rig.expect_nothing();
}

fn a_send_leaves_though_its_thread_waited_on_a_port_that_has_ended(at: &Where) {
    // The next port often has the memory of one that is gone.
    for _ in 0..12 {
        let old = at.builder().build().expect("the driver was present before");
        let mut waiter = old.waiter().expect("a fresh port has room");
        let waited = waiter.wait(Some(std::time::Duration::ZERO));
        assert!(matches!(waited, Ok(Wait::TimedOut)));
        drop(waited);
        old.close();
        drop((waiter, old));
        let port = at.builder().build().expect("the driver was present before");
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("a bound socket").into();
        let mut peer = System.connect(&address);
        let (socket, _) = listener.accept().expect("it has connected");
        let stream = port.associate(socket, Key(1)).expect("room");
        let (waits, heard) = (Barrier::new(2), Barrier::new(2));
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut waiter = port.waiter().expect("a fresh port has room");
                waiter
                    .wait(Some(std::time::Duration::ZERO))
                    .expect("the port is not broken");
                waits.wait();
                heard.wait(); // It is busy until then.
            });
            waits.wait();
            stream.send("hello").expect("an empty queue");
            let came = hear_in_time(&mut *peer, 5);
            heard.wait();
            assert_eq!(came, b"hello");
        });
    }
}

/// More than the peer's system takes: the rest waits for the peer, and no thread waits for that.
fn another_thread_fills_a_queue_and_goes_on(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let (socket, port) = (stream.socket(), rig.port.clone());
    let message = noise(8 << 20);
    within_a_batch(&mut rig, |_| {
        thread::scope(|scope| {
            scope.spawn(|| {
                socket.send(message.clone()).expect("an empty queue");
                (0..32).for_each(|_| port.submit());
            });
        });
    });
    let heard = rig.hear(&mut peer, message.len());
    assert!(heard == message, "other bytes than were sent");
    rig.expect_nothing();
}

fn a_handler_that_submits_need_not_come_back_to_wait(at: &Where) {
    let mut rig = Rig::new(at);
    let mut ends: Vec<_> = (0..8).map(|_| rig.connection()).collect();
    let port = rig.port.clone();
    within_a_batch(&mut rig, |_| {
        for (stream, _) in &ends {
            stream.send("hello").expect("an empty queue");
        }
        port.submit();
        for (_, peer) in &mut ends {
            assert_eq!(hear_without_waiting(&mut **peer, 5, || {}), b"hello");
        }
    });
    rig.expect_nothing();
}

/// A connect is no send, which a system call would do: it needs the ring itself.
fn requests_of_another_thread_go_out_when_it_submits(at: &Where) {
    let mut rig = Rig::new(at);
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback listens");
    let address = listener.local_addr().expect("a listener has an address");
    listener.set_nonblocking(true).expect("every system can");
    let port = rig.port.clone();
    within_a_batch(&mut rig, |_| {
        thread::scope(|scope| {
            scope.spawn(|| {
                port.connect(address, Key(6)).expect("room");
                port.submit();
            });
        });
        let deadline = Instant::now() + patience(20);
        while listener.accept().is_err() {
            assert!(Instant::now() < deadline, "nobody connects");
            thread::yield_now();
        }
    });
    let connected = rig.next("the connect's end");
    assert!(
        matches!(connected.event, Event::Connected(_)),
        "{connected:?}"
    );
    drop(connected);
    rig.expect_nothing();
}

/// One request covers some of its sends. The others follow, and each goes out once.
fn a_long_queue_goes_out_when_another_thread_submits(at: &Where) {
    const SENDS: usize = 60;
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    let bytes = noise(SENDS);
    let port = rig.port.clone();
    within_a_batch(&mut rig, |_| {
        for byte in &bytes {
            stream.send(vec![*byte]).expect("a short queue");
        }
        let heard = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !heard.load(Ordering::Acquire) {
                    port.submit();
                    thread::yield_now();
                }
            });
            let all = hear_in_time(&mut *peer, SENDS);
            heard.store(true, Ordering::Release);
            assert_eq!(all, bytes);
        });
    });
    rig.expect_nothing();
    assert!(
        matches!(peer.try_receive(1), Heard::Nothing),
        "no byte twice"
    );
}

fn what_a_waiter_has_queued_goes_out_when_it_goes(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    within_a_batch(&mut rig, |_| {
        stream.send("hello").expect("an empty queue");
    });
    rig.drop_waiter();
    assert_eq!(hear_in_time(&mut *peer, 5), b"hello");
    rig.renew_waiter();
    rig.expect_nothing();
}

fn sends_of_a_long_batch_go_out_before_it_is_over(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    within_a_batch(&mut rig, |next_packet| {
        stream.send("hello").expect("an empty queue");
        let heard = hear_without_waiting(&mut *peer, 5, next_packet);
        assert_eq!(heard, b"hello");
    });
    // A send looks at the clock as well.
    let (other, mut other_peer) = rig.connection();
    within_a_batch(&mut rig, |_| {
        stream.send("hello").expect("an empty queue");
        let heard = hear_without_waiting(&mut *peer, 5, || {
            other.send(".").expect("its peer is heard below");
            hear_without_waiting(&mut *other_peer, 1, || {
                let _ = stream.send("");
            });
        });
        assert_eq!(heard, b"hello");
    });
    rig.expect_nothing();
}

/// For several timer ticks of any system.
fn compute_for_long() {
    let begun = Instant::now();
    while begun.elapsed() < std::time::Duration::from_millis(50) {
        std::hint::spin_loop();
    }
}

/// Its first send was late, and the call that found so helped that one alone.
fn a_handler_that_has_run_long_sends_at_once(at: &Where) {
    let mut rig = Rig::new(at);
    let (first, mut first_peer) = rig.connection();
    let (second, mut second_peer) = rig.connection();
    within_a_batch(&mut rig, |_| {
        first.send("one").expect("an empty queue");
        compute_for_long();
        second.send("two").expect("an empty queue");
        assert_eq!(hear_without_waiting(&mut *second_peer, 3, || {}), b"two");
        assert_eq!(hear_without_waiting(&mut *first_peer, 3, || {}), b"one");
    });
    rig.expect_nothing();
}

/// A handler that computes for long after its send is late once, and not again.
fn after_a_long_handler_the_next_one_sends_at_once(at: &Where) {
    let mut rig = Rig::new(at);
    let (stream, mut peer) = rig.connection();
    within_a_batch(&mut rig, |_| {
        stream.send("one").expect("an empty queue");
        compute_for_long();
    });
    within_a_batch(&mut rig, |_| {
        stream.send("two").expect("an empty queue");
        assert_eq!(hear_without_waiting(&mut *peer, 6, || {}), b"onetwo");
    });
    rig.expect_nothing();
}

fn a_full_queue_has_space_once_the_peer_has_read_without_a_waiter(at: &Where) {
    const BYTES: usize = 32 << 20;
    const EACH: usize = 16 << 10;
    let mut rig = Rig::with(at, |builder| builder.send_queue_bytes_max(4 * EACH));
    let (stream, mut peer) = rig.connection();
    let deadline = Instant::now() + patience(20);
    let (mut sent, mut heard) = (0, 0);
    while heard < BYTES {
        if sent < BYTES {
            match stream.send(vec![b'.'; EACH]) {
                Ok(_) => {
                    sent += EACH;
                    // A peer that is fast, and is slow at times.
                    if sent % (8 << 20) < 7 << 20 {
                        continue;
                    }
                }
                Err(refused) => assert_eq!(refused.error.kind(), ErrorKind::Full),
            }
        } else {
            rig.port.submit();
        }
        while let Heard::Bytes(bytes) = peer.try_receive(1 << 20) {
            heard += bytes.len();
        }
        if sent == BYTES && heard < BYTES {
            // The system may have the last of it, and reports its end in a wait.
            rig.pump(std::time::Duration::ZERO);
        }
        assert!(Instant::now() < deadline, "{sent} taken, {heard} heard");
    }
    assert_eq!(heard, BYTES);
    rig.forget(|packet| matches!(packet.event, Event::SendReady));
    rig.pump(std::time::Duration::ZERO);
    rig.forget(|packet| matches!(packet.event, Event::SendReady));
}

fn sends_keep_their_order_whichever_way_they_leave(at: &Where) {
    const SENDS: usize = 600;
    let mut rig = Rig::with(at, |builder| builder.send_queue_bytes_max(4_096));
    let (stream, mut peer) = rig.connection();
    let (socket, port) = (stream.socket(), rig.port.clone());
    let mut expected = Vec::new();
    let heard = within_a_batch(&mut rig, |next_packet| {
        for number in 0..SENDS {
            let bytes = noise(1 + number * 7 % 190);
            expected.extend_from_slice(&bytes);
            let send = || socket.send(bytes).expect("the peer's side has room");
            match number % 7 {
                // Another thread; it has come to its end before the next send.
                3 => thread::scope(|scope| {
                    scope.spawn(send);
                }),
                5 => {
                    send();
                    port.submit();
                }
                6 => {
                    send();
                    next_packet();
                }
                _ => {
                    send();
                }
            }
        }
        port.submit();
        hear_without_waiting(&mut *peer, expected.len(), next_packet)
    });
    assert!(heard == expected, "the bytes differ");
    rig.expect_nothing();
}

fn accepted_sends_go_out_though_the_port_closes(at: &Where) {
    for how in 0..4 {
        let mut rig = Rig::new(at);
        rig.allowed.packets = true;
        let (stream, mut peer) = rig.connection();
        let port = rig.port.clone();
        within_a_batch(&mut rig, |_| {
            stream.send("last ").expect("an empty queue");
            stream.send(noise(9_000)).expect("room");
            match how {
                0 => drop(stream),
                1 => {
                    stream.close(Close::Flush).expect("it is open");
                }
                2 => {
                    stream.shutdown().expect("the first");
                    stream.set_aside();
                }
                _ => {
                    stream.set_aside();
                }
            }
            port.close();
        });
        drop(port);
        drop(rig);
        let heard = hear_without_waiting(&mut *peer, 9_005, || {});
        assert!(heard[..5] == *b"last " && heard[5..] == noise(9_000));
        assert_eq!(crate::rig::system::hear_the_end(&mut peer), Heard::Finished);
    }
}
