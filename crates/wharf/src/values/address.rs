//! ADDRESS on the command line: internet addresses with port ranges, and Unix paths.
//!
//! The system resolves names once, at the start. For a server a name is one address. Binding all
//! addresses of a name was rejected, because a host may list `::1` and have no IPv6. A load tries
//! the addresses in turn.
//! 6. A load tries them one after the other.

use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use wharf_port::Address;

/// One ADDRESS. A range is several.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) addresses: Vec<Address>,
    /// The other addresses of a name, if it has several.
    pub(crate) others: Vec<Address>,
}

const HINT: &str = "write host:port, [v6]:port, host:first-last, or unix:/path";

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err("unix: needs a path, such as unix:/tmp/wharf".into());
            }
            return Ok(Place {
                addresses: vec![Address::unix(path)],
                others: Vec::new(),
            });
        }
        let (host, ports) = text.rsplit_once(':').ok_or_else(|| HINT.to_owned())?;
        let (first, last) = parse_ports(ports)?;
        let hosts = resolve(host)?;
        let with_port = |mut address: SocketAddr, port| {
            address.set_port(port);
            Address::from(address)
        };
        let ports = first..=last;
        Ok(Place {
            addresses: ports.map(|port| with_port(hosts[0], port)).collect(),
            others: match first == last {
                true => hosts[1..].iter().map(|it| with_port(*it, first)).collect(),
                false => Vec::new(),
            },
        })
    }
}

fn parse_ports(text: &str) -> Result<(u16, u16), String> {
    let port = |text: &str| {
        text.parse::<u16>()
            .map_err(|_| format!("\"{text}\" is no port (0 to 65535): {HINT}"))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(format!(
            "the range {first}-{last} is empty: put the lower port first"
        ));
    }
    if first == 0 && last > 0 {
        return Err("port 0, which lets the system choose, begins no range: start at 1".into());
    }
    Ok((first, last))
}

/// The address of a host, or the addresses of a name, IPv4 before IPv6; at least one.
fn resolve(host: &str) -> Result<Vec<SocketAddr>, String> {
    if host.is_empty() || host == "*" {
        return Err("the host is missing: 0.0.0.0 or [::] listens on all of them".into());
    }
    if host.starts_with('[') {
        // The standard parser reads a zone if it is a number, as in [fe80::1%2].
        let address = format!("{host}:0").parse::<SocketAddr>();
        let zoned = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let zoned = zoned.and_then(|it| it.split_once('%'));
        return match (address, zoned) {
            (Ok(address), _) => Ok(vec![address]),
            (Err(_), Some((address, zone))) if address.parse::<Ipv6Addr>().is_ok() => {
                in_zone(address, zone)
            }
            _ => Err(format!("\"{host}\" is no version 6 address: {HINT}")),
        };
    }
    if host.contains(':') {
        return Err(format!(
            "put the version 6 address in brackets: [{host}]:port"
        ));
    }
    let found = (host, 0)
        .to_socket_addrs()
        .map_err(|error| format!("\"{host}\": {error}: correct the name, or write its address"))?;
    let mut found: Vec<SocketAddr> = found.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    // Some systems list an address once per socket type.
    found.dedup();
    match found.is_empty() {
        false => Ok(found),
        true => Err(format!(
            "\"{host}\" has no address: correct the name, or write its address"
        )),
    }
}

/// An address with a named interface, such as `fe80::1%eth0`. The system knows the interface's
/// number. It resolves such a name only for addresses that need a zone.
fn in_zone(address: &str, zone: &str) -> Result<Vec<SocketAddr>, String> {
    let found = format!("{address}%{zone}");
    let found = (found.as_str(), 0).to_socket_addrs();
    let found: Vec<SocketAddr> = found.map(Iterator::collect).unwrap_or_default();
    match found.first() {
        Some(first) => Ok(vec![*first]),
        None => Err(format!(
            "\"{zone}\" is no interface that {address} can be on: name one of this machine, or its \
             number"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<String, String> {
        let place: Place = text.parse()?;
        let texts: Vec<String> = place.addresses.iter().map(ToString::to_string).collect();
        Ok(texts.join(" "))
    }

    #[test]
    fn reads_what_the_help_names() {
        assert_eq!(shown("127.0.0.1:10101").unwrap(), "127.0.0.1:10101");
        assert_eq!(shown("[::1]:0").unwrap(), "[::1]:0");
        assert_eq!(shown("[fe80::1%3]:80").unwrap(), "[fe80::1%3]:80");
        let three = "127.0.0.1:7000 127.0.0.1:7001 127.0.0.1:7002";
        assert_eq!(shown("127.0.0.1:7000-7002").unwrap(), three);
        assert_eq!(shown("[::1]:7000-7001").unwrap(), "[::1]:7000 [::1]:7001");
        assert_eq!(shown("unix:/tmp/wharf").unwrap(), "unix:/tmp/wharf");
        assert_eq!(shown("0.0.0.0:65535").unwrap(), "0.0.0.0:65535");
    }

    #[test]
    fn refuses_in_one_line_with_a_hint() {
        for (text, hint) in [
            ("", "host:port"),
            ("10101", "host:port"),
            ("127.0.0.1", "host:port"),
            (":80", "0.0.0.0"),
            ("*:80", "0.0.0.0"),
            ("127.0.0.1:", "0 to 65535"),
            ("127.0.0.1:70000", "0 to 65535"),
            ("127.0.0.1:-1", "0 to 65535"),
            ("127.0.0.1:9-8", "lower port first"),
            ("127.0.0.1:0-8", "start at 1"),
            ("127.0.0.1:1-2-3", "0 to 65535"),
            ("::1:80", "brackets"),
            ("[::1:80", "[v6]:port"),
            ("[nonsense]:80", "[v6]:port"),
            ("[nonsense%lo]:80", "[v6]:port"),
            ("[fe80::1%nosuch0]:80", "no interface"),
            ("unix:", "unix:/tmp/wharf"),
        ] {
            let error = shown(text).expect_err(text);
            assert!(
                error.contains(hint) && !error.contains('\n'),
                "{text}: {error}"
            );
        }
    }
}
