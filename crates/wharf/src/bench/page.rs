//! The page as text: a block for each driver, a line for each thing measured.
//!
//! Processor time comes first, because it is the server's own. Rates on one machine depend as much
//! on the load, which does half of the work. Lines fit a terminal of 80 columns: wrapped tables are
//! hard to read. So latencies have their unit, and the spread has its own line.

use std::fmt::Write;

use super::figures::{Figure, bars, rounded};
use super::parts::{BLOCK_BYTES, MESSAGE_BYTES, Moment};
use super::report::{Hold, Latency, OnDriver, Report, Work};
use crate::text::numbers::grouped;

/// The most bars of a chart.
const BARS_MAX: usize = 32;

pub(super) fn text(report: &Report) -> String {
    let mut lines = head(report);
    for driver in &report.drivers {
        lines.push(String::new());
        lines.extend(on_driver(driver));
    }
    lines.push(String::new());
    for passed in &report.passed_over {
        lines.push(format!("passed over {}: {}", passed.driver, passed.reason));
    }
    lines.extend(report.faults.iter().map(|fault| format!("fault: {fault}")));
    lines.push(report.verdict.clone());
    let mut text = String::new();
    for line in lines {
        // Writing to memory does not fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn head(report: &Report) -> Vec<String> {
    let settings = &report.settings;
    let pinned = match (settings.server_processor, settings.load_processor) {
        (Some(server), Some(load)) => {
            format!("server on processor {server} alone, load on {load}")
        }
        _ => "server and load where the system puts them".to_owned(),
    };
    let load = settings.load_driver.as_deref().unwrap_or("no driver");
    let control = settings.congestion_control.as_deref();
    let set = match settings.congestion_control_set {
        true => "set at both ends",
        false => "the system's choice",
    };
    vec![
        report.machine.line(),
        format!("{pinned}; the load runs on {load}"),
        format!(
            "loopback; congestion control {}, {set}",
            control.unwrap_or("unknown")
        ),
        match settings.rounds {
            1 => format!("one round of {} s a run", settings.seconds),
            rounds => format!(
                "{rounds} rounds of {} s a run: medians, and from lowest to highest",
                settings.seconds
            ),
        },
    ]
}

fn on_driver(driver: &OnDriver) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<25}{:>13}{:>10}{:>8}{:>8}{:>8}{:>8}",
        driver.driver, "server CPU us", "a second", "p50", "p99", "p99.9", "max"
    )];
    for echo in &driver.echo {
        let many = if echo.connections == 1 { "" } else { "s" };
        let connections = grouped(u64::from(echo.connections));
        let name = format!("echo {MESSAGE_BYTES} B, {connections} connection{many}");
        lines.extend(rows(&name, &echo.work));
    }
    if let Some(bulk) = &driver.bulk {
        let name = format!("bulk, {} KiB there and back", BLOCK_BYTES >> 10);
        lines.extend(rows(&name, &bulk.work));
        if let Some(rate) = bulk.bytes_per_second_each_way {
            let mebibyte = f64::from(1 << 20);
            let mebibytes = Figure {
                median: rate.median / mebibyte,
                low: rate.low / mebibyte,
                high: rate.high / mebibyte,
            };
            lines.push(format!(
                "  {} MiB/s each way at once",
                spread(Some(mebibytes))
            ));
        }
    }
    if let Some(accept) = &driver.accept {
        lines.extend(rows("accept and close", &accept.work));
        lines.extend(chart(&accept.over_time));
    }
    if let Some(hold) = &driver.hold {
        let name = format!("accept and hold {}", grouped(u64::from(hold.connections)));
        lines.extend(rows(&name, &hold.work));
        lines.extend(chart(&hold.over_time));
        lines.extend(memory(hold));
    }
    lines
}

/// The medians, and below them the spread of the rounds.
fn rows(name: &str, work: &Work) -> Vec<String> {
    let median = |of: Option<Figure>| of.map_or("unknown".to_owned(), |it| rounded(it.median));
    let latency = |of: fn(&Latency) -> Figure| {
        let latency = work.latency_us.as_ref();
        latency.map_or(String::new(), |latency| duration(of(latency).median))
    };
    let mut rows = vec![row(
        name,
        &[median(work.server_us), median(work.per_second)],
        &[
            latency(|it| it.p50),
            latency(|it| it.p99),
            latency(|it| it.p99_9),
            latency(|it| it.max),
        ],
    )];
    let apart = [(work.server_us, "us"), (work.per_second, "a second")];
    let apart = apart.into_iter().filter_map(|(figure, unit)| {
        let it = figure.filter(Figure::spreads)?;
        Some(format!("{}-{} {unit}", rounded(it.low), rounded(it.high)))
    });
    let apart: Vec<String> = apart.collect();
    if !apart.is_empty() {
        rows.push(format!("  {}", apart.join(", ")));
    }
    rows
}

