//! A load and the server that it was aimed at: one ledger of both ends.
//!
//! Every connection that has connected was accepted by the server, or was reset before it was, or
//! still waited in its backlog when it ended. More accepted than connected means that there were
//! other clients, or that a connect came too late for its load.

use serde::Serialize;
use serde_json::Value;

/// Both ends.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Joint {
    pub(crate) connected: u64,
    pub(crate) unfinished: u64,
    /// Of a load that holds: how many it held at its end, and how many of these the server did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) held: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) held_by_server: Option<u64>,
    pub(crate) accepted: u64,
    /// Connected, and reset before the server accepted them, or still in its backlog.
    pub(crate) never_accepted: u64,
    /// Accepted, but neither connected nor unfinished at the load: from somebody else.
    pub(crate) of_others: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_out: u64,
    pub(crate) balances: bool,
    pub(crate) verdict: String,
}

/// What loads have held at once, and what their server has at most: its account at its end holds
/// nothing any more. Loads may have followed each other, so that it is the largest that counts.
fn held(loads: &[Value], accounts: &[Value]) -> Option<(u64, u64)> {
    let holds = loads.iter().filter(|load| load["mode"] == "hold");
    let here = holds.filter_map(|load| load["held"].as_u64()).max()?;
    let peaks = accounts.iter().map(|account| account["peak"].as_u64());
    let there = peaks.sum::<Option<u64>>()?;
    Some((here, there))
}

/// As an object of its own.
#[derive(Debug, Serialize)]
pub(crate) struct Told<'a> {
    pub(crate) event: &'static str,
    pub(crate) version: u32,
    #[serde(flatten)]
    pub(crate) joint: &'a Joint,
}

/// What both ends have counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct BothEnds {
    pub(crate) connected: u64,
    pub(crate) unfinished: u64,
    pub(crate) lost: u64,
    /// By the load, and by the server, before the first was closed.
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
        // A connection that was lost, or never accepted, may have taken bytes with it.
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
