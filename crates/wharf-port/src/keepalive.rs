//! Keepalive: noticing that a silent peer is gone.
//!
//! TCP sends nothing on an idle connection. If its peer lost power, or a firewall forgot it, the
//! connection stays open for ever. Probes detect that. All three values are set together, because
//! the systems' defaults differ: Linux sends 9 probes, Windows 10; Windows sends one every second,
//! Linux every 75. So a program that names a time means the same time everywhere.
//!
//! Using `socket2`'s type was rejected: each of its parts is optional, and the system chooses the
//! missing ones.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use crate::error::ErrorKind;
use crate::sys;

/// When to probe a silent peer, and when to give it up.
///
/// After `idle` without a byte from the peer the system sends a probe, then one every `interval`.
/// After `probes` probes without a reply the connection ends as
/// [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut): a receive with
/// [`Event::Ended`](crate::Event::Ended), a watch with [`Leave::Broken`](crate::Leave::Broken). So
/// the program learns that a peer vanished after `idle + interval * probes`.
///
/// # Portability
/// Parts of a second are rounded up to whole ones. Linux takes at most 32,767 seconds and 127
/// probes. Windows before version 1703 of Windows 10, and Wine 8, cannot set the number of probes:
/// their own number, 10, applies. Keepalive has no effect on Unix sockets, whose ends are on one
/// machine, and on the simulated network. Sources: tcp(7), `SIO_KEEPALIVE_VALS` and `TCP_KEEPCNT`
/// of Winsock.
///
/// ```
/// use std::time::Duration;
/// use wharf_port::{Keepalive, ListenOptions};
/// // A vanished peer is detected after at most 90 s.
/// let keepalive = Keepalive::after(Duration::from_secs(60));
/// let options = ListenOptions::new(([127, 0, 0, 1], 0)).keepalive(keepalive);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[must_use]
pub struct Keepalive {
    idle: Duration,
    interval: Duration,
    probes: u32,
}

impl Keepalive {
    /// Sends the first probe after this long without a byte from the peer. By default the next ones
    /// follow every 10 s, and the connection ends after 3 probes.
    ///
    /// ```
    /// let keepalive = wharf_port::Keepalive::after(std::time::Duration::from_secs(60));
    /// ```
    pub fn after(idle: Duration) -> Self {
        Keepalive {
            idle,
            interval: Duration::from_secs(10),
            probes: 3,
        }
    }

    /// Sets the time between probes.
    ///
    /// ```
    /// use std::time::Duration;
    /// let keepalive = wharf_port::Keepalive::after(Duration::from_secs(60))
    ///     .interval(Duration::from_secs(5));
    /// ```
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets how many probes without a reply end the connection.
    ///
    /// ```
    /// use std::time::Duration;
    /// let keepalive = wharf_port::Keepalive::after(Duration::from_secs(60)).probes(5);
    /// ```
    pub fn probes(mut self, probes: u32) -> Self {
        self.probes = probes;
        self
    }

    /// Sets it on a socket. Has no effect unless it is an internet socket.
    pub(crate) fn set_on(&self, socket: &SockRef<'_>) -> std::io::Result<()> {
        let times = TcpKeepalive::new()
            .with_time(whole_seconds(self.idle))
            .with_interval(whole_seconds(self.interval));
        let set = socket.set_tcp_keepalive(&times.clone().with_retries(self.probes));
        match set {
            Err(error) if sys::error_kind(sys::code_of(&error)) == ErrorKind::Unsupported => {
                socket.set_tcp_keepalive(&times)
            }
            set => set,
        }
    }
}

/// The systems count in seconds, and take less than one for none.
fn whole_seconds(time: Duration) -> Duration {
    let more = u64::from(time.subsec_nanos() > 0);
    Duration::from_secs(time.as_secs().saturating_add(more))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_second_are_rounded_up() {
        let second = Duration::from_secs(1);
        assert_eq!(whole_seconds(Duration::from_millis(1)), second);
        assert_eq!(whole_seconds(second), second);
        assert_eq!(whole_seconds(Duration::from_millis(1_001)), 2 * second);
        assert_eq!(whole_seconds(Duration::ZERO), Duration::ZERO);
        assert_eq!(whole_seconds(Duration::MAX).as_secs(), u64::MAX);
    }
}