fn row(name: &str, [cpu, rate]: &[String; 2], [p50, p99, p99_9, max]: &[String; 4]) -> String {
    format!("{name:<28}{cpu:>10}{rate:>10}{p50:>8}{p99:>8}{p99_9:>8}{max:>8}")
}

/// A duration in microseconds, with three significant digits and a unit.
fn duration(us: f64) -> String {
    match us {
        short if short < 999.5 => format!("{} us", rounded(short)),
        longer if longer < 999.5e3 => format!("{} ms", rounded(longer / 1e3)),
        long => format!("{} s", rounded(long / 1e6)),
    }
}

fn spread(figure: Option<Figure>) -> String {
    let Some(it) = figure else {
        return "unknown".to_owned();
    };
    let median = rounded(it.median);
    if it.spreads() {
        format!("{median} ({}-{})", rounded(it.low), rounded(it.high))
    } else {
        median
    }
}

/// Bars over time, with a legend.
pub(super) fn chart(moments: &[Moment]) -> Option<String> {
    let joined = join(moments, BARS_MAX);
    let (first, last) = (joined.first()?, joined.last()?);
    if joined.len() < 2 {
        // Without a legend the chart does not show its duration.
        return None;
    }
    let rates: Vec<f64> = joined.iter().map(|moment| moment.per_second).collect();
    let (lowest, highest) = rates
        .iter()
        .fold((f64::MAX, 0.0_f64), |(low, high), &rate| {
            (low.min(rate), high.max(rate))
        });
    let each = (last.seconds - first.seconds) / (joined.len() as f64 - 1.0);
    Some(format!(
        "  {}  a bar is {:.0} ms, {} to {} a second",
        bars(&rates),
        each * 1e3,
        rounded(lowest),
        rounded(highest)
    ))
}

/// Joins moments in groups of equal size, so that they fit.
fn join(moments: &[Moment], most: usize) -> Vec<Moment> {
    let lot = moments.len().div_ceil(most).max(1);
    let joined = moments.chunks(lot).filter_map(|lot| {
        let sum: f64 = lot.iter().map(|moment| moment.per_second).sum();
        Some(Moment {
            seconds: lot.last()?.seconds,
            per_second: sum / lot.len() as f64,
        })
    });
    joined.collect()
}

fn memory(hold: &Hold) -> [String; 3] {
    let it = &hold.bytes_per_connection;
    let kernel = match it.kernel_both_ends {
        Some(both) => format!(
            "{} of the kernel at both ends together, {} at one",
            rounded(both.median),
            rounded(both.median / 2.0)
        ),
        None => "the kernel's is unknown".to_owned(),
    };
    [
        format!(
            "  bytes for each held: {} of Wharf's own,",
            spread(it.wharf)
        ),
        format!(
            "    {} by which the server's process grew,",
            spread(it.process)
        ),
        format!("    {kernel}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(rates: &[f64]) -> Vec<Moment> {
        let moment = |(place, &per_second): (usize, &f64)| Moment {
            seconds: (place + 1) as f64 / 10.0,
            per_second,
        };
        rates.iter().enumerate().map(moment).collect()
    }

    #[test]
    fn a_chart_has_as_many_bars_as_fit_and_says_what_they_are() {
        let chart = chart(&moments(&[10.0, 20.0, 40.0])).expect("there are moments");
        assert_eq!(chart, "  ▂▄█  a bar is 100 ms, 10.0 to 40.0 a second");
        assert!(super::chart(&moments(&[10.0])).is_none());
        assert!(super::chart(&[]).is_none());
        let many = join(&moments(&[1.0; 100]), 32);
        assert!(many.len() <= 32 && many.len() > 16, "{}", many.len());
        assert_eq!(many.last().map(|moment| moment.seconds), Some(10.0));
    }

    #[test]
    fn the_largest_figures_fit_eighty_columns_and_stay_apart() {
        let largest = ["2.60 s", "99.9 ms", "999 ms", "1,000 s"].map(str::to_owned);
        let figures = ["123,456", "1,234,567"].map(str::to_owned);
        let row = row("echo 64 B, 1,000 connections", &figures, &largest);
        assert_eq!(row.len(), 80);
        let words: Vec<&str> = row.split_whitespace().collect();
        assert!(words.contains(&"1,234,567"), "{row}");
        assert!(words.ends_with(&["999", "ms", "1,000", "s"]), "{row}");
    }

    #[test]
    fn durations_have_three_digits_and_a_unit() {
        for (us, text) in [
            (40.24, "40.2 us"),
            (999.4, "999 us"),
            (999.6, "1.00 ms"),
            (41_091.0, "41.1 ms"),
            (999_600.0, "1.00 s"),
            (2_598_371.0, "2.60 s"),
        ] {
            assert_eq!(duration(us), text);
        }
    }

    #[test]
    fn unknown_figures_are_shown_as_unknown() {
        assert_eq!(spread(None), "unknown");
        let one = Figure::of([4.5]);
        assert_eq!(spread(one), "4.50");
        assert_eq!(spread(Figure::of([4.5, 6.5])), "5.50 (4.50-6.50)");
    }
}
