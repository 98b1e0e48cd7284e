//! `wharf load`: opens connections to any server, sends on them, and accounts for each one.
//!
//! Each thread has a single-waiter port and its share of the connections. A seed decides the bytes
//! that are sent, and the load compares every byte that comes back. Latencies of an open loop count
//! from the time that a request was due, so a server that stalls cannot hide it.

use std::cell::RefCell;
use std::process::ExitCode;
use std::time::Duration;

use wharf_port::{Address, Port};

use crate::account::joint::Joint;
use crate::machine::congestion;
use crate::processes::Part;
use crate::processes::plan::Plan;
use crate::signals::Signals;
use crate::text::output;
use crate::values::Format;
use model::standing::Standing;
pub(crate) use model::touch::Touch;
use options::{LoadOptions, Mode};
use results::admin::{Asked, Held};
use results::hdr::HdrFile;
use results::period::Periods;
use results::report::Moment;
use results::verdict::has_failed;
pub(crate) use split::CONNECTED_AND_CLOSING_MAX;
use work::crew::{Crew, build_ports};
use work::watch::watch;

pub(crate) mod model;
pub(crate) mod options;
pub(crate) mod results;
mod split;
pub(crate) mod work;

/// Connections failed or were lost and no gate allows it, bytes were wrong, a process died, or the
/// result could not be written.
const FAILED: u8 = 1;
const CANNOT_BEGIN: u8 = 2;
const GATE_MISSED: u8 = 3;
const INTERRUPTED: u8 = 130;

/// The default duration of modes that send messages.
const TALK_FOR: Duration = Duration::from_secs(10);

/// Runs the load; returns the exit code.
pub(crate) fn run(options: &LoadOptions) -> ExitCode {
    let compat = &options.compat;
    let imitated = compat
        .compat_rust_echo_bench
        .then(|| compat.as_load(options));
    let code = match imitated {
        None if options.division.part => return split::follow(options),
        Some(Ok(options)) if options.division.part => return split::follow(&options),
        None => drive(options),
        Some(options) => options.and_then(|options| drive(&options)),
    };
    match code {
        Ok(code) => ExitCode::from(code),
        Err(text) => {
            output::complaint(&text);
            ExitCode::from(CANNOT_BEGIN)
        }
    }
}

fn drive(options: &LoadOptions) -> Result<u8, String> {
    let targets = options.targets()?;
    let congestion_control = options.congestion_control.as_deref();
    congestion_control.map_or(Ok(()), congestion::check)?;
    // Report a file that cannot be created before the load, and not after it.
    let hdr = options.hdr.as_deref().map(HdrFile::create).transpose()?;
    let plan = split::plan(options)?;
    let admin = options.admin.as_ref().and_then(Address::as_socket_addr);
    let server = admin.map(Asked::before).transpose()?;
    // If other processes work, one port shows which driver they have, or that there is none.
    let threads = match plan.processes {
        1 => plan.threads_of(&Part::whole()),
        _ => Part::whole().threads(1),
    };
    let ports = build_ports(options, threads)?;
    let signals = Signals::listen()?;
    signals.come_at_end_of_input(options.until_eof)?;
    let run = Run {
        options,
        targets,
        plan,
        port: ports[0].clone(),
        server,
        held_there: RefCell::new(None),
        periods: RefCell::new(Periods::new(options, hdr)),
    };
    if options.compat.compat_rust_echo_bench && options.format == Format::Text {
        output::bytes(options.compat.heading(options).as_bytes());
    }
    let standing = if plan.processes == 1 {
        let crew = Crew::begin(ports, threads);
        signals.end_work_on(&crew.ports);
        crew.work(options, &run.targets, |at_work| watch(&run, at_work))?;
        crew.standing()
    } else {
        split::lead(&run, &signals)?
    };
    // If the server is gone there is no joint ledger, but the load's own remains.
    let joint = run.both_ends(&standing);
    Ok(run.conclude(&standing, joint.as_ref()))
}

/// One run of load.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    options: &'a LoadOptions,
    /// In the order to try them.
    targets: Vec<Address>,
    plan: Plan,
    /// One of its ports, or one with the same driver.
    port: Port,
    /// The server's `--admin`, if the load reads it.
    server: Option<Asked>,
    /// What the server held when the load was over and no connection was closed yet.
    held_there: RefCell<Option<Result<Held, String>>>,
    periods: RefCell<Periods>,
}

