//! `wharf`: TCP peers that hold or echo every connection, a load generator for them and for others,
//! a benchmark that runs both, and a doctor that reports what a machine can hold.
//!
//! This file only dispatches. `cli` has the command line.

#![forbid(unsafe_code)]

mod account;
mod bench;
mod cli;
mod compare;
mod doctor;
mod load;
mod machine;
mod processes;
mod server;
mod signals;
mod sys;
mod text;
mod threads;
mod values;

use std::process::ExitCode;

use cli::Command;
use server::service::Kind;
use text::output;

fn main() -> ExitCode {
    let command = match cli::read() {
        Ok(command) => command,
        Err(code) => return output::exit(code),
    };
    if command.runs_on()
        && let Err(text) = output::begin()
    {
        output::complaint(&text);
        return ExitCode::from(2);
    }
    output::exit(match command {
        Command::Hold(hold) => server::run(Kind::Hold(hold.notice), &hold.serving),
        Command::Echo(echo) => server::run(Kind::Echo, &echo.serving),
        Command::Load(options) => load::run(&options),
        Command::Compare(options) => compare::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Doctor(options) => doctor::run(&options),
        Command::Man { command } => print(&cli::manual(command.as_deref())),
        Command::Completions { shell } => print(&cli::completions(shell)),
    })
}

fn print(bytes: &[u8]) -> ExitCode {
    output::bytes(bytes);
    ExitCode::SUCCESS
}
