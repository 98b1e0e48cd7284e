//! Measures what a held connection costs the kernel: opens connections, reads the kernel's memory,
//! and closes them.
//!
//! Both ends are on loopback and in this process, on the best driver, and watched as `hold` watches
//! its connections. The kernel reports the sum over all its objects, in batches of pages from each
//! processor. So the measurement opens thousands of connections: what other programs do meanwhile
//! is then a few bytes for each.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use wharf_port::{Close, Event, Key, Port, SocketRef, Wait, Waiter};

use super::plan::FILES_BESIDES;
use crate::sys::facts::ConnectionMemory;
use crate::sys::limits;

/// Number of connections, if the limit allows them; each takes two descriptors.
const CONNECTIONS_WANTED: u64 = 4000;
/// With fewer connections the noise exceeds the measured value.
const CONNECTIONS_LEAST: u64 = 200;
/// Connects in flight at once; every backlog has space for them.
const AT_ONCE: u64 = 100;
/// The most readings until one is plausible.
const READINGS_MAX: u32 = 3;
/// A limit on the time of the whole measurement.
const PATIENCE: Duration = Duration::from_secs(10);
/// One end of an idle connection on Linux 6.18, on x86-64: the socket, the file, and the objects
/// that belong to them.
const KERNEL_BYTES_ELSEWHERE: u64 = 3900;
/// The most that the program itself keeps for one.
const PROGRAM_BYTES: u64 = 128;
/// The plausible range for one end. A reading outside of it was upset by something else.
const BELIEVABLE: std::ops::RangeInclusive<u64> = 1_500..=20_000;

const LISTENER: Key = Key(90);
const CONNECTING: Key = Key(1);
const ACCEPTED: Key = Key(100);

/// The result of a measurement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shown {
    pub(super) memory: ConnectionMemory,
    /// Whether the firewall's table grew by them; `None` if there is no table.
    pub(super) tracked: Option<bool>,
}

/// The result from other machines.
pub(super) fn shown_elsewhere() -> Shown {
    Shown {
        memory: ConnectionMemory {
            kernel_bytes: KERNEL_BYTES_ELSEWHERE,
            program_bytes: PROGRAM_BYTES,
            measured_with: 0,
        },
        tracked: None,
    }
}

/// Measures a connection with at most this many open files. If that is impossible, returns the
/// result from other machines.
pub(super) fn connection(files: u64) -> Shown {
    let room = files.saturating_sub(FILES_BESIDES) / 2;
    let count = CONNECTIONS_WANTED.min(room);
    if count < CONNECTIONS_LEAST {
        return shown_elsewhere();
    }
    // Other programs may upset a reading by what they open and close, but hardly every reading.
    let told = (0..READINGS_MAX).find_map(|_| kernel_bytes(count).transpose());
    match told {
        Some(Ok(taken)) => Shown {
            memory: ConnectionMemory {
                kernel_bytes: taken.bytes,
                program_bytes: PROGRAM_BYTES,
                measured_with: count,
            },
            tracked: taken.tracked,
        },
        _ => shown_elsewhere(),
    }
}

/// The kernel memory of one end, if it is plausible.
pub(crate) fn believable(grown_bytes: u64, ends: u64) -> Option<u64> {
    let each = grown_bytes.checked_div(ends)?;
    BELIEVABLE.contains(&each).then_some(each)
}

/// What a number of additional connections took.
#[derive(Clone, Copy, Debug)]
struct Taken {
    /// Kernel memory of one end.
    bytes: u64,
    tracked: Option<bool>,
}

/// The kernel memory of one end; `None` if the kernel does not report it.
fn kernel_bytes(count: u64) -> wharf_port::Result<Option<Taken>> {
    if limits::kernel_object_bytes().is_none() {
        return Ok(None);
    }
    let port = Port::builder().single_waiter().build()?;
    let mut trial = Trial {
        waiter: port.waiter()?,
        port: &port,
        ends: Vec::new(),
    };
    let listener = port.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), LISTENER)?;
    listener.socket().accept()?;
    let address = listener.local_addr()?.as_socket_addr();
    // The first connections include objects that are created once.
    let taken = match address {
        Some(address) if trial.open(address, AT_ONCE)? => {
            trial.taken_by(address, count - AT_ONCE)?
        }
        _ => None,
    };
    trial.close();
    Ok(taken)
}

struct Trial<'a> {
    port: &'a Port,
    waiter: Waiter,
    ends: Vec<SocketRef>,
}

impl Trial<'_> {
    /// Measures `count` additional connections, if all of them connect.
    fn taken_by(&mut self, address: SocketAddr, count: u64) -> wharf_port::Result<Option<Taken>> {
        let told = || (limits::kernel_object_bytes(), limits::tracked_connections());
        let (bytes_before, tracked_before) = told();
        if !self.open(address, count)? {
            return Ok(None);
        }
        let (bytes, tracked) = told();
        let grown = bytes.zip(bytes_before);
        let grown = grown.map(|(after, before)| after.saturating_sub(before));
        let tracked = tracked.zip(tracked_before);
        // Other programs open and close connections too, but hardly half as many.
        let tracked = tracked.map(|(after, before)| after.saturating_sub(before) > count / 2);
        let bytes = grown.and_then(|grown| believable(grown, 2 * count));
        Ok(bytes.map(|bytes| Taken { bytes, tracked }))
    }

    /// Opens `count` more connections; returns whether both ends of all were opened.
    fn open(&mut self, address: SocketAddr, count: u64) -> wharf_port::Result<bool> {
        let goal = self.ends.len() as u64 + 2 * count;
        let give_up_at = Instant::now() + PATIENCE;
        let mut asked = 0;
        while (self.ends.len() as u64) < goal {
            let open = (self.ends.len() as u64 + 2 * count - goal) / 2;
            while asked < count && asked < open + AT_ONCE {
                self.port.connect(address, CONNECTING)?;
                asked += 1;
            }
            let left = give_up_at.saturating_duration_since(Instant::now());
            let Wait::Packets(packets) = self.waiter.wait(Some(left))? else {
                return Ok(false);
            };
            for packet in packets {
                let stream = match packet.event {
                    Event::Connected(stream) => stream,
                    Event::Accepted(accepted) => self
                        .port
                        .associate(accepted, ACCEPTED)
                        .map_err(|refused| refused.error)?,
                    Event::ConnectFailed { .. } | Event::Ended { .. } | Event::Paused { .. } => {
                        return Ok(false);
                    }
                    _ => continue,
                };
                stream.socket().watch()?;
                self.ends.push(stream.socket());
                stream.set_aside();
            }
        }
        Ok(true)
    }

    /// Resets them all, so that no port stays in TIME_WAIT.
    fn close(&mut self) {
        for end in self.ends.drain(..) {
            // A connection whose peer was reset before it may have ended already.
            let _ = end.close(Close::Reset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_believable() {
        let measured = connection(10_000);
        assert!(
            BELIEVABLE.contains(&measured.memory.kernel_bytes),
            "{measured:?}"
        );
    }

    #[test]
    fn with_few_files_nothing_is_opened() {
        assert_eq!(connection(300).memory.measured_with, 0);
    }
}
