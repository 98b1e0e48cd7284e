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
To begin with, run \"wharf hold\", and from another terminal \"wharf load hold --connections 1000 --for \
5s\". Each command has a --help of its own, and -h is the same in short.";

const AFTER_HELP: &str = "\
Every option can come from the environment: WHARF_DRIVER=poll is --driver poll, and WHARF_ADDRESS \
takes several addresses with commas between them.

Ctrl-C, SIGTERM and on Linux SIGHUP (on Windows Ctrl-C, Ctrl-Break, a console that closes and a shutdown) stop accepting, print the \
account and end with code 0, or 1 if one of several processes died or the account could not be \
written, also because nobody reads it; a second one ends at once, with code 130. With nohup SIGHUP is \
ignored. Nothing waits for whoever reads what is printed: lines of -v that nobody reads in time are \
dropped, and the account counts them. A \
mistake on the command line, or an address or a driver that cannot be had, ends with code 2. The \
objects of --format json are described in docs/program/servers.md.";

/// The one that clap writes has MODE as if it could be left out: it can with that option.
const LOAD_USAGE: &str = "wharf load [OPTIONS] <MODE> [ADDRESS]
       wharf load [OPTIONS] --compat-rust-echo-bench";

const AFTER_LOAD_HELP: &str = "\
Each mode has a --help of its own, such as \"wharf load hold --help\".

Every option can come from the environment: WHARF_RATE=1000 is --rate 1000.

Ends with 0; with 1 if connections failed or were lost and no --expect names how many of them may \
(such as 'lost<=5'), bytes were wrong, one of several processes died, or the result could not be written; with 2 if it could not begin; with 3 if --expect, --max-p99 or --touch does not hold, or the \
ledgers of both ends do not agree; with 130 after Ctrl-C, also then with the account. The objects \
of --format json are described in docs/program/load.md.";

const AFTER_COMPARE_HELP: &str = "\
Ends with 0; with 1 if the result could not be written; with 2 if there is nothing to compare; with 3 if the ledgers of a load and of its \
server do not agree, if a run has failed, or if B is slower than --fail-above allows. What beyond the spread means is in docs/program/load.md.";

const AFTER_BENCH_HELP: &str = "\
Server and load are processes of their own, on loopback only; where the system allows it each has a \
processor to itself. Every byte is compared and both ledgers have to agree.

Ends with 0; with 1 if the page could not be written; with 2 if nothing could be measured; with 3 if a run is not to be trusted, which the \
page names; with 130 after Ctrl-C, also then with what it has. What each figure is, and the object \
of --format json, is in docs/program/bench.md.";

const AFTER_DOCTOR_HELP: &str = "\
To measure what one costs it opens up to 4,000 connections to itself, on loopback, and closes them \
again (Linux only; --no-measure leaves it out). It changes nothing of the system.

Ends with 0; with 1 if the report could not be written; with 3 if one process cannot hold --goal as the machine is; with 2 if the command \
line is wrong. What each line means, and the object of --format json, is in docs/program/doctor.md.";

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
    /// Accept any connection and set it aside: read nothing, answer nothing, notice who leaves
    #[command(after_help = AFTER_HELP)]
    Hold(HoldOptions),
    /// Send back what arrives, byte for byte, and end when the peer has ended
    #[command(after_help = AFTER_HELP)]
    Echo(EchoOptions),
    /// Open connections to any server, drive them, and account for each one
    #[command(after_help = AFTER_LOAD_HELP, override_usage = LOAD_USAGE)]
    Load(Box<LoadOptions>),
    /// Set two results of load side by side, or a load and the account of its server
    #[command(after_help = AFTER_COMPARE_HELP)]
    Compare(CompareOptions),
    /// Run both ends on this machine and print what they cost: processor time, rates, memory
    #[command(after_help = AFTER_BENCH_HELP)]
    Bench(BenchOptions),
    /// Say how many connections this machine holds, what bounds them, and how to raise that
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
    /// Whether it goes on while somebody reads what it prints, or only prints.
    pub(crate) fn runs_on(&self) -> bool {
        matches!(self, Command::Hold(_) | Command::Echo(_) | Command::Load(_))
    }

    /// How it is divided, if it can be.
    fn division(&mut self) -> Option<&mut DivisionOptions> {
        match self {
            Command::Hold(hold) => Some(&mut hold.serving.division),
            Command::Echo(echo) => Some(&mut echo.serving.division),
            Command::Load(load) => Some(&mut load.division),
            _ => None,
        }
    }
}

/// Reads the command line; the exit code when there is nothing to run.
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

/// Reads these words, or says what is wrong with them by which definition.
fn parse(words: &[OsString]) -> Result<Command, (clap::Error, Box<clap::Command>)> {
    use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
    let read = |definition: &clap::Command| {
        let matches = definition.clone().try_get_matches_from(words);
        matches.and_then(|matches| WharfCommand::from_arg_matches(&matches))
    };
    let mut definition = WharfCommand::command();
    let mut parsed = read(&definition);
    // Help names all variables, and so it is not printed from what is left of the definition.
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
    // A work of bench has its own options, and so a page of its own.
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
    fn a_mistake_is_said_in_one_line_with_its_cure() {
        let cases: [(&[&str], &str); 15] = [
            (&["hold", "--driver", "epoll"], "auto, iocp, uring, poll"),
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
                // What imitates another program has that one's options.
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
