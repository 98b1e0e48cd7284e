//! A load in several processes: their number, the parent and the child.
//!
//! To a load a process is only more threads. All threads of all processes have consecutive numbers,
//! and this number decides rates, sources, bytes and shares.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::Run;
use super::model::standing::Standing;
use super::options::{LoadOptions, Mode};
use super::work::crew::{Crew, build_ports};
use super::work::watch::{LIVE_EVERY, News, Watched, watch};
use crate::processes::descriptors::{Descriptors, places};
use crate::processes::plan::{DESCRIPTORS_PER_THREAD, Plan};
use crate::processes::{
    Child, DESCRIPTORS_BESIDES, Member, Order, PROCESSES_MAX, Parent, needed, raise_descriptors,
};
use crate::signals::{self, Signals};

/// The most connections that a thread has open if it closes each at once and no rate paces them.
pub(crate) const CONNECTED_AND_CLOSING_MAX: u32 = 1024;

/// As many processes as `--processes` says, or as the limit of open files requires.
pub(super) fn plan(options: &LoadOptions) -> Result<Plan, String> {
    within(options, raise_descriptors())
}

fn within(options: &LoadOptions, limit: u64) -> Result<Plan, String> {
    if options.division.descriptors == Descriptors::Direct {
        // If each connection is closed at once, the next waits for a free entry in the thread's own
        // table.
        let open = Some(options.connections).filter(|_| options.mode != Mode::Connect);
        let processes = options.division.processes;
        let threads = Descriptors::threads(open, options.threads, processes, limit)?;
        return Ok(Plan::of_one(options.connections, threads));
    }
    let threads = u32::from(options.threads);
    let room = room(threads, limit);
    let least = match options.division.processes {
        Some(processes) => Ok(u32::from(processes)),
        None => needed(at_once(options, threads, limit), room),
    };
    let most = match (options.division.processes, options.mode) {
        (Some(processes), _) => u32::from(processes),
        // It opens no more connections at once than one process allows.
        (None, Mode::Connect) => 1,
        (None, _) => PROCESSES_MAX,
    };
    let mut plan = divided(options, least.unwrap_or(most).min(most));
    while at_once_each(plan, options, limit) > room {
        if plan.processes >= most.min(options.connections) {
            return Err(refusal(plan, options, limit, room));
        }
        // The shares of threads differ by one, which may be one too many.
        plan = divided(options, plan.processes + 1);
    }
    Ok(plan)
}

/// Open connections of the first process, which has the largest share.
fn at_once_each(plan: Plan, options: &LoadOptions, limit: u64) -> u64 {
    let share = u64::from(plan.share(options.connections, 0));
    share.min(at_once(options, plan.threads, limit))
}

fn refusal(plan: Plan, options: &LoadOptions, limit: u64, room: u64) -> String {
    let (connections, processes) = (options.connections, plan.processes);
    let threads = u32::from(options.threads);
    let files = at_once_each(plan, options, limit) + descriptors_besides(threads);
    let split = match needed(at_once(options, plan.threads, limit), room) {
        _ if options.mode == Mode::Connect && threads > 1 => "take fewer --threads, or ".into(),
        _ if options.mode == Mode::Connect => String::new(),
        Ok(enough) if options.division.processes.is_some() => {
            format!("say --processes {enough}, or ")
        }
        _ => String::new(),
    };
    let plural = if connections == 1 { "" } else { "s" };
    let need = match processes {
        1 if connections == 1 => format!("one process needs {files} open files"),
        1 => format!("one process need {files} open files"),
        several => format!("{several} processes need {files} open files each"),
    };
    format!(
        "{connections} connection{plural} in {need} and the limit is {limit}: {split}as root run \
         \"ulimit -n {files}\""
    )
}

/// This number of processes, but each thread has at least one connection.
fn divided(options: &LoadOptions, processes: u32) -> Plan {
    Plan::of(options.connections, processes, options.threads.into())
}

/// Descriptors of a process that are no connections.
fn descriptors_besides(threads: u32) -> u64 {
    DESCRIPTORS_BESIDES + DESCRIPTORS_PER_THREAD * u64::from(threads - 1)
}

/// Connections that a process has descriptors for.
fn room(threads: u32, limit: u64) -> u64 {
    limit.saturating_sub(descriptors_besides(threads))
}

/// Connections that are open at the same time.
fn at_once(options: &LoadOptions, threads: u32, limit: u64) -> u64 {
    let all = u64::from(options.connections);
    let most = open_at_once_max(options, threads, limit);
    all.min(u64::from(threads) * u64::from(most))
}

