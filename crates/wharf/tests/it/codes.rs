//! The exit code of a program that ended by itself.
//!
//! A process reports to Wine's server that it ends before it calls `exit`. If more than half a
//! second passes between the two, the server kills it with SIGKILL, and its exit code is lost. It
//! happened once in some thousand runs, after a load had printed its whole account. Another time a
//! process that had stood still while exiting found its connection to that server gone, said so and
//! ended with code 1; the tests of the program treat that the same. Such an end counts as any code,
//! a few times in a run of the suite. What the program printed is compared all the same.
//!
//! Under Wine 10 the code of a process that ends while one of its threads ends is sometimes 0: if
//! the server ends the last thread, the process ends with that thread's code. A few lines of C,
//! whose threads and `main` return after 20 ms, had 0 for 1 in 3 to 5 of 100 runs; a load with
//! threads in 2 of 100. The server has the right code, so a test that is itself a Windows program
//! always sees it. From here 0 counts as any code, a few times too.
//!
//! Running it again was rejected: many tests count what the server has seen. A launcher that reads
//! the code through Windows was rejected too: it would be between the tests and the process to
//! which they send signals.
//!
//! The tests of the program have a copy of this file, because a package has nothing of another
//! crate. `cargo xtask tidy` compares the two.

use std::fmt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicUsize, Ordering};

/// More lost codes than this in one run of the suite are a defect.
const LOST_CODES_MAX: usize = 3;

static LOST_CODES: AtomicUsize = AtomicUsize::new(0);

/// More codes of 0 in place of another than this are a defect.
const ZEROS_MAX: usize = 8;

static ZEROS: AtomicUsize = AtomicUsize::new(0);

/// Compares with [`ExitStatus::code`].
#[derive(Clone, Copy)]
pub(crate) struct Code {
    status: ExitStatus,
    is_lost: bool,
    /// 0 may mean another code.
    may_be_zero: bool,
}

/// Examines how a program ended; another program, such as Wine, may have run it.
pub(crate) fn code_of(status: ExitStatus, is_native: bool) -> Code {
    let is_lost = !is_native && is_killed(status);
    if is_lost {
        let count = LOST_CODES.fetch_add(1, Ordering::Relaxed) + 1;
        println!("skipped: an exit code, of a program that Wine's server ended while it left");
        assert!(count <= LOST_CODES_MAX, "{count} exit codes are lost");
    }
    Code {
        status,
        is_lost,
        may_be_zero: !is_native && cfg!(unix),
    }
}

impl PartialEq<Option<i32>> for Code {
    fn eq(&self, expected: &Option<i32>) -> bool {
        if self.is_lost || self.status.code() == *expected {
            return true;
        }
        let is_zero = self.may_be_zero && self.status.code() == Some(0);
        if is_zero {
            let count = ZEROS.fetch_add(1, Ordering::Relaxed) + 1;
            println!(
                "skipped: exit code {expected:?}, of a program that ended with a thread of its"
            );
            assert!(count <= ZEROS_MAX, "{count} exit codes are 0");
        }
        is_zero
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.status)
    }
}

#[cfg(unix)]
fn is_killed(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;

    status.signal() == Some(9)
}

/// Nothing runs under Wine from here.
#[cfg(not(unix))]
fn is_killed(_: ExitStatus) -> bool {
    false
}
