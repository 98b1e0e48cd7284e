//! Addresses of sockets: internet and Unix, as one type for listening, connecting and queries.
//!
//! `std::net::SocketAddr` alone was rejected because the contract includes Unix sockets.
//! Conversions let a caller pass standard addresses everywhere.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::path::PathBuf;
use std::str::FromStr;

use socket2::{Domain, SockAddr};

use crate::error::{Error, ErrorKind, Operation, Result};

/// Where a socket listens, or which peer it connects to.
///
/// It prints as `host:port`, `[v6]:port` or `unix:path`, and parses what it prints. It does not
/// parse host names, because a lookup may take seconds. Use [`std::net::ToSocketAddrs`] for these.
///
/// # Portability
/// Unix addresses work on Unix systems. Other systems refuse them as unsupported. On Linux a path
/// that begins with a zero byte is a name in the abstract namespace. It prints as `unix:@name`. A
/// relative path that begins with `@` prints as `unix:./@path`.
///
/// ```
/// use wharf_port::Address;
/// let address: Address = ([127, 0, 0, 1], 10101).into();
/// assert_eq!(address.to_string(), "127.0.0.1:10101");
/// assert_eq!("127.0.0.1:10101".parse(), Ok(address));
/// assert_eq!("unix:/tmp/wharf".parse(), Ok(Address::unix("/tmp/wharf")));
/// assert!("localhost:80".parse::<Address>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Address {
    /// An internet address and port, version 4 or 6.
    Internet(SocketAddr),
    /// The path of a Unix socket; empty for a socket without a name.
    Unix(PathBuf),
}

impl Address {
    /// Makes the address of the Unix socket at this path.
    ///
    /// ```
    /// use wharf_port::Address;
    /// assert!(Address::unix("/run/wharf").as_socket_addr().is_none());
    /// ```
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Address::Unix(path.into())
    }

    /// Returns the internet address; `None` for a Unix address.
    ///
    /// ```
    /// use wharf_port::Address;
    /// assert_eq!(Address::from(([127, 0, 0, 1], 80)).as_socket_addr().unwrap().port(), 80);
    /// ```
    #[must_use]
    pub fn as_socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Address::Internet(address) => Some(*address),
            Address::Unix(_) => None,
        }
    }

    pub(crate) fn domain(&self) -> Domain {
        match self {
            Address::Internet(SocketAddr::V4(_)) => Domain::IPV4,
            Address::Internet(SocketAddr::V6(_)) => Domain::IPV6,
            Address::Unix(_) => Domain::UNIX,
        }
    }

    pub(crate) fn to_system(&self) -> std::io::Result<SockAddr> {
        match self {
            Address::Internet(address) => Ok(SockAddr::from(*address)),
            Address::Unix(path) => SockAddr::unix(path),
        }
    }

    pub(crate) fn from_system(address: &SockAddr) -> Self {
        match address.as_socket() {
            Some(address) => Address::Internet(address),
            None => Address::Unix(crate::sys::unix_path(address)),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Internet(address) => address.fmt(f),
            Address::Unix(path) => match path.to_string_lossy() {
                text if text.starts_with('\0') => write!(f, "unix:@{}", &text[1..]),
                text if text.starts_with('@') => write!(f, "unix:./{text}"),
                text => write!(f, "unix:{text}"),
            },
        }
    }
}

const UNREADABLE: &str = "this is no address: write 127.0.0.1:80, [::1]:80 or unix:/path";

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(match path.strip_prefix('@') {
                Some(name) => Address::unix(format!("\0{name}")),
                None => Address::unix(path),
            });
        }
        let unreadable =
            |_| Error::advised(Operation::Address, ErrorKind::InvalidInput, UNREADABLE);
        text.parse().map(Address::Internet).map_err(unreadable)
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Address::Internet(address)
    }
}

impl From<SocketAddrV4> for Address {
    fn from(address: SocketAddrV4) -> Self {
        Address::Internet(address.into())
    }
}

impl From<SocketAddrV6> for Address {
    fn from(address: SocketAddrV6) -> Self {
        Address::Internet(address.into())
    }
}

impl From<([u8; 4], u16)> for Address {
    fn from(address: ([u8; 4], u16)) -> Self {
        Address::Internet(address.into())
    }
}

impl From<(IpAddr, u16)> for Address {
    fn from(address: (IpAddr, u16)) -> Self {
        Address::Internet(address.into())
    }
}

impl From<(Ipv4Addr, u16)> for Address {
    fn from(address: (Ipv4Addr, u16)) -> Self {
        Address::Internet(address.into())
    }
}

impl From<(Ipv6Addr, u16)> for Address {
    fn from(address: (Ipv6Addr, u16)) -> Self {
        Address::Internet(address.into())
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn an_address_reads_what_it_prints() {
        for text in [
            "127.0.0.1:0",
            "[::1]:65535",
            "[fe80::1%3]:80",
            "unix:",
            "unix:/run/wharf",
            "unix:here",
            "unix:@abstract",
            "unix:./@relative",
        ] {
            let address: Address = text.parse().expect(text);
            assert_eq!(address.to_string(), text);
        }
        assert_eq!(Address::unix("\0name").to_string(), "unix:@name");
        assert_eq!(Address::unix("@name").to_string(), "unix:./@name");
        for text in [
            "",
            "80",
            "localhost:80",
            "::1:80",
            "127.0.0.1",
            "/run/wharf",
        ] {
            let error = text.parse::<Address>().expect_err(text);
            assert!(error.to_string().contains("unix:/path"), "{error}");
        }
    }
}
