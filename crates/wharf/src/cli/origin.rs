//! Where a mistake came from: which word of the command line, or which variable of the environment.
//!
//! clap names the option, but not whether the command line or the environment set it. For text that
//! is not UTF-8 it names nothing. So we parse the command line again without the suspect: if the
//! error is gone, the suspect was the cause. Parsers that know their source were rejected: each
//! type would need one, and this works for every option.

use std::ffi::OsString;

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command, Error};

use crate::values::parse_switch;

/// What the program has to parse.
#[derive(Debug)]
pub(super) struct Given<'a> {
    pub(super) words: &'a [OsString],
    pub(super) definition: &'a Command,
}

/// An environment variable that sets an option.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Variable {
    name: String,
    pub(super) value: OsString,
}

impl Variable {
    fn of(argument: &Arg) -> Option<Self> {
        let name = argument.get_env()?;
        Some(Variable {
            name: name.to_string_lossy().into_owned(),
            value: std::env::var_os(name)?,
        })
    }

    /// As a shell would show it. Text that is not UTF-8 is shown as well as possible.
    pub(super) fn shown(&self) -> String {
        format!("{}={}", self.name, self.value.to_string_lossy())
    }
}

impl Given<'_> {
    /// The variable that set the wrong value of this option, if it was not the command line.
    pub(super) fn variable_of(&self, option: &str, error: &Error) -> Option<Variable> {
        let command = self.command();
        let mut arguments = command.get_arguments();
        let argument = arguments.find(|it| it.to_string() == option)?;
        let variable = Variable::of(argument)?;
        let without = self.keeping(&|it: &Arg| it.get_id() != argument.get_id());
        let same = read(self.words, without).is_some_and(|it| is_alike(&it, error));
        (!same).then_some(variable)
    }

    /// The possible values of an argument, if it has a list of them.
    pub(super) fn possible_values(&self, argument: &str) -> Vec<String> {
        let command = self.command();
        // clap shows an argument that another option replaces as optional.
        let bare = |name: &str| name.trim_matches(['<', '>', '[', ']']).to_owned();
        let mut arguments = command.get_arguments();
        let found = arguments.find(|it| bare(&it.to_string()) == bare(argument));
        let values = found.map(Arg::get_possible_values).unwrap_or_default();
        values.iter().map(|it| it.get_name().to_owned()).collect()
    }

    /// The word of the command line that must be UTF-8 and is not, with its option.
    pub(super) fn word_that_is_no_text(&self) -> Option<String> {
        let no_text = |word: &OsString| word.to_str().is_none();
        let suspects = (0..self.words.len()).filter(|place| no_text(&self.words[*place]));
        let mut suspects = suspects.filter(|suspect| {
            // A path may be any bytes, so the first such word is not always the cause.
            let mut words = lossy(self.words);
            words[*suspect].clone_from(&self.words[*suspect]);
            let alone = read(&words, self.keeping(&|_: &Arg| false));
            alone.is_some_and(|it| it.kind() == ErrorKind::InvalidUtf8)
        });
        let place = suspects.next()?;
        let word = self.words[place].to_string_lossy();
        let before = self.words.get(place.checked_sub(1)?)?.to_string_lossy();
        Some(match before.starts_with('-') && !word.starts_with('-') {
            true => format!("{before} {word}"),
            false => word.into_owned(),
        })
    }

    /// The variable that must be UTF-8 and is not.
    pub(super) fn variable_that_is_no_text(&self) -> Option<Variable> {
        let (words, command) = (lossy(self.words), self.command());
        let mut variables = command.get_arguments().filter_map(|argument| {
            let variable = Variable::of(argument)?;
            variable.value.to_str().is_none().then_some(())?;
            let alone = self.keeping(&|it: &Arg| it.get_id() == argument.get_id());
            let error = read(&words, alone)?;
            (error.kind() == ErrorKind::InvalidUtf8).then_some(variable)
        });
        variables.next()
    }

    /// The error for a negative number, if there is one. No option of this program looks like a
    /// number, so it is taken as the value of the option before it.
    ///
    /// Allowing negative numbers in clap was rejected. clap recognizes plain numbers only, and
    /// neither `-1s` nor `-1%`. Allowing values that begin with a hyphen would take whole options
    /// as values.
    pub(super) fn error_of_negative(&self) -> Option<Error> {
        let words = self.words.iter().map(|word| word.to_str().unwrap_or(""));
        let words: Vec<&str> = words.collect();
        let is_negative = |word: &str| {
            let first = word.strip_prefix('-').and_then(|it| it.chars().next());
            first.is_some_and(|it| it.is_ascii_digit() || it == '.')
        };
        let place = words.iter().position(|word| is_negative(word))?;
        let option = *words.get(place.checked_sub(1)?)?;
        if !option.starts_with('-') || option.contains('=') {
            return None;
        }
        let mut joined = self.words.to_vec();
        joined[place - 1] = format!("{option}={}", words[place]).into();
        joined.remove(place);
        let error = read(&joined, self.definition.clone())?;
        (error.kind() == ErrorKind::ValueValidation).then_some(error)
    }

    /// The command that the user called, built: clap names its arguments only then.
    fn command(&self) -> Command {
        let mut command = self.definition.clone();
        command.build();
        for word in self.words.iter().skip(1) {
            match command.find_subcommand(word) {
                Some(inner) => command = inner.clone(),
                None => break,
            }
        }
        command
    }

    /// The definition with only these variables.
    fn keeping(&self, stays: &dyn Fn(&Arg) -> bool) -> Command {
        keeping(self.definition.clone(), stays)
    }
}

/// The definition without the variables that switch an option off. To clap such a variable sets the
/// option: the option then excludes others, and replaces those that it replaces.
pub(super) fn without_switches_off(definition: Command) -> Command {
    let is_off = |argument: &Arg| {
        let value = Variable::of(argument).map(|it| it.value);
        let value = value.as_ref().and_then(|it| it.to_str());
        value.is_some_and(|it| parse_switch(it) == Ok(false))
    };
    let is_switch = |argument: &Arg| matches!(argument.get_action(), ArgAction::SetTrue);
    keeping(definition, &|it: &Arg| !(is_switch(it) && is_off(it)))
}

fn keeping(command: Command, stays: &dyn Fn(&Arg) -> bool) -> Command {
    let argument = |it: Arg| match stays(&it) {
        true => it,
        false => it.env(Resettable::Reset),
    };
    let command = command.mut_args(argument);
    command.mut_subcommands(|inner| keeping(inner, stays))
}

/// The error of these words.
fn read(words: &[OsString], definition: Command) -> Option<Error> {
    definition.try_get_matches_from(words).err()
}

fn lossy(words: &[OsString]) -> Vec<OsString> {
    let text = |word: &OsString| word.to_string_lossy().into_owned().into();
    words.iter().map(text).collect()
}

fn is_alike(one: &Error, other: &Error) -> bool {
    use clap::error::ContextKind::{InvalidArg, InvalidValue};
    one.kind() == other.kind()
        && one.get(InvalidArg) == other.get(InvalidArg)
        && one.get(InvalidValue) == other.get(InvalidValue)
}
