//! The processors that a program may run on, and how to start a program on one of them.
//!
//! On Linux a child process inherits the processors of the thread that starts it. So a new thread
//! sets its processors, starts the child and ends. The child is on its processor from its first
//! instruction, and needs no option for that. Other systems bind threads and not their children, or
//! take it only as a hint. There we pin nothing, and the page says so.

use std::io;
use std::process::{Child, Command};

/// Two processors for the two ends of a connection, as far from each other as the system reports;
/// `None` if a program cannot be pinned, or if there is only one.
pub(crate) fn two() -> Option<(usize, usize)> {
    imp::two()
}

/// Starts a program on this processor alone.
pub(crate) fn spawn_on(processor: Option<usize>, command: &mut Command) -> io::Result<Child> {
    let Some(processor) = processor else {
        return command.spawn();
    };
    std::thread::scope(|scope| {
        let start = || {
            imp::keep_this_thread_on(processor)?;
            command.spawn()
        };
        let thread = std::thread::Builder::new().spawn_scoped(scope, start)?;
        thread.join().expect("starting a program does not panic")
    })
}

#[cfg(target_os = "linux")]
mod imp {
    use std::fs;
    use std::io;

    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    pub(super) fn two() -> Option<(usize, usize)> {
        let allowed = sched_getaffinity(None).ok()?;
        let all = (0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor));
        let all: Vec<usize> = all.collect();
        let first = *all.first()?;
        let others = || all[1..].iter().copied();
        // Two threads of one core share its resources, so the other end gets another core.
        let beside = siblings(first);
        let apart = others().find(|processor| !beside.contains(processor));
        Some((first, apart.or_else(|| others().next())?))
    }

    /// The processors that are threads of the same core, including this one: `0,4` or `0-1`.
    fn siblings(processor: usize) -> Vec<usize> {
        let cpu = format!("/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list");
        let list = fs::read_to_string(cpu).unwrap_or_default();
        let ranges = list.trim().split(',').filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(first.parse().ok()?..=last.parse().ok()?)
        });
        ranges.flatten().collect()
    }

    pub(super) fn keep_this_thread_on(processor: usize) -> io::Result<()> {
        let mut one = CpuSet::new();
        one.set(processor);
        Ok(sched_setaffinity(None, &one)?)
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use std::io;

    pub(super) fn two() -> Option<(usize, usize)> {
        None
    }

    pub(super) fn keep_this_thread_on(_processor: usize) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_child_stays_where_it_was_started_and_this_process_does_not() {
        let before = rustix::thread::sched_getaffinity(None).expect("it is known");
        let allowed =
            (0..rustix::thread::CpuSet::MAX_CPU).rfind(|&processor| before.is_set(processor));
        let last = allowed.expect("it runs somewhere");
        let mut command = Command::new("cat");
        command
            .arg("/proc/self/status")
            .stdout(std::process::Stdio::piped());
        let child = spawn_on(Some(last), &mut command).expect("there is a cat");
        let output = child.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            text.contains(&format!("Cpus_allowed_list:\t{last}\n")),
            "{text}"
        );
        assert_eq!(rustix::thread::sched_getaffinity(None).ok(), Some(before));
        assert!(two().is_none_or(|(server, client)| server != client));
    }
}
