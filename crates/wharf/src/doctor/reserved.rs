//! The default ports of a server that are within the range that the system gives to clients.
//!
//! A wide range of source ports includes the default ports. A client may then have one of them, and
//! the server does not start until that client is gone. A client that connects to such a port
//! without a listener may even get the port itself as its source, and connect to itself.

use crate::sys::facts::{Facts, Family, SourcePorts};

/// The ports of a server and of its `--admin`, as in the help and the README.
const OWN: [u16; 2] = [10_101, 10_102];

/// The ports of this program that clients may get from this range, unless they are reserved.
fn exposed(reserved: &str, range: SourcePorts) -> Vec<u16> {
    let is_reserved = |port: u16| {
        reserved.split(',').any(|piece| {
            let (first, last) = piece.split_once('-').unwrap_or((piece, piece));
            let bound = |text: &str| text.trim().parse::<u16>().ok();
            bound(first)
                .zip(bound(last))
                .is_some_and(|(first, last)| (first..=last).contains(&port))
        })
    };
    let exposed = OWN
        .into_iter()
        .filter(|port| (range.first..=range.last).contains(port) && !is_reserved(*port));
    exposed.collect()
}

/// All ports to reserve if clients get their ports from this range, if that is more than now. The
/// setting replaces its old value.
pub(super) fn wanted(facts: &Facts, range: Option<SourcePorts>) -> Option<String> {
    let reserved = facts.reserved_ports.as_deref()?;
    let exposed = exposed(reserved, range?);
    if facts.family != Family::Linux || exposed.is_empty() {
        return None;
    }
    let exposed = exposed.iter().map(ToString::to_string);
    let all = reserved.split(',').map(str::to_owned).chain(exposed);
    let all: Vec<String> = all.filter(|piece| !piece.is_empty()).collect();
    Some(all.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_ports_are_exposed_unless_they_are_reserved() {
        let range = |first, last| SourcePorts { first, last };
        for (reserved, first, ports) in [
            ("", 1_024, &[10_101, 10_102][..]),
            ("", 32_768, &[]),
            ("", 10_102, &[10_102]),
            ("10101", 1_024, &[10_102]),
            ("8080,10101-10102", 1_024, &[]),
            ("10000-10101,9", 1_024, &[10_102]),
        ] {
            assert_eq!(exposed(reserved, range(first, 60_999)), ports, "{reserved}");
        }
    }
}
