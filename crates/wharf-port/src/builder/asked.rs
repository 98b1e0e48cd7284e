//! The settings of a builder, and the check that turns them into the options of a port.
//!
//! The builder keeps every number as it was given and checks all of them at the end. Checks in the
//! setters were rejected: each call would return a `Result`, and a later call may still replace a
//! wrong value.

use std::time::Duration;

use crate::core::options::{Options, PoolOptions};
use crate::driver::kind::{DriverChoice, DriverKind};
use crate::error::{Bound, Error, ErrorKind, Operation, Result};

/// Packets in one batch by default. A shared port has few, so a slow thread holds few. A
/// single-waiter port has many, because there is only one thread.
const BATCH_MAX_SHARED: u32 = 8;
const BATCH_MAX_SINGLE: u32 = 256;

/// The smallest number of accepts that are posted ahead. A smaller number is raised to it.
const ACCEPTS_POSTED_LEAST: u32 = 8;

#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) driver: DriverChoice,
    pub(super) shared: bool,
    pub(super) sockets_max: u32,
    pub(super) direct_descriptors: u32,
    pub(super) timers_max: u32,
    pub(super) posts_max: u32,
    pub(super) waiters_max: u32,
    pub(super) batch_max: Option<u32>,
    pub(super) turn_packets_max: u32,
    pub(super) leases_per_socket: u32,
    pub(super) send_queue_bytes_max: usize,
    pub(super) operations_per_socket_max: u32,
    pub(super) accepts_posted: u32,
    pub(super) flush_max: Duration,
    pub(super) spin_max: Duration,
    pub(super) pool: PoolOptions,
}

impl Default for Asked {
    fn default() -> Self {
        Asked {
            driver: DriverChoice::Auto,
            shared: true,
            sockets_max: 1 << 20,
            direct_descriptors: 0,
            timers_max: 1 << 24,
            posts_max: 1 << 16,
            waiters_max: 256,
            batch_max: None,
            turn_packets_max: 8,
            leases_per_socket: 4,
            send_queue_bytes_max: 1 << 20,
            operations_per_socket_max: 1024,
            accepts_posted: 16,
            flush_max: Duration::from_secs(5),
            spin_max: Duration::ZERO,
            pool: PoolOptions::default(),
        }
    }
}

impl Asked {
    /// Returns the options, or an error for the first wrong bound.
    pub(super) fn options(&self) -> Result<Options> {
        let batch_max = self.batch_max.unwrap_or(match self.shared {
            true => BATCH_MAX_SHARED,
            false => BATCH_MAX_SINGLE,
        });
        let (driver, direct_descriptors) = self.descriptors()?;
        Ok(Options {
            driver,
            shared: self.shared,
            sockets_max: within(Bound::SocketsMax, self.sockets_max)?,
            direct_descriptors,
            timers_max: within(Bound::TimersMax, self.timers_max)?,
            posts_max: count(self.posts_max),
            waiters_max: within(Bound::WaitersMax, self.waiters_max)?,
            batch_max: count(within(Bound::BatchMax, batch_max)?),
            turn_packets_max: within(Bound::TurnPacketsMax, self.turn_packets_max)?,
            leases_per_socket: within(Bound::LeasesPerSocket, self.leases_per_socket)?,
            send_queue_bytes_max: self.send_queue_bytes_max,
            operations_per_socket_max: count(within(
                Bound::OperationsPerSocketMax,
                self.operations_per_socket_max,
            )?),
            accepts_posted: within(
                Bound::AcceptsPosted,
                self.accepts_posted.max(ACCEPTS_POSTED_LEAST),
            )?,
            flush_ms_max: time(Bound::FlushMax, self.flush_max, Duration::from_millis(1))?,
            spin_us_max: time(Bound::SpinMax, self.spin_max, Duration::from_micros(1))?,
            pool: self.pool()?,
        })
    }

    fn pool(&self) -> Result<PoolOptions> {
        let pool = self.pool;
        let buffer: u32 = within(Bound::BufferBytes, pool.buffer_bytes)?;
        if pool.pool_bytes_max < count(buffer) {
            let bytes = u32::try_from(pool.pool_bytes_max).unwrap_or(u32::MAX);
            return Err(Error::out_of_range(Bound::PoolBytesMax, bytes));
        }
        Ok(pool)
    }

    /// Direct descriptors need a single-waiter port. With them `Auto` means the one driver that has
    /// them.
    fn descriptors(&self) -> Result<(DriverChoice, u32)> {
        let refuse = |advice| {
            let kind = ErrorKind::InvalidInput;
            Err(Error::advised(Operation::Build, kind, advice))
        };
        let places = self.direct_descriptors;
        if places == 0 {
            return Ok((self.driver, 0));
        }
        if self.shared {
            return refuse(
                "direct descriptors belong to one thread: build a single-waiter port, or leave \
                 them out",
            );
        }
        let places = within(Bound::DirectDescriptors, places)?;
        match self.driver {
            DriverChoice::Auto | DriverChoice::Require(DriverKind::Uring) => {
                Ok((DriverChoice::Require(DriverKind::Uring), places))
            }
            DriverChoice::Require(_) => refuse(
                "only the driver uring has direct descriptors: require that one, or leave them out",
            ),
        }
    }
}

/// Converts the value to the type that the core uses, if it is in the range of the bound.
fn within<T: TryFrom<u32>>(bound: Bound, value: u32) -> Result<T> {
    let wrong = Error::out_of_range(bound, value);
    match bound.takes(value) {
        true => T::try_from(value).map_err(|_| wrong),
        false => Err(wrong),
    }
}

/// Converts a time to units of the core, rounded up.
fn time(bound: Bound, time: Duration, unit: Duration) -> Result<u32> {
    let units = u32::try_from(time.as_nanos().div_ceil(unit.as_nanos()));
    let out_of_range = |_| Error::out_of_range(bound, u32::MAX);
    within(bound, units.map_err(out_of_range)?)
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
