//! The ledger: every accepted connection is in it exactly once, and at the end it balances.
//!
//! Counters and nothing per connection, so that holding a million costs the program no memory of
//! its own. Accepted = left by FIN + by RST + by error + closed by us,
//! and while the server runs, held.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::Serialize;
use wharf_port::Port;

use crate::memory::{self, Peak, Spare};
use crate::sys;

/// How a connection left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Left {
    Fin,
    Reset,
    Error,
}

/// What all threads count together.
#[derive(Debug)]
pub(crate) struct Ledger {
    start: Instant,
    ports: Vec<Port>,
    resident_bytes_at_start: Option<u64>,
    spare: Spare,
    accepted: AtomicU64,
    held: AtomicU64,
    peak: AtomicU64,
    memory: Peak,
    left_fin: AtomicU64,
    left_reset: AtomicU64,
    left_error: AtomicU64,
    refused_full: AtomicU64,
    refused_other: AtomicU64,
    pauses: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
}

impl Ledger {
    /// Of the work on these ports, which tell what they take.
    pub(crate) fn new(ports: &[Port]) -> Self {
        Ledger {
            start: Instant::now(),
            ports: ports.to_vec(),
            resident_bytes_at_start: memory::resident_bytes(),
            spare: Spare::keep(),
            accepted: AtomicU64::new(0),
            held: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            memory: Peak::new(),
            left_fin: AtomicU64::new(0),
            left_reset: AtomicU64::new(0),
            left_error: AtomicU64::new(0),
            refused_full: AtomicU64::new(0),
            refused_other: AtomicU64::new(0),
            pauses: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        }
    }

    pub(crate) fn accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        let held = self.held.fetch_add(1, Ordering::Relaxed) + 1;
        if held > self.peak.fetch_max(held, Ordering::Relaxed) {
            self.memory.reached(held);
        }
    }

    pub(crate) fn left(&self, how: Left) {
        self.held.fetch_sub(1, Ordering::Relaxed);
        let counter = match how {
            Left::Fin => &self.left_fin,
            Left::Reset => &self.left_reset,
            Left::Error => &self.left_error,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection that was accepted by the system and could not be served.
    pub(crate) fn refused(&self, kind: wharf_port::ErrorKind) {
        let counter = match kind {
            wharf_port::ErrorKind::Full => &self.refused_full,
            _ => &self.refused_other,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn paused(&self) {
        self.pauses.fetch_add(1, Ordering::Relaxed);
    }

    /// The account: what is held now is what this program closes by ending.
    pub(crate) fn account(mut self) -> Account {
        self.spare = Spare::none();
        let standing = self.standing();
        Account {
            event: "account",
            held: 0,
            closed_by_us: standing.held,
            ..standing
        }
    }

    /// How it stands while the server runs.
    pub(crate) fn standing(&self) -> Account {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (held, peak) = (read(&self.held), read(&self.peak));
        let resident_bytes = memory::resident_bytes();
        let stats = self.ports.iter().map(Port::stats);
        let per_connection = self.memory.sample().and_then(|sample| {
            let grown = sample
                .resident_bytes
                .checked_sub(self.resident_bytes_at_start?);
            Some(grown? / sample.connections)
        });
        Account {
            event: "standing",
            version: 1,
            accepted: read(&self.accepted),
            held,
            peak,
            left_by_fin: read(&self.left_fin),
            left_by_reset: read(&self.left_reset),
            left_by_error: read(&self.left_error),
            closed_by_us: 0,
            refused: Refused {
                max_connections: read(&self.refused_full),
                other: read(&self.refused_other),
            },
            accept_pauses: read(&self.pauses),
            bytes_in: read(&self.bytes_in),
            bytes_out: read(&self.bytes_out),
            seconds: self.start.elapsed().as_secs_f64(),
            resident_bytes,
            resident_bytes_per_connection_at_peak: per_connection,
            port_bytes: stats
                .map(|it| (it.table_bytes + it.pool_bytes) as u64)
                .sum(),
            processor_us: sys::processor_time().map(|time| time.as_micros() as u64),
        }
    }
}

/// The account of a server, as its last line of JSON has it, or as it stands.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Account {
    event: &'static str,
    version: u32,
    pub(crate) accepted: u64,
    /// Now; at the end these are closed by us.
    pub(crate) held: u64,
    pub(crate) peak: u64,
    pub(crate) left_by_fin: u64,
    pub(crate) left_by_reset: u64,
    pub(crate) left_by_error: u64,
    pub(crate) closed_by_us: u64,
    pub(crate) refused: Refused,
    pub(crate) accept_pauses: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) seconds: f64,
    /// Nothing where the system does not tell.
    pub(crate) resident_bytes: Option<u64>,
    /// What the process has grown by; nothing with too few connections to tell.
    pub(crate) resident_bytes_per_connection_at_peak: Option<u64>,
    /// Of these, the tables of sockets and the receive buffers.
    pub(crate) port_bytes: u64,
    /// What all threads have used so far, in the kernel too; nothing where the system does not tell.
    pub(crate) processor_us: Option<u64>,
}

/// Connections that were accepted by the system and not by the service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Refused {
    pub(crate) max_connections: u64,
    pub(crate) other: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balances_whatever_happened() {
        let ledger = Ledger::new(&[]);
        for _ in 0..10 {
            ledger.accepted();
        }
        ledger.left(Left::Fin);
        ledger.left(Left::Fin);
        ledger.left(Left::Reset);
        ledger.left(Left::Error);
        assert_eq!(ledger.standing().held, 6);
        let account = ledger.account();
        let left = account.left_by_fin + account.left_by_reset + account.left_by_error;
        assert_eq!(account.accepted, left + account.closed_by_us);
        assert_eq!((account.peak, account.closed_by_us), (10, 6));
    }
}
