//! A server in several processes: their number, the parent and the child.
//!
//! All processes listen on the same addresses, and the system distributes the connections
//! (`SO_REUSEPORT`). The first process starts alone, so that port 0 becomes one port for all. If
//! the system does not distribute, as for Unix sockets, several processes are refused. A process
//! that accepts for all and passes descriptors on was rejected: it would do its work twice for each
//! connection.

use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use wharf_port::{Address, Port};

use super::admin::{Admin, Answering};
use super::{Server, listening, text};
use crate::account::{Account, PartAccount};
use crate::processes::descriptors::Descriptors;
use crate::processes::plan::{DESCRIPTORS_PER_THREAD, Plan};
use crate::processes::{
    Child, DESCRIPTORS_BESIDES, Member, Order, PROCESSES_MAX, Parent, Part, Status, needed,
    raise_descriptors,
};
use crate::server::options::ServingOptions;
use crate::server::report::Output;
use crate::server::service::Kind;
use crate::signals::{self, Signals};
use crate::sys;
use crate::text::output;
use crate::values::address::Place;

/// How often the parent reads their state, for the account of a process that dies.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// As many processes as `--processes` says, or as `--max-connections` and the limit of open files
/// require.
pub(super) fn plan(options: &ServingOptions) -> Result<Plan, String> {
    let mut plan = within(options, raise_descriptors())?;
    if options.division.processes.is_none()
        && plan.processes > 1
        && let Err(why) = can_share(options)
    {
        output::complaint(&format!(
            "one process cannot hold --max-connections at this limit of open files, and {why}"
        ));
        plan = divided(options, 1);
    }
    Ok(plan)
}

fn within(options: &ServingOptions, limit: u64) -> Result<Plan, String> {
    if options.division.descriptors == Descriptors::Direct {
        let (most, asked) = (options.max_connections, options.threads);
        let threads = Descriptors::threads(most, asked, options.division.processes, limit)?;
        return Ok(Plan::of_one(most.unwrap_or(u32::MAX), threads));
    }
    if let Some(processes) = options.division.processes {
        if processes > 1 {
            can_share(options).map_err(|why| format!("--processes {processes}: {why}"))?;
        }
        return Ok(divided(options, u32::from(processes)));
    }
    let Some(connections_max) = options.max_connections else {
        return Ok(divided(options, 1));
    };
    let listeners = listening::addresses(options).len() as u64;
    let each = DESCRIPTORS_PER_THREAD + listeners;
    let more_threads = u64::from(options.threads) - 1;
    let beside = DESCRIPTORS_BESIDES + listeners - 1 + each * more_threads;
    let room = limit.saturating_sub(beside);
    let too_many = |_| {
        format!(
            "--max-connections {connections_max} does not fit into {PROCESSES_MAX} processes \
             with {limit} open files each: take fewer, or as root run \"ulimit -n {}\"",
            u64::from(connections_max).div_ceil(u64::from(PROCESSES_MAX)) + beside
        )
    };
    let mut plan = divided(
        options,
        needed(connections_max.into(), room).map_err(too_many)?,
    );
    while u64::from(plan.share(connections_max, 0)) > room {
        // The shares of threads differ by one, which may be one too many.
        plan = divided(options, plan.processes + 1);
    }
    Ok(plan)
}

/// This number of processes, but each thread may have at least one connection.
fn divided(options: &ServingOptions, processes: u32) -> Plan {
    let connections_max = options.max_connections.unwrap_or(u32::MAX);
    Plan::of(connections_max, processes, options.threads.into())
}

/// Checks that several processes can share these addresses; the error says why not.
fn can_share(options: &ServingOptions) -> Result<(), String> {
    let addresses = listening::addresses(options);
    if let Some(path) = addresses.iter().find(|it| it.as_socket_addr().is_none()) {
        return Err(format!(
            "{path} is no address that processes can share: use --threads"
        ));
    }
    if !sys::DEALS_TO_PROCESSES {
        return Err(
            "this system deals the connections of one address to one process: use --threads, or \
             a server with a port of its own for each"
                .into(),
        );
    }
    Ok(())
}

/// Starts the processes and lets them serve until they are stopped.
pub(super) fn lead(kind: Kind, options: &ServingOptions, plan: Plan) -> Result<ExitCode, String> {
    let output = Output::new(options);
    let signals = Signals::listen()?;
    signals.come_at_end_of_input(options.until_eof)?;
    let admin = options.admin.as_ref().map(Admin::open).transpose()?;
    // One port says which driver they have, or that there is none.
    let port = Port::builder().driver(options.driver).single_waiter();
    let port = port.build().map_err(text)?;
    let mut parent = Parent::new(plan.processes);
    signals.end_work_with(parent.stopper());
    let addresses = match start(&mut parent, plan.processes) {
        // The signal came, or killed a child that was just starting. No client has connected yet.
        Err(_) if parent.may_have_been_stopped() && signals.have_come() => {
            output.account(&PartAccount::merged([], plan.processes));
            return Ok(ExitCode::SUCCESS);
        }
        started => started?,
    };
    let door = admin.as_ref().map(|admin| &admin.address);
    let division = (plan.processes, plan.processes * plan.threads);
    let said = |parent: &Parent<PartAccount>| -> Result<(), String> {
        for address in &addresses {
            let place: Place = address.parse()?;
            for address in &place.addresses {
                output.listening(kind.name(), address, port.driver(), door, division);
            }
        }
        // Their lines come after this line. A client that connects meanwhile waits in the backlog.
        parent.begin();
        Ok(())
    };
    thread::scope(|scope| {
        let standing = || merged(&parent.ask());
        let answering = admin.as_ref().map(|admin| admin.start_in(scope, standing));
        let answering = answering.transpose()?;
        let served = said(&parent).and_then(|()| watch(&parent));
        answering.map_or(Ok(()), Answering::end).and(served)
    })?;
    let members = parent.members();
    output.account(&merged(&members));
    let died = members.iter().any(|member| member.status == Status::Died);
    Ok(ExitCode::from(u8::from(died)))
}

