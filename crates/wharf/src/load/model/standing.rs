//! The state of a load, in one process or over all.
//!
//! Counts and histograms are added value by value, so percentiles of several processes are those
//! that one process would have measured. Averages of percentiles were rejected: they are
//! percentiles of nothing.

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

use super::ledger::{Counts, Latencies};
use crate::machine::memory;
use crate::processes::{Member, Status};

/// The reason for failures and losses of a process that died.
pub(crate) const PROCESS_DIED: &str = "their process died";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(into = "Wire", try_from = "Wire")]
pub(crate) struct Standing {
    pub(crate) counts: Counts,
    pub(crate) latencies: Latencies,
    pub(crate) interrupted: bool,
}

/// The state as one process sends it to another.
#[derive(Serialize, Deserialize)]
struct Wire {
    counts: Counts,
    interrupted: bool,
    /// Histograms in their own format.
    connect: Vec<u8>,
    message: Vec<u8>,
    unanswered: Vec<u8>,
}

impl From<Standing> for Wire {
    fn from(standing: Standing) -> Self {
        let bytes = |histogram: &Histogram<u64>| {
            let mut bytes = Vec::new();
            let mut serializer = V2DeflateSerializer::new();
            // Writing to memory does not fail. The reader detects a missing histogram.
            let _ = serializer.serialize(histogram, &mut bytes);
            bytes
        };
        Wire {
            interrupted: standing.interrupted,
            connect: bytes(&standing.latencies.connect),
            message: bytes(&standing.latencies.message),
            unanswered: bytes(&standing.latencies.unanswered),
            counts: standing.counts,
        }
    }
}

impl TryFrom<Wire> for Standing {
    type Error = String;

    fn try_from(wire: Wire) -> Result<Self, String> {
        let histogram = |bytes: &[u8]| {
            let read = Deserializer::new().deserialize::<u64, _>(&mut &bytes[..]);
            read.map_err(|error| error.to_string())
        };
        let mut latencies = Latencies::new();
        latencies.add(&Latencies {
            connect: histogram(&wire.connect)?,
            message: histogram(&wire.message)?,
            unanswered: histogram(&wire.unanswered)?,
        });
        Ok(Standing {
            counts: wire.counts,
            latencies,
            interrupted: wire.interrupted,
        })
    }
}

impl Standing {
    /// The state of a load that has not started.
    pub(crate) fn nothing() -> Self {
        Standing {
            counts: Counts::default(),
            latencies: Latencies::new(),
            interrupted: false,
        }
    }

    /// The state of a load that a signal ended while its processes started, and killed some of
    /// them.
    pub(crate) fn ended_before_it_began() -> Self {
        Standing {
            interrupted: true,
            ..Standing::nothing()
        }
    }

    /// Adds up all processes. `share` is the number of connections that a process was to open.
    pub(crate) fn of_all(members: &[Member<Standing>], share: impl Fn(u32) -> u32) -> Self {
        let mut all = Standing::nothing();
        // The parent opens no connection, but its memory counts.
        all.counts.resident_bytes = memory::resident_bytes();
        for (process, member) in members.iter().enumerate() {
            let nothing = Standing::nothing();
            let standing = member.latest.as_ref().unwrap_or(&nothing);
            all.latencies.add(&standing.latencies);
            all.interrupted |= standing.interrupted;
            if member.status == Status::Died {
                let share = u64::from(share(process as u32));
                all.counts
                    .add(&standing.counts.clone().died(share, PROCESS_DIED));
            } else {
                all.counts.add(&standing.counts);
            }
        }
        all
    }

    /// Connections that ended with their process before it reported them as connected.
    pub(crate) fn failed_with_their_process(&self) -> u64 {
        let failed = self.counts.failed_by_reason.get(PROCESS_DIED);
        failed.copied().unwrap_or(0)
    }

    /// Whether a process died.
    pub(crate) fn is_short_of_a_process(&self) -> bool {
        self.failed_with_their_process() > 0
            || self.counts.lost_by_reason.contains_key(PROCESS_DIED)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::model::ledger::record;

    fn standing(connected: u64, lost: u64, milliseconds: u64) -> Standing {
        let mut standing = Standing::nothing();
        standing.counts.asked = connected;
        standing.counts.connected = connected;
        standing.counts.held = connected - lost;
        standing.counts.lose("reset", 2, lost);
        standing.counts.seconds = milliseconds as f64;
        for number in 1..=connected {
            let latency = Duration::from_millis(number * milliseconds);
            record(&mut standing.latencies.connect, latency);
        }
        standing
    }

    fn member(latest: Option<Standing>, status: Status) -> Member<Standing> {
        Member { latest, status }
    }

    /// A state, as the other process receives it.
    fn sent(standing: &Standing) -> Standing {
        let text = serde_json::to_string(standing).expect("memory");
        serde_json::from_str(&text).expect("what was written")
    }

    #[test]
    fn percentiles_of_all_are_those_of_one_that_measured_all() {
        let (few, many) = (standing(10, 0, 100), standing(1000, 0, 1));
        let mut one = Latencies::new();
        one.add(&few.latencies);
        one.add(&many.latencies);
        let lives = |it| member(Some(sent(it)), Status::Over);
        let all = Standing::of_all(&[lives(&few), lives(&many)], |_| 0);
        assert_eq!(all.latencies.connect, one.connect);
        assert_eq!(all.latencies.connect.len(), 1010);
        assert_eq!(all.counts.connected, 1010);
        assert!(!all.is_short_of_a_process());
    }

    #[test]
    fn losses_keep_their_second_and_their_reason() {
        let over = || member(Some(sent(&standing(5, 2, 1))), Status::Over);
        let all = Standing::of_all(&[over(), over()], |_| 0);
        let lost = &all.counts.lost_by_reason["reset"];
        assert_eq!((lost.len(), lost[0].second, lost[0].count), (1, 2, 4));
        assert_eq!((all.counts.held, all.counts.lost), (6, 4));
    }

    #[test]
    fn dead_processes_are_counted_and_the_ledger_balances() {
        let members = [
            member(Some(standing(5, 0, 1)), Status::Over),
            member(Some(standing(3, 1, 1)), Status::Died),
            member(None, Status::Died),
        ];
        let all = Standing::of_all(&members, |_| 5);
        let counts = &all.counts;
        assert_eq!(counts.asked, 15);
        assert_eq!((counts.connected, counts.failed), (8, 7));
        assert_eq!((counts.held, counts.lost), (5, 3));
        assert_eq!(counts.failed_by_reason[PROCESS_DIED], 7);
        assert_eq!(counts.lost_by_reason[PROCESS_DIED][0].count, 2);
        assert_eq!(all.failed_with_their_process(), 7);
        assert!(all.is_short_of_a_process());
    }

    #[test]
    fn what_is_no_histogram_is_refused() {
        let text = serde_json::to_string(&standing(1, 0, 1)).expect("memory");
        let mut value: serde_json::Value = serde_json::from_str(&text).expect("an object");
        value["connect"] = serde_json::json!([1, 2, 3]);
        assert!(serde_json::from_value::<Standing>(value).is_err());
    }
}
