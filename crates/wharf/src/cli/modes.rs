//! The help of `wharf load MODE`: the options of that mode and no others.
//!
//! A mode is an argument and not a subcommand: options may come before it, and several modes share
//! most options. So one definition has all options, and the help of a mode hides the others.

use std::ffi::OsString;

use clap::{Arg, Command, ValueEnum};

use crate::load::options::{Mode, OF_BYTES, OF_CLOSE, OF_HOLD, OF_TALK};

/// The mode of `load` whose help the user requests.
pub(super) fn asked(words: &[OsString]) -> Option<Mode> {
    let mut words = words.iter().skip(1).filter_map(|word| word.to_str());
    words.next().filter(|first| *first == "load")?;
    words.find_map(|word| Mode::from_str(word, false).ok())
}

/// The definition in which `load` has the options of this mode.
pub(super) fn only(definition: Command, mode: Mode) -> Command {
    let concerns = |argument: &Arg| match argument.get_help_heading() {
        Some(OF_TALK) => mode.talks(),
        Some(OF_HOLD) => mode == Mode::Hold,
        Some(OF_CLOSE) => !mode.talks(),
        Some(OF_BYTES) => mode != Mode::Connect,
        // Options that imitate another program have no mode.
        Some(_) => false,
        None => argument.get_id() != "mode",
    };
    let hidden = |argument: Arg| match concerns(&argument) {
        true => argument.help_heading(None::<&str>),
        false => argument.hide(true),
    };
    let about = mode.to_possible_value();
    let about = about
        .and_then(|it| it.get_help().cloned())
        .unwrap_or_default();
    definition.mut_subcommand("load", |load| {
        let usage = format!("wharf load [OPTIONS] {} [ADDRESS]", mode.name());
        load.mut_args(hidden).about(about).override_usage(usage)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help(line: &str) -> String {
        let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
        let (error, _) = crate::cli::parse(&words).expect_err("it is help");
        error.render().to_string()
    }

    #[test]
    fn each_mode_has_its_own_list() {
        let own = [
            ("--touch", "hold"),
            ("--pipeline", "echo stream"),
            ("--requests-per-second", "echo stream"),
            ("--reset", "connect hold"),
            ("--size", "hold echo stream"),
            ("--connections", "connect hold echo stream"),
            ("--compat-rust-echo-bench", ""),
        ];
        for mode in ["connect", "hold", "echo", "stream"] {
            for form in ["-h", "--help"] {
                let text = help(&format!("wharf load {mode} {form}"));
                for (option, modes) in own {
                    let mut lines = text.lines();
                    let is_shown = lines.any(|line| line.trim_start().starts_with(option));
                    let is_own = modes.split(' ').any(|it| it == mode);
                    assert_eq!(is_shown, is_own, "{mode} {option}: {text}");
                }
                assert!(text.contains(&format!("load [OPTIONS] {mode} ")), "{text}");
            }
        }
        // All options, under headings.
        let all = help("wharf load --help");
        for shown in [OF_TALK, OF_HOLD, OF_CLOSE, OF_BYTES, "--touch", "--compat"] {
            assert!(all.contains(shown), "{shown}: {all}");
        }
        assert!(help("wharf hold --help").contains("--notice"));
    }
}
