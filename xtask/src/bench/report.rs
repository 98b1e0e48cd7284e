//! The page that a run leaves: `docs/measured/benchmarks.md`.

use std::fmt::Write as _;

use anyhow::Result;

use super::Plan;
use super::machine;
use super::profile::{Profile, Profiles};
use super::servers::{Role, Server, Servers};
use super::statistics::{Samples, Spread};
use super::targets;
use super::workloads::{Unit, Workload};

/// The whole page.
pub(super) fn page(
    plan: &Plan,
    servers: &Servers,
    samples: &Samples,
    profiles: &Profiles,
) -> Result<String> {
    let mut page = introduction(plan)?;
    page += "\n## Versions\n\n";
    page += &versions(servers)?;
    let targets = targets::table(samples, profiles);
    if !targets.is_empty() {
        page += "\n## Where Wharf must stand\n\n";
        page += "Met: the upper bound of at least 15 pairs is within the target and 0.02. Missed: the lower \
                 bound is beyond it. User-space time and system calls are from one sampled run.\n\n";
        page += &targets;
    }
    for workload in &plan.workloads {
        write!(page, "\n## {}\n\n", workload.about)?;
        page += &table(servers, workload, samples, profiles);
    }
    Ok(page)
}

fn introduction(plan: &Plan) -> Result<String> {
    Ok(format!(
        "# Benchmarks\n\n\
         Written by `cargo xtask bench`: the same load against Wharf at the level of the port, its peers, and \
         two servers on the bare kernel interfaces, which are the limit.\n\n\
         - Machine: {}; {}.\n\
         - {} rounds of {} s a run, after 0.3 s of warming up; the servers take turns within a round, and each \
         round begins with another one.\n\
         - Server and client are processes of one thread (except `shared2`), the server on core 0, the client on core 1, both with raised priority if the system allows it. All servers have the same client, on epoll; it verifies every byte that comes back.\n\
         - All sockets, at both ends: congestion control **cubic**, set for each socket, whatever the system's \
         default; `TCP_NODELAY`; a backlog of 4,096; loopback.\n\
         - *CPU* is the server's processor time (its process clock, in nanoseconds, read by the client at both \
         ends of the measured time) divided by the operations the client counted. Medians of the rounds, with \
         their quartiles.\n\
         - *User* is the part of it outside the kernel: the share of samples of the server's processor clock, \
         5,000 a second, that were in user mode, in a separate run. *Calls* are system calls per operation, counted in a separate run.\n\
         - The servers whose name ends in `-spin` busy-poll for up to 1 ms before they sleep (`Builder::spin_max`), which is off by default: it shortens the round trip and keeps a core busy, so their *CPU* is all of the time between two echoes. They take part with one connection only.\n\
         - Ratios are of CPU, of pairs within a round, as their median and the upper 95 % bound (bootstrap).\n",
        machine::machine(),
        machine::compiler()?,
        plan.rounds,
        plan.seconds,
    ))
}

fn versions(servers: &Servers) -> Result<String> {
    let mut told: Vec<String> = Vec::new();
    for server in servers.built() {
        let line = format!(
            "`{}` {}",
            server.versioned,
            machine::version(server.versioned)?
        );
        if !told.contains(&line) {
            told.push(line);
        }
    }
    let mut text = told.join(", ") + ".\n";
    for (package, error) in &servers.broken {
        write!(
            text,
            "\n`{package}` does not build:\n\n```text\n{error}\n```\n"
        )?;
    }
    Ok(text)
}

fn table(servers: &Servers, workload: &Workload, samples: &Samples, profiles: &Profiles) -> String {
    let unit = workload.unit.name();
    let mut table = format!(
        "| server | CPU, µs per {unit} | user, µs | calls | {} | p50, µs | p99, µs | to its limit | to the best peer |\n\
         |---|---|---|---|---|---|---|---|---|\n",
        workload.unit.many()
    );
    let peer = targets::best_peer(samples, workload.name, |sample| sample.server_us);
    for server in servers.built() {
        table += &row(
            server,
            workload,
            samples,
            profiles.get(&(workload.name, server.name)),
            peer,
        )
        .unwrap_or_default();
    }
    table
}

fn row(
    server: &Server,
    workload: &Workload,
    samples: &Samples,
    profile: Option<&Profile>,
    peer: Option<&'static str>,
) -> Option<String> {
    let spread =
        |figure: fn(&super::Sample) -> f64| samples.spread(workload.name, server.name, figure);
    let time = spread(|sample| sample.server_us)?;
    let rate = spread(|sample| sample.rate)?;
    let user = profile.map_or(String::new(), |profile| format!("{:.3}", profile.user_us));
    let calls = profile.map_or(String::new(), |profile| {
        format!("{:.2}", profile.system_calls)
    });
    let rate = if workload.unit == Unit::Block {
        format!("{:.0}", rate.median * 65_536.0 / 1e6)
    } else {
        format!("{:.0}", rate.median)
    };
    let (middle, tail) = if workload.unit == Unit::Block {
        (String::new(), String::new())
    } else {
        (
            plain(spread(|sample| sample.p50_us)?),
            plain(spread(|sample| sample.p99_us)?),
        )
    };
    let to = |other: Option<&str>| -> String {
        let other = other.filter(|other| *other != server.name);
        let ratio = other.and_then(|other| {
            samples.ratio(workload.name, (server.name, other), |sample| {
                sample.server_us
            })
        });
        ratio.map_or(String::new(), |ratio| {
            format!("{:.2} (≤ {:.2})", ratio.median, ratio.at_most)
        })
    };
    let mark = if server.role == Role::Wharf { "**" } else { "" };
    Some(format!(
        "| {mark}{}{mark} | {:.3} ({:.3}–{:.3}) | {user} | {calls} | {rate} | {middle} | {tail} | {} | {} |\n",
        server.name,
        time.median,
        time.low,
        time.high,
        to(Some(limit(server))),
        to(peer),
    ))
}

/// The bare server that uses the same interface of the kernel.
fn limit(server: &Server) -> &'static str {
    if matches!(
        server.name,
        "bare-uring"
            | "wharf-uring"
            | "wharf-uring-spin"
            | "compio"
            | "monoio"
            | "wharf-shared1"
            | "wharf-shared2"
    ) {
        "bare-uring"
    } else {
        "bare-epoll"
    }
}

fn plain(spread: Spread) -> String {
    format!("{:.0}", spread.median)
}