/// Starts the first process, and then the others on the addresses that it has found.
fn start(parent: &mut Parent<PartAccount>, processes: u32) -> Result<Vec<String>, String> {
    parent.start(Vec::new())?;
    let addresses = parent.wait_until_ready(0)?;
    for _ in 1..processes {
        parent.start(addresses.clone())?;
    }
    for process in 1..processes {
        parent.wait_until_ready(process)?;
    }
    Ok(addresses)
}

/// Waits until all have ended. If one fails, the others stop too, as threads do. If one dies, the
/// parent reports it, and the others go on.
fn watch(parent: &Parent<PartAccount>) -> Result<(), String> {
    while !parent.wait_for_end(ASK_EVERY) {
        parent.ask();
        if parent.failure().is_some() {
            (parent.stopper())();
        }
    }
    parent.failure().map_or(Ok(()), Err)
}

/// Merges the accounts.
fn merged(members: &[Member<PartAccount>]) -> Account {
    let parts = members.iter().filter_map(|member| {
        let part = member.latest.clone()?;
        Some(match member.status {
            Status::Died => part.died(),
            Status::Lives | Status::Over | Status::Failed(_) => part,
        })
    });
    PartAccount::merged(parts, members.len() as u32)
}

/// Serves as a child process.
pub(super) fn follow(kind: Kind, options: &ServingOptions) -> ExitCode {
    Child::follow(|child| serve_for(kind, options, child))
}

fn serve_for(kind: Kind, options: &ServingOptions, child: &Child) -> Result<PartAccount, String> {
    raise_descriptors();
    let part = child.part.clone();
    let signals = Signals::listen_as_part()?;
    let threads = divided(options, part.processes).threads_of(&part);
    let opened = listening::open(options, threads, &chosen(&part, options)?)?;
    let (server, listeners) = Server::new(kind, options, part, opened)?;
    let server = Arc::new(server);
    signals.end_work_on(&server.ports);
    server.run_threads(listeners, || {
        let addresses = server.addresses.iter().map(ToString::to_string);
        let orders = child.ready(addresses.collect())?;
        let ordered = Arc::clone(&server);
        orders.carry_out_with(move |order| match order {
            Order::Begin | Order::Leave => {}
            Order::Tell => Child::standing(ordered.ledger.standing()),
            Order::Stop => signals::stop(&ordered.ports),
        });
        Ok(())
    })?;
    Ok(server.ledger.account())
}

/// The addresses that the first process has found, or those of the command line.
fn chosen(part: &Part, options: &ServingOptions) -> Result<Vec<Address>, String> {
    if part.addresses.is_empty() {
        return Ok(listening::addresses(options));
    }
    let places = part.addresses.iter().map(|text| text.parse::<Place>());
    let places: Vec<Place> = places.collect::<Result<_, _>>()?;
    Ok(places
        .into_iter()
        .flat_map(|place| place.addresses)
        .collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: ServingOptions,
    }

    fn plan(arguments: &[&str]) -> Result<(u32, u32), String> {
        let options = Line::parse_from(["hold"].iter().chain(arguments)).options;
        within(&options, 20_000).map(|plan| (plan.processes, plan.threads))
    }

    #[test]
    fn the_maximum_and_the_limit_say_how_many() {
        assert_eq!(plan(&[]), Ok((1, 1)));
        assert_eq!(plan(&["--max-connections", "19936"]), Ok((1, 1)));
        assert_eq!(plan(&["--max-connections", "19937"]), Ok((2, 1)));
        assert_eq!(plan(&["--max-connections", "50000"]), Ok((3, 1)));
        // A hundred listeners are a hundred descriptors.
        let range = ["127.0.0.1:7000-7099", "--max-connections", "19936"];
        assert_eq!(plan(&range), Ok((2, 1)));
        assert_eq!(
            plan(&["--max-connections", "3", "--threads", "8"]),
            Ok((1, 3))
        );
        let direct = ["--descriptors", "direct", "--max-connections", "50000"];
        assert_eq!(plan(&direct), Ok((1, 3)));
        let error = plan(&["--max-connections", "9000000"]).expect_err("too many");
        assert!(error.contains("256 processes"), "{error}");
    }

    #[test]
    fn what_cannot_be_shared_is_refused_with_the_reason() {
        let error = plan(&["unix:/tmp/wharf", "--processes", "2"]).expect_err("a path");
        assert!(
            error.contains("unix:/tmp/wharf") && error.contains("--threads"),
            "{error}"
        );
        assert_eq!(plan(&["unix:/tmp/wharf", "--processes", "1"]), Ok((1, 1)));
        let shared = plan(&["--processes", "4"]);
        assert_eq!(shared.is_ok(), sys::DEALS_TO_PROCESSES, "{shared:?}");
    }
}
