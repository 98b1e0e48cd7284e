//! What a server prints: its addresses, the connections that come and go, and its account.

use serde::Serialize;
use wharf_port::{Address, DriverReport};

use super::options::ServingOptions;
use super::visitors::Visit;
use crate::account::Account;
use crate::processes::Child;
use crate::text::output::{json, line, news};
use crate::text::wrap::{COLUMN, wrapped};
use crate::values::Format;

/// Prints for one run of a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    format: Format,
    verbose: bool,
    quiet: bool,
    /// The parent prints for this process.
    part: bool,
}

#[derive(Serialize)]
struct Listening<'a> {
    event: &'static str,
    version: u32,
    service: &'a str,
    address: String,
    driver: String,
    passed_over: Vec<PassedOver<'a>>,
    processes: u32,
    /// Of all processes.
    threads: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    admin: Option<String>,
}

#[derive(Serialize)]
struct PassedOver<'a> {
    driver: String,
    reason: &'a str,
}

impl Output {
    pub(crate) fn new(options: &ServingOptions) -> Self {
        Output {
            format: options.format,
            verbose: options.verbose,
            quiet: options.quiet,
            part: options.division.part,
        }
    }

    pub(crate) fn listening(
        self,
        service: &str,
        address: &Address,
        driver: &DriverReport,
        admin: Option<&Address>,
        (processes, threads): (u32, u32),
    ) {
        if self.format == Format::Text {
            if !self.quiet {
                let admin = admin.map_or(String::new(), |admin| format!("; account at {admin}"));
                let processes = match processes {
                    1 => String::new(),
                    several => format!("; {several} processes"),
                };
                line(&format!(
                    "{service}: listening on {address}, driver {driver}{processes}{admin}"
                ));
            }
            return;
        }
        let passed_over = driver.passed_over.iter().map(|passed| PassedOver {
            driver: passed.kind.to_string(),
            reason: passed.reason,
        });
        json(&Listening {
            event: "listening",
            version: 1,
            service,
            address: address.to_string(),
            driver: driver.kind.to_string(),
            passed_over: passed_over.collect(),
            processes,
            threads,
            admin: admin.map(ToString::to_string),
        });
    }

    /// Whether there are lines for each connection.
    pub(crate) fn is_verbose(self) -> bool {
        self.verbose
    }

    /// A line for one connection.
    pub(crate) fn visit(self, visit: &Visit) {
        let text = match self.format {
            // Text and numbers can always be written.
            Format::Json => serde_json::to_string(visit).unwrap_or_default(),
            Format::Text => visit.text(),
        };
        if self.part {
            Child::line(text);
        } else {
            news(&text);
        }
    }

    pub(crate) fn account(self, account: &Account) {
        if self.format == Format::Json {
            return json(account);
        }
        let a = account;
        row(&format!(
            "accepted        {:>12}   peak {}",
            a.accepted, a.peak
        ));
        row(&format!(
            "left            {:>12}   by FIN {}, by RST {}, by error {}",
            a.left_by_fin + a.left_by_reset + a.left_by_error,
            a.left_by_fin,
            a.left_by_reset,
            a.left_by_error
        ));
        row(&format!("closed by us    {:>12}", a.closed_by_us));
        row(&format!(
            "refused         {:>12}   at the maximum {}, other {}; accept paused {} times",
            a.refused.max_connections + a.refused.other,
            a.refused.max_connections,
            a.refused.other,
            a.accept_pauses
        ));
        row(&format!(
            "bytes           {:>12}   in, {} out",
            a.bytes_in, a.bytes_out
        ));
        if a.lines_dropped > 0 {
            row(&format!(
                "lines dropped   {:>12}   not read in time",
                a.lines_dropped
            ));
        }
        let processes = match a.processes {
            1 => String::new(),
            several => format!("   in {several} processes"),
        };
        row(&format!("seconds         {:>12.3}{processes}", a.seconds));
        if let Some(us) = a.processor_us {
            row(&format!("processor time  {:>12.3}", us as f64 / 1e6));
        }
        let Some(resident_bytes) = a.resident_bytes else {
            return;
        };
        let each = match a.resident_bytes_per_connection_at_peak {
            Some(bytes) => format!("   {bytes} per connection at the peak"),
            None => String::new(),
        };
        row(&format!("resident bytes  {resident_bytes:>12}{each}"));
    }
}

/// A line of an account.
fn row(text: &str) {
    for part in wrapped(text, COLUMN) {
        line(&part);
    }
}
