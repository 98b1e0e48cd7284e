//! Error messages for mistakes on the command line: one line with a hint, as every other error of
//! this program.
//!
//! clap's own paragraphs, with usage and hints, were rejected: scripts start this program. If a
//! command does not have an option, clap's hint is wrong: it suggests to pass the option as a
//! value, or another option with a similar name. The option simply belongs to another command.

use std::error::Error;
use std::process::ExitCode;

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::origin::{Given, Variable};
use crate::text::output;

/// Prints what is wrong in one line, or the help that the user requested.
pub(super) fn refuse(error: &clap::Error, given: &Given<'_>) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            output::bytes(error.render().to_string().as_bytes());
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            output::complaint_as_is(&error.render().to_string());
            ExitCode::from(2)
        }
        _ => {
            output::complaint(&line(error, given));
            ExitCode::from(2)
        }
    }
}

/// The mistake and a hint.
pub(super) fn line(error: &clap::Error, given: &Given<'_>) -> String {
    let said = match error.kind() {
        ErrorKind::UnknownArgument => match given.error_of_negative() {
            Some(negative) => return line(&negative, given),
            None => unknown(error, given.definition),
        },
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => wrong_value(error, given),
        ErrorKind::InvalidUtf8 => no_text(given),
        ErrorKind::ArgumentConflict => conflict(error, given),
        ErrorKind::MissingRequiredArgument => missing(error, given),
        ErrorKind::InvalidSubcommand => no_command(error, given.definition),
        ErrorKind::TooManyValues => no_value(error),
        _ => None,
    };
    said.unwrap_or_else(|| one_line(&error.render().to_string()))
}

/// A value that an option does not take, from the command line or the environment.
fn wrong_value(error: &clap::Error, given: &Given<'_>) -> Option<String> {
    let option = text(error, ContextKind::InvalidArg)?;
    let hint = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(names)) if !names.is_empty() => {
            format!("name one of {}", names.join(", "))
        }
        _ => error.source()?.to_string(),
    };
    let similar = text(error, ContextKind::SuggestedValue);
    let similar = similar.map_or(String::new(), |name| format!("; did you mean '{name}'?"));
    let value = text(error, ContextKind::InvalidValue).filter(|value| !value.is_empty());
    let subject = match (given.variable_of(option, error), value) {
        (Some(variable), Some(value)) if variable.value.to_string_lossy() != value => {
            format!("'{value}' in {}", variable.shown())
        }
        (Some(variable), _) => variable.shown(),
        (None, Some(value)) => format!("invalid value '{value}' for '{option}'"),
        (None, None) => format!("a value is required for '{option}'"),
    };
    Some(format!("{subject}: {hint}{similar}"))
}

/// A word that must be UTF-8 and is not, shown as well as possible.
fn no_text(given: &Given<'_>) -> Option<String> {
    let variable = || {
        let variable = given.variable_that_is_no_text()?;
        Some(variable.shown())
    };
    let word = given.word_that_is_no_text().map(|word| format!("'{word}'"));
    let what = word.or_else(variable)?;
    Some(format!("{what} is not UTF-8: write it in UTF-8"))
}

/// Options that exclude each other. It names those that come from the environment, because the user
/// does not see them on the command line.
fn conflict(error: &clap::Error, given: &Given<'_>) -> Option<String> {
    let others = texts(error, ContextKind::PriorArg);
    if let Some(command) = text(error, ContextKind::InvalidSubcommand) {
        let others = others.join("', '");
        return Some(format!(
            "'{others}' is not for '{command}', which has options of its own: leave it out"
        ));
    }
    let one = text(error, ContextKind::InvalidArg)?;
    if others.contains(&one) {
        return Some(format!("'{one}' is there twice: say it once"));
    }
    if others.is_empty() {
        return None;
    }
    let variable = |option: &str| given.variable_of(option, error);
    let variables = std::iter::once(one).chain(others.iter().copied());
    let variables = variables.filter_map(variable);
    let set = variables.map(|it: Variable| format!("; {} is set", it.shown()));
    let set: String = set.collect();
    let others = others.join("', '");
    Some(format!(
        "'{one}' cannot be used with '{others}': leave one of them out{set}"
    ))
}

/// An argument that the command requires, with its possible values if there are any.
fn missing(error: &clap::Error, given: &Given<'_>) -> Option<String> {
    let missing = texts(error, ContextKind::InvalidArg);
    let [first, rest @ ..] = &missing[..] else {
        return None;
    };
    let names = given.possible_values(first);
    Some(match (rest.is_empty(), names.is_empty()) {
        (true, false) => format!("{first} is missing: name one of {}", names.join(", ")),
        (true, true) => format!("{first} is missing; --help says what it is"),
        (false, _) => {
            let all = missing.join(" and ");
            format!("{all} are missing; --help says what they are")
        }
    })
}

/// A command that does not exist.
fn no_command(error: &clap::Error, all: &Command) -> Option<String> {
    let name = text(error, ContextKind::InvalidSubcommand)?;
    let similar = texts(error, ContextKind::SuggestedSubcommand);
    let hint = match similar.first() {
        Some(similar) => format!("; did you mean '{similar}'?"),
        None => {
            let names: Vec<&str> = all.get_subcommands().map(Command::get_name).collect();
            format!(": name one of {}", names.join(", "))
        }
    };
    Some(format!("there is no command '{name}'{hint}"))
}

/// A value for an option that takes none.
fn no_value(error: &clap::Error) -> Option<String> {
    let option = text(error, ContextKind::InvalidArg)?;
    let value = text(error, ContextKind::InvalidValue)?;
    Some(format!("'{option}' takes no value: leave '={value}' out"))
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text),
        _ => None,
    }
}

/// Several texts of one kind.
fn texts(error: &clap::Error, kind: ContextKind) -> Vec<&str> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text],
        Some(ContextValue::Strings(texts)) => texts.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    }
}

/// An argument that the command does not take.
fn unknown(error: &clap::Error, all: &Command) -> Option<String> {
    let argument = text(error, ContextKind::InvalidArg)?;
    let similar = text(error, ContextKind::SuggestedArg);
    let owners = owners(argument, all);
    let hint = match (&owners[..], similar) {
        ([], Some(similar)) => format!("; did you mean '{similar}'?"),
        ([], None) if argument.starts_with('-') => "; --help lists the options".to_owned(),
        ([], None) => "; --help says what there is".to_owned(),
        ([only], _) => format!(": it is an option of '{only}'"),
        ([rest @ .., last], _) => {
            let rest = rest.join("', '");
            format!(": it is an option of '{rest}' and '{last}'")
        }
    };
    Some(format!("unexpected argument '{argument}'{hint}"))
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
    let mut shown = command.get_arguments().filter(|it| !it.is_hide_set());
    match argument.strip_prefix("--") {
        Some(long) => shown.any(|it| {
            let aliases = it.get_all_aliases().unwrap_or_default();
            it.get_long() == Some(long) || aliases.contains(&long)
        }),
        None => {
            let short = argument.strip_prefix('-').and_then(|it| it.chars().next());
            short.is_some() && shown.any(|it| it.get_short() == short)
        }
    }
}

/// clap's message and hints, without usage and line ends.
fn one_line(rendered: &str) -> String {
    let lines = rendered.lines().map(str::trim);
    // Usage comes last. With subcommands it has several lines.
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
