//! `wharf`: TCP peers that hold or echo every connection, the load to try them and others with, the
//! bench that runs both, and the doctor that says what a machine can hold.
//!
//! This file only chooses what to do; what it knows of the command line is in `command`.

#![forbid(unsafe_code)]

mod account;
mod address;
mod bench;
mod command;
mod compare;
mod congestion;
mod descriptors;
mod doctor;
mod load;
mod memory;
mod output;
mod processes;
mod server;
mod service;
mod signals;
mod sys;
mod threads;
mod wrap;

use std::process::ExitCode;

use command::Command;
use service::Kind;

fn main() -> ExitCode {
    let command = match command::read() {
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
        Command::Man { command } => print(&command::manual(command.as_deref())),
        Command::Completions { shell } => print(&command::completions(shell)),
    })
}

fn print(bytes: &[u8]) -> ExitCode {
    output::bytes(bytes);
    ExitCode::SUCCESS
}
