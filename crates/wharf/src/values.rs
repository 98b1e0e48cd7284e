//! Parsers of values on the command line. Their errors say how to write the value.
//!
//! The error texts of the parsing crates were rejected: they say which digit is wrong, and not what
//! would be right.

pub(crate) mod address;

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use clap::ValueEnum;
use wharf_port::{Address, DriverChoice, DriverKind};

use address::Place;

/// Parses whole numbers within a range.
pub(crate) fn whole<T>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + Display + Clone + Send + Sync + 'static,
{
    move |text| match text.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!(
            "write a whole number from {} to {}, such as \"10\"",
            range.start(),
            range.end()
        )),
    }
}

/// Parses the variable of an option that takes no value.
pub(crate) fn parse_switch(text: &str) -> Result<bool, String> {
    match text.to_lowercase().as_str() {
        "true" | "yes" | "on" | "1" | "t" | "y" => Ok(true),
        "false" | "no" | "off" | "0" | "f" | "n" => Ok(false),
        _ => Err("write true, yes, on or 1, or else false, no, off or 0".into()),
    }
}

/// A number per second.
pub(crate) fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=1e8).contains(&rate) => Ok(rate),
        _ => Err(
            "write a number from 0.001 to 100000000 a second, such as \"1000\" or \"2.5\"".into(),
        ),
    }
}

/// A ratio of 1 or more.
pub(crate) fn parse_ratio(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ratio) if (1.0..=1e6).contains(&ratio) => Ok(ratio),
        _ => Err("write a number from 1 on, such as \"1.1\" for a tenth more".into()),
    }
}

pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let unreadable = |_| "write it as \"10s\", \"500ms\" or \"2m\"".to_owned();
    humantime::parse_duration(text).map_err(unreadable)
}

/// The longest time before a keepalive probe that Linux accepts.
const KEEPALIVE_MAX: Duration = Duration::from_secs(32_767);

/// How long a peer may be silent before the system probes it.
pub(crate) fn parse_keepalive(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    if time > KEEPALIVE_MAX {
        return Err(
            "systems wait for 9h at most: write a time such as \"2m\", or 0s for never".into(),
        );
    }
    Ok(time)
}

/// An amount of memory.
pub(crate) fn parse_size(text: &str) -> Result<ByteSize, String> {
    let unreadable = |_| "write an amount such as 2GiB or 500MB".to_owned();
    text.parse().map_err(unreadable)
}

pub(crate) fn parse_driver(text: &str) -> Result<DriverChoice, String> {
    match text.parse() {
        // The simulated network is for tests of the library.
        Ok(DriverChoice::Require(DriverKind::Sim)) | Err(_) => {
            Err("name one of auto, iocp, uring, poll".into())
        }
        Ok(choice) => Ok(choice),
    }
}

/// An internet address, and not a range of them.
pub(crate) fn parse_one_address(text: &str) -> Result<Address, String> {
    let place: Place = text.parse()?;
    match <[Address; 1]>::try_from(place.addresses) {
        Ok([address]) if address.as_socket_addr().is_some() => Ok(address),
        _ => Err("name one host:port or [v6]:port".into()),
    }
}

/// How to print.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// One object a line
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_have_a_range() {
        let few = whole(1..=256_u16);
        assert_eq!((few("1"), few("256")), (Ok(1), Ok(256)));
        for wrong in ["0", "257", "70000", "-1", "1.5", "4k", "many", ""] {
            let error = few(wrong).expect_err(wrong);
            assert!(error.contains("from 1 to 256"), "{error}");
        }
    }

    #[test]
    fn a_switch_is_on_or_off() {
        for on in ["true", "YES", "on", "1", "t", "y"] {
            assert_eq!(parse_switch(on), Ok(true), "{on}");
        }
        for off in ["false", "No", "OFF", "0", "f", "n"] {
            assert_eq!(parse_switch(off), Ok(false), "{off}");
        }
        for wrong in ["", "maybe", "2", " 1"] {
            let error = parse_switch(wrong).expect_err(wrong);
            assert!(error.contains("true, yes, on or 1"), "{error}");
        }
    }

    #[test]
    fn rates_have_bounds() {
        assert_eq!(parse_rate("2.5"), Ok(2.5));
        for wrong in ["0", "-1", "inf", "NaN", "fast", "1e9"] {
            let error = parse_rate(wrong).expect_err(wrong);
            assert!(error.contains("such as \"1000\""), "{error}");
        }
    }

    #[test]
    fn a_ratio_is_one_at_least() {
        assert_eq!((parse_ratio("1"), parse_ratio("1.25")), (Ok(1.0), Ok(1.25)));
        for wrong in ["0.9", "-2", "inf", "NaN", "10%"] {
            let error = parse_ratio(wrong).expect_err(wrong);
            assert!(error.contains("such as \"1.1\""), "{error}");
        }
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(parse_duration("1m 30s"), Ok(Duration::from_secs(90)));
        for wrong in ["1", "abc", "", "-1s", "5 parsecs", "99999999999999999999s"] {
            let error = parse_duration(wrong).expect_err(wrong);
            assert!(error.contains("\"500ms\""), "{error}");
        }
    }
}
