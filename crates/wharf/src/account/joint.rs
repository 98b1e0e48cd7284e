//! The joint ledger of a load and its server.
//!
//! Every connection of the load was accepted by the server, or reset before that, or was still in
//! the backlog at the end. If the server accepted more than the load connected, there were other
//! clients, or a connect completed too late for the load.

use serde::Serialize;
use serde_json::Value;

/// Both ends.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Joint {
    pub(crate) connected: u64,
    pub(crate) unfinished: u64,
    /// For a load that holds: the number that it held at its end, and how many of these the server
    /// held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) held: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) held_by_server: Option<u64>,
    pub(crate) accepted: u64,
    /// Connected, and reset before the server accepted them, or still in its backlog.
    pub(crate) never_accepted: u64,
    /// Accepted, but neither connected nor unfinished at the load: connections of another client.
    pub(crate) of_others: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_out: u64,
    pub(crate) balances: bool,
    pub(crate) verdict: String,
}

/// The most connections that a load held at once, and the most that the server held. The server's
/// account at its end has none left. Loads may run one after the other, so the largest counts.
fn held(loads: &[Value], accounts: &[Value]) -> Option<(u64, u64)> {
    let holds = loads.iter().filter(|load| load["mode"] == "hold");
    let here = holds.filter_map(|load| load["held"].as_u64()).max()?;
    let peaks = accounts.iter().map(|account| account["peak"].as_u64());
    let there = peaks.sum::<Option<u64>>()?;
    Some((here, there))
}

/// The ledger as a JSON object.
#[derive(Debug, Serialize)]
pub(crate) struct Told<'a> {
    pub(crate) event: &'static str,
    pub(crate) version: u32,
    #[serde(flatten)]
    pub(crate) joint: &'a Joint,
}

/// The counters of both ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct BothEnds {
    pub(crate) connected: u64,
    pub(crate) unfinished: u64,
    pub(crate) lost: u64,
    /// Held by the load, and by the server, before the load closed the first one.
    pub(crate) held: Option<(u64, u64)>,
    pub(crate) accepted: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_out: u64,
}

impl Joint {
    /// Adds up the loads of one side and the accounts of the other.
    pub(crate) fn new(loads: &[Value], accounts: &[Value]) -> Result<Self, String> {
        let sum = |of: &[Value], name: &str| -> Result<u64, String> {
            let numbers = of.iter().map(|value| {
                let number = value[name].as_u64();
                number.ok_or_else(|| format!("an object lacks {name}"))
            });
            numbers.sum()
        };
        Ok(Joint::of(BothEnds {
            connected: sum(loads, "connected")?,
            unfinished: sum(loads, "unfinished")?,
            lost: sum(loads, "lost")?,
            held: held(loads, accounts),
            accepted: sum(accounts, "accepted")?,
            bytes_sent: sum(loads, "bytes_sent")?,
            bytes_in: sum(accounts, "bytes_in")?,
            bytes_received: sum(loads, "bytes_received")?,
            bytes_out: sum(accounts, "bytes_out")?,
        }))
    }

    pub(crate) fn of(ends: BothEnds) -> Self {
        let reached = ends.connected + ends.unfinished;
        let mut faults = Vec::new();
        let never_accepted = ends.connected.saturating_sub(ends.accepted);
        let of_others = ends.accepted.saturating_sub(reached);
        if of_others > 0 {
            faults.push(format!("the server accepted {of_others} of somebody else"));
        }
        let held = ends.held.map(|(here, there)| (here, there.min(here)));
        if let Some((here, there)) = held
            && there < here
        {
            let between = here - there;
            faults.push(format!(
                "{here} connected here, {there} held there, {between} wait in between"
            ));
        }
        // Bytes may have gone with a connection that was lost or never accepted.
        if ends.lost == 0 && never_accepted == 0 && of_others == 0 {
            for (sent, got, what) in [
                (ends.bytes_sent, ends.bytes_in, "the load sent"),
                (ends.bytes_out, ends.bytes_received, "the server sent"),
            ] {
                if sent != got {
                    faults.push(format!("{what} {sent} bytes, and {got} arrived"));
                }
            }
        }
        let balances = faults.is_empty();
        let verdict = if !balances {
            format!("the ledgers do not agree: {}.", faults.join("; "))
        } else if never_accepted > 0 {
            format!(
                "the ledgers agree: {} connected, {} accepted, {never_accepted} reset before that \
                 or still in the backlog.",
                ends.connected, ends.accepted
            )
        } else {
            format!(
                "the ledgers agree: {} connected, {} accepted.",
                ends.connected, ends.accepted
            )
        };
        Joint {
            connected: ends.connected,
            unfinished: ends.unfinished,
            held: held.map(|(here, _)| here),
            held_by_server: held.map(|(_, there)| there),
            accepted: ends.accepted,
            never_accepted,
            of_others,
            bytes_sent: ends.bytes_sent,
            bytes_in: ends.bytes_in,
            bytes_received: ends.bytes_received,
            bytes_out: ends.bytes_out,
            balances,
            verdict,
        }
    }

    /// Connections that the load held at its end and the server did not.
    pub(crate) fn between(&self) -> u64 {
        let held = self.held.zip(self.held_by_server);
        held.map_or(0, |(here, there)| here - there)
    }

    pub(crate) fn text(&self) -> String {
        let lines = [
            format!("connected       {:>12}   by the load", self.connected),
            format!("accepted        {:>12}   by the server", self.accepted),
            format!(
                "never accepted  {:>12}   reset before, or in the backlog",
                self.never_accepted
            ),
            format!(
                "bytes           {:>12}   sent by the load, {} arrived",
                self.bytes_sent, self.bytes_in
            ),
            format!(
                "bytes           {:>12}   sent by the server, {} arrived",
                self.bytes_out, self.bytes_received
            ),
        ];
        format!("{}\n{}\n", lines.join("\n"), self.verdict)
    }
}
