//! The bounds of a port in error messages: the bound, the wrong value, and the range.
//!
//! A value has 32 bits and the bound is a number. So an [`Error`](super::Error) is as small as with
//! a constant text. That matters because packets carry errors. A `String` was rejected for the same
//! reason, and because an error is `Copy`.

use std::fmt;
use std::time::Duration;

/// A bound that the builder sets and `build` checks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Bound {
    SocketsMax,
    DirectDescriptors,
    TimersMax,
    WaitersMax,
    BatchMax,
    TurnPacketsMax,
    LeasesPerSocket,
    OperationsPerSocketMax,
    AcceptsPosted,
    FlushMax,
    SpinMax,
    BufferBytes,
    PoolBytesMax,
}

/// What a bound counts. It decides how the values are printed.
#[derive(Clone, Copy)]
enum Unit {
    Pieces,
    Bytes,
    Milliseconds,
    Microseconds,
}

impl Bound {
    /// Returns its name in the builder, its range and its unit.
    fn facts(self) -> (&'static str, (u32, u32), Unit) {
        let any = u32::MAX;
        match self {
            Bound::SocketsMax => ("sockets_max", (1, 1 << 24), Unit::Pieces),
            Bound::DirectDescriptors => ("direct_descriptors", (0, 1 << 20), Unit::Pieces),
            Bound::TimersMax => ("timers_max", (1, any), Unit::Pieces),
            Bound::WaitersMax => ("waiters_max", (1, u16::MAX.into()), Unit::Pieces),
            Bound::BatchMax => ("batch_max", (1, 4096), Unit::Pieces),
            Bound::TurnPacketsMax => ("turn_packets_max", (1, u8::MAX.into()), Unit::Pieces),
            Bound::LeasesPerSocket => ("leases_per_socket", (1, u16::MAX.into()), Unit::Pieces),
            Bound::OperationsPerSocketMax => ("operations_per_socket_max", (1, any), Unit::Pieces),
            Bound::AcceptsPosted => ("accepts_posted", (0, u16::MAX.into()), Unit::Pieces),
            Bound::FlushMax => ("flush_max", (0, any), Unit::Milliseconds),
            // A waiter that sleeps after a second loses nothing.
            Bound::SpinMax => ("spin_max", (0, 1_000_000), Unit::Microseconds),
            Bound::BufferBytes => ("buffer_bytes of the pool", (512, 1 << 20), Unit::Bytes),
            Bound::PoolBytesMax => ("pool_bytes_max of the pool", (512, any), Unit::Bytes),
        }
    }

    /// Whether the value is in its range.
    pub(crate) fn takes(self, value: u32) -> bool {
        let (_, (least, most), _) = self.facts();
        (least..=most).contains(&value)
    }
}

impl Unit {
    fn write(self, f: &mut fmt::Formatter<'_>, value: u32) -> fmt::Result {
        match self {
            Unit::Pieces => write!(f, "{value}"),
            Unit::Bytes => write!(f, "{value} bytes"),
            Unit::Milliseconds => write!(f, "{:?}", Duration::from_millis(value.into())),
            Unit::Microseconds => write!(f, "{:?}", Duration::from_micros(value.into())),
        }
    }
}

/// A value outside the range of a bound.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct OutOfRange {
    pub(crate) bound: Bound,
    /// The value in the unit of the bound; the largest number stands for everything above.
    pub(crate) value: u32,
}

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, (least, most), unit) = self.bound.facts();
        write!(f, "{name} is ")?;
        if self.value == u32::MAX && !matches!(unit, Unit::Pieces) {
            f.write_str("at least ")?;
        }
        unit.write(f, self.value)?;
        match self.bound {
            Bound::PoolBytesMax => return f.write_str(": set it to buffer_bytes at least"),
            _ if least == 0 => f.write_str(": set it to at most ")?,
            _ if most == u32::MAX => {
                f.write_str(": set it to at least ")?;
                return unit.write(f, least);
            }
            _ => {
                f.write_str(": set it from ")?;
                unit.write(f, least)?;
                f.write_str(" to ")?;
            }
        }
        unit.write(f, most)
    }
}

#[cfg(test)]
mod tests {
    use crate::error::Error;

    #[test]
    fn an_error_stays_as_small_as_with_a_constant_text() {
        assert_eq!(size_of::<Error>(), size_of::<usize>() * 2 + 8);
    }
}