/// Connections that each thread may have open at once. If they are closed as soon as they have
/// connected, the next can wait for a descriptor.
pub(super) fn open_at_once_max(options: &LoadOptions, threads: u32, limit: u64) -> u32 {
    if options.mode != Mode::Connect {
        return u32::MAX;
    }
    let room = match options.division.descriptors {
        Descriptors::Ordinary => room(threads, limit) / u64::from(threads),
        // Each thread has its own table, and the limit applies to each table.
        Descriptors::Direct => {
            let share = options.connections.div_ceil(threads);
            places(Some(share), limit).into()
        }
    };
    let room = u32::try_from(room).unwrap_or(u32::MAX).max(1);
    match options.pace() {
        // In an open loop a due request starts if it can.
        Some(_) => room,
        None => room.min(CONNECTED_AND_CLOSING_MAX),
    }
}

/// The child processes while they work.
struct Others<'a> {
    run: &'a Run<'a>,
    parent: Parent<Standing>,
}

/// Starts the processes and lets them work; returns the state at their end.
pub(super) fn lead(run: &Run<'_>, signals: &Signals) -> Result<Standing, String> {
    let processes = run.plan.processes;
    let mut parent = Parent::new(processes);
    signals.end_work_with(parent.stopper());
    match start(&mut parent, processes) {
        Err(_) if parent.may_have_been_stopped() && signals.have_come() => {
            return Ok(Standing::ended_before_it_began());
        }
        started => started?,
    }
    parent.begin();
    let others = Others { run, parent };
    watch(run, &others)?;
    // All may have failed at the same moment, which is no event.
    match others.parent.failure() {
        Some(text) => Err(text),
        None => Ok(others.merged(&others.parent.members())),
    }
}

/// Starts all processes, and waits until they can begin.
fn start(parent: &mut Parent<Standing>, processes: u32) -> Result<(), String> {
    for _ in 0..processes {
        parent.start(Vec::new())?;
    }
    (0..processes).try_for_each(|process| parent.wait_until_ready(process).map(drop))
}

impl Others<'_> {
    fn merged(&self, members: &[Member<Standing>]) -> Standing {
        let Run { plan, options, .. } = self.run;
        let share = |process| plan.share(options.connections, process);
        Standing::of_all(members, share)
    }
}

impl Watched for Others<'_> {
    fn next(&self, at_most: Duration) -> News {
        let all_over = self.parent.wait_for_end(at_most);
        // The last report of a process that dies is all that the parent will know of it.
        if !all_over && at_most >= LIVE_EVERY {
            self.parent.ask();
        }
        match self.parent.failure() {
            // When all are done, the caller asks for the last state.
            _ if all_over => News::AllOver,
            None if self.parent.all_hold() => News::AllHold,
            Some(text) => News::Failed(text),
            None => News::Nothing,
        }
    }

    fn standing(&self) -> Standing {
        self.merged(&self.parent.ask())
    }

    fn stop(&self) {
        (self.parent.stopper())();
    }

    fn leave(&self) {
        self.parent.leave();
    }
}

/// Runs as a child process.
pub(super) fn follow(options: &LoadOptions) -> ExitCode {
    Child::follow(|child| work_for(options, child))
}

