//! `wharf`: a TCP peer that accepts everything and holds it, or echoes it, and gives the account.
//!
//! This file only chooses what to do; what it knows of the command line is in `command`.

#![forbid(unsafe_code)]

mod account;
mod address;
mod command;
mod output;
mod server;
mod service;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use command::{Command, WharfCommand};

fn main() -> ExitCode {
    match WharfCommand::parse().command {
        Command::Hold(options) => {
            server::run(service::Kind::Hold(options.notice), &options.serving)
        }
        Command::Echo(options) => server::run(service::Kind::Echo, &options.serving),
        Command::Man => {
            let page = clap_mangen::Man::new(WharfCommand::command());
            output::ignoring_a_closed_pipe(page.render(&mut std::io::stdout()))
        }
        Command::Completions { shell } => {
            let mut completions = Vec::new();
            clap_complete::generate(
                shell,
                &mut WharfCommand::command(),
                "wharf",
                &mut completions,
            );
            let written = std::io::Write::write_all(&mut std::io::stdout(), &completions);
            output::ignoring_a_closed_pipe(written)
        }
    }
}
