//! The server's account, read before and after the load: the difference is this load's.
//!
//! When the load is over, some of its connections may still be in the backlog. A process of a
//! divided server may report late. So the second account is read again while something is missing.
//!
//! The load reads how many of its connections the server holds while it still holds them. The
//! server's count includes connections of other clients, which come and go. So the load takes what
//! the server holds more than before the load, or more than after it, whichever is more. "Before"
//! alone was rejected: a load that started just after another load counted that one's connections
//! as there before, and they left meanwhile.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::account::joint::{BothEnds, Joint};
use crate::load::model::standing::Standing;

/// A limit on the time of one read. A server in several processes asks each of them, for five
/// seconds at most, and may have to finish another read first.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the server may report no progress, at least and with each connection, and how often the
/// load reads the account. The load counts reads and not time: a server that is not scheduled for
/// seconds replies once in that time, and has had no time to accept a connection.
const ACCOUNTS_WITHIN: Duration = Duration::from_secs(2);
const ACCOUNTS_FOR_EACH: Duration = Duration::from_micros(20);
const ASK_EVERY: Duration = Duration::from_millis(50);
/// An account is a few hundred bytes.
const ANSWER_BYTES_MAX: usize = 65_536;

/// A server with `--admin`, and its account before the load.
#[derive(Debug)]
pub(crate) struct Asked {
    address: SocketAddr,
    before: Told,
}

/// The part of an account that the load uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Told {
    accepted: u64,
    held: u64,
    bytes_in: u64,
    bytes_out: u64,
}

/// All connections that the server held when the load held its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    all: u64,
    /// More than before the load.
    more: u64,
}

impl Asked {
    /// Reads the account before the load.
    pub(crate) fn before(address: SocketAddr) -> Result<Self, String> {
        let before = ask(address)?;
        Ok(Asked { address, before })
    }

    /// Reads the account while the load holds `here` connections.
    pub(crate) fn held(&self, here: u64) -> Result<Held, String> {
        let answers_max = answers_max(here);
        let (mut same, mut known) = (0, None);
        loop {
            let all = ask(self.address)?.held;
            let more = all.saturating_sub(self.before.held);
            same = if known == Some(all) { same + 1 } else { 0 };
            known = Some(all);
            if more >= here || same >= answers_max {
                return Ok(Held { all, more });
            }
            thread::sleep(ASK_EVERY);
        }
    }

    /// Reads the account after the load, and joins both ledgers. `held` is what the server held at
    /// the end.
    pub(crate) fn after(&self, standing: &Standing, held: Option<Held>) -> Result<Joint, String> {
        let counts = &standing.counts;
        // If a process died, it is unknown how far its connections came.
        let unknown = standing.failed_with_their_process();
        let answers_max = answers_max(counts.connected);
        let (mut same, mut known) = (0, None);
        loop {
            let now = ask(self.address)?;
            let accepted = now.accepted.saturating_sub(self.before.accepted);
            let ends = BothEnds {
                connected: counts.connected,
                unfinished: counts.unfinished + unknown,
                lost: counts.lost + unknown,
                held: held.map(|there| (counts.held, there.of_load(now.held).min(accepted))),
                accepted,
                bytes_sent: counts.bytes_sent,
                bytes_in: now.bytes_in.saturating_sub(self.before.bytes_in),
                bytes_received: counts.bytes_received,
                bytes_out: now.bytes_out.saturating_sub(self.before.bytes_out),
            };
            let knows = Some(accounted(&ends));
            same = if known == knows { same + 1 } else { 0 };
            known = knows;
            if !lacks(&ends) || same >= answers_max {
                return Ok(Joint::of(ends));
            }
            thread::sleep(ASK_EVERY);
        }
    }
}

impl Held {
    /// How many of them were this load's, if the server holds `after` once the load is over.
    fn of_load(self, after: u64) -> u64 {
        self.more.max(self.all.saturating_sub(after))
    }
}

/// The number of accounts in a row without progress.
fn answers_max(connected: u64) -> u128 {
    let connected = u32::try_from(connected).unwrap_or(u32::MAX);
    let patience = ACCOUNTS_WITHIN + ACCOUNTS_FOR_EACH * connected;
    patience.as_nanos() / ASK_EVERY.as_nanos()
}

/// What the server reported of this load, whatever other clients do.
fn accounted(ends: &BothEnds) -> [u64; 4] {
    [
        ends.held.map_or(0, |(here, there)| there.min(here)),
        ends.accepted.min(ends.connected),
        ends.bytes_in.min(ends.bytes_sent),
        ends.bytes_out.min(ends.bytes_received),
    ]
}

