//! Which drivers there are, and what a port says of its own.

use std::fmt;

use crate::error::{Error, ErrorKind, Operation, Result};

/// What a port can run on.
///
/// ```
/// assert_eq!(wharf_port::DriverKind::Uring.to_string(), "uring");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum DriverKind {
    /// I/O completion ports (Windows).
    Iocp,
    /// io_uring (Linux 6.0 and later, where it is allowed).
    Uring,
    /// Readiness: epoll on Linux, kqueue and its like elsewhere on Unix.
    Poll,
    /// A network in memory, for tests; never chosen unless it is required.
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
            "uring" => Ok(DriverKind::Uring),
            "poll" => Ok(DriverKind::Poll),
            "sim" => Ok(DriverKind::Sim),
            _ => Err(Error::new(Operation::Build, ErrorKind::InvalidInput)),
        }
    }
}

/// Which driver a port shall use.
///
/// ```
/// use wharf_port::{DriverChoice, DriverKind, Port};
/// // Fails with the cure where this driver does not work.
/// let port = Port::builder().driver(DriverChoice::Require(DriverKind::Uring)).build();
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DriverChoice {
    /// The best that works here.
    #[default]
    Auto,
    /// This one or none.
    Require(DriverKind),
}

impl From<DriverKind> for DriverChoice {
    fn from(kind: DriverKind) -> Self {
        DriverChoice::Require(kind)
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
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DriverReport {
    /// The driver in use.
    pub kind: DriverKind,
    /// Those that were tried first and do not work here.
    pub passed_over: Vec<PassedOver>,
    /// What it found here and uses, where that differs between systems; each was tried out.
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
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PassedOver {
    /// The driver.
    pub kind: DriverKind,
    /// Why it does not work here, with what would change that.
    pub reason: &'static str,
    /// The system's code, where one was given.
    pub os: Option<i32>,
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
