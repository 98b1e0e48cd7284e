//! The options of `wharf load`, and what it refuses before it opens a connection.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use wharf_port::{Address, ConnectOptions, DriverChoice};

use super::model::gates::Expectation;
use super::model::schedule::Pace;
use super::model::touch::Touch;
use super::results::compat::CompatOptions;
use super::work::worker::CONNECTING_MAX;
use crate::processes::Threads;
use crate::processes::division::DivisionOptions;
use crate::sys;
use crate::values::address::Place;
use crate::values::{
    Format, parse_driver, parse_duration, parse_one_address, parse_rate, parse_size, parse_switch,
    whole,
};

/// The headings of options that only some modes have.
pub(crate) const OF_TALK: &str = "Options of echo and stream";
pub(crate) const OF_HOLD: &str = "Options of hold";
pub(crate) const OF_CLOSE: &str = "Options of connect and hold";
pub(crate) const OF_BYTES: &str = "Options of echo, stream and hold --touch";

/// Connections from one source address to one target before the next source address is used.
///
/// Linux has 28,232 ephemeral ports, and tries every second of them first (`__inet_hash_connect`).
/// When these are taken, each further connect scans all 14,116. 19,000 connects from one address
/// once took 4.3 s, and from two addresses 0.5 s. Loopback has enough addresses.
const CONNECTIONS_PER_SOURCE: u32 = 10_000;
/// The shortest `--interval`, and the shortest time limit of a connect.
const INTERVAL_LEAST: Duration = Duration::from_millis(1);
/// The most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 32;
/// The most addresses that a network of sources provides.
const SOURCES_MAX: usize = 1 << 16;

