//! The machine: its drivers, its congestion control, and the memory of this process.
//!
//! This is part of the ground: commands use it, and it knows no command.

use wharf_port::{DriverKind, Port};

use crate::sys::facts::Driver;

pub(crate) mod congestion;
pub(crate) mod memory;

/// The drivers of this system. Those that do not work have the reason.
pub(crate) fn drivers() -> Vec<Driver> {
    let Ok(port) = Port::builder().build() else {
        return Vec::new();
    };
    let report = port.driver();
    let passed = report.passed_over.iter().map(|passed| Driver {
        name: passed.kind.to_string(),
        works: false,
        reason: Some(passed.reason.to_owned()),
        features: Vec::new(),
    });
    let works = |kind: &DriverKind| Driver {
        name: kind.to_string(),
        works: true,
        reason: None,
        features: if *kind == report.kind {
            report.features.clone()
        } else {
            Vec::new()
        },
    };
    let present = wharf_port::drivers_present();
    passed.chain(present.iter().map(works)).collect()
}
