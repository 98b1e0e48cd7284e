//! The targets for Wharf, and whether a run meets them.
//!
//! A target is met if the upper 95 % bound of at least 15 pairs is within it, with 0.02 for
//! differences that no measurement can resolve. It is missed if even the lower bound is beyond it.
//! Everything else is undecided, and is reported so.

use super::profile::Profiles;
use super::servers::Role;
use super::statistics::{Ratio, Sample, Samples};

/// Pairs that a verdict needs.
const PAIRS: usize = 15;
/// How far a bound may exceed a target.
const TOLERANCE: f64 = 0.02;

/// What Wharf is compared with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Figure {
    Processor,
    /// Time per operation, so that less is better here too.
    Throughput,
    Median,
    Tail,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Against {
    Server(&'static str),
    BestPeer,
    /// Wharf itself, without the idle connections.
    WithoutIdle,
}

struct Target {
    server: &'static str,
    workload: &'static str,
    figure: Figure,
    against: Against,
    at_most: f64,
}

const fn target(
    server: &'static str,
    workload: &'static str,
    figure: Figure,
    against: Against,
    at_most: f64,
) -> Target {
    Target {
        server,
        workload,
        figure,
        against,
        at_most,
    }
}

use Against::{BestPeer, WithoutIdle};
use Figure::{Median, Processor, Tail, Throughput};

const URING: Against = Against::Server("bare-uring");
const EPOLL: Against = Against::Server("bare-epoll");
const POLL: Against = Against::Server("wharf-poll");
const SINGLE: Against = Against::Server("wharf-uring");

static TARGETS: [Target; 23] = [
    target("wharf-uring", "echo-64", Processor, URING, 1.05),
    target("wharf-uring", "echo-1000", Processor, URING, 1.05),
    target("wharf-uring", "echo-64x16", Processor, URING, 1.08),
    target("wharf-uring", "accept", Processor, URING, 1.05),
    target("wharf-uring", "sink", Throughput, URING, 1.0 / 0.95),
    target("wharf-uring", "source", Throughput, URING, 1.0 / 0.95),
    target("wharf-uring", "echo-64", Processor, BestPeer, 0.95),
    target("wharf-uring", "echo-1000", Processor, BestPeer, 0.95),
    target("wharf-uring", "echo-64x16", Processor, BestPeer, 0.90),
    target("wharf-uring", "accept", Processor, BestPeer, 0.90),
    target("wharf-uring", "echo-64", Tail, BestPeer, 1.0),
    target("wharf-uring", "echo-1000", Tail, BestPeer, 1.0),
    target("wharf-uring", "echo-1", Median, BestPeer, 1.0),
    target("wharf-uring-spin", "echo-1", Median, SINGLE, 1.0),
    target("wharf-poll-spin", "echo-1", Median, POLL, 1.0),
    target("wharf-uring", "echo-idle", Processor, WithoutIdle, 1.0),
    target("wharf-poll", "echo-64", Processor, EPOLL, 1.05),
    target("wharf-poll", "echo-1000", Processor, EPOLL, 1.05),
    target("wharf-poll", "echo-64x16", Processor, EPOLL, 1.05),
    target("wharf-poll", "accept", Processor, EPOLL, 1.05),
    target("wharf-shared1", "echo-64", Processor, SINGLE, 1.35),
    target("wharf-shared2", "echo-64", Processor, SINGLE, 1.35),
    target(
        "wharf-poll",
        "echo-64",
        Processor,
        Against::Server("tokio"),
        1.0,
    ),
];

/// The table of the targets that this run has figures for.
pub(super) fn table(samples: &Samples, profiles: &Profiles) -> String {
    let mut rows = String::new();
    for target in &TARGETS {
        rows += &row(samples, target).unwrap_or_default();
    }
    let beaten = ["tokio", "mio", "async-io"];
    for workload in ["echo-1000", "echo-64x16", "accept"] {
        for peer in beaten {
            let against = Against::Server(peer);
            rows += &row(
                samples,
                &target("wharf-poll", workload, Processor, against, 1.0),
            )
            .unwrap_or_default();
        }
    }
    for peer in &beaten[1..] {
        let against = Against::Server(peer);
        rows += &row(
            samples,
            &target("wharf-poll", "echo-64", Processor, against, 1.0),
        )
        .unwrap_or_default();
    }
    if let Some(profile) = profiles.get(&("echo-64", "wharf-uring")) {
        rows += &single("user-space time, µs an echo", profile.user_us, 0.20);
        rows += &single("system calls an echo", profile.system_calls, 0.15);
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "| server | workload | figure | against | target | ratio | bounds (95 %) | pairs | verdict |\n\
         |---|---|---|---|---|---|---|---|---|\n{rows}"
    )
}

fn single(figure: &str, found: f64, at_most: f64) -> String {
    let verdict = if found <= at_most {
        "within, in one run"
    } else {
        "beyond, in one run"
    };
    format!(
        "| wharf-uring | echo-64 | {figure} | | ≤ {at_most:.2} | {found:.3} | | | {verdict} |\n"
    )
}

fn row(samples: &Samples, target: &Target) -> Option<String> {
    let figure = |sample: &Sample| match target.figure {
        Processor => sample.server_us,
        Throughput => 1.0 / sample.rate,
        Median => sample.p50_us,
        Tail => sample.p99_us,
    };
    let workload = target.workload;
    let (name, ratio) = match target.against {
        Against::Server(other) => (
            other,
            samples.ratio(workload, (target.server, other), figure)?,
        ),
        BestPeer => {
            let peer = best_peer(samples, workload, figure)?;
            (
                peer,
                samples.ratio(workload, (target.server, peer), figure)?,
            )
        }
        WithoutIdle => (
            "no idle ones",
            samples.ratio_of_workloads((workload, "echo-64"), target.server, figure)?,
        ),
    };
    let what = match target.figure {
        Processor => "CPU",
        Throughput => "time for a block",
        Median => "p50",
        Tail => "p99",
    };
    Some(format!(
        "| {} | {workload} | {what} | {name} | ≤ {:.2} | {:.3} | {:.3}–{:.3} | {} | {} |\n",
        target.server,
        target.at_most,
        ratio.median,
        ratio.at_least,
        ratio.at_most,
        ratio.pairs,
        verdict(&ratio, target.at_most),
    ))
}

/// The best peer in a figure: the one with the lowest ratio to a server that ran in the same
/// rounds. Comparing medians alone would favour a peer that ran more often while the machine was
/// fast.
pub(super) fn best_peer(
    samples: &Samples,
    workload: &str,
    figure: impl Fn(&Sample) -> f64 + Copy,
) -> Option<&'static str> {
    let all = || super::servers::SERVERS.iter();
    let measured = |name: &str| samples.spread(workload, name, figure).is_some();
    let beside = all().find(|server| measured(server.name))?.name;
    let peers = all().filter(|server| server.role == Role::Peer);
    let ratios = peers.filter_map(|peer| {
        let ratio = samples.ratio(workload, (peer.name, beside), figure)?;
        Some((ratio.median, peer.name))
    });
    ratios
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

fn verdict(ratio: &Ratio, at_most: f64) -> &'static str {
    if ratio.pairs < PAIRS {
        "undecided: too few pairs"
    } else if ratio.at_most <= at_most + TOLERANCE {
        "met"
    } else if ratio.at_least > at_most + TOLERANCE {
        "missed"
    } else {
        "undecided"
    }
}

#[cfg(test)]
mod tests {
    use super::{Ratio, verdict};

    #[test]
    fn a_target_is_met_only_by_its_upper_bound_and_enough_pairs() {
        let ratio = |at_least, at_most, pairs| Ratio {
            median: 1.0,
            at_least,
            at_most,
            pairs,
        };
        assert_eq!(verdict(&ratio(0.9, 1.06, 15), 1.05), "met");
        assert_eq!(
            verdict(&ratio(0.9, 1.06, 14), 1.05),
            "undecided: too few pairs"
        );
        assert_eq!(verdict(&ratio(1.0, 1.08, 15), 1.05), "undecided");
        assert_eq!(verdict(&ratio(1.08, 1.2, 15), 1.05), "missed");
    }
}
