//! The command line: help, man page, completions and environment variables from one definition.

use clap::{Args, Parser, Subcommand, ValueEnum};
use wharf_port::{DriverChoice, DriverKind};

use crate::address::Place;

/// A TCP peer that accepts everything: it holds connections, or echoes them, and accounts for each.
#[derive(Debug, Parser)]
#[command(name = "wharf", version, propagate_version = true)]
pub(crate) struct WharfCommand {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Accept any connection and set it aside: read nothing, answer nothing, notice who leaves
    Hold(HoldOptions),
    /// Send back what arrives, byte for byte, and end when the peer has ended
    Echo(EchoOptions),
    /// Print the manual page
    Man,
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct HoldOptions {
    /// What to notice of a held connection
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
    /// The peer's leaving, by FIN or RST: its slot is freed
    Leave,
    /// Nothing at all: a held connection stays until the end
    Never,
}

/// What every server takes.
#[derive(Debug, Args)]
pub(crate) struct ServingOptions {
    // Not a documentation comment, which would take [v6] for a link.
    #[arg(
        value_name = "ADDRESS",
        default_value = "127.0.0.1:10101",
        env = "WHARF_ADDRESS",
        value_delimiter = ',',
        help = "Where to listen: host:port, [v6]:port, a range 127.0.0.1:7000-7099, or unix:/path; \
                port 0 lets the system choose"
    )]
    pub(crate) addresses: Vec<Place>,
    /// What to run on: the best that works here, or this one or none
    #[arg(long, default_value = "auto", value_parser = parse_driver, env = "WHARF_DRIVER",
          value_name = "auto|iocp|uring|poll")]
    pub(crate) driver: DriverChoice,
    /// Threads, each with a port of its own; on Linux the system deals connections out to them
    /// (SO_REUSEPORT), elsewhere and for Unix sockets the first accepts and deals
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256),
          env = "WHARF_THREADS", value_name = "N")]
    pub(crate) threads: u16,
    /// Hold at most so many connections; the others wait in the backlog
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=16_000_000),
          env = "WHARF_MAX_CONNECTIONS", value_name = "N")]
    pub(crate) max_connections: Option<u32>,
    /// Connections that wait in the system until they are accepted
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(i32).range(1..),
          env = "WHARF_BACKLOG", value_name = "N")]
    pub(crate) backlog: i32,
    /// How to print: for people, or one JSON object a line
    #[arg(long, value_enum, default_value_t = Format::Text, env = "WHARF_FORMAT")]
    pub(crate) format: Format,
    /// Print a line for each connection, with its key
    #[arg(short, long, env = "WHARF_VERBOSE")]
    pub(crate) verbose: bool,
    /// Print nothing but the account
    #[arg(short, long, conflicts_with = "verbose", env = "WHARF_QUIET")]
    pub(crate) quiet: bool,
}

/// How to print.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// One object a line
    Json,
}

fn parse_driver(text: &str) -> Result<DriverChoice, String> {
    if text == "auto" {
        return Ok(DriverChoice::Auto);
    }
    let kind: DriverKind = text
        .parse()
        .map_err(|_| "name one of auto, iocp, uring, poll".to_owned())?;
    Ok(DriverChoice::Require(kind))
}
