//! The connections that come and go, for the lines of `-v`.
//!
//! Without `-v` this is not used, so a held connection costs the program no memory. With `-v` each
//! open connection has an entry: the account has the number of resets, and these lines say which
//! connections they were. Each service thread counts the bytes of its connections.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use wharf_port::{Accepted, Address};

use crate::account::Left;
use crate::server::service::Bytes;

/// The open connections of a server that reports each.
#[derive(Debug)]
pub(super) struct Visitors {
    start: Instant,
    listeners: Vec<Address>,
    open: Mutex<HashMap<u64, Visitor>>,
}

/// What is known of a connection from its start.
#[derive(Clone, Debug)]
struct Visitor {
    peer: Option<String>,
    listener: Option<String>,
    accepted_at: Instant,
}

/// A line about one connection.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Visit {
    event: &'static str,
    key: u64,
    detail: String,
    /// `None` if the peer had left before its address was read, or has no address.
    peer: Option<String>,
    listener: Option<String>,
    /// Milliseconds since the start of this process, and since 1970.
    ms: f64,
    unix_ms: u64,
    #[serde(flatten)]
    stay: Option<Stay>,
}

/// The byte counts and duration of a connection that has left.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
struct Stay {
    held_ms: f64,
    bytes_in: u64,
    bytes_out: u64,
}

impl Visitors {
    /// For a server with these listeners, in their order.
    pub(super) fn new(listeners: Vec<Address>) -> Self {
        Visitors {
            start: Instant::now(),
            listeners,
            open: Mutex::default(),
        }
    }

    /// A connection came, at the listener with this number.
    pub(super) fn comes(&self, key: u64, accepted: &Met) -> Visit {
        let listener = usize::try_from(accepted.listener).ok();
        let listener = listener.and_then(|number| self.listeners.get(number));
        let visitor = Visitor {
            peer: accepted.peer.clone(),
            listener: listener.map(ToString::to_string),
            accepted_at: Instant::now(),
        };
        let visit = self.visit(
            "accepted",
            key,
            format!("socket {}", accepted.socket),
            &visitor,
        );
        self.lock().insert(key, visitor);
        visit
    }

    /// A connection left, in this way; `None` if that was reported before.
    pub(super) fn leaves(&self, key: u64, how: Left, bytes: Bytes) -> Option<Visit> {
        let visitor = self.lock().remove(&key)?;
        let detail = format!("{how:?}").to_lowercase();
        Some(Visit {
            stay: Some(Stay {
                held_ms: milliseconds(visitor.accepted_at.elapsed()),
                bytes_in: bytes.received,
                bytes_out: bytes.sent,
            }),
            ..self.visit("left", key, detail, &visitor)
        })
    }

    fn visit(&self, event: &'static str, key: u64, detail: String, visitor: &Visitor) -> Visit {
        // A clock before 1970 is wrong, but the line is still useful.
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Visit {
            event,
            key,
            detail,
            peer: visitor.peer.clone(),
            listener: visitor.listener.clone(),
            ms: milliseconds(self.start.elapsed()),
            unix_ms: now.map_or(0, |since| since.as_millis() as u64),
            stay: None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Visitor>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What can be read of a connection only before it is associated.
#[derive(Debug)]
pub(super) struct Met {
    socket: u64,
    peer: Option<String>,
    listener: u64,
}

impl Met {
    pub(super) fn new(accepted: &Accepted, listener: u64) -> Self {
        // A client of a Unix socket usually has no path.
        let named =
            |peer: &Address| !matches!(peer, Address::Unix(path) if path.as_os_str().is_empty());
        Met {
            socket: accepted.raw_descriptor(),
            peer: accepted
                .peer_addr()
                .ok()
                .filter(named)
                .map(|it| it.to_string()),
            listener,
        }
    }
}

impl Visit {
    /// The same as text: `left 100: reset, 127.0.0.1:5000 at 127.0.0.1:10101, …`.
    pub(crate) fn text(&self) -> String {
        let (event, key, detail) = (self.event, self.key, &self.detail);
        let place = match (&self.peer, &self.listener) {
            (Some(peer), Some(listener)) => format!(", {peer} at {listener}"),
            (None, Some(listener)) => format!(", at {listener}"),
            (Some(peer), None) => format!(", {peer}"),
            (None, None) => String::new(),
        };
        let stay = self.stay.map_or(String::new(), |stay| {
            format!(
                "; held {:.3} s, {} bytes in, {} out",
                stay.held_ms / 1e3,
                stay.bytes_in,
                stay.bytes_out
            )
        });
        let seconds = self.ms / 1e3;
        format!("{event} {key}: {detail}{place}, after {seconds:.3} s{stay}")
    }
}

/// To the microsecond: threads are not scheduled more exactly.
fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitor_is_reported_when_it_comes_and_once_when_it_leaves() {
        let listener: Address = std::net::SocketAddr::from(([127, 0, 0, 1], 10101)).into();
        let visitors = Visitors::new(vec![listener]);
        let met = Met {
            socket: 12,
            peer: Some("127.0.0.1:5000".into()),
            listener: 0,
        };
        let text = visitors.comes(100, &met).text();
        let begin = "accepted 100: socket 12, 127.0.0.1:5000 at 127.0.0.1:10101, after ";
        assert!(text.starts_with(begin), "{text}");
        let bytes = Bytes {
            received: 7,
            sent: 5,
        };
        let left = visitors
            .leaves(100, Left::Reset, bytes)
            .expect("it was there");
        let text = left.text();
        assert!(
            text.starts_with("left 100: reset, 127.0.0.1:5000 at "),
            "{text}"
        );
        assert!(text.ends_with(" s, 7 bytes in, 5 out"), "{text}");
        assert_eq!(visitors.leaves(100, Left::Fin, bytes), None);
        // A missing listener is left out, and so is a peer without a name.
        let nameless = Met {
            peer: None,
            listener: 1,
            ..met
        };
        let line = serde_json::to_value(visitors.comes(101, &nameless)).expect("an object");
        assert!(
            line["peer"].is_null() && line["listener"].is_null(),
            "{line}"
        );
        assert!(line.get("held_ms").is_none(), "{line}");
    }
}
