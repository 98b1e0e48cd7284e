//! How a work is divided, which servers and loads are told in the same way.
//!
//! That it is a part of one is no option: the program tells it to itself by a word of its own, which
//! nobody has to read in completions.

use std::ffi::OsString;

use clap::Args;

use crate::processes::descriptors::Descriptors;
use crate::values::whole;

/// The word behind the command of a process that works for another one.
pub(crate) const PART: &str = "--part";
/// The commands that can be divided.
const DIVISIBLE: [&str; 3] = ["hold", "echo", "load"];

#[derive(Clone, Debug, Args)]
pub(crate) struct DivisionOptions {
    /// Processes, each with these threads and a share of the connections; one account. By default
    /// as many as the connections and the limit of open files ask for. For a server on Linux only,
    /// and not on Unix sockets
    #[arg(long, value_parser = whole(1..=256_u16), env = "WHARF_PROCESSES", value_name = "N")]
    pub(crate) processes: Option<u16>,
    /// Whether this is one of them.
    #[arg(skip)]
    pub(crate) part: bool,
    /// What a connection takes of the process: a descriptor, or with direct none. Those live in
    /// tables of the threads' own, as many threads as the connections and the limit of open files
    /// ask for; an experiment for uring on Linux, described in docs/library/direct-descriptors.md
    #[arg(long, value_enum, default_value_t = Descriptors::Ordinary, env = "WHARF_DESCRIPTORS")]
    pub(crate) descriptors: Descriptors,
}

/// Takes the word out of a command line, if it is there.
pub(crate) fn take_part(words: &mut Vec<OsString>) -> bool {
    let divisible = |word: &OsString| DIVISIBLE.iter().any(|name| word == name);
    let is_part = words.get(1).is_some_and(divisible) && words.get(2).is_some_and(|it| it == PART);
    if is_part {
        words.remove(2);
    }
    is_part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_one_that_the_program_has_started() {
        for (line, is_part) in [
            ("wharf hold --part --processes 2", true),
            ("wharf load --part", true),
            ("wharf load hold --part", false),
            ("wharf doctor --part", false),
            ("wharf hold", false),
            ("wharf", false),
        ] {
            let mut words: Vec<OsString> = line.split(' ').map(Into::into).collect();
            let before = words.len();
            assert_eq!(take_part(&mut words), is_part, "{line}");
            assert_eq!(words.len(), before - usize::from(is_part), "{line}");
        }
    }
}
