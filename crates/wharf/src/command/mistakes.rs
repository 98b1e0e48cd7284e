//! What is said of a mistake on the command line: one line that names the cure, as every other error
//! of this program does.
//!
//! clap's own paragraphs, with usage and hints, were rejected for a program that scripts start. Its
//! hint on an option that a command does not have was a wrong one: to pass it as a value, or another
//! option that is written alike, where the option is simply that of another command.

use std::process::ExitCode;

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::output;

/// Says what is wrong in one line, or prints the help that was asked for.
pub(super) fn refuse(error: &clap::Error, all: &Command) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            output::bytes(error.render().to_string().as_bytes())
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            output::complaint_as_is(&error.render().to_string());
            ExitCode::from(2)
        }
        _ => {
            output::complaint(&line(error, all));
            ExitCode::from(2)
        }
    }
}

/// The mistake and its cure.
pub(super) fn line(error: &clap::Error, all: &Command) -> String {
    match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(argument))) => {
            let similar = match error.get(ContextKind::SuggestedArg) {
                Some(ContextValue::String(similar)) => Some(similar.as_str()),
                _ => None,
            };
            unknown(argument, similar, all)
        }
        _ => one_line(&error.render().to_string()),
    }
}

/// An argument that the command does not take.
fn unknown(argument: &str, similar: Option<&str>, all: &Command) -> String {
    let owners = owners(argument, all);
    let cure = match (&owners[..], similar) {
        ([], Some(similar)) => format!("; did you mean '{similar}'?"),
        ([], None) if argument.starts_with('-') => "; --help lists the options".to_owned(),
        ([], None) => String::new(),
        ([only], _) => format!(": it is an option of '{only}'"),
        ([rest @ .., last], _) => {
            let rest = rest.join("', '");
            format!(": it is an option of '{rest}' and '{last}'")
        }
    };
    format!("unexpected argument '{argument}'{cure}")
}

/// The commands that have this option.
fn owners(argument: &str, all: &Command) -> Vec<String> {
    let mut owners = Vec::new();
    for command in all.get_subcommands() {
        let name = command.get_name();
        let within = command.get_subcommands();
        let within = within.map(|inner| (format!("{name} {}", inner.get_name()), inner));
        let candidates = std::iter::once((name.to_owned(), command)).chain(within);
        let having = candidates.filter(|(_, candidate)| has(candidate, argument));
        owners.extend(having.map(|(name, _)| name));
    }
    owners
}

fn has(command: &Command, argument: &str) -> bool {
    let mut told = command.get_arguments().filter(|it| !it.is_hide_set());
    match argument.strip_prefix("--") {
        Some(long) => told.any(|it| {
            let aliases = it.get_all_aliases().unwrap_or_default();
            it.get_long() == Some(long) || aliases.contains(&long)
        }),
        None => {
            let short = argument.strip_prefix('-').and_then(|it| it.chars().next());
            short.is_some() && told.any(|it| it.get_short() == short)
        }
    }
}

/// The message and the hints of clap's paragraphs, without usage and without line ends.
fn one_line(rendered: &str) -> String {
    let lines = rendered.lines().map(str::trim);
    // Usage comes last, and is several lines where there are subcommands.
    let lines = lines.take_while(|line| !line.starts_with("Usage:"));
    let said = lines.filter(|line| !line.is_empty() && !line.starts_with("For more information"));
    let mut text = String::new();
    for line in said {
        if !text.is_empty() {
            text.push_str(if text.ends_with(':') { " " } else { "; " });
        }
        text.push_str(line);
    }
    text.strip_prefix("error: ").unwrap_or(&text).to_owned()
}
