//! Percentiles of all requests that were due, and not only of those with a reply.
//!
//! A request without a reply is slower than any limit, and ranks after the slowest reply. Otherwise
//! a server that replies once and then never again would look as fast as its one reply.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::text::wrap::TIED;

/// Microseconds; `None` if that percentile had no reply.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: Option<f64>,
    pub(crate) p90: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) p99_9: Option<f64>,
    /// Of the requests with a reply.
    pub(crate) max: f64,
}

impl Percentiles {
    /// The percentiles of these replies and this number of requests without a reply; `None` without
    /// replies.
    pub(crate) fn of(answered: &Histogram<u64>, unanswered: u64) -> Option<Self> {
        let at = |quantile| {
            let nanoseconds = value_at(answered, unanswered, quantile);
            nanoseconds.map(|value| value as f64 / 1e3)
        };
        (!answered.is_empty()).then(|| Percentiles {
            p50: at(0.50),
            p90: at(0.90),
            p99: at(0.99),
            p99_9: at(0.999),
            max: answered.max() as f64 / 1e3,
        })
    }

    /// As text, without the first percentile.
    pub(crate) fn text(&self) -> String {
        format!(
            "p90{TIED}{}, p99{TIED}{}, p99.9{TIED}{}, max{TIED}{:.1}",
            microseconds(self.p90),
            microseconds(self.p99),
            microseconds(self.p99_9),
            self.max
        )
    }
}

/// A percentile as text.
pub(crate) fn microseconds(value: Option<f64>) -> String {
    value.map_or("never".to_owned(), |value| format!("{value:.1}"))
}

/// The nanoseconds within which this part of all requests had its reply; `None` if it did not.
pub(crate) fn value_at(answered: &Histogram<u64>, unanswered: u64, quantile: f64) -> Option<u64> {
    let count = answered.len();
    let rank = ((count + unanswered) as f64 * quantile).ceil().max(1.0);
    let is_answered = rank <= count as f64;
    is_answered.then(|| answered.value_at_quantile(rank / count as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(count: u64) -> Histogram<u64> {
        let mut histogram = Histogram::new(3).expect("three digits are possible");
        for value in 1..=count {
            histogram.record(value).expect("it grows");
        }
        histogram
    }

    #[test]
    fn what_was_not_answered_is_slower_than_anything() {
        let hundred = answered(100);
        for (unanswered, quantile, value) in [
            (0, 0.5, Some(50)),
            (0, 0.99, Some(99)),
            (0, 1.0, Some(100)),
            (100, 0.5, Some(100)),
            (101, 0.5, None),
            (1, 0.99, Some(100)),
            (2, 0.99, None),
            (9_900, 0.01, Some(100)),
        ] {
            let found = value_at(&hundred, unanswered, quantile);
            assert_eq!(found, value, "{unanswered} {quantile}");
        }
        assert_eq!(value_at(&answered(0), 0, 0.99), None);
        assert_eq!(value_at(&answered(0), 5, 0.99), None);
    }

    #[test]
    fn no_sample_is_nothing_and_not_zero() {
        assert_eq!(Percentiles::of(&answered(0), 0), None);
        assert_eq!(Percentiles::of(&answered(0), 3), None);
        let one = Percentiles::of(&answered(1), 1).expect("one was answered");
        assert_eq!((one.p50, one.p90, one.max), (Some(0.001), None, 0.001));
        let text = one.text();
        assert!(text.contains("never"), "{text}");
        let object = serde_json::to_value(one).expect("an object");
        assert!(object["p99"].is_null(), "{object}");
        let read: Percentiles = serde_json::from_value(object).expect("what was written");
        assert_eq!(read, one);
    }
}
