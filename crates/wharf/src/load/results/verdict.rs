//! The verdict of a load in one sentence, and whether it did what was requested.

use std::time::Duration;

use wharf_port::ErrorKind;

use super::report::Moment;
use crate::account::joint::Joint;
use crate::load::model::ledger::Counts;
use crate::load::options::{LoadOptions, Mode};

/// A connect that takes longer was sent again at least once: the system repeats the first SYN after
/// a second.
const SENT_AGAIN_NS: u64 = 1_000_000_000;
/// A target that connects in less time is near.
const NEAR_NS: u64 = 200_000_000;

impl Moment<'_> {
    /// One sentence.
    pub(crate) fn verdict(&self) -> String {
        let wanted = self.options.connections;
        let faults = self.connection_faults();
        let messages = self.message_faults();
        let all = if faults.is_empty() {
            format!("all {wanted} {}", self.what_all_did(messages.is_empty()))
        } else {
            format!("of {wanted} wanted, {}", faults.join(", "))
        };
        let backlog = self.full_backlog();
        let agree = self.joint.filter(|joint| joint.balances);
        let agree = agree.map(|joint| joint.verdict.trim_end_matches('.').to_owned());
        let before = if self.interrupted {
            "interrupted: "
        } else {
            ""
        };
        let all = [all].into_iter().chain(messages).chain(backlog);
        let parts = all.chain(agree).chain(self.missed.iter().cloned());
        let parts: Vec<String> = parts.collect();
        format!("{before}{}.", parts.join("; "))
    }

    /// The outcomes of connections that failed.
    fn connection_faults(&self) -> Vec<String> {
        let counts = self.counts;
        let wanted = u64::from(self.options.connections);
        let faults = [
            (
                wanted.saturating_sub(counts.asked + counts.held_back),
                "were not begun in time",
            ),
            (counts.held_back, "were not begun, to leave memory"),
            (counts.failed, "failed to connect"),
            (counts.unfinished, "had not connected when it ended"),
            (counts.lost, "were lost"),
            (
                self.joint.map_or(0, Joint::between),
                "are not held by the server",
            ),
            (counts.corrupt, "brought wrong bytes"),
        ];
        let faults = faults.into_iter().filter(|(count, _)| *count > 0);
        faults
            .map(|(count, what)| format!("{count} {what}"))
            .collect()
    }

    fn what_all_did(&self, all_came_back: bool) -> String {
        let counts = self.counts;
        match self.options.mode {
            Mode::Connect => "connected and closed".to_owned(),
            Mode::Hold if self.options.touch.is_some() => format!(
                "connected and held; {} of them were touched, and echo",
                counts.touched
            ),
            Mode::Hold => "connected and held".to_owned(),
            Mode::Echo | Mode::Stream if all_came_back => {
                "connected, and every byte came back right".to_owned()
            }
            Mode::Echo | Mode::Stream => "connected, and what came back was right".to_owned(),
        }
    }

    /// The outcomes of messages that were due and had no reply.
    fn message_faults(&self) -> Vec<String> {
        let counts = self.counts;
        let mut faults = Vec::new();
        if let Some(asked) = self.options.requests_per_second
            && counts.messages_unsent > 0
        {
            let due = counts.messages + counts.messages_unanswered;
            let sent = due.saturating_sub(counts.messages_unsent);
            let rate = asked * sent as f64 / due as f64;
            let unsent = were(counts.messages_unsent, "message");
            faults.push(format!(
                "{unsent} due and never sent: the load could not send {asked} a second, but {rate:.0}"
            ));
        }
        let unanswered = counts.messages_unanswered;
        let unanswered = unanswered.saturating_sub(counts.messages_unsent);
        if unanswered > 0 {
            let oldest = age(counts).map_or(String::new(), |it| format!(", the oldest for {it:?}"));
            faults.push(format!(
                "{} not answered{oldest}",
                were(unanswered, "message")
            ));
        }
        faults
    }

    /// Whether a backlog was full, as far as a client can see: some connections connect at once,
    /// others never or only after their SYN was sent again.
    fn full_backlog(&self) -> Option<String> {
        let connects = &self.latencies.connect;
        let again = connects.count_between(SENT_AGAIN_NS, u64::MAX);
        let timed_out = ErrorKind::TimedOut.to_string();
        let timed_out = self.counts.failed_by_reason.get(&timed_out);
        let waits = self.counts.unfinished + timed_out.copied().unwrap_or(0);
        let is_near = !connects.is_empty() && connects.value_at_quantile(0.1) < NEAR_NS;
        // A connect that started late says nothing about the server.
        let is_likely = is_near && self.counts.late == 0 && again + waits > 0;
        is_likely.then(|| {
            format!(
                "connects that took a second or more: {}; the backlog of the server was likely full, \
                 and --connecting has fewer under way",
                again + waits
            )
        })
    }
}

/// `count` of these things were.
fn were(count: u64, thing: &str) -> String {
    match count {
        1 => format!("1 {thing} was"),
        _ => format!("{count} {thing}s were"),
    }
}

/// The age of the oldest message without a reply.
pub(crate) fn age(counts: &Counts) -> Option<Duration> {
    let age = counts.oldest_unanswered_us?;
    Some(Duration::from_millis((age / 1e3) as u64))
}

/// Whether connections failed, were lost or had not connected in time, and no `--expect` allows
/// that.
pub(crate) fn has_failed(options: &LoadOptions, counts: &Counts) -> bool {
    let is_gated = |name: &str| options.expect.iter().any(|gate| gate.name() == name);
    ["failed", "unfinished", "lost"]
        .into_iter()
        .any(|name| counts.named(name) > 0 && !is_gated(name))
}
