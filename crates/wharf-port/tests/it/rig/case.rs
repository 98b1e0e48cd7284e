//! A case as data: its name, the clauses it proves, its source, and where it cannot run.
//!
//! Cases know neither the driver they run on nor how the port is shared. Both are in [`Where`], and
//! only a named skip may read them. Functions marked `#[test]` were rejected: the harness would
//! need one per driver and mode, and the table could not be made from them.

use std::fmt;
use std::time::Duration;

use wharf_port::sim::SimOptions;
use wharf_port::{Builder, DriverChoice, DriverKind, Port, drivers_present};

/// A clause of the contract.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Clause {
    C1,
    C2,
    C3,
    C4,
    C5,
    C6,
    C7,
    C8,
    C9,
    C10,
    C11,
    C12,
    C13,
    C14,
    C15,
    C16,
    C17,
    C18,
    C19,
    C20,
    C21,
}

impl Clause {
    pub(crate) const ALL: [(Clause, &str); 21] = [
        (Clause::C1, "Keys are values"),
        (Clause::C2, "One outcome for every accepted operation"),
        (Clause::C3, "The operation owns its buffer"),
        (Clause::C4, "Threads and waiters"),
        (Clause::C5, "Wait"),
        (Clause::C6, "Order"),
        (Clause::C7, "Sends are bounded"),
        (Clause::C8, "Receiving lends buffers"),
        (Clause::C9, "Errors are the same kind on every driver"),
        (Clause::C10, "Cancel is a request"),
        (Clause::C11, "Ends of a connection"),
        (Clause::C12, "An accept error ends that accept only"),
        (Clause::C13, "Bounds"),
        (Clause::C14, "The end of a port"),
        (Clause::C15, "Choice of driver"),
        (Clause::C16, "Posts"),
        (Clause::C17, "Timers"),
        (Clause::C18, "Turns"),
        (Clause::C19, "Handles and options"),
        (Clause::C20, "Forks"),
        (Clause::C21, "Connecting to oneself is refused"),
    ];
}

/// A driver as the table knows it: those of this system, those of others, and the simulated one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Driver {
    Iocp,
    Uring,
    Poll,
    Sim,
}

impl Driver {
    pub(crate) const ALL: [Driver; 4] = [Driver::Iocp, Driver::Uring, Driver::Poll, Driver::Sim];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Driver::Iocp => "iocp",
            Driver::Uring => "uring",
            Driver::Poll => "poll",
            Driver::Sim => "sim",
        }
    }

    /// The drivers that work in this process.
    pub(crate) fn present() -> Vec<Driver> {
        let mut present: Vec<_> = drivers_present().into_iter().map(Driver::of).collect();
        present.push(Driver::Sim);
        present
    }

    pub(crate) fn of(kind: DriverKind) -> Driver {
        let name = kind.to_string();
        let known = Driver::ALL.into_iter().find(|driver| driver.name() == name);
        known.unwrap_or_else(|| panic!("the suite does not know the driver {name}"))
    }

    pub(crate) fn kind(self) -> DriverKind {
        self.name().parse().expect("the port knows its drivers")
    }
}

/// How the port is shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Shared,
    Single,
    /// A single-waiter port whose sockets take no descriptors; on `uring` alone.
    Direct,
    /// A shared port where one waiter leads and the others are parked; on `sim` alone, whose
    /// driver lets all of them in otherwise.
    Leader,
}

impl Mode {
    /// The modes of every driver.
    pub(crate) const ALL: [Mode; 2] = [Mode::Shared, Mode::Single];

    /// Whether this driver has such ports, if the system supports them.
    pub(crate) fn is_of(self, driver: Driver) -> bool {
        match self {
            Mode::Shared | Mode::Single => true,
            Mode::Direct => driver != Driver::Sim,
            Mode::Leader => driver == Driver::Sim,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::Shared => "shared",
            Mode::Single => "single",
            Mode::Direct => "direct",
            Mode::Leader => "leader",
        }
    }
}

/// Fewer than the default limit of open files.
const DIRECT_PLACES: u32 = 1000;

/// Where a case runs: everything that a skip may depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Where {
    pub(crate) driver: Driver,
    pub(crate) mode: Mode,
    /// Whether the system is Wine, which differs from Windows in places.
    pub(crate) wine: bool,
    pub(crate) linux: bool,
    pub(crate) ipv6: bool,
    /// Whether this user may create a network namespace.
    pub(crate) namespaces: bool,
    /// Whether strace is installed and may trace.
    pub(crate) strace: bool,
    /// How long the waiters busy-poll before they sleep.
    pub(crate) spin_max: Duration,
}

impl Where {
    /// On the machine that the documents describe: everything is available, and it is not Wine.
    pub(crate) fn documented(driver: Driver, mode: Mode) -> Self {
        Where {
            driver,
            mode,
            wine: false,
            linux: driver != Driver::Iocp,
            ipv6: true,
            namespaces: true,
            strace: true,
            spin_max: Duration::ZERO,
        }
    }

    pub(crate) fn shared(&self) -> bool {
        matches!(self.mode, Mode::Shared | Mode::Leader)
    }

    /// A table for this number of sockets, if a port has its own.
    pub(crate) fn with_places(&self, builder: Builder, places: u32) -> Builder {
        match self.mode {
            Mode::Shared | Mode::Single | Mode::Leader => builder,
            Mode::Direct => builder.direct_descriptors(places),
        }
    }