#[derive(Clone, Debug, Args)]
pub(crate) struct LoadOptions {
    /// What to do with the connections
    #[arg(
        value_enum,
        required = false,
        required_unless_present = "compat_rust_echo_bench",
        default_value_if("compat_rust_echo_bench", "true", "echo"),
        hide_default_value = true
    )]
    pub(crate) mode: Mode,
    // Not a doc comment: rustdoc would take [v6] for a link.
    #[arg(
        value_name = "ADDRESS",
        default_value = "127.0.0.1:10101",
        env = "WHARF_ADDRESS",
        help = "Where to connect: host:port, [v6]:port, or unix:/path. The addresses of a name are \
                tried one after the other, version 4 before 6; [fe80::1%eth0]:port has a zone"
    )]
    pub(crate) address: Place,
    /// Number of connections to open
    #[arg(long, default_value_t = 1, value_parser = whole(1_u32..=16_000_000),
          env = "WHARF_CONNECTIONS", value_name = "N")]
    pub(crate) connections: u32,
    /// Connects to start per second, regardless of how earlier ones are doing (open loop). By
    /// default each thread keeps up to 512 connects in flight (closed loop)
    #[arg(long, env = "WHARF_RATE", value_name = "PER SECOND",
          value_parser = parse_rate)]
    pub(crate) rate: Option<f64>,
    /// Spread the connects evenly over this time; with --rate, raise the rate to it over this time
    #[arg(long, env = "WHARF_RAMP", value_name = "DURATION",
          value_parser = parse_duration)]
    pub(crate) ramp: Option<Duration>,
    /// Maximum number of connects in flight, over all threads; by default 512 for each thread. With
    /// --rate, the time that a connect waits counts as part of its latency
    #[arg(long, value_parser = whole(1_u32..=16_000_000),
          env = "WHARF_CONNECTING", value_name = "N")]
    pub(crate) connecting: Option<u32>,
    /// End after this time, such as 30s or 5m. By default connect ends when all is done, echo and
    /// stream end after 10 s, and hold ends at Ctrl-C
    #[arg(long = "for", env = "WHARF_FOR", value_name = "DURATION",
          value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// Bytes of a message; by default 64, for stream 65,536
    #[arg(long, help_heading = OF_BYTES, value_parser = whole(1_u32..=16 << 20),
          env = "WHARF_SIZE", value_name = "BYTES")]
    pub(super) size: Option<u32>,
    /// Messages in flight on each connection; the next is sent when one has come back (closed
    /// loop). By default 1, for stream 16
    #[arg(long, help_heading = OF_TALK, value_parser = whole(1_u32..=65_536),
          env = "WHARF_PIPELINE", value_name = "DEPTH")]
    pub(super) pipeline: Option<u32>,
    /// Messages to send per second over all connections, each at its time, regardless of how
    /// earlier ones are doing (open loop). Latencies count from that time
    #[arg(long, help_heading = OF_TALK, env = "WHARF_REQUESTS_PER_SECOND", value_name = "PER SECOND",
          value_parser = parse_rate, conflicts_with = "pipeline")]
    pub(crate) requests_per_second: Option<f64>,
    /// Connect from this address, or from the addresses of this network; may be repeated. On
    /// loopback wharf takes as many addresses as it needs by itself
    #[arg(
        long,
        env = "WHARF_SOURCE",
        value_name = "ADDRESS|CIDR",
        value_delimiter = ','
    )]
    pub(crate) source: Vec<Source>,
    /// Give up a connect after this time
    #[arg(long, default_value = "10s", env = "WHARF_CONNECT_TIMEOUT", value_name = "DURATION",
          value_parser = parse_interval)]
    pub(crate) connect_timeout: Duration,
    /// Driver to run on: auto takes the best that works here; a named driver has no fallback
    #[arg(long, default_value = "auto", value_parser = parse_driver, env = "WHARF_DRIVER",
          value_name = "auto|iocp|uring|poll")]
    pub(crate) driver: DriverChoice,
    /// Threads; each has a port and a share of the connections
    #[arg(long, default_value_t = 1, value_parser = whole(1_u16..=256),
          env = "WHARF_THREADS", value_name = "N")]
    pub(crate) threads: u16,
    #[command(flatten)]
    pub(crate) division: DivisionOptions,
    /// Seed of the bytes that are sent
    #[arg(long, help_heading = OF_BYTES, default_value_t = 1, value_parser = whole(0..=u64::MAX),
          env = "WHARF_SEED", value_name = "N")]
    pub(crate) seed: u64,
    /// Exit with 3 unless this holds at the end, such as held=1000 or 'failed<=5'; may be repeated.
    /// Names: asked, connected, failed, unfinished, late, held, lost, messages, messages_late,
    /// messages_unsent, messages_unanswered, unbegun, corrupt
    #[arg(
        long,
        env = "WHARF_EXPECT",
        value_name = "NAME=NUMBER",
        value_delimiter = ','
    )]
    pub(crate) expect: Vec<Expectation>,
    /// Exit with 3 if the 99th percentile of messages is above this; if there are no messages, that
    /// of connects
    #[arg(long, env = "WHARF_MAX_P99", value_name = "DURATION",
          value_parser = parse_duration)]
    pub(crate) max_p99: Option<Duration>,
    /// At the end of hold, send a message on this percentage of the connections, chosen at random,
    /// and compare what comes back, to prove that they live. The server must echo
    #[arg(long, help_heading = OF_HOLD, env = "WHARF_TOUCH", value_name = "PERCENT")]
    pub(crate) touch: Option<Touch>,
    /// Close the connections of connect and hold with RST, so that none of their ports stays in
    /// TIME_WAIT
    #[arg(long, help_heading = OF_CLOSE, env = "WHARF_RESET", value_parser = parse_switch)]
    pub(crate) reset: bool,
    /// Start no more connects once the machine has less available memory than this, such as 2GiB
    #[arg(long, env = "WHARF_LEAVE_MEMORY", value_name = "BYTES", value_parser = parse_size)]
    pub(crate) leave_memory: Option<ByteSize>,
    /// How to print: text, or one JSON object a line
    #[arg(long, value_enum, default_value_t = Format::Text, env = "WHARF_FORMAT")]
    pub(crate) format: Format,
    /// Print progress this often, such as 1s
    #[arg(long, env = "WHARF_INTERVAL", value_name = "DURATION",
          value_parser = parse_interval)]
    pub(crate) interval: Option<Duration>,
    /// Address where the server reports its account (its own --admin). wharf then compares the
    /// ledgers of both ends, and exits with 3 unless they agree
    #[arg(long, env = "WHARF_ADMIN", value_name = "ADDRESS", value_parser = parse_one_address)]
    pub(crate) admin: Option<Address>,
    /// Write every latency to this file, as an HdrHistogram log with the tags connect and message,
    /// in nanoseconds
    #[arg(long, env = "WHARF_HDR", value_name = "FILE")]
    pub(crate) hdr: Option<PathBuf>,
    /// TCP congestion control, such as cubic; by default the system's choice
    #[arg(long, env = "WHARF_CONGESTION_CONTROL", value_name = "NAME")]
    pub(crate) congestion_control: Option<String>,
    /// End when standard input ends, as with Ctrl-C; for a program that starts this one
    #[arg(long, env = "WHARF_UNTIL_EOF", value_parser = parse_switch)]
    pub(crate) until_eof: bool,
    /// Allow a target that is neither on this machine nor in a private network
    #[arg(long, env = "WHARF_I_OWN_THIS_TARGET",
          value_parser = parse_switch)]
    pub(crate) i_own_this_target: bool,
    #[command(flatten)]
    pub(super) compat: CompatOptions,
}

