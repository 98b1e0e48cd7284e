//! Medians, their spread, and ratios of pairs with the bound they stay below.
//!
//! A ratio pairs two servers of the same round. Its bound is the 95th percentile of the medians of
//! 10,000 resamples (bootstrap). The bootstrap assumes nothing about the distribution of the noise,
//! which on a shared machine has a long tail. A t-test was rejected for that reason.

use std::collections::BTreeMap;

use super::servers::Server;
use super::workloads::Workload;

/// The result of one run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Processor time of the server for one operation.
    pub(super) server_us: f64,
    /// Operations in a second.
    pub(super) rate: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// All runs, by workload and server and round.
#[derive(Debug, Default)]
pub(super) struct Samples(BTreeMap<(&'static str, &'static str), BTreeMap<u32, Sample>>);

/// A median and the quartiles around it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Spread {
    pub(super) low: f64,
    pub(super) median: f64,
    pub(super) high: f64,
}

/// The median of paired ratios, and its bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ratio {
    pub(super) median: f64,
    /// The lower and the upper bound, each with 95 % confidence.
    pub(super) at_least: f64,
    pub(super) at_most: f64,
    pub(super) pairs: usize,
}

const RESAMPLES: usize = 10_000;

impl Samples {
    pub(super) fn add(&mut self, server: &Server, workload: &Workload, round: u32, sample: Sample) {
        let runs = self.0.entry((workload.name, server.name)).or_default();
        runs.insert(round, sample);
    }

    /// The spread of one figure.
    pub(super) fn spread(
        &self,
        workload: &str,
        server: &str,
        figure: impl Fn(&Sample) -> f64,
    ) -> Option<Spread> {
        let runs = self.runs(workload, server)?;
        spread(runs.values().map(figure).collect())
    }

    /// The ratio of a server's figure to another's.
    pub(super) fn ratio(
        &self,
        workload: &str,
        servers: (&str, &str),
        figure: impl Fn(&Sample) -> f64,
    ) -> Option<Ratio> {
        paired(
            self.runs(workload, servers.0)?,
            self.runs(workload, servers.1)?,
            figure,
        )
    }

    /// The ratio of a server's figure on one workload to that on another.
    pub(super) fn ratio_of_workloads(
        &self,
        workloads: (&str, &str),
        server: &str,
        figure: impl Fn(&Sample) -> f64,
    ) -> Option<Ratio> {
        paired(
            self.runs(workloads.0, server)?,
            self.runs(workloads.1, server)?,
            figure,
        )
    }

    fn runs(&self, workload: &str, server: &str) -> Option<&BTreeMap<u32, Sample>> {
        let found = self
            .0
            .iter()
            .find(|((w, s), _)| *w == workload && *s == server);
        found.map(|(_, runs)| runs)
    }
}

fn paired(
    ours: &BTreeMap<u32, Sample>,
    theirs: &BTreeMap<u32, Sample>,
    figure: impl Fn(&Sample) -> f64,
) -> Option<Ratio> {
    let pairs = ours.iter().filter_map(|(round, sample)| {
        let other = figure(theirs.get(round)?);
        (other > 0.0).then(|| figure(sample) / other)
    });
    ratio(pairs.collect())
}

fn spread(mut values: Vec<f64>) -> Option<Spread> {
    values.sort_by(f64::total_cmp);
    Some(Spread {
        low: quantile(&values, 0.25)?,
        median: quantile(&values, 0.5)?,
        high: quantile(&values, 0.75)?,
    })
}

/// The quantile of sorted values, between the two that are next to it.
fn quantile(sorted: &[f64], at: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = at * last as f64;
    let below = sorted[position.floor() as usize];
    let above = sorted[position.ceil() as usize];
    Some(below + (above - below) * position.fract())
}

fn ratio(mut pairs: Vec<f64>) -> Option<Ratio> {
    pairs.sort_by(f64::total_cmp);
    let median = quantile(&pairs, 0.5)?;
    let mut random = Random(0x5eed);
    let mut resample = vec![0.0; pairs.len()];
    let mut medians: Vec<f64> = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        for value in &mut resample {
            *value = pairs[random.below(pairs.len())];
        }
        resample.sort_by(f64::total_cmp);
        medians.extend(quantile(&resample, 0.5));
    }
    medians.sort_by(f64::total_cmp);
    Some(Ratio {
        median,
        at_least: quantile(&medians, 0.05)?,
        at_most: quantile(&medians, 0.95)?,
        pairs: pairs.len(),
    })
}

/// Good enough for resampling, and the same in every run (64-bit xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * bound as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::{Spread, ratio, spread};

    #[test]
    fn a_spread_is_the_median_and_the_quartiles() {
        let expected = Spread {
            low: 2.0,
            median: 3.0,
            high: 4.0,
        };
        assert_eq!(spread(vec![5.0, 1.0, 3.0, 2.0, 4.0]), Some(expected));
        assert_eq!(spread(Vec::new()), None);
    }

    #[test]
    fn the_bounds_of_a_ratio_are_around_its_median_and_narrow_with_the_pairs() {
        let values = |count: usize| (0..count).map(|i| 1.0 + (i % 7) as f64 / 100.0).collect();
        let few = ratio(values(7)).expect("there are pairs");
        let many = ratio(values(70)).expect("there are pairs");
        assert!((few.median - 1.03).abs() < 1e-9 && (many.median - 1.03).abs() < 1e-9);
        assert!(few.at_least < 1.03 && few.at_most > 1.03);
        assert!(many.at_most - many.at_least < few.at_most - few.at_least);
        assert_eq!((few.pairs, many.pairs), (7, 70));
    }

    #[test]
    fn equal_pairs_leave_no_doubt() {
        let found = ratio(vec![0.5; 15]).expect("there are pairs");
        assert!(
            [found.median, found.at_least, found.at_most]
                .iter()
                .all(|&v| (v - 0.5).abs() < 1e-12)
        );
    }
}
