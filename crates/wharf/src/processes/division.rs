//! How a command is divided over processes and threads. Servers and loads have the same options.
//!
//! A process learns that it is a part from a hidden word on its command line, and not from an
//! option: an option would appear in help and completions.

use std::ffi::OsString;

use clap::Args;

use crate::processes::descriptors::Descriptors;
use crate::values::whole;

/// The word after the command of a process that works for another process.
pub(crate) const PART: &str = "--part";
/// The commands that can be divided.
const DIVISIBLE: [&str; 3] = ["hold", "echo", "load"];

#[derive(Clone, Debug, Args)]
pub(crate) struct DivisionOptions {
    /// Number of processes, each with these threads and a share of the connections; they print one
    /// account. By default as many as the connections and the limit of open files require. For a
    /// server on Linux only, and not with Unix sockets
    #[arg(long, value_parser = whole(1..=256_u16), env = "WHARF_PROCESSES", value_name = "N")]
    pub(crate) processes: Option<u16>,
    /// Whether this process is one of them.
    #[arg(skip)]
    pub(crate) part: bool,
    /// What a connection takes of the process: a descriptor, or with direct none. Direct
    /// descriptors live in tables of the threads, and there are as many threads as the connections
    /// and the limit of open files require. An experiment for uring on Linux, see
    /// docs/library/direct-descriptors.md
    #[arg(long, value_enum, default_value_t = Descriptors::Ordinary, env = "WHARF_DESCRIPTORS")]
    pub(crate) descriptors: Descriptors,
}

/// Removes the word from a command line, if it is there.
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
