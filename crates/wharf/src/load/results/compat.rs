//! `--compat-rust-echo-bench`: the command line and the output of the benchmark that is usual for
//! echo servers on io_uring, <https://github.com/haraldh/rust_echo_bench>.
//!
//! Many people have published its numbers, so they are worth comparing with. But they are hard to
//! trust: if a message comes back in two reads, its client ends without an error. Here `load echo`
//! does the work behind the same options and lines: it joins the reads, compares every byte, and
//! also prints latencies and errors.

use std::time::Duration;

use clap::Args;

use super::report::Moment;
use crate::load::model::percentiles::microseconds;
use crate::load::options::{LoadOptions, Mode};
use crate::text::wrap::wrapped;
use crate::values::address::Place;
use crate::values::{parse_switch, whole};

const ADDRESS: &str = "127.0.0.1:12345";
const NUMBER: u32 = 50;
const DURATION_SECONDS: u32 = 60;
const LENGTH_BYTES: u32 = 26;
/// The column where the text about the clients begins.
const CLIENTS: usize = 9;

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options that replace rust_echo_bench")]
pub(crate) struct CompatOptions {
    /// Run and print as rust_echo_bench does. Takes no MODE and no ADDRESS, but -a, -c (or -n), -t
    /// and -l. Unlike it, joins short reads and prints latencies
    #[arg(long, env = "WHARF_COMPAT_RUST_ECHO_BENCH", conflicts_with = "mode",
          value_parser = parse_switch)]
    pub(crate) compat_rust_echo_bench: bool,
    /// Address of the echo server; by default 127.0.0.1:12345
    #[arg(
        short = 'a',
        long = "address",
        value_name = "ADDRESS",
        requires = "compat_rust_echo_bench",
        conflicts_with = "mode"
    )]
    compat_address: Option<String>,
    /// Number of clients; by default 50
    #[arg(short = 'c', short_alias = 'n', long = "number", value_name = "N",
          value_parser = whole(1_u32..=16_000_000),
          requires = "compat_rust_echo_bench", conflicts_with = "mode")]
    compat_number: Option<u32>,
    /// Duration; by default 60
    #[arg(short = 't', long = "duration", value_name = "SECONDS",
          value_parser = whole(1_u32..=u32::MAX),
          requires = "compat_rust_echo_bench", conflicts_with = "mode")]
    compat_duration: Option<u32>,
    /// Bytes of a message; by default 26
    #[arg(short = 'l', long = "length", alias = "lenght", value_name = "BYTES",
          value_parser = whole(1_u32..=16 << 20),
          requires = "compat_rust_echo_bench", conflicts_with = "mode")]
    compat_length: Option<u32>,
}

impl CompatOptions {
    fn address(&self) -> &str {
        self.compat_address.as_deref().unwrap_or(ADDRESS)
    }

    fn seconds(&self) -> u32 {
        self.compat_duration.unwrap_or(DURATION_SECONDS)
    }

    /// The options of `load echo` that do the same.
    pub(crate) fn as_load(&self, options: &LoadOptions) -> Result<LoadOptions, String> {
        let address = self.address();
        let unreadable = |hint: String| format!("-a {address}: {hint}");
        let address: Place = address.parse().map_err(unreadable)?;
        Ok(LoadOptions {
            mode: Mode::Echo,
            address,
            connections: self.compat_number.unwrap_or(NUMBER),
            duration: Some(Duration::from_secs(self.seconds().into())),
            size: Some(self.compat_length.unwrap_or(LENGTH_BYTES)),
            ..options.clone()
        })
    }

    /// The lines before the load; empty without this option.
    pub(crate) fn heading(&self, options: &LoadOptions) -> String {
        let (address, seconds) = (self.address(), self.seconds());
        let (clients, bytes) = (options.connections, options.size());
        format!(
            "Benchmarking: {address}\n{clients} clients, running {bytes} bytes, {seconds} sec.\n\n"
        )
    }

    /// The lines after the load.
    pub(crate) fn text(&self, moment: &Moment<'_>) -> String {
        let counts = moment.counts;
        // A run that was interrupted divides by its real duration.
        let seconds = f64::from(self.seconds()).min(counts.seconds.max(1e-3));
        let requests = counts.bytes_sent / u64::from(moment.options.size());
        let responses = counts.messages;
        let per_second = |count: u64| (count as f64 / seconds) as u64;
        let it = moment.messages();
        let latency = it.map_or("nothing came back".to_owned(), |it| {
            format!(
                "p50 {}, p90 {}, p99 {}, p99.9 {}, max {:.1} us",
                microseconds(it.p50),
                microseconds(it.p90),
                microseconds(it.p99),
                microseconds(it.p99_9),
                it.max
            )
        });
        let clients = wrapped(&format!("Clients: {}", moment.verdict()), CLIENTS);
        format!(
            "Speed: {} request/sec, {} response/sec\nRequests: {requests}\nResponses: {responses}\n\
             Latency: {latency}\n{}\n",
            per_second(requests),
            per_second(responses),
            clients.join("\n")
        )
    }
}
