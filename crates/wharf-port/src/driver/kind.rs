//! The drivers, and what a port reports of its own.

use std::fmt;

use crate::error::{Error, ErrorKind, Operation, Result};

/// What a port can run on.
///
/// It prints as its short name. It also parses from the names of the systems' own calls:
/// `io_uring`, `epoll` and `kqueue`.
///
/// ```
/// use wharf_port::DriverKind;
/// assert_eq!(DriverKind::Uring.to_string(), "uring");
/// assert_eq!("epoll".parse(), Ok(DriverKind::Poll));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum DriverKind {
    /// I/O completion ports (Windows).
    Iocp,
    /// io_uring (Linux 6.0 and later, where it is allowed).
    Uring,
    /// Readiness: epoll on Linux, kqueue and similar pollers on other Unix systems.
    Poll,
    /// A network in memory, for tests. It is never chosen unless it is required. It needs the
    /// feature `sim`.
    Sim,
}

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DriverKind::Iocp => "iocp",
            DriverKind::Uring => "uring",
            DriverKind::Poll => "poll",
            DriverKind::Sim => "sim",
        })
    }
}

impl std::str::FromStr for DriverKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "iocp" => Ok(DriverKind::Iocp),
            "uring" | "io_uring" => Ok(DriverKind::Uring),
            "poll" | "epoll" | "kqueue" => Ok(DriverKind::Poll),
            "sim" => Ok(DriverKind::Sim),
            _ => Err(Error::advised(
                Operation::Build,
                ErrorKind::InvalidInput,
                NO_SUCH_DRIVER,
            )),
        }
    }
}

const NO_SUCH_DRIVER: &str = "no driver has this name: write iocp, uring (io_uring), poll (epoll, \
                              kqueue) or sim";

/// Which driver a port is to use.
///
/// It prints and parses as `auto`, or as the name of a driver.
///
/// ```
/// use wharf_port::{DriverChoice, DriverKind, Port};
/// // Fails with a hint if this driver does not work here.
/// let port = Port::builder().driver(DriverChoice::Require(DriverKind::Uring)).build();
/// assert_eq!("io_uring".parse(), Ok(DriverChoice::Require(DriverKind::Uring)));
/// assert_eq!(DriverChoice::Auto.to_string(), "auto");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum DriverChoice {
    /// The best driver that works here.
    #[default]
    Auto,
    /// This driver or none.
    Require(DriverKind),
}

impl From<DriverKind> for DriverChoice {
    fn from(kind: DriverKind) -> Self {
        DriverChoice::Require(kind)
    }
}

impl fmt::Display for DriverChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DriverChoice::Auto => f.write_str("auto"),
            DriverChoice::Require(kind) => kind.fmt(f),
        }
    }
}

impl std::str::FromStr for DriverChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(DriverChoice::Auto),
            _ => text.parse().map(DriverChoice::Require),
        }
    }
}

/// Which driver a port uses, and which better ones it passed over.
///
/// ```
/// # fn main() -> wharf_port::Result<()> {
/// let port = wharf_port::Port::builder().build()?;
/// println!("{}", port.driver()); // such as: poll (uring passed over: ...)
/// # Ok(()) }
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct DriverReport {
    /// The driver in use.
    pub kind: DriverKind,
    /// The drivers that were tried first and do not work here.
    pub passed_over: Vec<PassedOver>,
    /// The features that the driver has found here and uses, where systems differ. It has tried out
    /// each of them.
    pub features: Vec<&'static str>,
}

/// A driver that does not work here, and why.
///
/// ```
/// # fn main() -> wharf_port::Result<()> {
/// for passed in &wharf_port::Port::builder().build()?.driver().passed_over {
///     println!("{}: {}", passed.kind, passed.reason);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct PassedOver {
    /// The driver.
    pub kind: DriverKind,
    /// Why the driver does not work here, and what would change that.
    pub reason: &'static str,
    /// The system's code, if it returned one.
    pub raw_os_error: Option<i32>,
}

impl fmt::Display for DriverReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        for passed in &self.passed_over {
            write!(f, " ({} passed over: {})", passed.kind, passed.reason)?;
        }
        Ok(())
    }
}
