//! What a port costs: bytes of heap per idle socket, and allocations per echo and per timer.
//!
//! This is a separate binary, because the counting allocator applies to the whole process. The
//! clients are in a second process, so that the descriptors are enough for 19,000 connections; it
//! is this binary again, with an environment variable for its role. Unix only: the figure for
//! Windows is the size of a slot, asserted at its definition.

#![cfg(unix)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use wharf_port::{
    Builder, Cancel, Close, DriverChoice, Event, Key, ListenOptions, Listener, Op, Port, Stream,
    Wait, Waiter, drivers_present,
};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// The profiler belongs to the process: one test at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const BYTES_PER_SOCKET_MAX: f64 = 64.0;
const TIMERS: u64 = 1_000_000;
/// One for each chunk of 4,096 timers, and the growth of the list of chunks and of the packet
/// queue.
const TIMER_ALLOCATIONS_MAX: u64 = TIMERS.div_ceil(4096) + 32;
const BYTES_PER_TIMER_MAX: f64 = 41.0;
/// A longer queue frees its memory once it is empty, and must grow again.
const CANCELLED_IN_A_ROW: usize = 32;
const ROLE: &str = "WHARF_TEST_CONNECT";

/// The other process: opens the connections, reports that, and holds them until its input closes.
#[test]
fn role_of_the_clients() {
    let Ok(role) = std::env::var(ROLE) else {
        return; // An ordinary run of the tests; there is nothing to check in this one.
    };
    let (address, count) = role.split_once(' ').expect("an address and a count");
    let address: SocketAddr = address.parse().expect("an address");
    let count: usize = count.parse().expect("a count");
    let held: Vec<TcpStream> = (0..count)
        .map(|_| TcpStream::connect(address).expect("the server listens"))
        .collect();
    println!("\nheld {}", held.len());
    std::io::stdout().flush().expect("the parent reads");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

struct Clients(Child);

impl Clients {
    fn connect(address: SocketAddr, count: usize) -> Self {
        let child = Command::new(std::env::current_exe().expect("a test has a binary"))
            .args(["--exact", "role_of_the_clients", "--nocapture"])
            .env(ROLE, format!("{address} {count}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the binary runs again");
        Clients(child)
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn ports() -> impl Iterator<Item = (String, Builder)> {
    drivers_present().into_iter().flat_map(|kind| {
        let builder = Port::builder().driver(DriverChoice::Require(kind));
        [
            (format!("{kind}, shared"), builder.shared()),
            (format!("{kind}, single waiter"), builder.single_waiter()),
        ]
    })
}

fn listen(port: &Port) -> (Listener, SocketAddr) {
    let options = ListenOptions::new(([127, 0, 0, 1], 0));
    let listener = port.listen(options, Key(90)).expect("loopback listens");
    listener
        .socket()
        .accept()
        .expect("a fresh listener accepts");
    let address = listener.local_addr().expect("a listener has an address");
    (
        listener,
        address.as_socket_addr().expect("an internet address"),
    )
}

/// Passes every packet to `handle` until it returns that it has seen enough. It hangs if nothing
/// comes for a minute; the time of 19,000 connections depends on the machine.
fn pump(waiter: &mut Waiter, mut handle: impl FnMut(wharf_port::Packet) -> bool) {
    let mut heard_at = Instant::now();
    let mut done = false;
    while !done {
        let silent = heard_at.elapsed() > Duration::from_secs(60);
        assert!(!silent, "what was expected never came");
        if let Wait::Packets(packets) = waiter.wait(Some(Duration::from_secs(1))).expect("waits") {
            for packet in packets {
                done |= handle(packet);
            }
            heard_at = Instant::now();
        }
    }
}

#[test]
fn an_idle_socket_costs_at_most_64_bytes() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, builder) in ports() {
        for count in [10_000, 19_000] {
            let profiler = dhat::Profiler::builder().testing().build();
            let before = dhat::HeapStats::get().curr_bytes;
            let port = builder.build().expect("the driver is present");
            let mut waiter = port.waiter().expect("the first waiter");
            let (_listener, address) = listen(&port);
            let clients = Clients::connect(address, count);
            let mut held = 0;
            pump(&mut waiter, |packet| {
                if let Event::Accepted(accepted) = packet.event {
                    let stream = port.associate(accepted, Key(100 + held)).expect("room");
                    stream.set_aside().watch().expect("nothing else reads");
                    held += 1;
                }
                held == count as u64
            });
            // The last submissions are queued until the next wait: the port is not idle yet.
            let _ = waiter.wait(Some(Duration::ZERO)).expect("waits");
            let bytes = dhat::HeapStats::get().curr_bytes - before;
            let each = bytes as f64 / count as f64;
            let table = port.stats().table_bytes;
            println!("{name}: {count} held, {each:.1} bytes each; a table of {table}");
            // What the port reports of itself is most of what it costs, and no more than that.
            assert!(
                table <= bytes && table * 4 >= bytes * 3,
                "{name}: {table} of {bytes}"
            );
            assert!(
                each <= BYTES_PER_SOCKET_MAX,
                "{name}: {each:.1} bytes per held socket"
            );
            drop((clients, waiter, port));
            drop(profiler);
        }
    }
}

/// The memory of a connect in flight is freed when it is done.
#[test]
fn a_socket_that_connected_costs_no_more() {
    const COUNT: usize = 300;
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, builder) in ports() {
        let profiler = dhat::Profiler::builder().testing().build();
        let port = builder.build().expect("the driver is present");
        let mut waiter = port.waiter().expect("the first waiter");
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback listens");
        let address = listener.local_addr().expect("a bound socket");
        let mut far = Vec::with_capacity(COUNT);
        let mut before = 0;
        for held in 0..COUNT {
            if held == 10 {
                // The table exists, and queues have their full length.
                before = dhat::HeapStats::get().curr_bytes;
            }
            port.connect(address, Key(1)).expect("room");
            pump(&mut waiter, |packet| match packet.event {
                Event::Connected(stream) => {
                    stream.set_aside().watch().expect("nothing else reads");
                    true
                }
                other => panic!("{name}: {other:?}"),
            });
            far.push(listener.accept().expect("it has connected"));
        }
        let _ = waiter.wait(Some(Duration::ZERO)).expect("waits");
        let bytes = dhat::HeapStats::get().curr_bytes.saturating_sub(before);
        let each = bytes as f64 / (COUNT - 10) as f64;
        assert!(
            each <= BYTES_PER_SOCKET_MAX,
            "{name}: {each:.1} bytes per connected socket"
        );
        drop((far, waiter, port));
        drop(profiler);
    }
}

#[test]
fn an_echo_allocates_nothing() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, builder) in ports() {
        let profiler = dhat::Profiler::builder().testing().build();
        let port = builder.build().expect("the driver is present");
        let mut waiter = port.waiter().expect("the first waiter");
        let (_listener, address) = listen(&port);
        let mut client = TcpStream::connect(address).expect("the server listens");
        client.set_nodelay(true).expect("a connected socket");
        pump(&mut waiter, |packet| {
            let Event::Accepted(accepted) = packet.event else {
                return false;
            };
            let stream = port.associate(accepted, Key(100)).expect("room");
            stream.set_aside().receive().expect("nothing else reads");
            true
        });
        let mut echo = |times: usize| {
            for _ in 0..times {
                client.write_all(&[7; 64]).expect("the server reads");
                pump(&mut waiter, |packet| {
                    let Event::Received(lease) = packet.event else {
                        return false;
                    };
                    packet.socket.send(lease).expect("the queue is empty");
                    true
                });
                // A completion driver's send goes out at the next wait.
                let _ = waiter.wait(Some(Duration::ZERO)).expect("waits");
                client.read_exact(&mut [0; 64]).expect("the echo");
            }
        };
        echo(100);
        // The harness allocates on its own thread when another test ends; the port would do so in
        // every round.
        let rounds = (0..5).map(|_| {
            let before = dhat::HeapStats::get().total_blocks;
            echo(1_000);
            dhat::HeapStats::get().total_blocks - before
        });
        let allocations = rounds.min().expect("five rounds");
        println!("{name}: {allocations} allocations in 1,000 echoes");
        assert_eq!(
            allocations, 0,
            "{name}: an echo in the steady state allocates"
        );
        drop(profiler);
    }
}

