//! How both ends are divided: over processes, or over the rings of one process.
//!
//! A process has a limit of open files. With ordinary descriptors a server is several processes
//! that share one address. Direct descriptors do not count against the limit, but each table of
//! them has the same limit. So a server with direct descriptors is one process with several rings,
//! one for each table, and one listener, which distributes connections evenly.

use std::time::Duration;

use wharf_port::{DriverChoice, Port};

use crate::processes::descriptors::Descriptors;
use crate::processes::{DESCRIPTORS_BESIDES, PROCESSES_MAX};
use crate::sys;

/// If a hash distributes connections, no process gets more than its share plus this number of
/// standard deviations.
const DEVIATIONS: f64 = 6.0;
/// The connections for which the smaller network of sources is enough: 3,937 from each address.
/// Linux finds free ports of an address slowly when half of them, 14,116, are taken.
const CONNECTIONS_OF_FEW_SOURCES: u32 = 1_000_000;
const FEW_SOURCES: &str = "127.0.0.0/24";
const MANY_SOURCES: &str = "127.0.0.0/22";

/// A limit on the time of everything except connecting: starting the programs and reading their
/// accounts. A second limit grows with each connection, for a machine whose two processors do all
/// of it.
const PATIENCE: Duration = Duration::from_secs(120);
const PATIENCE_FOR_EACH: Duration = Duration::from_micros(100);

/// The options by which each end is divided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Division {
    pub(super) server: Vec<String>,
    pub(super) load: Vec<String>,
}

impl Division {
    /// The division for this number of connections and this limit of open files for each process.
    ///
    /// # Errors
    /// If they do not fit; the error says what to change.
    pub(super) fn new(
        descriptors: Descriptors,
        connections: u32,
        limit: u64,
    ) -> Result<Self, String> {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let count;
        let (server, load) = match descriptors {
            Descriptors::Direct => {
                // Both ends compute the same number of threads.
                Descriptors::threads(Some(connections), 1, None, limit)?;
                count = connections.to_string();
                let direct = ["--descriptors", "direct"];
                let server = [&direct[..], &["--max-connections", &count]].concat();
                (words(&server), words(&direct))
            }
            Descriptors::Ordinary => {
                let processes = server_processes(connections, limit, sys::DEALS_TO_PROCESSES)?;
                count = processes.to_string();
                let several = ["--processes", &count];
                let server = if processes > 1 { &several[..] } else { &[] };
                (words(server), Vec::new())
            }
        };
        Ok(Division { server, load })
    }
}

/// The name of the driver for both ends.
///
/// # Errors
/// If it is not available, or has no direct descriptors; the error says what to change.
pub(super) fn driver(descriptors: Descriptors, choice: DriverChoice) -> Result<String, String> {
    let builder = Port::builder().driver(choice).single_waiter();
    let port = descriptors.of_port(builder, Some(1), 1).build();
    let port = port.map_err(|error| error.to_string())?;
    Ok(port.driver().kind.to_string())
}

/// The network of source addresses. Each address then has few of its ports in use.
pub(super) fn sources(connections: u32) -> &'static str {
    if connections <= CONNECTIONS_OF_FEW_SOURCES {
        FEW_SOURCES
    } else {
        MANY_SOURCES
    }
}

/// A limit on the time of everything except connecting.
pub(super) fn patience(connections: u32) -> Duration {
    PATIENCE + PATIENCE_FOR_EACH * connections
}

/// The number of processes that have enough descriptors, however unevenly the system distributes
/// connections.
fn server_processes(connections: u32, limit: u64, deals: bool) -> Result<u32, String> {
    let room = limit.saturating_sub(DESCRIPTORS_BESIDES) as f64;
    if f64::from(connections) <= room {
        return Ok(1);
    }
    if !deals {
        return Err(format!(
            "this system deals the connections of one address to one process, which holds {room} \
             with {limit} open files: take fewer, or raise \"ulimit -n\""
        ));
    }
    let fits = |processes: &u32| {
        let share = f64::from(connections) / f64::from(*processes);
        share + DEVIATIONS * share.sqrt() <= room
    };
    (2..=PROCESSES_MAX).find(fits).ok_or_else(|| {
        format!(
            "{connections} connections do not fit into {PROCESSES_MAX} processes with {limit} open \
             files each: take fewer, or raise \"ulimit -n\" as root"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_servers_as_the_hash_asks_for() {
        assert_eq!(server_processes(19_936, 20_000, false), Ok(1));
        // Two processes of 9,968 each would be full with one more, if the distribution were even.
        assert_eq!(server_processes(39_872, 20_000, true), Ok(3));
        let million = server_processes(1_000_000, 20_000, true).expect("they fit");
        assert!((51..=54).contains(&million), "{million}");
        assert_eq!(server_processes(1_000_000, u64::MAX, false), Ok(1));
        for (connections, limit, deals) in [(4_000_000, 1_024, true), (19_937, 20_000, false)] {
            let error = server_processes(connections, limit, deals).unwrap_err();
            assert!(error.contains("ulimit"), "{error}");
        }
    }

    #[test]
    fn with_direct_descriptors_each_end_is_one_process() {
        let direct = |connections, limit| Division::new(Descriptors::Direct, connections, limit);
        let million = direct(1_000_000, 20_000).expect("they fit");
        let bound = ["--max-connections", "1000000"];
        assert_eq!(million.load, ["--descriptors", "direct"]);
        assert_eq!(
            million.server,
            [&["--descriptors", "direct"][..], &bound].concat()
        );
        let error = direct(4_000_000, 1_024).expect_err("256 tables are not enough");
        assert!(error.contains("ulimit"), "{error}");
    }

    #[test]
    fn every_source_keeps_enough_free_ports() {
        for connections in [1, 1_000_000, 1_000_001, 4_000_000] {
            let network: ipnet::IpNet = sources(connections).parse().expect("a network");
            let each = connections.div_ceil(network.hosts().count() as u32);
            assert!(each < 4_000, "{connections}: {each}");
        }
    }

    #[test]
    fn patience_grows_with_the_connections() {
        assert_eq!(patience(1_000_000), Duration::from_secs(220));
    }
}
