//! Submitting: a send on an idle socket and on a busy one, and a streaming receive.
//!
//! The cost of a submission depends on the driver: io_uring queues a request for the next wait,
//! readiness makes its system call at once, and a send on a busy socket only joins its queue.

use std::io::{ErrorKind, Read as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use rustix::net::sockopt;
use wharf_port::{Close, Event, Key, Port, SocketRef, Waiter};

use crate::kind::{Kind, take};

/// Sockets that are submitted to in a row before a cleanup.
const SOCKETS: usize = 256;
/// Sends that join the queue of one busy socket.
const QUEUED: usize = 4096;
/// The buffer of a busy socket, which one send of `BULK` more than fills.
const BUFFER: usize = 64 * 1024;
static MESSAGE: [u8; 64] = [7; 64];
static BULK: [u8; 4 << 20] = [7; 4 << 20];

pub(crate) fn all(criterion: &mut Criterion) {
    for (name, measure) in [
        ("send to an idle socket", idle as fn(Kind, u64) -> Duration),
        ("send to a busy socket", busy),
        ("receive", receive),
    ] {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(1));
        for kind in Kind::on_systems() {
            group.bench_function(kind.to_string(), |bencher| {
                bencher.iter_custom(|times| measure(kind, times));
            });
        }
        group.finish();
    }
}

/// A socket of the port, and its far end.
fn pair(port: &Port, listener: &TcpListener, buffer: Option<usize>) -> (SocketRef, TcpStream) {
    let address = listener.local_addr().expect("a listener has an address");
    let near = TcpStream::connect(address).expect("loopback connects");
    near.set_nodelay(true).expect("TCP_NODELAY");
    let (far, _) = listener.accept().expect("it has connected");
    far.set_nonblocking(true).expect("O_NONBLOCK");
    if let Some(bytes) = buffer {
        sockopt::set_socket_send_buffer_size(&near, bytes).expect("SO_SNDBUF");
        sockopt::set_socket_recv_buffer_size(&far, bytes).expect("SO_RCVBUF");
    }
    let near = port.associate(near, Key(100)).expect("there is room");
    (near.set_aside(), far)
}

fn listener() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).expect("loopback listens")
}

/// Submits to `SOCKETS` at a time until the count is reached, and cleans up after each round.
fn rounds(
    kind: Kind,
    times: u64,
    mut submit: impl FnMut(SocketRef),
    mut clean: impl FnMut(&Port, &mut Waiter, &mut [(SocketRef, TcpStream)]),
) -> Duration {
    let (port, mut waiter) = kind.build();
    let listener = listener();
    let mut pairs: Vec<_> = (0..SOCKETS).map(|_| pair(&port, &listener, None)).collect();
    let mut spent = Duration::ZERO;
    let mut left = times;
    while left > 0 {
        let round = SOCKETS.min(usize::try_from(left).unwrap_or(SOCKETS));
        let start = Instant::now();
        for (socket, _) in &pairs[..round] {
            submit(*socket);
        }
        spent += start.elapsed();
        clean(&port, &mut waiter, &mut pairs[..round]);
        left -= round as u64;
    }
    spent
}

fn idle(kind: Kind, times: u64) -> Duration {
    let submit = |socket: SocketRef| {
        socket.send(&MESSAGE).expect("the queue is empty");
    };
    rounds(kind, times, submit, |_, waiter, pairs| {
        for (_, far) in pairs {
            while !is_there(far) {
                // Submits what is queued; a send without an error is no packet.
                let _ = waiter.wait(Some(Duration::ZERO)).expect("the port works");
            }
        }
        let _ = waiter.wait(Some(Duration::ZERO)).expect("the port works");
    })
}

/// Reads the message of this round, if it has come.
fn is_there(far: &mut TcpStream) -> bool {
    match far.read_exact(&mut [0; MESSAGE.len()]) {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) => panic!("the message was to come: {error}"),
    }
}

fn receive(kind: Kind, times: u64) -> Duration {
    let mut ops = Vec::with_capacity(SOCKETS);
    let ops = std::cell::RefCell::new(&mut ops);
    let submit = |socket: SocketRef| {
        let op = socket.receive().expect("nothing else reads");
        ops.borrow_mut().push(op);
    };
    rounds(kind, times, submit, |port, waiter, _| {
        // The system has them before they are cancelled.
        let _ = waiter.wait(Some(Duration::ZERO)).expect("the port works");
        let mut ops = ops.borrow_mut();
        for op in ops.iter() {
            port.cancel(*op);
        }
        take(waiter, ops.len(), |packet| {
            matches!(packet.event, Event::Ended { .. })
        });
        ops.clear();
    })
}

fn busy(kind: Kind, times: u64) -> Duration {
    let builder = kind.builder().operations_per_socket_max(2 * QUEUED as u32);
    let builder = builder.send_queue_bytes_max(2 * BULK.len());
    let port = builder.build().expect("the driver is present");
    let mut waiter = port.waiter().expect("the first waiter");
    let listener = listener();
    let mut spent = Duration::ZERO;
    let mut left = times;
    while left > 0 {
        let round = QUEUED.min(usize::try_from(left).unwrap_or(QUEUED));
        let (socket, far) = pair(&port, &listener, Some(BUFFER));
        socket.send(&BULK[..]).expect("the queue is empty");
        let _ = waiter.wait(Some(Duration::ZERO)).expect("the port works");
        let start = Instant::now();
        for _ in 0..round {
            socket.send(&MESSAGE).expect("there is room in the queue");
        }
        spent += start.elapsed();
        socket.close(Close::Reset).expect("closed once");
        take(&mut waiter, 1, |packet| {
            matches!(packet.event, Event::Closed)
        });
        drop(far);
        left -= round as u64;
    }
    spent
}
