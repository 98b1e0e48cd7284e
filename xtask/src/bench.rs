//! `cargo xtask bench`: Wharf, its peers and the bare kernel under the same load, in one run.
//!
//! Each round runs every server once on every workload, and begins with another server, so that
//! other activity on the machine affects all of them alike. Ratios are taken within a round,
//! between neighbours in time, and only then summarized. Running one server after the other was
//! rejected: the machine changes more in ten minutes than the servers differ.

mod machine;
mod micro;
mod profile;
mod report;
mod section;
mod servers;
mod statistics;
mod targets;
mod workloads;

use std::fs;

use anyhow::{Result, bail};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::command::root;
use servers::{Server, Servers};
use statistics::{Sample, Samples};
use workloads::{WORKLOADS, Workload};

/// The default path of the report.
const REPORT: &str = "docs/measured/benchmarks.md";

/// The section of the page that is written by hand, from the output of `wharf bench million`.
const MILLION: &str = "A million";

/// The command line.
pub(crate) fn interface() -> Command {
    let option = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name).long(name).default_value(default).help(help)
    };
    Command::new("bench")
        .about("Compares Wharf with its peers and with the bare kernel; writes docs/measured/benchmarks.md")
        .arg(
            option("rounds", "7", "Number of rounds; a verdict needs 15")
                .value_parser(clap::value_parser!(u32)),
        )
        .arg(
            option(
                "seconds",
                "1",
                "Seconds that one run, or one operation, is measured",
            )
            .value_parser(clap::value_parser!(f64)),
        )
        .arg(option("servers", "all", "Servers to run, separated by commas"))
        .arg(option("workloads", "all", "Workloads to run, separated by commas"))
        .arg(
            option(
                "profile",
                "2",
                "Seconds of sampling for user-space time and system calls; 0 for none",
            )
            .value_parser(clap::value_parser!(f64)),
        )
        .arg(
            Arg::new("micro")
                .long("micro")
                .action(ArgAction::SetTrue)
                .conflicts_with_all(["rounds", "servers", "workloads", "profile"])
                .help("Measures single operations with criterion instead; starts no server"),
        )
        .arg(option(
            "output",
            REPORT,
            "Path of the report, relative to the root of the workspace",
        ))
}

/// The options of a run.
struct Plan {
    rounds: u32,
    seconds: f64,
    profile_seconds: f64,
    servers: Vec<&'static Server>,
    workloads: Vec<&'static Workload>,
}

/// Builds, measures, and writes the report.
pub(crate) fn run(arguments: &ArgMatches) -> Result<()> {
    if !cfg!(target_os = "linux") {
        bail!(
            "the benchmark runs only on Linux, because it pins processes and reads its processor clocks"
        );
    }
    let text = |name: &str| arguments.get_one::<String>(name).expect("it has a default");
    let number = |name: &str| *arguments.get_one::<f64>(name).expect("it has a default");
    if arguments.get_flag("micro") {
        return micro::run_and_write(number("seconds"), text("output"));
    }
    let plan = Plan {
        rounds: *arguments.get_one("rounds").expect("it has a default"),
        seconds: number("seconds"),
        profile_seconds: number("profile"),
        servers: chosen(text("servers"), &servers::SERVERS, |server| server.name)?,
        workloads: chosen(text("workloads"), &WORKLOADS, |workload| workload.name)?,
    };
    let servers = servers::build(&plan.servers)?;
    let samples = measure(&plan, &servers);
    let profiles = profile::run(&plan, &servers);
    let mut page = report::page(&plan, &servers, &samples, &profiles)?;
    let path = root().join(text("output"));
    let before = fs::read_to_string(&path).unwrap_or_default();
    // The results of other commands stay.
    for title in [micro::TITLE, MILLION] {
        if let Some(kept) = section::find(&before, title) {
            page = section::put(&page, title, kept);
        }
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(&path, &page)?;
    println!("{page}");
    Ok(())
}

/// The entries of a table that `names` selects, in the order of the table.
fn chosen<T>(names: &str, all: &'static [T], name: impl Fn(&T) -> &str) -> Result<Vec<&'static T>> {
    if names == "all" {
        return Ok(all.iter().collect());
    }
    let names: Vec<&str> = names.split(',').collect();
    if let Some(unknown) = names
        .iter()
        .find(|wanted| all.iter().all(|one| name(one) != **wanted))
    {
        let known: Vec<&str> = all.iter().map(name).collect();
        bail!("{unknown:?} is unknown; the names are {}", known.join(", "));
    }
    Ok(all
        .iter()
        .filter(|one| names.contains(&name(one)))
        .collect())
}

/// Runs all rounds. A run that fails leaves a gap in its round, and is reported.
fn measure(plan: &Plan, servers: &Servers) -> Samples {
    let mut samples = Samples::default();
    for round in 0..plan.rounds {
        for workload in &plan.workloads {
            let mut order = servers.of(workload);
            let count = order.len().max(1);
            order.rotate_left(round as usize % count);
            for server in order {
                match servers.load(server, workload, plan.seconds) {
                    Ok(sample) => {
                        note(round, server, workload, &sample);
                        samples.add(server, workload, round, sample);
                    }
                    Err(error) => println!("{} {}: {error:#}", workload.name, server.name),
                }
            }
        }
    }
    samples
}

fn note(round: u32, server: &Server, workload: &Workload, sample: &Sample) {
    println!(
        "{round:>3} {:<12} {:<15} {:>9.3} µs {:>12.0} /s   p99 {:>9.1} µs",
        workload.name, server.name, sample.server_us, sample.rate, sample.p99_us
    );
}
