//! What to do about limits of the system, as it is worded in errors.
//!
//! The limit on descriptors is read when an error is formatted, because it may have changed since
//! the error happened.

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// Returns what to do about too many open files, as the end of a sentence.
pub(crate) fn descriptor_advice() -> String {
    let limit = getrlimit(Resource::Nofile);
    for_limits(limit.current, limit.maximum)
}

fn for_limits(soft: Option<u64>, hard: Option<u64>) -> String {
    match (soft, hard) {
        (Some(soft), Some(hard)) if soft < hard => {
            format!(" (limit {soft}): run \"ulimit -n {hard}\"")
        }
        (Some(soft), _) => {
            format!(
                " (limit {soft}, the hard limit): as root run \"ulimit -n …\", or raise LimitNOFILE"
            )
        }
        (None, _) => ": the system's table is full, see fs.file-max".into(),
    }
}

/// Returns what to do about a bound that the system reports.
pub(crate) fn full_advice(code: i32) -> &'static str {
    match Errno::from_raw_os_error(code) {
        // epoll_ctl(2). A table of direct descriptors without a free entry fails with the same
        // code.
        Errno::NOSPC => {
            "raise fs.epoll.max_user_watches; with direct descriptors raise the bound where the \
             port is built"
        }
        _ => crate::error::AT_BOUND,
    }
}

#[cfg(test)]
mod tests {
    //! The advice for each limit on descriptors.

    use super::*;

    #[test]
    fn advice_about_descriptors_names_the_limit_that_may_be_raised() {
        let raised = for_limits(Some(1024), Some(4096));
        assert_eq!(raised, " (limit 1024): run \"ulimit -n 4096\"");
        let at_the_hard_limit = for_limits(Some(4096), Some(4096));
        assert!(at_the_hard_limit.contains("(limit 4096, the hard limit): as root"));
        assert_eq!(for_limits(Some(64), None), for_limits(Some(64), Some(64)));
        assert!(for_limits(None, None).contains("fs.file-max"));
    }

    #[test]
    fn advice_about_descriptors_is_of_this_process() {
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(
            descriptor_advice(),
            for_limits(limit.current, limit.maximum)
        );
    }

    #[test]
    fn advice_about_a_bound_of_the_system_names_its_setting() {
        assert!(full_advice(libc::ENOSPC).contains("fs.epoll.max_user_watches"));
        assert_eq!(full_advice(libc::EAGAIN), crate::error::AT_BOUND);
    }
}