impl Run<'_> {
    /// Prints the account; returns the exit code.
    fn conclude(&self, standing: &Standing, joint: Option<&Result<Joint, String>>) -> u8 {
        let mut missed = self.missed(standing, joint.and_then(|it| it.as_ref().ok()));
        missed.extend(joint.and_then(|joint| match joint {
            Ok(joint) if joint.balances => None,
            Ok(joint) => Some(joint.verdict.trim_end_matches('.').to_owned()),
            Err(untold) => Some(untold.clone()),
        }));
        let period = self.periods.borrow_mut().next(standing);
        let written = self.periods.borrow_mut().end();
        // The load has run. So code 2, "could not begin", does not apply.
        let code = match self.code(standing, &missed) {
            0 if written.is_err() => FAILED,
            code => code,
        };
        let moment = Moment {
            joint: joint.and_then(|joint| joint.as_ref().ok()),
            period: Some(&period).filter(|_| self.options.interval.is_some()),
            missed: &missed,
            exit_code: Some(code),
            ..self.moment(standing)
        };
        match self.options.format {
            Format::Text => output::bytes(self.text(&moment).as_bytes()),
            Format::Json => output::json(&moment.object("load")),
        }
        if let Err(text) = written {
            output::complaint(&text);
        }
        code
    }

    /// The exit code.
    fn code(&self, standing: &Standing, missed: &[String]) -> u8 {
        let counts = &standing.counts;
        let wrong = counts.corrupt > 0 || standing.is_short_of_a_process();
        if standing.interrupted {
            INTERRUPTED
        } else if !missed.is_empty() {
            GATE_MISSED
        } else if counts.connected == 0 || wrong || has_failed(self.options, counts) {
            FAILED
        } else {
            0
        }
    }

    /// Reads what the server holds, before the first connection is closed.
    fn ask_what_is_held(&self, standing: &Standing) {
        let ask = |server: &Asked| server.held(standing.counts.held);
        *self.held_there.borrow_mut() = self.server.as_ref().map(ask);
    }

    /// The joint ledger, if the load reads the server's account.
    fn both_ends(&self, standing: &Standing) -> Option<Result<Joint, String>> {
        let server = self.server.as_ref()?;
        let held_there = self.held_there.borrow().clone().transpose();
        Some(held_there.and_then(|there| server.after(standing, there)))
    }

    fn text(&self, moment: &Moment<'_>) -> String {
        let compat = &self.options.compat;
        if compat.compat_rust_echo_bench {
            compat.text(moment)
        } else {
            moment.text()
        }
    }

    /// The gates that do not hold.
    fn missed(&self, standing: &Standing, joint: Option<&Joint>) -> Vec<String> {
        let held_there = joint.and_then(|joint| joint.held_by_server);
        let count_of = |name: &str| match (name, held_there) {
            // A connection that waits between the two ends is held by neither.
            ("held", Some(there)) => standing.counts.held.min(there),
            _ => standing.counts.named(name),
        };
        let gates = self.options.expect.iter();
        let mut missed: Vec<String> = gates.filter_map(|gate| gate.missed(count_of)).collect();
        let (touched, echoed) = (standing.counts.touched, standing.counts.messages);
        if self.options.touch.is_some() && echoed < touched {
            missed.push(format!("of {touched} touched, only {echoed} echoed"));
        }
        missed.extend(
            self.options
                .max_p99
                .and_then(|max| self.is_slower(standing, max)),
        );
        missed
    }

    /// Why the 99th percentile of all that was due exceeds the limit, if it does.
    fn is_slower(&self, standing: &Standing, max: Duration) -> Option<String> {
        let (latencies, counts) = (&standing.latencies, &standing.counts);
        let (name, answered, unanswered) = match self.options.mode {
            Mode::Echo | Mode::Stream => {
                ("messages", &latencies.message, counts.messages_unanswered)
            }
            Mode::Connect | Mode::Hold => {
                ("connects", &latencies.connect, counts.connects_unanswered())
            }
        };
        let p99 =
            model::percentiles::value_at(answered, unanswered, 0.99).map(Duration::from_nanos);
        let is = match p99 {
            Some(p99) if p99 <= max => return None,
            Some(p99) => format!("it is {p99:?}"),
            None if answered.is_empty() => "nothing was answered".to_owned(),
            None => format!(
                "{unanswered} of {} were not answered",
                answered.len() + unanswered
            ),
        };
        Some(format!("expected p99 of {name} within {max:?}: {is}"))
    }

    /// The current state, for a line or an object.
    fn moment<'a>(&'a self, standing: &'a Standing) -> Moment<'a> {
        Moment {
            options: self.options,
            driver: self.port.driver(),
            processes: self.plan.processes,
            threads: self.plan.threads,
            counts: &standing.counts,
            latencies: &standing.latencies,
            interrupted: standing.interrupted,
            joint: None,
            period: None,
            missed: &[],
            exit_code: None,
        }
    }
}
