//! The account of the server, asked before the load and after it: the difference is this load's.
//!
//! What has connected may still be in the backlog when the load is over, so the second answer is
//! asked for again while it grows.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::standing::Standing;
use crate::compare::ledgers::{BothEnds, Joint};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the server may take to accept what has connected, and how often it is asked.
const ACCEPTS_WITHIN: Duration = Duration::from_secs(2);
const ASK_EVERY: Duration = Duration::from_millis(50);
/// An account is a few hundred bytes.
const ANSWER_BYTES_MAX: u64 = 65_536;

/// A server that tells, and what it told before the load.
#[derive(Debug)]
pub(super) struct Asked {
    address: SocketAddr,
    before: Told,
}

/// What matters of an account.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Told {
    accepted: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl Asked {
    /// Asks before the load.
    pub(super) fn before(address: SocketAddr) -> Result<Self, String> {
        let before = ask(address)?;
        Ok(Asked { address, before })
    }

    /// Asks after it; both ledgers as one.
    pub(super) fn after(&self, standing: &Standing) -> Result<Joint, String> {
        let counts = &standing.counts;
        // Nobody knows how far those came whose process died.
        let unknown = standing.failed_with_their_process();
        let give_up_at = Instant::now() + ACCEPTS_WITHIN;
        loop {
            let now = ask(self.address)?;
            let accepted = now.accepted.saturating_sub(self.before.accepted);
            if accepted < counts.connected && Instant::now() < give_up_at {
                thread::sleep(ASK_EVERY);
                continue;
            }
            return Ok(Joint::of(BothEnds {
                connected: counts.connected,
                unfinished: counts.unfinished + unknown,
                lost: counts.lost + unknown,
                accepted,
                bytes_sent: counts.bytes_sent,
                bytes_in: now.bytes_in.saturating_sub(self.before.bytes_in),
                bytes_received: counts.bytes_received,
                bytes_out: now.bytes_out.saturating_sub(self.before.bytes_out),
            }));
        }
    }
}

fn ask(address: SocketAddr) -> Result<Told, String> {
    let other = "what answers there is no server of Wharf";
    parse(&ask_all(address)?).ok_or_else(|| failed(address, &other))
}

/// The account of a server as it stands, as an object.
pub(crate) fn account(address: SocketAddr) -> Result<Value, String> {
    let text = ask_all(address)?;
    serde_json::from_str(&text).map_err(|error| failed(address, &error))
}

fn failed(address: SocketAddr, why: &dyn std::fmt::Display) -> String {
    format!("no account from {address}: {why}; start the server with --admin {address}")
}

fn ask_all(address: SocketAddr) -> Result<String, String> {
    let failed = |error: std::io::Error| failed(address, &error);
    let mut client = TcpStream::connect_timeout(&address, PATIENCE).map_err(failed)?;
    client.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let mut text = String::new();
    let mut limited = (&mut client).take(ANSWER_BYTES_MAX);
    limited.read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

fn parse(text: &str) -> Option<Told> {
    let value: Value = serde_json::from_str(text).ok()?;
    let number = |name: &str| value.get(name)?.as_u64();
    Some(Told {
        accepted: number("accepted")?,
        bytes_in: number("bytes_in")?,
        bytes_out: number("bytes_out")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_account_is_taken_for_one() {
        let account = r#"{"event":"standing","accepted":3,"bytes_in":4,"bytes_out":5}"#;
        let told = parse(account).expect("an account");
        assert_eq!((told.accepted, told.bytes_in, told.bytes_out), (3, 4, 5));
        for other in ["", "HTTP/1.1 400", "{}", r#"{"accepted":-1}"#] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