/// Whether the server may still have something to report. If connections were lost, it is unknown
/// how many bytes went with them.
fn lacks(ends: &BothEnds) -> bool {
    let is_whole = ends.lost == 0 && ends.unfinished == 0;
    let lacks_bytes = ends.bytes_in < ends.bytes_sent || ends.bytes_out < ends.bytes_received;
    let lacks_held = ends.held.is_some_and(|(here, there)| there < here);
    ends.accepted < ends.connected || lacks_held || is_whole && lacks_bytes
}

fn ask(address: SocketAddr) -> Result<Told, String> {
    let other = "the reply is not from a server of Wharf";
    parse(&ask_all(address)?).ok_or_else(|| failed(address, &other))
}

/// The current account of a server, as an object.
pub(crate) fn account(address: SocketAddr) -> Result<Value, String> {
    let text = ask_all(address)?;
    serde_json::from_str(&text).map_err(|error| failed(address, &error))
}

fn failed(address: SocketAddr, why: &dyn std::fmt::Display) -> String {
    format!("no account from {address}: {why}; start the server with --admin {address}")
}

fn ask_all(address: SocketAddr) -> Result<String, String> {
    let failed = |error: std::io::Error| failed(address, &error);
    let give_up_at = Instant::now() + PATIENCE;
    let mut client = TcpStream::connect_timeout(&address, PATIENCE).map_err(failed)?;
    let (mut text, mut part) = (Vec::new(), [0; 4096]);
    while text.len() < ANSWER_BYTES_MAX {
        // A limit on each read alone starts again with every byte and every signal. A program that
        // was stopped and continued again and again once waited for ever.
        let left = give_up_at.saturating_duration_since(Instant::now());
        let left = left.max(Duration::from_millis(1));
        client.set_read_timeout(Some(left)).map_err(failed)?;
        match client.read(&mut part) {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted && Instant::now() < give_up_at => {
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn parse(text: &str) -> Option<Told> {
    let value: Value = serde_json::from_str(text).ok()?;
    let number = |name: &str| value.get(name)?.as_u64();
    Some(Told {
        accepted: number("accepted")?,
        held: number("held")?,
        bytes_in: number("bytes_in")?,
        bytes_out: number("bytes_out")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_waited_for_until_it_has_everything() {
        let all = BothEnds {
            connected: 2,
            accepted: 2,
            bytes_sent: 64,
            bytes_in: 64,
            bytes_received: 64,
            bytes_out: 64,
            ..BothEnds::default()
        };
        assert!(!lacks(&all));
        assert!(lacks(&BothEnds { accepted: 1, ..all }));
        // One of its processes reported an older state.
        assert!(lacks(&BothEnds { bytes_in: 0, ..all }));
        assert!(lacks(&BothEnds {
            bytes_out: 0,
            ..all
        }));
        let lost = 1;
        assert!(!lacks(&BothEnds {
            bytes_in: 0,
            lost,
            ..all
        }));
        // The server has not noticed yet that they left, which shows that they were there.
        let held = |there| Some((2, there));
        assert!(lacks(&BothEnds {
            held: held(1),
            ..all
        }));
        assert!(!lacks(&BothEnds {
            held: held(2),
            ..all
        }));
        // In 2 s, and in 22 s.
        assert_eq!((answers_max(0), answers_max(1_000_000)), (40, 440));
        // Traffic of other clients is no progress.
        let others = BothEnds {
            accepted: 9,
            bytes_in: 999,
            ..all
        };
        assert_eq!(accounted(&others), accounted(&all));
    }

    #[test]
    fn connections_of_others_that_leave_hide_none_of_the_loads() {
        let held = |before: u64, all: u64| Held {
            all,
            more: all.saturating_sub(before),
        };
        // There is no other client.
        assert_eq!(held(0, 20).of_load(20), 20);
        // Twenty of another client were there. They stay, or leave before the load is over.
        assert_eq!(held(20, 40).of_load(20), 20);
        assert_eq!(held(20, 20).of_load(0), 20);
        // Of the load's twenty, ten wait between the two ends.
        assert_eq!(held(0, 10).of_load(0), 10);
        assert_eq!(held(20, 10).of_load(0), 10);
    }

    #[test]
    fn only_an_account_is_taken_for_one() {
        let account = r#"{"event":"standing","accepted":3,"held":2,"bytes_in":4,"bytes_out":5}"#;
        let told = parse(account).expect("an account");
        assert_eq!((told.accepted, told.bytes_in, told.bytes_out), (3, 4, 5));
        for other in ["", "HTTP/1.1 400", "{}", r#"{"accepted":-1}"#] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