fn work_for(options: &LoadOptions, child: &Child) -> Result<Standing, String> {
    let targets = options.targets()?;
    raise_descriptors();
    let part = &child.part;
    let threads = divided(options, part.processes).threads_of(part);
    let signals = Signals::listen_as_part()?;
    let ports = build_ports(options, threads)?;
    let orders = child.ready(Vec::new())?;
    let crew = Arc::new(Crew::begin(ports, threads));
    signals.end_work_on(&crew.ports);
    let ordered = Arc::clone(&crew);
    orders.carry_out_with(move |order| match order {
        Order::Begin => {}
        Order::Tell => Child::standing(ordered.standing()),
        Order::Stop => signals::stop(&ordered.ports),
        Order::Leave => ordered.leave(),
    });
    crew.work(options, &targets, |at_work| {
        let mut result = Ok(());
        loop {
            match at_work.next(Duration::from_secs(1)) {
                News::Nothing => {}
                News::AllHold => Child::holds(),
                News::Failed(text) => {
                    at_work.stop();
                    result = Err(text);
                }
                News::AllOver => return result,
            }
        }
    })?;
    Ok(crew.standing())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: LoadOptions,
    }

    fn plan(arguments: &[&str], limit: u64) -> Result<(u32, u32), String> {
        let words = ["load"].iter().chain(arguments);
        let options = Line::parse_from(words).options;
        within(&options, limit).map(|plan| (plan.processes, plan.threads))
    }

    #[test]
    fn as_many_processes_as_the_limit_asks_for() {
        let hold = |more: &[&str]| plan(&[&["hold", "--connections"], more].concat(), 20_000);
        assert_eq!(hold(&["19000"]), Ok((1, 1)));
        assert_eq!(hold(&["19936"]), Ok((1, 1)));
        assert_eq!(hold(&["19937"]), Ok((2, 1)));
        assert_eq!(hold(&["50000"]), Ok((3, 1)));
        assert_eq!(hold(&["50000", "--threads", "4"]), Ok((3, 4)));
        assert_eq!(hold(&["50000", "--processes", "5"]), Ok((5, 1)));
        assert_eq!(hold(&["2", "--processes", "5"]), Ok((2, 1)));
        assert_eq!(
            hold(&["10", "--processes", "4", "--threads", "3"]),
            Ok((4, 2))
        );
        // If no connection stays open there is nothing to divide.
        let connect = ["connect", "--connections", "1000000"];
        assert_eq!(plan(&connect, 20_000), Ok((1, 1)));
        assert_eq!(plan(&connect, 700), Ok((1, 1)));
        assert_eq!(plan(&connect, 65), Ok((1, 1)));
        let on_threads = [&connect[..], &["--threads", "8"]].concat();
        assert_eq!(plan(&on_threads, 700), Ok((1, 8)));
        let at_a_rate = [&on_threads[..], &["--rate", "5000"]].concat();
        assert_eq!(plan(&at_a_rate, 700), Ok((1, 8)));
        let divided = [&connect[..], &["--processes", "3"]].concat();
        assert_eq!(plan(&divided, 700), Ok((3, 1)));
        assert_eq!(
            plan(&["hold", "--connections", "9000000"], u64::MAX),
            Ok((1, 1))
        );
    }

    #[test]
    fn each_table_of_direct_descriptors_has_the_limit_for_itself() {
        let at_once = |arguments: &[&str]| {
            let words = ["load", "connect", "--connections", "1000000"];
            let options = Line::parse_from(words.iter().chain(arguments)).options;
            open_at_once_max(&options, options.threads.into(), 1_000)
        };
        let (direct, rate) = (["--descriptors", "direct"], ["--rate", "5000"]);
        let on_threads = ["--threads", "4"];
        assert_eq!(at_once(&rate), 936);
        assert_eq!(at_once(&[rate, on_threads].concat()), 231);
        assert_eq!(at_once(&[rate, direct].concat()), 1_000);
        assert_eq!(at_once(&[rate, direct, on_threads].concat()), 1_000);
        let connect = ["connect", "--connections", "1000000"];
        let direct = [&connect[..], &direct].concat();
        assert_eq!(plan(&direct, 1_000), Ok((1, 1)));
        assert_eq!(plan(&[&direct[..], &rate].concat(), 1_000), Ok((1, 1)));
        let four = [&direct[..], &rate, &on_threads].concat();
        assert_eq!(plan(&four, 1_000), Ok((1, 4)));
    }

    #[test]
    fn no_process_has_more_than_fit() {
        for connections in [19_936 * 3 - 1, 19_936 * 3, 19_936 * 3 + 1] {
            for threads in ["1", "7", "200"] {
                let count = connections.to_string();
                let arguments = ["hold", "--connections", &count, "--threads", threads];
                let words = ["load"].iter().chain(&arguments);
                let options = Line::parse_from(words).options;
                let plan = within(&options, 20_000).expect("they fit");
                let beside = 60 + 4 * u64::from(options.threads);
                let shares =
                    (0..plan.processes).map(|process| plan.share(options.connections, process));
                assert!(
                    shares
                        .clone()
                        .all(|share| u64::from(share) + beside <= 20_000)
                );
                assert_eq!(shares.sum::<u32>(), connections, "{plan:?}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_a_hint() {
        for (arguments, limit, hint) in [
            (&["--connections", "9000000"][..], 20_000, "256 processes"),
            (
                &["--connections", "9", "--processes", "1"],
                66,
                "--processes 5",
            ),
            (
                &["--connections", "9", "--processes", "1"],
                66,
                "in one process need 73 open files and",
            ),
            (&["--connections", "9"], 60, "ulimit -n"),
        ] {
            let error = plan(&[&["hold"], arguments].concat(), limit).expect_err("too many");
            assert!(
                error.contains(hint) && error.contains("open files"),
                "{error}"
            );
        }
        let connect = ["connect", "--connections", "100"];
        let error = plan(&connect, 60).expect_err("not one fits");
        assert!(
            error.contains("in one process need 65 open files"),
            "{error}"
        );
        let on_threads = [&connect[..], &["--threads", "8"]].concat();
        let error = plan(&on_threads, 99).expect_err("not one for each thread fits");
        assert!(
            error.contains("take fewer --threads, or as root run \"ulimit -n 100\""),
            "{error}"
        );
    }
}