/// Arms `TIMERS` and cancels them all, taking their packets as a server would.
fn arm_and_cancel(port: &Port, waiter: &mut Waiter, ops: &mut Vec<Op>) {
    let later = Instant::now() + Duration::from_secs(3600);
    for (key, seconds) in (0..TIMERS).zip((0..3600).cycle()) {
        let deadline = later + Duration::from_secs(seconds);
        ops.push(port.timer(deadline, Key(key)).expect("there is room"));
    }
    assert_eq!(port.stats().timers as u64, TIMERS);
    while !ops.is_empty() {
        let run = ops.drain(ops.len().saturating_sub(CANCELLED_IN_A_ROW)..);
        let mut left = run.len();
        for op in run {
            assert_eq!(port.cancel(op), Cancel::Requested);
        }
        pump(waiter, |packet| {
            assert!(matches!(packet.event, Event::TimerCancelled));
            left -= 1;
            left == 0
        });
    }
    assert_eq!(port.stats().timers, 0);
}

#[test]
fn a_million_timers_allocate_a_table_once_and_nothing_per_timer() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, builder) in ports() {
        let port = builder.build().expect("the driver is present");
        let mut waiter = port.waiter().expect("the first waiter");
        let mut ops = Vec::with_capacity(TIMERS as usize);
        let profiler = dhat::Profiler::builder().testing().build();
        let mut round = || {
            let before = dhat::HeapStats::get();
            arm_and_cancel(&port, &mut waiter, &mut ops);
            let after = dhat::HeapStats::get();
            let blocks = after.total_blocks - before.total_blocks;
            (blocks, after.curr_bytes.saturating_sub(before.curr_bytes))
        };
        let (blocks, bytes) = round();
        // The harness allocates on its own thread when another test ends; the port would do so in
        // every round.
        let later = (0..2).map(|_| round().0).min().expect("two rounds");
        println!(
            "{name}: {blocks} allocations and {bytes} bytes for a million timers, then {later}"
        );
        assert!(
            blocks <= TIMER_ALLOCATIONS_MAX,
            "{name}: a table of a million timers takes {blocks} allocations"
        );
        assert!(
            bytes as f64 / TIMERS as f64 <= BYTES_PER_TIMER_MAX,
            "{name}: a table of a million timers takes {bytes} bytes"
        );
        assert_eq!(later, 0, "{name}: a timer in the steady state allocates");
        drop(profiler);
    }
}

