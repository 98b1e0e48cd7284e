//! The outcome of every connection: each is in the ledger once, and the ledger balances at the end.
//!
//! asked = connected + failed + unfinished, and connected = closed cleanly + lost + held at the
//! end. All threads count into one ledger, which can be read while they work.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use wharf_port::{Address, ErrorKind};

use crate::machine::memory;

/// Latencies are kept in nanoseconds, to three digits.
const DIGITS: u8 = 3;

/// Counters that all threads share.
#[derive(Debug)]
pub(crate) struct Ledger {
    start: Instant,
    pub(crate) interrupted: AtomicBool,
    pub(crate) asked: AtomicU64,
    connected: AtomicU64,
    /// When the last connection connected, in nanoseconds since the start.
    connected_last: AtomicU64,
    pub(crate) late: AtomicU64,
    pub(crate) held: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) messages_late: AtomicU64,
    messages_unsent: AtomicU64,
    pub(crate) messages_begun: AtomicU64,
    /// Connects that were due and never started.
    pub(crate) unbegun: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) corrupt: AtomicU64,
    pub(crate) touched: AtomicU64,
    pub(crate) held_back: AtomicU64,
    /// The address of the latest connection, if it differs from the one before.
    connected_to: Mutex<Option<String>>,
    failed: Mutex<BTreeMap<String, u64>>,
    /// By the second since the start, and by reason.
    lost: Mutex<BTreeMap<(u64, String), u64>>,
    /// The latest report of each thread about what it owes.
    owed: Mutex<BTreeMap<u32, Owed>>,
}

/// What one thread owes: the number of messages that are due and not sent, and the due time of the
/// oldest message without a reply.
#[derive(Clone, Copy, Debug)]
struct Owed {
    overdue: u64,
    oldest: Option<Instant>,
}

/// Latencies of one thread.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    pub(crate) connect: Histogram<u64>,
    pub(crate) message: Histogram<u64>,
    /// The age of messages when their connection was lost. No percentile of replies includes them.
    pub(crate) unanswered: Histogram<u64>,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        let histogram = || Histogram::new(DIGITS).expect("three digits are possible");
        Latencies {
            connect: histogram(),
            message: histogram(),
            unanswered: histogram(),
        }
    }

    pub(crate) fn add(&mut self, other: &Latencies) {
        // Both histograms resize by themselves, so no value is out of range.
        let _ = self.connect.add(&other.connect);
        let _ = self.message.add(&other.message);
        let _ = self.unanswered.add(&other.unanswered);
    }

    /// The latencies recorded since `before`.
    pub(crate) fn since(&self, before: &Latencies) -> Latencies {
        let mut period = self.clone();
        for (all, before) in [
            (&mut period.connect, &before.connect),
            (&mut period.message, &before.message),
            (&mut period.unanswered, &before.unanswered),
        ] {
            // Each count only grows, unless a process died and took its counts along.
            if all.subtract(before).is_err() {
                all.reset();
            }
        }
        period
    }
}

/// Notes a latency.
pub(crate) fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
    // The histogram grows, so no value is too large.
    let _ = histogram.record(nanoseconds);
}

impl Ledger {
    pub(crate) fn new(start: Instant) -> Self {
        let count = AtomicU64::default;
        Ledger {
            start,
            interrupted: AtomicBool::default(),
            asked: count(),
            connected: count(),
            connected_last: count(),
            late: count(),
            held: count(),
            messages: count(),
            messages_late: count(),
            messages_unsent: count(),
            messages_begun: count(),
            unbegun: count(),
            bytes_sent: count(),
            bytes_received: count(),
            corrupt: count(),
            touched: count(),
            held_back: count(),
            connected_to: Mutex::default(),
            failed: Mutex::default(),
            lost: Mutex::default(),
            owed: Mutex::default(),
        }
    }

    /// Records what a thread owes now.
    pub(crate) fn tell_owed(&self, thread: u32, overdue: u64, oldest: Option<Instant>) {
        lock(&self.owed).insert(thread, Owed { overdue, oldest });
    }

    pub(crate) fn connected(&self) {
        self.connected.fetch_add(1, Ordering::Relaxed);
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.connected_last.fetch_max(now, Ordering::Relaxed);
    }

    /// Records which address of a name accepts connections.
    pub(crate) fn connected_to(&self, address: &Address) {
        *lock(&self.connected_to) = Some(address.to_string());
    }

