//! The choice among the drivers of this system.
//!
//! It is separate from the seam, because the core imports the seam and may not import a driver.

use super::kind::{DriverChoice, DriverKind, DriverReport, PassedOver};
use super::{Driver, Unavailable};
use crate::core::options::Options;
use crate::error::{Error, Result};

/// The options of the simulated network. Empty if it is not built in.
#[cfg(feature = "sim")]
pub(crate) type SimAsked = super::sim::SimOptions;
#[cfg(not(feature = "sim"))]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct SimAsked {}

/// The drivers of this system, best first.
pub(crate) fn candidates() -> &'static [DriverKind] {
    #[cfg(windows)]
    return &[DriverKind::Iocp];
    #[cfg(target_os = "linux")]
    return &[DriverKind::Uring, DriverKind::Poll];
    #[cfg(all(unix, not(target_os = "linux")))]
    return &[DriverKind::Poll];
}

#[cfg(not(feature = "sim"))]
const NOT_BUILT_IN: &str =
    "this build has no simulated network: turn on the feature sim of wharf-port";

/// Makes a driver, or returns why it does not work here.
fn make(
    kind: DriverKind,
    options: &Options,
    sim: &SimAsked,
) -> Result<Box<dyn Driver>, PassedOver> {
    let passed = |(reason, raw_os_error): Unavailable| PassedOver {
        kind,
        reason,
        raw_os_error,
    };
    match kind {
        #[cfg(windows)]
        DriverKind::Iocp => super::iocp::Iocp::new(options)
            .map_err(passed)
            .map(|it| Box::new(it) as _),
        #[cfg(target_os = "linux")]
        DriverKind::Uring => super::uring::Uring::new(options)
            .map_err(passed)
            .map(|it| Box::new(it) as _),
        #[cfg(unix)]
        DriverKind::Poll => super::poll::Poll::new(options)
            .map_err(passed)
            .map(|it| Box::new(it) as _),
        #[cfg(feature = "sim")]
        DriverKind::Sim => super::sim::Sim::new(sim)
            .map_err(passed)
            .map(|it| Box::new(it) as _),
        #[cfg(not(feature = "sim"))]
        DriverKind::Sim => {
            let SimAsked {} = sim;
            Err(passed((NOT_BUILT_IN, None)))
        }
        #[allow(
            unreachable_patterns,
            reason = "every system lacks some of the drivers"
        )]
        _ => Err(passed((
            "this driver does not exist on this system: require another, or let auto choose",
            None,
        ))),
    }
}

pub(crate) fn choose(options: &Options, sim: &SimAsked) -> Result<(Box<dyn Driver>, DriverReport)> {
    let kinds = match &options.driver {
        DriverChoice::Auto => candidates(),
        DriverChoice::Require(kind) => std::slice::from_ref(kind),
    };
    let mut passed_over = Vec::new();
    for &kind in kinds {
        match make(kind, options, sim) {
            Ok(driver) => {
                let report = DriverReport {
                    kind,
                    passed_over,
                    // The port fills them in when it asks the driver for its abilities.
                    features: Vec::new(),
                };
                return Ok((driver, report));
            }
            Err(passed) => passed_over.push(passed),
        }
    }
    // The last candidate is the one that works everywhere, so the reason that stops it is the one
    // to fix.
    let last = passed_over.pop().expect("there is a candidate");
    Err(Error::unavailable(last.reason, last.raw_os_error))
}
