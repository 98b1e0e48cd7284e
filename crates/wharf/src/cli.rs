//! The command line: help, manual, completions and environment variables from one definition.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::bench::BenchOptions;
use crate::compare::CompareOptions;
use crate::doctor::DoctorOptions;
use crate::load::options::LoadOptions;
use crate::processes::division::DivisionOptions;
use crate::server::options::{EchoOptions, HoldOptions};
use origin::Given;

mod mistakes;
pub(crate) mod modes;
mod origin;

const AFTER_ALL_HELP: &str = "\
To start, run \"wharf hold\", and from another terminal \"wharf load hold --connections 1000 --for \
5s\". Each command has its own --help; -h prints a summary.";

const AFTER_HELP: &str = "\
Every option can also be an environment variable: WHARF_DRIVER=poll is --driver poll. WHARF_ADDRESS \
takes several addresses, separated by commas.

Ctrl-C, SIGTERM and on Linux SIGHUP stop the server: it stops accepting and prints the account. On \
Windows Ctrl-C, Ctrl-Break, closing the console and a shutdown do. A second one ends the program at \
once. With nohup it ignores SIGHUP. The server never waits for the reader of its output: it drops \
lines of -v that are not read in time, and the account counts them.

Exit codes:
  0    it stopped and printed the account
  1    one of several processes died, or the account could not be written
  2    a mistake on the command line, or no such address or driver
  130  a second Ctrl-C

docs/program/servers.md describes the objects of --format json.";

/// clap's own usage shows MODE as optional, because `--compat-rust-echo-bench` replaces it.
const LOAD_USAGE: &str = "wharf load [OPTIONS] <MODE> [ADDRESS]
       wharf load [OPTIONS] --compat-rust-echo-bench";

const AFTER_LOAD_HELP: &str = "\
Each mode has its own --help, such as \"wharf load hold --help\".

Every option can also be an environment variable: WHARF_RATE=1000 is --rate 1000.

Exit codes:
  0    everything went well
  1    connections failed or were lost (unless --expect allows it: 'lost<=5'),
       bytes were wrong, one of several processes died, or the result could
       not be written
  2    it could not begin
  3    --expect, --max-p99 or --touch does not hold, or the ledgers disagree
  130  Ctrl-C; it prints the account all the same

docs/program/load.md describes the objects of --format json.";

const AFTER_COMPARE_HELP: &str = "\
Exit codes:
  0    it compared the two
  1    the result could not be written
  2    there is nothing to compare
  3    the ledgers of a load and its server disagree, a run has failed, or B is
       slower than --fail-above allows

docs/program/load.md defines \"beyond the spread\".";

const AFTER_BENCH_HELP: &str = "\
Server and load are separate processes, on loopback only. Each has a processor to itself where the \
system allows it. The load compares every byte, and the ledgers of both ends must agree.

Exit codes:
  0    every run can be trusted
  1    the page could not be written
  2    nothing could be measured
  3    a run cannot be trusted; the page names it
  130  Ctrl-C; it prints what it has

docs/program/bench.md explains each figure and the object of --format json.";

const AFTER_DOCTOR_HELP: &str = "\
To measure the cost of a connection, doctor opens up to 4,000 connections to itself, on loopback, and \
closes them again (Linux only; not with --no-measure). It changes nothing on the system.

Exit codes:
  0    the report is printed
  1    the report could not be written
  2    a mistake on the command line
  3    one process cannot hold --goal on the machine as it is

docs/program/doctor.md explains each line and the object of --format json.";

/// A TCP peer that accepts everything: it holds connections, or echoes them, and accounts for each.
#[derive(Debug, Parser)]
#[command(
    name = "wharf",
    version,
    propagate_version = true,
    subcommand_required = true,
    max_term_width = 80,
    after_help = AFTER_ALL_HELP
)]
#[command(arg_required_else_help = true)]
struct WharfCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Accept every connection and hold it: read nothing, send nothing, notice when a peer leaves
    #[command(after_help = AFTER_HELP)]
    Hold(HoldOptions),
    /// Send back what arrives, byte for byte, and close when the peer has finished
    #[command(after_help = AFTER_HELP)]
    Echo(EchoOptions),
    /// Open connections to any server, send on them, and account for each one
    #[command(after_help = AFTER_LOAD_HELP, override_usage = LOAD_USAGE)]
    Load(Box<LoadOptions>),
    /// Compare two results of load, or a load and the account of its server
    #[command(after_help = AFTER_COMPARE_HELP)]
    Compare(CompareOptions),
    /// Run both ends on this machine and print what they cost: processor time, rates, memory
    #[command(after_help = AFTER_BENCH_HELP)]
    Bench(BenchOptions),
    /// Report how many connections this machine can hold, what limits them, and how to raise that
    #[command(after_help = AFTER_DOCTOR_HELP)]
    Doctor(DoctorOptions),
    /// Print the manual page of the program, or of one of its commands
    Man {
        /// The command; without it, the program
        #[arg(value_parser = ["hold", "echo", "load", "compare", "bench", "million", "doctor", "completions"])]
        command: Option<String>,
    },
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Whether the command runs on while its output is read, or only prints.
    pub(crate) fn runs_on(&self) -> bool {
        matches!(self, Command::Hold(_) | Command::Echo(_) | Command::Load(_))
    }

    /// How the command is divided over processes, if it can be.
    fn division(&mut self) -> Option<&mut DivisionOptions> {
        match self {
            Command::Hold(hold) => Some(&mut hold.serving.division),
            Command::Echo(echo) => Some(&mut echo.serving.division),
            Command::Load(load) => Some(&mut load.division),
            _ => None,
        }
    }
}

