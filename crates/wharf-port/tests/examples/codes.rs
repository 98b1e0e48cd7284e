//! The exit code of a program that ended by itself.
//!
//! A process tells Wine's server that it ends before it calls `exit`; when more than half a
//! second passes between the two, the server ends it with SIGKILL, and its code is lost. It
//! happened once in some thousand runs, after a load had printed all its account. Another time a
//! process that had stood still on its way out found its connection to that server gone, said so
//! and ended with code 1; the tests of the program take that for the same. Such an end
//! counts as any code, a few times in a run of the suite; what the program printed is compared
//! all the same. Running it again was rejected: many tests count what the server has seen. So
//! was a launcher that is told the code by Windows' means: it stands between the tests and the
//! process that they send signals to.
//!
//! The tests of the program take this file too.

use std::fmt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicUsize, Ordering};

/// More lost codes than this in one run of the suite are not bad luck.
const LOST_CODES_MAX: usize = 3;

static LOST_CODES: AtomicUsize = AtomicUsize::new(0);

/// Compares with what [`ExitStatus::code`] answers.
#[derive(Clone, Copy)]
pub(crate) struct Code {
    status: ExitStatus,
    is_lost: bool,
}

/// Looks at how a program ended, which was run by another one, such as Wine, or not.
pub(crate) fn code_of(status: ExitStatus, is_native: bool) -> Code {
    let is_lost = !is_native && is_killed(status);
    if is_lost {
        let count = LOST_CODES.fetch_add(1, Ordering::Relaxed) + 1;
        println!("skipped: an exit code, of a program that Wine's server ended while it left");
        assert!(count <= LOST_CODES_MAX, "{count} exit codes are lost");
    }
    Code { status, is_lost }
}

impl PartialEq<Option<i32>> for Code {
    fn eq(&self, expected: &Option<i32>) -> bool {
        self.is_lost || self.status.code() == *expected
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
