//! What the servers and the client of the benchmark share: the work, its bytes, and the options of
//! the sockets.
//!
//! Every server gets its listener from here, so that backlog, `TCP_NODELAY` and congestion control
//! are the same for all, and no server pays a system call per connection for them: on Linux
//! accepted sockets inherit a listener's options. Everything else is the server's own.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;

use rustix::process::Signal;

/// The processor of the servers.
pub const SERVER_PROCESSOR: usize = 0;
/// The processor of the client.
pub const CLIENT_PROCESSOR: usize = 1;
/// The nice value of servers and client, if they may have it.
const PRIORITY: i32 = -10;
/// Connections the system keeps for a listener.
pub const BACKLOG: i32 = 4096;
/// The system's default may pace (bbr), which measures its timers and not the servers.
pub const CONGESTION_CONTROL: &str = "cubic";
/// Bytes of one read of small messages, at every server that chooses.
pub const SMALL_READ: usize = 4096;
/// Bytes of one read and one write in bulk.
pub const BULK: usize = 64 * 1024;

/// What a server does with its connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Sends back what comes.
    Echo,
    /// Accepts and closes at once.
    Accept,
    /// Reads and forgets.
    Sink,
    /// Sends without end.
    Source,
}

impl Work {
    /// The work called so.
    pub fn named(name: &str) -> Option<Work> {
        match name {
            "echo" => Some(Work::Echo),
            "accept" => Some(Work::Accept),
            "sink" => Some(Work::Sink),
            "source" => Some(Work::Source),
            _ => None,
        }
    }

    /// Bytes of one read.
    pub fn read_bytes(self) -> usize {
        if self == Work::Sink { BULK } else { SMALL_READ }
    }
}

/// Starts a server: reads its work from the command line and pins it.
pub fn start() -> Work {
    let name = std::env::args().nth(1).unwrap_or_default();
    let Some(work) = Work::named(&name) else {
        eprintln!("expected echo, accept, sink or source, got {name:?}");
        std::process::exit(2);
    };
    pin(SERVER_PROCESSOR);
    work
}

/// Keeps this process on one processor, with priority over other processes if the system allows it.
pub fn pin(processor: usize) {
    // A separate session, because sessions may be scheduled as groups. So its terminal does not end
    // it, and it ends with its parent.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let _ = rustix::process::setsid();
    // An ordinary user may not do this; the figures then spread wider.
    let _ = rustix::process::setpriority_process(None, PRIORITY);
    let _ = std::fs::write("/proc/self/autogroup", PRIORITY.to_string());
    pin_thread(processor);
}

/// Keeps the calling thread, and what it starts from now on, on one processor.
pub fn pin_thread(processor: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(processor);
    rustix::thread::sched_setaffinity(None, &set).expect("a thread may be pinned");
}

/// A listener for all servers that take one; it does not block if `nonblocking`.
pub fn listener(nonblocking: bool) -> TcpListener {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.set_nonblocking(nonblocking).expect("O_NONBLOCK");
    set_options(&socket);
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&at.into()).expect("a free port");
    socket.listen(BACKLOG).expect("a listening socket");
    let listener = TcpListener::from(socket);
    announce(listener.local_addr().expect("an address").port());
    listener
}

/// What every socket of the benchmark has set.
pub fn set_options(socket: impl AsFd) {
    rustix::net::sockopt::set_tcp_nodelay(&socket, true).expect("TCP_NODELAY");
    rustix::net::sockopt::set_tcp_congestion(&socket, CONGESTION_CONTROL)
        .expect("the kernel has cubic");
}

/// Prints the port for the client.
pub fn announce(port: u16) {
    println!("{port}");
    io::stdout().flush().expect("standard output is open");
}

/// The bytes of the streams, which both ends know. The byte at a position depends on the connection
/// and the position, so lost, doubled or mixed data is detected.
#[derive(Debug)]
pub struct Pattern(Vec<u8>);

/// A prime, so that no buffer size is a multiple of it.
const PERIOD: usize = 65_521;

impl Default for Pattern {
    fn default() -> Self {
        let mut state = 0x9e37_79b9_u32;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[1]
        };
        let mut bytes: Vec<u8> = (0..PERIOD).map(|_| random()).collect();
        bytes.extend_from_within(..);
        bytes.extend_from_within(..BULK);
        Pattern(bytes)
    }
}

impl Pattern {
    /// The bytes of a connection's stream from a position on; at most [`BULK`].
    pub fn at(&self, connection: usize, position: u64, bytes: usize) -> &[u8] {
        let within = position % PERIOD as u64;
        let start = (within as usize + connection * 97) % PERIOD;
        &self.0[start..start + bytes]
    }

    /// What a source sends next: the rest of its block. All its blocks are the same, so that a
    /// server may send one buffer again and again.
    pub fn of_source(&self, position: u64) -> &[u8] {
        let within = position as usize % BULK;
        self.at(0, within as u64, BULK - within)
    }
}
