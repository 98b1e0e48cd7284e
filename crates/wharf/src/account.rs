//! The ledger: it counts every accepted connection exactly once, and balances at the end.
//!
//! It has counters and nothing per connection, so a million connections cost the program no memory
//! here. Accepted = left by FIN + by RST + by error + closed by us, and while the server runs, +
//! held.

pub(crate) mod joint;

use std::borrow::Cow;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use wharf_port::Port;

use crate::machine::memory::{self, Peak, Spare};
use crate::sys;
use crate::text::output;

/// How a connection left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Left {
    Fin,
    Reset,
    Error,
}

/// Counters that all threads share.
#[derive(Debug)]
pub(crate) struct Ledger {
    start: Instant,
    ports: Vec<Port>,
    resident_bytes_at_start: Option<u64>,
    spare: Mutex<Spare>,
    accepted: AtomicU64,
    /// May be below zero for a moment, while a connection that has left is looked at again.
    held: AtomicI64,
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
    /// A ledger for these ports. It also reports the memory that they use.
    pub(crate) fn new(ports: &[Port]) -> Self {
        Ledger {
            start: Instant::now(),
            ports: ports.to_vec(),
            resident_bytes_at_start: memory::resident_bytes(),
            spare: Mutex::new(Spare::keep()),
            accepted: AtomicU64::new(0),
            held: AtomicI64::new(0),
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
        let held = at_least_none(self.held.fetch_add(1, Ordering::Relaxed) + 1);
        if held > self.peak.fetch_max(held, Ordering::Relaxed) {
            self.memory.reached(held);
        }
    }

    pub(crate) fn held(&self) -> u64 {
        at_least_none(self.held.load(Ordering::Relaxed))
    }

    /// Counts a connection that leaves. `close` closes it and returns whether it was still open;
    /// one that was closed before is counted already.
    ///
    /// The count of held connections goes down before the slot is free. Otherwise a new connection
    /// in that slot is counted first, and the peak may exceed the maximum, as it once did.
    pub(crate) fn leaves(&self, how: Left, close: impl FnOnce() -> bool) -> bool {
        self.held.fetch_sub(1, Ordering::Relaxed);
        let was_open = close();
        if was_open {
            self.count_left(how);
        } else {
            self.held.fetch_add(1, Ordering::Relaxed);
        }
        was_open
    }

    /// Counts a connection that this program closes because it could not serve it.
    pub(crate) fn left(&self, how: Left) {
        self.held.fetch_sub(1, Ordering::Relaxed);
        self.count_left(how);
    }

    fn count_left(&self, how: Left) {
        let counter = match how {
            Left::Fin => &self.left_fin,
            Left::Reset => &self.left_reset,
            Left::Error => &self.left_error,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that the system accepted and this program could not serve.
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

    /// The final account. Connections that are still held count as closed by us: ending the program
    /// closes them.
    pub(crate) fn account(&self) -> PartAccount {
        *self.spare.lock().unwrap_or_else(PoisonError::into_inner) = Spare::none();
        let mut part = self.standing();
        let account = &mut part.account;
        account.event = "account".into();
        account.closed_by_us = std::mem::take(&mut account.held);
        part
    }

    /// The account while the server runs.
    pub(crate) fn standing(&self) -> PartAccount {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (held, peak) = (self.held(), read(&self.peak));
        let stats = self.ports.iter().map(Port::stats);
        let growth = self.memory.sample().and_then(|sample| {
            let before = self.resident_bytes_at_start?;
            Some(Growth {
                bytes: sample.resident_bytes.checked_sub(before)?,
                connections: sample.connections,
            })
        });
        let account = Account {
            event: "standing".into(),
            version: 1,
            processes: 1,
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
            lines_dropped: output::dropped_lines(),
            bytes_in: read(&self.bytes_in),
            bytes_out: read(&self.bytes_out),
            seconds: self.start.elapsed().as_secs_f64(),
            resident_bytes: memory::resident_bytes(),
            resident_bytes_per_connection_at_peak: None,
            port_bytes: stats
                .map(|it| (it.table_bytes + it.pool_bytes) as u64)
                .sum(),
            processor_us: processor_us(),
        };
        PartAccount { account, growth }
    }
}

/// The account of one process. The parent merges them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct PartAccount {
    account: Account,
    growth: Option<Growth>,
}

fn at_least_none(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// How much a process had grown when it held this number of connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Growth {
    bytes: u64,
    connections: u64,
}

impl PartAccount {
    /// The account of a process that died: the connections that it held are gone.
    pub(crate) fn died(mut self) -> Self {
        self.account.left_by_error += std::mem::take(&mut self.account.held);
        self.account.resident_bytes = None;
        self
    }

    /// Merges the accounts of all processes, whose number is `processes`. With several processes,
    /// this one is the parent: it serves no connection, and its memory counts too.
    pub(crate) fn merged(parts: impl IntoIterator<Item = Self>, processes: u32) -> Account {
        let mut parts = parts.into_iter().peekable();
        let event = parts.peek().map(|part| part.account.event.clone());
        let mut all = Account {
            event: event.unwrap_or("account".into()),
            version: 1,
            processes,
            ..Account::default()
        };
        if processes > 1 {
            all.resident_bytes = memory::resident_bytes();
            all.processor_us = processor_us();
            all.lines_dropped = output::dropped_lines();
        }
        let mut growth = Growth::default();
        for part in parts {
            all.add(&part.account);
            let more = part.growth.unwrap_or_default();
            growth.bytes += more.bytes;
            growth.connections += more.connections;
        }
        all.resident_bytes_per_connection_at_peak = growth.bytes.checked_div(growth.connections);
        all
    }
}

/// The account of a server: its last line of JSON, or the current state.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Account {
    event: Cow<'static, str>,
    version: u32,
    pub(crate) processes: u32,
    pub(crate) accepted: u64,
    /// Held now. In the final account they are closed by us.
    pub(crate) held: u64,
    /// The peak. For several processes it is the sum of their peaks, which need not be at the same
    /// moment.
    pub(crate) peak: u64,
    pub(crate) left_by_fin: u64,
    pub(crate) left_by_reset: u64,
    pub(crate) left_by_error: u64,
    pub(crate) closed_by_us: u64,
    pub(crate) refused: Refused,
    pub(crate) accept_pauses: u64,
    /// Lines of `-v` that were dropped because they were not read in time.
    #[serde(default)]
    pub(crate) lines_dropped: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) seconds: f64,
    /// `None` if the system does not report it.
    pub(crate) resident_bytes: Option<u64>,
    /// Growth of the processes for each connection; `None` with too few connections to measure it.
    pub(crate) resident_bytes_per_connection_at_peak: Option<u64>,
    /// The part of it that is tables of sockets and receive buffers.
    pub(crate) port_bytes: u64,
    /// Processor time of all threads so far, in the kernel too; `None` if the system does not
    /// report it.
    pub(crate) processor_us: Option<u64>,
}