/// What to do with the connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Mode {
    /// Connect and close: measures how many connections a second the target accepts
    Connect,
    /// Connect and stay; notice every connection that goes
    Hold,
    /// Send messages and compare every byte that comes back
    Echo,
    /// The same in bulk, as fast as possible: measures bytes a second both ways
    Stream,
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::Connect => "connect",
            Mode::Hold => "hold",
            Mode::Echo => "echo",
            Mode::Stream => "stream",
        }
    }

    /// Whether the mode sends anything.
    pub(crate) fn talks(self) -> bool {
        matches!(self, Mode::Echo | Mode::Stream)
    }
}

/// Addresses of this machine to connect from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Source(Vec<IpAddr>);

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Source(vec![address]));
        }
        let network: IpNet = text
            .parse()
            .map_err(|_| "write an address or a network, such as 127.0.0.0/24".to_owned())?;
        Ok(Source(network.hosts().take(SOURCES_MAX).collect()))
    }
}

/// Faster lines than a person can read would be the load's only work. No connect is over at once.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    if interval >= INTERVAL_LEAST {
        Ok(interval)
    } else {
        Err(format!("write {INTERVAL_LEAST:?} at least, such as \"1s\""))
    }
}

impl LoadOptions {
    /// Bytes of a message.
    pub(crate) fn size(&self) -> u32 {
        let bulk = self.mode == Mode::Stream;
        self.size.unwrap_or(if bulk { 65_536 } else { 64 })
    }

    /// Messages under way on each connection.
    pub(crate) fn pipeline(&self) -> u32 {
        let bulk = self.mode == Mode::Stream;
        self.pipeline.unwrap_or(if bulk { 16 } else { 1 })
    }

    /// Whether the load reads the server's account before it closes anything.
    pub(crate) fn asks_before_it_leaves(&self) -> bool {
        self.mode == Mode::Hold && self.admin.is_some()
    }

    /// Connects that a thread may have in flight.
    pub(crate) fn connecting_max(&self, threads: Threads, thread: u32) -> u32 {
        match (self.connecting, self.pace()) {
            // Each thread has at least one.
            (Some(all), _) => threads.share(thread, all).max(1),
            (None, Some(_)) => u32::MAX,
            (None, None) => CONNECTING_MAX,
        }
    }

    /// How each connection is opened, except for its source.
    pub(crate) fn connect_to(&self, target: &Address) -> ConnectOptions {
        let to = ConnectOptions::new(target.clone()).timeout(self.connect_timeout);
        match &self.congestion_control {
            Some(name) => to.congestion_control(name.as_str()),
            None => to,
        }
    }

    /// The rate of connects, if it does not depend on earlier ones.
    pub(crate) fn pace(&self) -> Option<Pace> {
        match (self.rate, self.ramp) {
            (Some(per_second), ramp) => Some(Pace {
                per_second,
                ramp: ramp.unwrap_or_default(),
            }),
            (None, Some(ramp)) => Some(Pace {
                // All at once is a rate too.
                per_second: f64::from(self.connections) / ramp.as_secs_f64().max(1e-6),
                ramp: Duration::ZERO,
            }),
            (None, None) => None,
        }
    }

    /// The address to connect to, or those of a name in the order to try them. An error if the
    /// target is not allowed.
    pub(crate) fn targets(&self) -> Result<Vec<Address>, String> {
        if self.touch.is_some() && self.mode != Mode::Hold {
            return Err("--touch is for hold: the other modes touch every connection".into());
        }
        let [target] = &self.address.addresses[..] else {
            return Err("load takes one address, not a range".into());
        };
        let all = std::iter::once(target).chain(&self.address.others);
        let all: Result<Vec<&Address>, String> = all
            .take(ADDRESSES_MAX)
            .map(|target| self.check(target).map(|()| target))
            .collect();
        // Sources may be of one IP version, and the name of both.
        let suits = |it: &&Address| match it.as_socket_addr() {
            Some(address) => self.sources_suit(address.ip()).is_ok(),
            None => true,
        };
        let all: Vec<Address> = all?.into_iter().filter(suits).cloned().collect();
        match (all.is_empty(), target.as_socket_addr()) {
            (true, Some(address)) => self.sources_suit(address.ip()).map(|()| all),
            _ => Ok(all),
        }
    }

