//! `cargo xtask`: the one way to test, lint and check this workspace.
//!
//! Continuous integration calls the same commands as a person at a terminal,
//! so a leg that is green here is green there. It is a Rust program and not a
//! set of scripts because half of its work, such as the system call filters,
//! the token checks and the Wine set-up, would be fragile in a shell, and
//! because it runs unchanged on Windows.

#![forbid(unsafe_code)]

#[cfg(target_os = "linux")]
mod apt;
mod bench;
mod command;
mod debian;
#[cfg(target_os = "linux")]
mod kernels;
mod legs;
#[cfg(target_os = "linux")]
mod msrv;
#[cfg(target_os = "linux")]
mod mutants;
mod package;
mod planted;
#[cfg(target_os = "linux")]
mod seccomp;
mod targets;
mod tidy;
#[cfg(target_os = "linux")]
mod trixie;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tsan;
mod wine;
#[cfg(target_os = "linux")]
mod wine10;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::legs::LEGS;

fn main() -> ExitCode {
    let outcome = dispatch(&interface().get_matches());
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn interface() -> Command {
    let ci = Command::new("ci").about("Runs every leg in order and prints a summary");
    let filtered = Command::new("filtered")
        .about("Runs a program under a system call filter; the seccomp leg calls it")
        .hide(true)
        .arg(Arg::new("filter").required(true))
        .arg(
            Arg::new("program")
                .required(true)
                .num_args(1..)
                .trailing_var_arg(true)
                .allow_hyphen_values(true),
        );
    let legs = LEGS.iter().map(|leg| {
        let command = Command::new(leg.name).about(leg.about);
        if leg.name != "tidy" {
            return command;
        }
        command.arg(
            Arg::new("lower")
                .long("lower")
                .action(ArgAction::SetTrue)
                .help(
                    "Lowers the limits in xtask/ratchet.txt to the current sizes; never raises one",
                ),
        )
    });
    let planted = Command::new("planted")
        .about("Plants known bugs in a copy of the tree; the suite must catch each")
        .arg(
            Arg::new("name")
                .num_args(0..)
                .help("Plants only the bugs with these names; by default all"),
        )
        .arg(
            Arg::new("write")
                .long("write")
                .action(ArgAction::SetTrue)
                .help("Writes docs/measured/planted-bugs.md from the patches and plants nothing"),
        );
    #[cfg(target_os = "linux")]
    let mutants = mutants::interface();
    #[cfg(not(target_os = "linux"))]
    let mutants = Command::new("mutants").hide(true);
    Command::new("cargo xtask")
        .about("Tests, lints and checks the Wharf workspace")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(ci)
        .subcommand(bench::interface())
        .subcommands(legs)
        .subcommand(mutants)
        .subcommand(planted)
        .subcommand(filtered)
}

fn dispatch(matches: &ArgMatches) -> Result<()> {
    match matches.subcommand() {
        Some(("ci", _)) => legs::run_all(),
        Some(("bench", arguments)) => bench::run(arguments),
        Some(("filtered", arguments)) => filtered(arguments),
        #[cfg(target_os = "linux")]
        Some(("mutants", arguments)) => mutants::run(arguments),
        Some(("planted", arguments)) if arguments.get_flag("write") => planted::write_page(),
        Some(("planted", arguments)) => {
            let names = arguments.get_many("name").unwrap_or_default();
            planted::plant(&names.collect::<Vec<_>>())
        }
        Some(("tidy", arguments)) if arguments.get_flag("lower") => tidy::lower(),
        Some((name, _)) => legs::run_one(name),
        None => unreachable!("clap requires a subcommand"),
    }
}

#[cfg(target_os = "linux")]
fn filtered(arguments: &ArgMatches) -> Result<()> {
    let filter: &String = arguments.get_one("filter").expect("clap requires it");
    let program: Vec<&String> = arguments
        .get_many("program")
        .expect("clap requires it")
        .collect();
    seccomp::run_filtered(filter, &program)
}

#[cfg(not(target_os = "linux"))]
fn filtered(_: &ArgMatches) -> Result<()> {
    anyhow::bail!("system call filters exist only on Linux")
}