impl Account {
    fn add(&mut self, other: &Account) {
        for (sum, more) in [
            (&mut self.accepted, other.accepted),
            (&mut self.held, other.held),
            (&mut self.peak, other.peak),
            (&mut self.left_by_fin, other.left_by_fin),
            (&mut self.left_by_reset, other.left_by_reset),
            (&mut self.left_by_error, other.left_by_error),
            (&mut self.closed_by_us, other.closed_by_us),
            (
                &mut self.refused.max_connections,
                other.refused.max_connections,
            ),
            (&mut self.refused.other, other.refused.other),
            (&mut self.accept_pauses, other.accept_pauses),
            (&mut self.lines_dropped, other.lines_dropped),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.bytes_out, other.bytes_out),
            (&mut self.port_bytes, other.port_bytes),
        ] {
            *sum += more;
        }
        self.seconds = self.seconds.max(other.seconds);
        for (sum, more) in [
            (&mut self.resident_bytes, other.resident_bytes),
            (&mut self.processor_us, other.processor_us),
        ] {
            *sum = more.map_or(*sum, |more| Some(sum.unwrap_or(0) + more));
        }
    }
}

/// The processor time of this process.
fn processor_us() -> Option<u64> {
    sys::processor_time().map(|time| time.as_micros() as u64)
}

/// Connections that the system accepted and the service refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Refused {
    pub(crate) max_connections: u64,
    pub(crate) other: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_in_a_freed_slot_is_no_higher_peak() {
        let ledger = Ledger::new(&[]);
        ledger.accepted();
        let next_comes_meanwhile = || {
            ledger.accepted();
            true
        };
        assert!(ledger.leaves(Left::Fin, next_comes_meanwhile));
        // A connection that is looked at again after it was closed does not count.
        assert!(!ledger.leaves(Left::Error, || false));
        let account = ledger.standing().account;
        assert_eq!((account.peak, account.held), (1, 1));
        assert_eq!((account.left_by_fin, account.left_by_error), (1, 0));
    }

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
        assert_eq!(ledger.standing().account.held, 6);
        let account = PartAccount::merged([ledger.account()], 1);
        let left = account.left_by_fin + account.left_by_reset + account.left_by_error;
        assert_eq!(account.accepted, left + account.closed_by_us);
        assert_eq!((account.peak, account.closed_by_us), (10, 6));
    }

    #[test]
    fn an_account_of_several_processes_is_their_sum() {
        let part = |connections: u64, bytes: u64| {
            let ledger = Ledger::new(&[]);
            (0..connections).for_each(|_| ledger.accepted());
            ledger.left(Left::Fin);
            let growth = Growth { bytes, connections };
            PartAccount {
                growth: Some(growth),
                ..ledger.standing()
            }
        };
        // A few large connections do not weigh as much as many small ones.
        let all = PartAccount::merged([part(100, 100_000), part(900, 100_000).died()], 2);
        assert_eq!((all.accepted, all.peak, all.processes), (1000, 1000, 2));
        assert_eq!((all.held, all.left_by_fin, all.left_by_error), (99, 2, 899));
        assert_eq!(all.resident_bytes_per_connection_at_peak, Some(200));
        assert_eq!(all.event, "standing");
        let nobody = PartAccount::merged([], 2);
        assert_eq!(nobody.resident_bytes_per_connection_at_peak, None);
    }
}