    /// Counts messages that were due and could not be sent.
    pub(crate) fn unsent(&self, count: u64) {
        self.messages_unsent.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self, kind: ErrorKind) {
        let mut failed = lock(&self.failed);
        *failed.entry(kind.to_string()).or_default() += 1;
    }

    /// Counts an open connection that ended unexpectedly.
    pub(crate) fn lost(&self, reason: &str) {
        self.held.fetch_sub(1, Ordering::Relaxed);
        let second = self.start.elapsed().as_secs();
        let mut lost = lock(&self.lost);
        *lost.entry((second, reason.to_owned())).or_default() += 1;
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// The current counts.
    pub(crate) fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let failed_by_reason = lock(&self.failed).clone();
        let lost = lock(&self.lost);
        let mut lost_by_reason: BTreeMap<String, Vec<LostInSecond>> = BTreeMap::new();
        for ((second, reason), count) in lost.iter() {
            let lost = LostInSecond {
                second: *second,
                count: *count,
            };
            lost_by_reason.entry(reason.clone()).or_default().push(lost);
        }
        let (asked, connected) = (read(&self.asked), read(&self.connected));
        let failed = failed_by_reason.values().sum();
        // Read the replies first. A message that starts meanwhile then cannot make them exceed the
        // total.
        let messages = read(&self.messages);
        let owed = lock(&self.owed).clone();
        let overdue: u64 = owed.values().map(|owed| owed.overdue).sum();
        let messages_unsent = read(&self.messages_unsent);
        let due = read(&self.messages_begun) + messages_unsent + overdue;
        let unanswered = due.saturating_sub(messages);
        let oldest = owed.values().filter_map(|owed| owed.oldest).min();
        let oldest = oldest.filter(|_| unanswered > 0);
        Counts {
            seconds: self.start.elapsed().as_secs_f64(),
            asked,
            connected,
            connected_to: lock(&self.connected_to).clone(),
            connect_seconds: read(&self.connected_last) as f64 / 1e9,
            failed,
            unfinished: asked.saturating_sub(connected + failed),
            failed_by_reason,
            late: read(&self.late),
            held: read(&self.held),
            lost: lost.values().sum(),
            lost_by_reason,
            messages,
            messages_late: read(&self.messages_late),
            messages_unsent,
            messages_unanswered: unanswered,
            oldest_unanswered_us: oldest.map(|oldest| oldest.elapsed().as_secs_f64() * 1e6),
            unbegun: read(&self.unbegun),
            bytes_sent: read(&self.bytes_sent),
            bytes_received: read(&self.bytes_received),
            corrupt: read(&self.corrupt),
            touched: read(&self.touched),
            held_back: read(&self.held_back),
            resident_bytes: memory::resident_bytes(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The ledger at one moment.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) seconds: f64,
    pub(crate) asked: u64,
    pub(crate) connected: u64,
    /// Of the addresses of a name, the one that accepts connections.
    pub(crate) connected_to: Option<String>,
    /// Seconds until the last of them had connected.
    pub(crate) connect_seconds: f64,
    pub(crate) failed: u64,
    /// Neither connected nor failed when it ended.
    pub(crate) unfinished: u64,
    pub(crate) failed_by_reason: BTreeMap<String, u64>,
    pub(crate) late: u64,
    pub(crate) held: u64,
    pub(crate) lost: u64,
    pub(crate) lost_by_reason: BTreeMap<String, Vec<LostInSecond>>,
    pub(crate) messages: u64,
    pub(crate) messages_late: u64,
    /// Due in an open loop, and never sent.
    pub(crate) messages_unsent: u64,
    /// Due without a reply, sent or not.
    pub(crate) messages_unanswered: u64,
    /// The age of the oldest of them.
    pub(crate) oldest_unanswered_us: Option<f64>,
    /// Connects that were due in an open loop and never started.
    pub(crate) unbegun: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) corrupt: u64,
    /// Held to the end, and sent a message then. A connection without a reply is lost.
    pub(crate) touched: u64,
    /// Not started, to leave memory.
    pub(crate) held_back: u64,
    /// Resident memory of the load; `None` if the system does not report it.
    pub(crate) resident_bytes: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct LostInSecond {
    pub(crate) second: u64,
    pub(crate) count: u64,
}

impl Counts {
    /// Adds the counts of another process at the same moment.
    pub(crate) fn add(&mut self, other: &Counts) {
        self.seconds = self.seconds.max(other.seconds);
        self.connect_seconds = self.connect_seconds.max(other.connect_seconds);
        for (sum, more) in [
            (&mut self.asked, other.asked),
            (&mut self.connected, other.connected),
            (&mut self.failed, other.failed),
            (&mut self.unfinished, other.unfinished),
            (&mut self.late, other.late),
            (&mut self.held, other.held),
            (&mut self.messages, other.messages),
            (&mut self.messages_late, other.messages_late),
            (&mut self.messages_unsent, other.messages_unsent),
            (&mut self.messages_unanswered, other.messages_unanswered),
            (&mut self.unbegun, other.unbegun),
            (&mut self.bytes_sent, other.bytes_sent),
            (&mut self.bytes_received, other.bytes_received),
            (&mut self.corrupt, other.corrupt),
            (&mut self.touched, other.touched),
            (&mut self.held_back, other.held_back),
        ] {
            *sum += more;
        }
        if let Some(address) = &other.connected_to {
            self.connected_to = Some(address.clone());
        }
        let oldest = self.oldest_unanswered_us.into_iter();
        let oldest = oldest.chain(other.oldest_unanswered_us);
        self.oldest_unanswered_us = oldest.reduce(f64::max);
        if let Some(more) = other.resident_bytes {
            self.resident_bytes = Some(self.resident_bytes.unwrap_or(0) + more);
        }
        for (reason, count) in &other.failed_by_reason {
            *self.failed_by_reason.entry(reason.clone()).or_default() += count;
        }
        for (reason, lost) in &other.lost_by_reason {
            for lost in lost {
                self.lose(reason, lost.second, lost.count);
            }
        }
    }

    /// Counts losses in one second.
    pub(crate) fn lose(&mut self, reason: &str, second: u64, count: u64) {
        if count == 0 {
            return;
        }
        self.lost += count;
        let seconds = self.lost_by_reason.entry(reason.to_owned()).or_default();
        match seconds.binary_search_by_key(&second, |lost| lost.second) {
            Ok(place) => seconds[place].count += count,
            Err(place) => seconds.insert(place, LostInSecond { second, count }),
        }
    }

    /// The counts of a process that died after these counts, with its share of the connections.
    /// What it held is lost, and what it had yet to connect has failed.
    pub(crate) fn died(mut self, share: u64, reason: &str) -> Self {
        let held = std::mem::take(&mut self.held);
        self.lose(reason, self.seconds as u64, held);
        self.resident_bytes = None;
        let failed = share.saturating_sub(self.connected + self.failed + self.held_back);
        self.asked = self.connected + self.failed + failed;
        self.unfinished = 0;
        if failed > 0 {
            self.failed += failed;
            *self.failed_by_reason.entry(reason.to_owned()).or_default() += failed;
        }
        self
    }

    /// Connects that were due and had not connected at the end: slower than any limit.
    pub(crate) fn connects_unanswered(&self) -> u64 {
        self.failed + self.unfinished + self.unbegun
    }

    /// The count that a gate names.
    pub(crate) fn named(&self, name: &str) -> u64 {
        match name {
            "asked" => self.asked,
            "connected" => self.connected,
            "failed" => self.failed,
            "unfinished" => self.unfinished,
            "late" => self.late,
            "held" => self.held,
            "lost" => self.lost,
            "messages" => self.messages,
            "messages_late" => self.messages_late,
            "messages_unsent" => self.messages_unsent,
            "messages_unanswered" => self.messages_unanswered,
            "unbegun" => self.unbegun,
            "corrupt" => self.corrupt,
            _ => unreachable!("gates are checked when they are read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::model::gates;

    #[test]
    fn balances_and_knows_every_name_of_a_gate() {
        let ledger = Ledger::new(Instant::now());
        ledger.asked.store(10, Ordering::Relaxed);
        (0..7).for_each(|_| ledger.connected());
        ledger.held.store(7, Ordering::Relaxed);
        ledger.failed(ErrorKind::Refused);
        ledger.failed(ErrorKind::Refused);
        ledger.lost("reset");
        let counts = ledger.counts();
        assert_eq!((counts.failed, counts.unfinished), (2, 1));
        assert_eq!((counts.held, counts.lost), (6, 1));
        assert_eq!(counts.failed_by_reason.values().sum::<u64>(), 2);
        assert_eq!(counts.lost_by_reason["reset"].len(), 1);
        let sum: u64 = gates::NAMES.iter().map(|name| counts.named(name)).sum();
        assert_eq!(sum, 10 + 7 + 2 + 1 + 6 + 1);
    }
}
