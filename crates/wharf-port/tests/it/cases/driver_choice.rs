//! Which driver a port takes, and what it says of those it passed over.

use wharf_port::{DriverChoice, DriverKind, ErrorKind, Operation, Port};

use crate::rig::Rig;
use crate::rig::case::{Case, Driver, Inapplicable, Mode, Where, case};

pub(crate) const CASES: &[Case] = &[
    case!(the_required_driver_is_the_one_in_use, [C15], "contract"),
    case!(
        auto_takes_the_best_that_works_and_says_why,
        [C15],
        "iggy #2375, tokio #7724, seastar #2728"
    ),
    case!(
        a_driver_of_another_system_is_refused_with_words,
        [C15, C9],
        "contract"
    ),
    case!(drivers_have_names, [C15], "contract"),
    case!(
        a_driver_reports_its_kernels_features_and_fallbacks,
        [C15],
        "contract"
    ),
];

pub(crate) const INAPPLICABLE: &[Inapplicable] = &[Inapplicable {
    name: "io_uring forbidden by seccomp, unknown to the kernel, or refused only at its use",
    source: "iggy #2375, tokio #7724, zio #642",
    reason: "a filter cannot be taken off again: `cargo xtask seccomp` runs this suite under \
             three, with `auto_takes_the_best_that_works_and_says_why` set to the expected driver",
}];

/// The driver that `Auto` must choose, if the environment requires one.
const EXPECT_AUTO: &str = "WHARF_TEST_EXPECT_AUTO";

fn the_required_driver_is_the_one_in_use(at: &Where) {
    let rig = Rig::new(at);
    let report = rig.port.driver();
    assert_eq!(report.kind, at.driver.kind());
    assert!(report.passed_over.is_empty(), "no other was asked for");
    assert_eq!(report.to_string(), at.driver.name());
}

fn auto_takes_the_best_that_works_and_says_why(at: &Where) {
    let builder = match at.shared() {
        true => Port::builder().shared(),
        false => Port::builder().single_waiter(),
    };
    let port = builder
        .driver(DriverChoice::Auto)
        .build()
        .expect("one of them works");
    let report = port.driver();
    println!("auto chose {report}");
    let present = wharf_port::drivers_present();
    assert_eq!(report.kind, present[0], "the best of those that work");
    for passed in &report.passed_over {
        assert!(!present.contains(&passed.kind), "{} works", passed.kind);
        assert!(
            !passed.reason.is_empty(),
            "{} is passed over without a word",
            passed.kind
        );
        assert!(
            report.to_string().contains(passed.reason),
            "the reason is printed"
        );
    }
    let Ok(expected) = std::env::var(EXPECT_AUTO) else {
        return;
    };
    assert_eq!(report.kind.to_string(), expected);
    if expected == Driver::Poll.name() && cfg!(target_os = "linux") {
        let passed = report
            .passed_over
            .iter()
            .find(|it| it.kind == DriverKind::Uring);
        let passed = passed.expect("uring is passed over by name");
        assert!(
            passed.raw_os_error.is_some(),
            "and with what the system said"
        );
    }
}

fn a_driver_of_another_system_is_refused_with_words(at: &Where) {
    let elsewhere = match at.driver {
        Driver::Iocp => DriverKind::Uring,
        Driver::Uring | Driver::Poll | Driver::Sim => {
            if cfg!(windows) {
                DriverKind::Poll
            } else {
                DriverKind::Iocp
            }
        }
    };
    let port = Port::builder()
        .driver(DriverChoice::Require(elsewhere))
        .build();
    let error = port.expect_err("it is of another system");
    assert_eq!(
        (error.kind(), error.operation()),
        (ErrorKind::Unsupported, Operation::Build)
    );
    let text = "build the port: this driver does not exist on this system: require another, \
                or let auto choose";
    assert_eq!(error.to_string(), text);
}

fn drivers_have_names(_: &Where) {
    // A name is known on every system, also where its driver is not.
    let names = [
        ("iocp", DriverKind::Iocp),
        ("uring", DriverKind::Uring),
        ("poll", DriverKind::Poll),
        ("sim", DriverKind::Sim),
    ];
    for (name, kind) in names {
        assert_eq!(name.parse(), Ok(kind));
        assert_eq!(kind.to_string(), name);
        assert_eq!(name.parse(), Ok(DriverChoice::Require(kind)));
        assert_eq!(DriverChoice::Require(kind).to_string(), name);
    }
    let others = [
        ("io_uring", DriverKind::Uring),
        ("epoll", DriverKind::Poll),
        ("kqueue", DriverKind::Poll),
    ];
    for (name, kind) in others {
        assert_eq!(name.parse(), Ok(kind));
    }
    assert_eq!("auto".parse(), Ok(DriverChoice::Auto));
    for nonsense in ["select", "", "EPOLL", "auto "] {
        let error = nonsense.parse::<DriverChoice>().expect_err(nonsense);
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("uring (io_uring)"), "{error}");
    }
}

/// Has a table of kernel differences: the first version, the ports, the feature, its fallback.
const README: &str = include_str!("../../../README.md");

/// The rows of the table for a mode: the feature and its fallback.
fn kernel_differences(mode: Mode) -> Vec<(&'static str, &'static str)> {
    let rows = README.lines().filter_map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let &[version, ports, ability, before] = &cells[..] else {
            return None;
        };
        let here = match ports {
            "all" => true,
            "shared" => matches!(mode, Mode::Shared | Mode::Leader),
            "single-waiter" => matches!(mode, Mode::Single | Mode::Direct),
            "direct" => mode == Mode::Direct,
            _ => return None,
        };
        (version.starts_with("Linux ") && here).then_some((ability, before))
    });
    rows.collect()
}

fn a_driver_reports_its_kernels_features_and_fallbacks(at: &Where) {
    let port = at.builder().build().expect("it is present");
    let features = &port.driver().features;
    println!("{at} uses: {}", features.join("; "));
    let rows = kernel_differences(at.mode);
    assert!(
        rows.len() > 2,
        "the README has a table of kernels: {rows:?}"
    );
    for (ability, before) in rows {
        let told = features.iter().filter(|it| [ability, before].contains(it));
        let expected = usize::from(at.driver == Driver::Uring);
        assert_eq!(
            told.count(),
            expected,
            "{ability:?} or {before:?}: {features:?}"
        );
    }
}