/// Closing is part of the cost of a port: every table entry and descriptor is freed.
#[test]
fn a_thousand_rounds_leave_nothing_behind() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, builder) in ports() {
        let port = builder.build().expect("the driver is present");
        let mut waiter = port.waiter().expect("the first waiter");
        let (_listener, address) = listen(&port);
        for round in 0..1_000 {
            let client = TcpStream::connect(address).expect("the server listens");
            let mut client = Some(client);
            pump(&mut waiter, |packet| match packet.event {
                Event::Accepted(accepted) => {
                    let stream = port.associate(accepted, Key(100)).expect("room");
                    stream.set_aside().receive().expect("nothing else reads");
                    drop(client.take());
                    false
                }
                Event::Ended { .. } => {
                    packet.socket.close(Close::Flush).expect("closed once");
                    false
                }
                Event::Closed => true,
                other => panic!("{name}, round {round}: {other:?}"),
            });
        }
        assert_eq!(port.stats().sockets, 1, "{name}: only the listener is left");
        assert_eq!(port.stats().leases, 0, "{name}");
    }
}

/// Not a limit but a linear cost: four sizes, and the cost of one connection stays the same. It
/// counts the processor time of this process, including the kernel, because other load does not
/// change it.
#[test]
#[ignore = "it measures: run it by name, in a release build"]
fn closing_takes_time_in_proportion_to_the_number() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    println!(
        "| driver | connections | each closed: ms | us each | the port closed: ms | us each |"
    );
    println!("|---|---|---|---|---|---|");
    for (name, builder) in ports() {
        for count in [2_375, 4_750, 9_500, 19_000] {
            let us_of = |close: fn(&Port, &mut Waiter, Vec<Stream>)| {
                let port = || builder.build().expect("the driver is present");
                // The lower of two is less disturbed.
                let times = [(); 2].map(|()| closing(port(), count, close));
                times.into_iter().min().expect("two").as_secs_f64() * 1e6
            };
            let (sockets, port) = (us_of(close_each), us_of(close_port));
            let each = count as f64;
            println!(
                "| {name} | {count} | {:.1} | {:.2} | {:.1} | {:.2} |",
                sockets / 1e3,
                sockets / each,
                port / 1e3,
                port / each
            );
        }
    }
}

fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("it counts up from 0")
}

/// The processor time that `close` takes for this number of connections, each with an armed
/// receive.
fn closing(port: Port, count: usize, close: fn(&Port, &mut Waiter, Vec<Stream>)) -> Duration {
    let mut waiter = port.waiter().expect("the first waiter");
    let (listener, address) = listen(&port);
    let clients = Clients::connect(address, count);
    let mut streams = Vec::with_capacity(count);
    pump(&mut waiter, |packet| {
        if let Event::Accepted(accepted) = packet.event {
            let stream = port.associate(accepted, Key(100)).expect("room");
            stream.socket().receive().expect("nothing else reads");
            streams.push(stream);
        }
        streams.len() == count
    });
    let _ = waiter.wait(Some(Duration::ZERO)).expect("waits");
    let start = processor_time();
    close(&port, &mut waiter, streams);
    // A socket that no waiter waits for is closed when it cannot be reached any more.
    drop((listener, waiter, port));
    let took = processor_time() - start;
    drop(clients);
    took
}

fn close_each(_: &Port, waiter: &mut Waiter, streams: Vec<Stream>) {
    let mut left = streams.len();
    for stream in streams {
        stream.close(Close::Flush).expect("closed once");
    }
    pump(waiter, |packet| {
        left -= usize::from(matches!(packet.event, Event::Closed));
        left == 0
    });
}

fn close_port(port: &Port, waiter: &mut Waiter, streams: Vec<Stream>) {
    port.close();
    while !matches!(waiter.wait(None).expect("waits"), Wait::Closed) {}
    drop(streams);
}
