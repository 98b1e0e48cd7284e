//! `--descriptors`: whether connections take descriptors of the process, or entries in the table of
//! a thread's ring.
//!
//! A table is as large as the limit of open files, and every thread has one. With enough threads
//! one process holds what otherwise takes several.

use clap::ValueEnum;
use wharf_port::Builder;

use crate::processes::Threads;

/// The most threads that one command starts, as for `--threads`.
const THREADS_MAX: u64 = 256;
/// The most entries that the kernel allows in a table.
const TABLE_MAX: u64 = 1 << 20;
/// A smaller table saves nothing. Connections that are closing need entries too.
const TABLE_MIN: u32 = 4096;

/// What a connection takes of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Descriptors {
    /// One descriptor each
    Ordinary,
    /// None: they live in tables of the threads (uring only; an experiment)
    Direct,
}

impl Descriptors {
    /// The number of threads that these connections need, in one process with this limit of open
    /// files.
    ///
    /// # Errors
    /// If direct descriptors are not possible in this way.
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