/// Reads the command line; returns the exit code if there is nothing to run.
pub(crate) fn read() -> Result<Command, ExitCode> {
    let mut words: Vec<OsString> = std::env::args_os().collect();
    let part = crate::processes::division::take_part(&mut words);
    let mut command = parse(&words).map_err(|(error, definition)| {
        let given = Given {
            words: &words,
            definition: &definition,
        };
        mistakes::refuse(&error, &given)
    })?;
    if let Some(division) = command.division() {
        division.part = part;
    }
    Ok(command)
}

/// Parses these words. An error comes with the definition that it refers to.
fn parse(words: &[OsString]) -> Result<Command, (clap::Error, Box<clap::Command>)> {
    use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
    let read = |definition: &clap::Command| {
        let matches = definition.clone().try_get_matches_from(words);
        matches.and_then(|matches| WharfCommand::from_arg_matches(&matches))
    };
    let mut definition = WharfCommand::command();
    let mut parsed = read(&definition);
    // Help lists all variables, so it is printed from the full definition.
    let is_help = |error: &clap::Error| matches!(error.kind(), DisplayHelp | DisplayVersion);
    if parsed.as_ref().is_err_and(is_help)
        && let Some(mode) = modes::asked(words)
    {
        definition = modes::only(definition, mode);
        parsed = read(&definition);
    } else if parsed.as_ref().is_err_and(|error| !is_help(error)) {
        definition = origin::without_switches_off(definition);
        parsed = read(&definition);
    }
    match parsed {
        Ok(parsed) => Ok(parsed.command),
        Err(error) => Err((error, Box::new(definition))),
    }
}

/// The manual page of one command, or of the program.
pub(crate) fn manual(command: Option<&str>) -> Vec<u8> {
    let mut all = WharfCommand::command();
    all.build();
    // A subcommand of bench has its own options, so it has its own page.
    let within = |name: &str| all.find_subcommand("bench")?.find_subcommand(name);
    let page = match command.and_then(|name| all.find_subcommand(name).or_else(|| within(name))) {
        Some(found) => found.clone(),
        None => all,
    };
    let mut roff = Vec::new();
    // Writing to memory does not fail.
    let _ = clap_mangen::Man::new(page).render(&mut roff);
    roff
}

pub(crate) fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut WharfCommand::command(), "wharf", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_holds_together() {
        WharfCommand::command().debug_assert();
    }

    #[test]
    fn a_mistake_is_one_line_with_a_hint() {
        let cases: [(&[&str], &str); 15] = [
            (&["hold", "--driver", "sim"], "auto, iocp, uring, poll"),
            (&["hold", "--threads", "0"], "from 1 to 256, such as \"10\""),
            (&["hold", "--treads", "2"], "did you mean '--threads'?"),
            (&["echo", "--spin-us", "1000001"], "from 0 to 1000000"),
            (
                &["load", "hold", "--for", "1"],
                "write it as \"10s\", \"500ms\"",
            ),
            (&["bench", "--for", "x"], "write it as \"10s\", \"500ms\""),
            (
                &["echo", "--notice", "never"],
                "'--notice': it is an option of 'hold'",
            ),
            (
                &["hold", "--connections", "5"],
                "it is an option of 'load', 'bench' and 'bench million'",
            ),
            (&["bench", "--for-ever"], "did you mean '--for'?"),
            (
                &["compare", "-v", "a"],
                "it is an option of 'hold' and 'echo'",
            ),
            (&["doctor", "--part"], "; --help lists the options"),
            (&["doctor", "now"], "unexpected argument 'now'"),
            (&["echo", "-v", "-q"], "cannot be used with"),
            (&["completions"], "<SHELL>"),
            (&["bench", "millions"], "'million'"),
        ];
        for (arguments, expected) in cases {
            let words = ["wharf"].iter().chain(arguments);
            let words: Vec<_> = words.map(Into::into).collect();
            let (error, definition) = parse(&words).expect_err("a mistake");
            let given = Given {
                words: &words,
                definition: &definition,
            };
            let line = mistakes::line(&error, &given);
            assert!(line.contains(expected), "{arguments:?}: {line}");
            assert!(!line.contains('\n') && !line.starts_with("error"), "{line}");
            assert!(!line.contains("wharf ") && !line.contains("-- "), "{line}");
        }
    }

    #[test]
    fn every_option_has_its_variable() {
        let names = [
            "hold", "echo", "load", "compare", "bench", "million", "doctor",
        ];
        for name in names {
            let all = WharfCommand::command();
            let of_bench = all.find_subcommand("bench").expect("it exists");
            let command = all.find_subcommand(name);
            let command = command.or_else(|| of_bench.find_subcommand(name));
            let command = command.expect("it exists");
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                // Options that imitate another program have no variable.
                let of_others = id.starts_with("compat_") && id != "compat_rust_echo_bench";
                if ["help", "version", "mode", "a", "b"].contains(&id) || of_others {
                    continue;
                }
                let id = match id {
                    "addresses" => "address",
                    "duration" if name == "load" => "for",
                    id => id,
                };
                let variable = argument.get_env().and_then(|name| name.to_str());
                let expected = format!("WHARF_{}", id.to_uppercase());
                assert_eq!(variable, Some(expected.as_str()), "{name} {id}");
            }
        }
    }

    #[test]
    fn the_manual_of_a_command_has_its_options() {
        let page = String::from_utf8(manual(Some("hold"))).expect("text");
        assert!(page.contains("max\\-connections"), "{page}");
        assert!(page.contains("WHARF_NOTICE"), "{page}");
        let page = String::from_utf8(manual(Some("million"))).expect("text");
        assert!(page.contains("WHARF_LEAVE_MEMORY"), "{page}");
    }
}