    /// A builder for a port on this driver, shared in this way.
    pub(crate) fn builder(&self) -> Builder {
        let builder = match self.driver {
            Driver::Sim => Port::builder().sim(SimOptions {
                // As much as systems hold, for cases whose far end reads later.
                buffer_bytes: 1 << 20,
                one_leads: self.mode == Mode::Leader,
                ..SimOptions::new(1)
            }),
            driver => Port::builder().driver(DriverChoice::Require(driver.kind())),
        };
        let builder = builder.spin_max(self.spin_max);
        match self.mode {
            Mode::Shared | Mode::Leader => builder.shared(),
            Mode::Single => builder.single_waiter(),
            Mode::Direct => builder.single_waiter().direct_descriptors(DIRECT_PLACES),
        }
    }
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.driver.name(), self.mode.name())
    }
}

/// Why a case does not run somewhere, if it does not.
pub(crate) type Skip = fn(&Where) -> Option<&'static str>;

/// One case.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) clauses: &'static [Clause],
    /// The public work that this behaviour comes from.
    pub(crate) source: &'static str,
    pub(crate) run: fn(&Where),
    pub(crate) skip: Skip,
    /// Whether it needs its own process: for limits, signals, descriptors, processor time.
    pub(crate) alone: bool,
    /// After this many seconds it hangs.
    pub(crate) seconds_max: u64,
}

impl Case {
    pub(crate) const fn new(
        name: &'static str,
        clauses: &'static [Clause],
        source: &'static str,
        run: fn(&Where),
    ) -> Self {
        Case {
            name,
            clauses,
            source,
            run,
            skip: |_| None,
            alone: false,
            seconds_max: 30,
        }
    }

    pub(crate) const fn skip(mut self, skip: Skip) -> Self {
        self.skip = skip;
        self
    }

    /// For limits, signals, counts of descriptors, and revoked pages: touching a revoked page kills
    /// the process.
    pub(crate) const fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// For a case that moves much data or has many threads.
    pub(crate) const fn seconds_max(mut self, seconds: u64) -> Self {
        self.seconds_max = seconds;
        self
    }
}

/// A case named after its function: `case!(name, [C2], "where it was learnt")`.
macro_rules! case {
    ($run:ident, [$($clause:ident),+], $source:literal) => {
        $crate::rig::case::Case::new(
            stringify!($run),
            &[$($crate::rig::case::Clause::$clause),+],
            $source,
            $run,
        )
    };
}
pub(crate) use case;

/// A behaviour from the lists that this suite was made from that no case can show here, and the
/// reason.
pub(crate) struct Inapplicable {
    pub(crate) name: &'static str,
    pub(crate) source: &'static str,
    pub(crate) reason: &'static str,
}

/// For cases with several waiters.
pub(crate) fn several_waiters(at: &Where) -> Option<&'static str> {
    (!at.shared()).then_some("a single-waiter port has one waiter")
}

/// For a single-waiter port on which one thread waits after another.
pub(crate) fn waiters_elsewhere(at: &Where) -> Option<&'static str> {
    let bound = at.driver == Driver::Uring && !at.shared();
    bound.then_some("io_uring binds a single-waiter port to the thread of its first waiter")
}

/// For features of a real system, not of the simulated network.
pub(crate) fn a_system(at: &Where) -> Option<&'static str> {
    (at.driver == Driver::Sim).then_some("the simulated network has no sockets of a system")
}

/// For cases in which real time passes.
pub(crate) fn real_time(at: &Where) -> Option<&'static str> {
    (at.driver == Driver::Sim).then_some(
        "the clock of the simulated network is its own: it stands while there is something to do, \
         and jumps when there is nothing",
    )
}

/// For a far end that sends while other threads wait.
pub(crate) fn threads_apart(at: &Where) -> Option<&'static str> {
    (at.driver == Driver::Sim)
        .then_some("one thread drives the simulated network; `sim_seeds` has such races")
}

/// For sockets that move from one port to another.
pub(crate) fn another_port(at: &Where) -> Option<&'static str> {
    let sim = (at.driver == Driver::Sim).then_some("a simulated network has one port");
    sim.or_else(|| descriptors(at))
}

/// For measurements through /proc.
pub(crate) fn linux(at: &Where) -> Option<&'static str> {
    a_system(at).or_else(|| (!at.linux).then_some("it is measured through /proc, which Linux has"))
}

/// For measurements of the open descriptors or handles of the process.
pub(crate) fn open_files(at: &Where) -> Option<&'static str> {
    if at.driver == Driver::Iocp {
        return None;
    }
    linux(at)
}

/// For Unix sockets.
pub(crate) fn unix_sockets(at: &Where) -> Option<&'static str> {
    a_system(at)
        .or_else(|| (at.driver == Driver::Iocp).then_some("Unix sockets are a matter of Unix"))
}

/// For uses of the descriptors of sockets.
pub(crate) fn descriptors(at: &Where) -> Option<&'static str> {
    (at.mode == Mode::Direct).then_some(
        "a direct descriptor is a place in the table of one ring: no other port can have it, \
         nothing outside can look at it, and it takes no descriptor",
    )
}

/// For ports with direct descriptors.
pub(crate) fn direct(at: &Where) -> Option<&'static str> {
    (at.mode != Mode::Direct).then_some("it is about direct descriptors")
}

/// For IPv6 addresses.
pub(crate) fn ipv6(at: &Where) -> Option<&'static str> {
    (!at.ipv6).then_some("this machine has no loopback address of version 6")
}