    /// Whether the load may connect to this target.
    fn check(&self, target: &Address) -> Result<(), String> {
        match target.as_socket_addr() {
            Some(address) if address.port() == 0 => {
                Err(format!("{address}: name the port to connect to"))
            }
            Some(address)
                if !self.i_own_this_target && !is_near(address.ip()) && !is_own(address.ip()) =>
            {
                Err(format!(
                    "{address} is a public address: load on what is not yours is an attack; \
                 say --i-own-this-target if it is yours"
                ))
            }
            Some(_) => Ok(()),
            None if !self.source.is_empty() => Err(format!(
                "--source is for internet addresses, and {target} is none"
            )),
            None => match target {
                Address::Unix(path) if !sys::is_socket(path) => Err(format!(
                    "there is no socket at {target}: start its server first"
                )),
                _ => Ok(()),
            },
        }
    }

    /// Whether the sources can reach the target at all.
    fn sources_suit(&self, target: IpAddr) -> Result<(), String> {
        let mut named = self.source.iter().flat_map(|source| &source.0);
        match named.find(|source| source.is_ipv4() != target.is_ipv4()) {
            Some(source) => Err(format!(
                "--source {source} cannot connect to {target}: name sources of the version of the \
                 target"
            )),
            None => Ok(()),
        }
    }

    /// The source addresses; empty if the system chooses.
    pub(crate) fn sources(&self, target: &Address) -> Vec<SocketAddr> {
        let named = self.source.iter().flat_map(|source| &source.0);
        let named: Vec<SocketAddr> = named.map(|address| (*address, 0).into()).collect();
        let on_loopback = target.as_socket_addr().map(|address| address.ip());
        match on_loopback {
            Some(IpAddr::V4(address)) if named.is_empty() && address.is_loopback() => {
                let count = self.connections.div_ceil(CONNECTIONS_PER_SOURCE);
                let first = u32::from(std::net::Ipv4Addr::LOCALHOST);
                // A single connection needs no choice. The system refuses addresses outside of the
                // network.
                let sources = first..first + if count == 1 { 0 } else { count };
                sources
                    .map(|bits| (std::net::Ipv4Addr::from(bits), 0).into())
                    .collect()
            }
            _ => named,
        }
    }
}

/// Whether an address is one of this machine, to which only its own addresses can be bound.
fn is_own(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// Whether an address belongs to this machine's own networks.
fn is_near(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            // The unspecified address leads to this machine.
            address.is_unspecified()
                || address.is_loopback()
                || address.is_private()
                || address.is_link_local()
        }
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => is_near(address.into()),
            None => {
                address.is_unspecified()
                    || address.is_loopback()
                    || address.is_unique_local()
                    || address.is_unicast_link_local()
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_near_addresses_need_no_word() {
        for near in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.9",
            "::1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "0.0.0.0",
            "::",
        ] {
            assert!(is_near(near.parse().unwrap()), "{near}");
        }
        for far in ["8.8.8.8", "172.32.0.1", "2001:db8::1", "::ffff:8.8.8.8"] {
            assert!(!is_near(far.parse().unwrap()), "{far}");
        }
    }

    #[test]
    fn an_address_of_this_machine_is_its_own() {
        assert!(is_own("127.0.0.1".parse().unwrap()));
        for far in ["192.0.2.1", "198.51.100.7"] {
            assert!(!is_own(far.parse().unwrap()), "{far}");
        }
    }

    #[test]
    fn a_source_is_an_address_or_a_network() {
        assert_eq!("127.0.0.9".parse::<Source>().unwrap().0.len(), 1);
        assert_eq!("127.0.1.0/24".parse::<Source>().unwrap().0.len(), 254);
        assert_eq!("fd00::/64".parse::<Source>().unwrap().0.len(), SOURCES_MAX);
        let error = "everywhere".parse::<Source>().unwrap_err();
        assert!(error.contains("127.0.0.0/24"), "{error}");
    }

    #[test]
    fn intervals_have_a_bound() {
        assert_eq!(parse_interval("1ms"), Ok(Duration::from_millis(1)));
        for wrong in ["0s", "999us", "often"] {
            assert!(parse_interval(wrong).is_err(), "{wrong}");
        }
        assert!(parse_interval("0s").unwrap_err().contains("1ms"));
    }
}
