//! Mistakes, the environment, and the commands that only print.

use std::net::TcpListener;

use crate::program::{code_of, is_native, program, run};

/// Fails with one line that names the cure, and with code 2.
fn refused(arguments: &[&str], expected: &str) {
    let output = run(arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code_of(output.status), Some(2), "{arguments:?}: {text}");
    assert!(text.contains(expected), "{arguments:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{arguments:?}: {text}");
    assert!(text.starts_with("wharf: "), "{arguments:?}: {text}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
}

#[test]
fn a_mistake_gets_one_line_and_exit_code_2() {
    refused(&["hold", "127.0.0.1:70000"], "0 to 65535");
    refused(&["hold", "127.0.0.1:9-8"], "lower port first");
    refused(&["hold", "::1:80"], "brackets");
    refused(&["hold", "--driver", "epoll"], "auto, iocp, uring, poll");
    refused(&["echo", "--threads", "0"], "from 1 to 256");
    refused(&["echo", "--threads", "many"], "write a whole number");
    refused(&["echo", "--backlog", "0"], "--backlog");
    refused(&["echo", "--max-connections", "-1"], "-1");
    refused(&["hold", "--notice", "maybe"], "never");
    refused(&["echo", "-q", "-v"], "cannot be used with");
    refused(&["holt"], "hold");
    for wrong in ["abc", "1", "1 parsec"] {
        let arguments = ["load", "hold", "--for", wrong];
        refused(&arguments, "write it as \"10s\", \"500ms\" or \"2m\"");
    }
    refused(&["load", "hold", "--interval", "0s"], "such as \"1s\"");
    refused(&["load", "hold", "--connections", "x"], "such as \"10\"");
    refused(&["load", "echo", "--rate", "fast"], "such as \"1000\"");
    refused(&["doctor", "--goal", "1e6"], "write a whole number");
}

#[test]
fn an_option_of_another_command_is_said_to_be_one() {
    refused(
        &["echo", "--notice", "never"],
        "'--notice': it is an option of 'hold'\n",
    );
    refused(
        &["hold", "--expect", "held=1"],
        "it is an option of 'load'\n",
    );
    refused(&["echo", "--notise", "never"], "'--notise'; did you mean");
}

#[test]
fn what_the_machine_refuses_gets_one_line_and_exit_code_2() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let taken = taken.local_addr().expect("it is bound").to_string();
    refused(&["hold", &taken], "address in use");
    refused(&["hold", "127.0.0.1:0", &taken], &taken);
    // An address of the range that is kept for documents; no machine has it.
    refused(&["hold", "192.0.2.1:0"], "192.0.2.1:0");
    refused(
        &["hold", "127.0.0.1:0", "--congestion-control", "no-such-one"],
        "congestion control",
    );
    refused(
        &["load", "hold", "--congestion-control", "no-such-one"],
        "congestion control",
    );
    let foreign = if is_native() && cfg!(unix) {
        "iocp"
    } else {
        "poll"
    };
    refused(
        &["hold", "--driver", foreign],
        "does not exist on this system: require another, or let auto choose",
    );
}

#[test]
fn a_path_that_cannot_be_gets_its_cure() {
    if !is_native() || !cfg!(unix) {
        return;
    }
    let missing = format!("unix:{}/nowhere/socket", env!("CARGO_TARGET_TMPDIR"));
    refused(&["hold", &missing], "make its directory first");
    let long = format!("unix:/{}", "a".repeat(200));
    refused(&["hold", &long], "choose a shorter path");
}

#[test]
fn one_definition_makes_the_manual_and_the_completions() {
    let page = run(&["man"]).stdout;
    assert!(String::from_utf8_lossy(&page).contains(".TH wharf"));
    let page = run(&["man", "hold"]).stdout;
    assert!(String::from_utf8_lossy(&page).contains("WHARF_DRIVER"));
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = run(&["completions", shell]).stdout;
        assert!(
            String::from_utf8_lossy(&script).contains("max-connections"),
            "{shell}"
        );
    }
}

/// What the program says to itself is nothing to choose from.
#[test]
fn no_help_shows_what_is_for_the_program_itself() {
    for command in ["hold", "echo", "load"] {
        let completions = ["bash", "zsh", "fish", "powershell", "elvish"];
        let told = completions.map(|shell| run(&["completions", shell]));
        let told = told.into_iter().chain([
            run(&["man", command]),
            run(&[command, "--help"]),
            run(&[command, "-h"]),
        ]);
        for output in told {
            let text = String::from_utf8_lossy(&output.stdout).replace('\\', "");
            assert!(text.contains("threads"), "{text}");
            let words = text.split(|it: char| !it.is_alphanumeric() && it != '-');
            let told: Vec<&str> = words.filter(|word| word.ends_with("-part")).collect();
            assert_eq!(told, [""; 0], "{command}");
            // Fish names an option without its dashes.
            assert!(!text.contains("-l part "), "{command}");
        }
    }
}

#[test]
fn options_come_from_the_environment_too() {
    for (variable, value, expected) in [
        ("WHARF_DRIVER", "epoll", "auto, iocp, uring, poll"),
        ("WHARF_THREADS", "0", "from 1 to 256"),
        ("WHARF_ADDRESS", "127.0.0.1:x", "0 to 65535"),
        ("WHARF_MAX_CONNECTIONS", "few", "write a whole number"),
        ("WHARF_BACKLOG", "0", "--backlog"),
        ("WHARF_FORMAT", "xml", "json"),
        ("WHARF_VERBOSE", "perhaps", "--verbose"),
    ] {
        let mut program = program();
        let output = program.arg("echo").env(variable, value).output();
        let output = output.expect("the program starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(code_of(output.status), Some(2), "{variable}: {text}");
        assert!(text.contains(expected), "{variable}: {text}");
    }
}

#[test]
fn help_names_what_an_operator_asks_for() {
    let output = run(&["hold", "--help"]);
    assert_eq!(code_of(output.status), Some(0));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for expected in ["SO_REUSEPORT", "Ctrl-Break", "130", "unix:/path", "WHARF_"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}
