//! `--descriptors`: whether connections take descriptors of the process, or places in tables that
//! each thread's ring has for itself.
//!
//! A table is as large as the process may have open files, and every thread has one: with so many
//! threads one process holds what otherwise takes several.

use clap::ValueEnum;
use wharf_port::Builder;

use crate::processes::Threads;

/// Threads that one command starts at most, as for `--threads`.
const THREADS_MAX: u64 = 256;
/// Most places that the kernel gives a table.
const TABLE_MAX: u64 = 1 << 20;
/// Fewer places would save nothing, and those that are being closed take some.
const TABLE_MIN: u32 = 4096;

/// What a connection takes of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Descriptors {
    /// A descriptor each, as everywhere
    Ordinary,
    /// None: they live in the threads' own tables (uring only; an experiment)
    Direct,
}

impl Descriptors {
    /// How many threads so many connections take, in one process with this limit of open files.
    ///
    /// # Errors
    /// Where direct descriptors cannot be had in this way.
    pub(crate) fn threads(
        connections: Option<u32>,
        threads: u16,
        processes: Option<u16>,
        limit: u64,
    ) -> Result<u32, String> {
        if processes.is_some_and(|processes| processes > 1) {
            return Err(
                "--descriptors direct is for one process: leave --processes out, or take ordinary \
                 descriptors"
                    .into(),
            );
        }
        let places = limit.clamp(1, TABLE_MAX);
        let needed = u64::from(connections.unwrap_or(0)).div_ceil(places);
        if needed > THREADS_MAX {
            let enough = u64::from(connections.unwrap_or(0)).div_ceil(THREADS_MAX);
            return Err(format!(
                "{THREADS_MAX} threads with {places} direct descriptors each are not enough: take \
                 fewer connections, or as root run \"ulimit -n {enough}\""
            ));
        }
        Ok(u32::from(threads).max(needed as u32))
    }

    /// A port that holds this share of the connections, or as many as it can.
    pub(crate) fn of_port(self, builder: Builder, share: Option<u32>, limit: u64) -> Builder {
        match self {
            Descriptors::Ordinary => builder,
            Descriptors::Direct => builder.direct_descriptors(places(share, limit)),
        }
    }
}

/// Places of the table of a thread that has this share of the connections.
pub(crate) fn places(share: Option<u32>, limit: u64) -> u32 {
    let places = u32::try_from(limit.clamp(1, TABLE_MAX)).unwrap_or(u32::MAX);
    let wanted = share.map_or(places, |share| share.max(TABLE_MIN));
    wanted.min(places)
}

/// The share of a thread among all.
pub(crate) fn share(threads: Threads, thread: u32, connections: u32) -> u32 {
    threads.share(threads.first + thread, connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_threads_as_tables_are_needed() {
        let threads =
            |connections, threads| Descriptors::threads(connections, threads, None, 20_000);
        assert_eq!(threads(None, 3), Ok(3));
        assert_eq!(threads(Some(20_000), 1), Ok(1));
        assert_eq!(threads(Some(20_001), 1), Ok(2));
        assert_eq!(threads(Some(1_000_000), 1), Ok(50));
        assert_eq!(threads(Some(20_001), 8), Ok(8));
        let error = threads(Some(16_000_000), 1).expect_err("too many");
        assert!(error.contains("ulimit -n 62500"), "{error}");
        let error = Descriptors::threads(None, 1, Some(2), 20_000).expect_err("two");
        assert!(error.contains("--processes"), "{error}");
        assert_eq!(Descriptors::threads(None, 1, Some(1), 20_000), Ok(1));
    }
}
