//! The options of `wharf hold` and `wharf echo`.

use clap::{Args, ValueEnum};
use wharf_port::{Address, DriverChoice};

use crate::processes::division::DivisionOptions;
use crate::values::address::Place;
use crate::values::{
    Format, parse_driver, parse_keepalive, parse_one_address, parse_switch, whole,
};

#[derive(Debug, Args)]
pub(crate) struct HoldOptions {
    /// What to notice about a held connection
    #[arg(long, value_enum, default_value_t = Notice::Leave, env = "WHARF_NOTICE")]
    pub(crate) notice: Notice,
    #[command(flatten)]
    pub(crate) serving: ServingOptions,
}

#[derive(Debug, Args)]
pub(crate) struct EchoOptions {
    #[command(flatten)]
    pub(crate) serving: ServingOptions,
}

/// What a holding server notices.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Notice {
    /// That the peer leaves, by FIN or RST; the slot is then free again
    Leave,
    /// Nothing: a held connection stays until the end
    Never,
}

/// The options of every server.
#[derive(Debug, Args)]
pub(crate) struct ServingOptions {
    // Not a doc comment: rustdoc would take [v6] for a link.
    #[arg(
        value_name = "ADDRESS",
        default_value = "127.0.0.1:10101",
        env = "WHARF_ADDRESS",
        value_delimiter = ',',
        help = "Where to listen: host:port, [v6]:port, a range 127.0.0.1:7000-7099, or unix:/path. \
                Port 0 lets the system choose; a name stands for its first address, version 4 \
                before 6; [::] takes version 6 only; [fe80::1%eth0]:port has a zone"
    )]
    pub(crate) addresses: Vec<Place>,
    /// Driver to run on: auto takes the best that works here; a named driver has no fallback
    #[arg(long, default_value = "auto", value_parser = parse_driver, env = "WHARF_DRIVER",
          value_name = "auto|iocp|uring|poll")]
    pub(crate) driver: DriverChoice,
    /// Threads, each with its own port. On Linux each thread also has its own listener, and the
    /// system distributes connections (SO_REUSEPORT). Elsewhere, and on Unix sockets, the first
    /// thread accepts and distributes them round-robin
    #[arg(long, default_value_t = 1, value_parser = whole(1_u16..=256),
          env = "WHARF_THREADS", value_name = "N")]
    pub(crate) threads: u16,
    #[command(flatten)]
    pub(crate) division: DivisionOptions,
    /// Maximum number of connections; further ones wait in the backlog until one leaves
    #[arg(long, value_parser = whole(1_u32..=16_000_000),
          env = "WHARF_MAX_CONNECTIONS", value_name = "N")]
    pub(crate) max_connections: Option<u32>,
    /// Maximum number of connections that wait to be accepted; the system may have a lower limit
    /// (on Linux net.core.somaxconn)
    #[arg(long, default_value_t = 4096, value_parser = whole(1_u32..=i32::MAX as u32),
          env = "WHARF_BACKLOG", value_name = "N")]
    pub(crate) backlog: u32,
    /// Probe a peer that has sent nothing for this long, and close its connection if it does not
    /// reply within half a minute; 0s never probes
    #[arg(long, default_value = "2m", value_parser = parse_keepalive,
          env = "WHARF_KEEPALIVE", value_name = "TIME")]
    pub(crate) keepalive: std::time::Duration,
    /// Busy-poll for up to this many microseconds before blocking. It shortens the round trip if
    /// there are few connections, and keeps one core busy for each thread
    #[arg(long, default_value_t = 0, value_parser = whole(0_u32..=1_000_000),
          env = "WHARF_SPIN_US", value_name = "N")]
    pub(crate) spin_us: u32,
    /// Report the current account on this address: each connection receives one line of JSON. wharf
    /// load reads it with its own --admin
    #[arg(long, env = "WHARF_ADMIN", value_name = "ADDRESS", value_parser = parse_one_address)]
    pub(crate) admin: Option<Address>,
    /// TCP congestion control, such as cubic; by default the system's choice
    #[arg(long, env = "WHARF_CONGESTION_CONTROL", value_name = "NAME")]
    pub(crate) congestion_control: Option<String>,
    /// End when standard input ends, as with Ctrl-C; for a program that starts this one
    #[arg(long, env = "WHARF_UNTIL_EOF", value_parser = parse_switch)]
    pub(crate) until_eof: bool,
    /// How to print: text, or one JSON object a line
    #[arg(long, value_enum, default_value_t = Format::Text, env = "WHARF_FORMAT")]
    pub(crate) format: Format,
    /// Print a line for each connection, with its key
    #[arg(short, long, env = "WHARF_VERBOSE", value_parser = parse_switch)]
    pub(crate) verbose: bool,
    /// Print only the account (in JSON also where it listens)
    #[arg(short, long, conflicts_with = "verbose", env = "WHARF_QUIET",
          value_parser = parse_switch)]
    pub(crate) quiet: bool,
}
