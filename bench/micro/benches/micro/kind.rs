//! The kinds of port, and how each measurement uses one.

use std::fmt;
use std::time::Duration;

use wharf_port::sim::SimOptions;
use wharf_port::{Builder, DriverKind, Packet, Port, Wait, Waiter, drivers_present};

/// Longer than anything takes here: after this time an event never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A driver, and how the port is shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Kind {
    driver: DriverKind,
    shared: bool,
}

impl Kind {
    /// On every driver of this machine.
    pub(crate) fn on_systems() -> Vec<Kind> {
        let present = drivers_present().into_iter();
        present.flat_map(Kind::both).collect()
    }

    /// And on the simulated network.
    pub(crate) fn everywhere() -> Vec<Kind> {
        let mut kinds = Kind::on_systems();
        kinds.extend(Kind::both(DriverKind::Sim));
        kinds
    }

    fn both(driver: DriverKind) -> [Kind; 2] {
        [false, true].map(|shared| Kind { driver, shared })
    }

    pub(crate) fn builder(self) -> Builder {
        let builder = if self.driver == DriverKind::Sim {
            Port::builder().sim(SimOptions::new(1).lossless())
        } else {
            Port::builder().driver(self.driver.into())
        };
        if self.shared {
            builder.shared()
        } else {
            builder.single_waiter()
        }
    }

    /// A port as the builder makes it, and the waiter of this thread.
    pub(crate) fn build(self) -> (Port, Waiter) {
        let port = self.builder().build().expect("the driver is present");
        let waiter = port.waiter().expect("the first waiter");
        (port, waiter)
    }
}

/// As the report's columns are named.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sharing = if self.shared { "shared" } else { "single" };
        write!(f, "{} {sharing}", self.driver)
    }
}

/// Takes packets until `count` of them were what is `wanted`.
pub(crate) fn take(waiter: &mut Waiter, count: usize, wanted: impl Fn(&Packet) -> bool) {
    let mut left = count;
    while left > 0 {
        let Wait::Packets(packets) = waiter.wait(Some(PATIENCE)).expect("the port works") else {
            panic!("{left} of {count} packets never came");
        };
        left = left.saturating_sub(packets.filter(&wanted).count());
    }
}
