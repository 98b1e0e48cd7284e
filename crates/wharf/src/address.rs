//! ADDRESS on the command line: internet addresses with port ranges, and Unix paths.

use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use wharf_port::Address;

/// One ADDRESS, which a range makes many.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) addresses: Vec<Address>,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err("unix: needs a path, such as unix:/tmp/wharf".into());
            }
            return Ok(Place {
                addresses: vec![Address::unix(path)],
            });
        }
        let cure = "write host:port, [v6]:port, host:first-last, or unix:/path";
        let (host, ports) = text.rsplit_once(':').ok_or_else(|| cure.to_owned())?;
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let port = |text: &str| {
            text.parse::<u16>()
                .map_err(|_| format!("\"{text}\" is no port (0 to 65535): {cure}"))
        };
        let (first, last) = (port(first)?, port(last)?);
        if first > last || (first == 0 && last > 0) {
            return Err(format!("the range {first}-{last} is empty: {cure}"));
        }
        let host = resolve(host)?;
        let with_port = |port| SocketAddr::new(host.ip(), port).into();
        Ok(Place {
            addresses: (first..=last).map(with_port).collect(),
        })
    }
}

/// The first address of a name, or the address it is.
fn resolve(host: &str) -> Result<SocketAddr, String> {
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if host.is_empty() {
        return Err("the host is missing: 0.0.0.0 or [::] listens on all of them".into());
    }
    let found = (host, 0)
        .to_socket_addrs()
        .map_err(|error| format!("\"{host}\": {error}"))?;
    found
        .into_iter()
        .next()
        .ok_or_else(|| format!("\"{host}\" has no address"))
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
        let three = "127.0.0.1:7000 127.0.0.1:7001 127.0.0.1:7002";
        assert_eq!(shown("127.0.0.1:7000-7002").unwrap(), three);
        assert_eq!(shown("unix:/tmp/wharf").unwrap(), "unix:/tmp/wharf");
    }

    #[test]
    fn refuses_with_the_cure() {
        for text in [
            "",
            "10101",
            ":80",
            "127.0.0.1:",
            "127.0.0.1:70000",
            "127.0.0.1:9-8",
            "unix:",
        ] {
            let error = shown(text).expect_err(text);
            assert!(
                !error.is_empty() && !error.contains('\n'),
                "{text}: {error}"
            );
        }
    }
}
