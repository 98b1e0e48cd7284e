//! Mistakes, the environment, and the commands that only print.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::process::Output;

use crate::program::{code_of, is_native, program, run};

/// Fails with one line that has a hint, and with code 2.
fn refused(arguments: &[&str], expected: &str) {
    refuses(&run(arguments), &format!("{arguments:?}"), expected);
}

fn refuses(output: &Output, what: &str, expected: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code_of(output.status), Some(2), "{what}: {text}");
    assert!(text.contains(expected), "{what}: {text}");
    assert_eq!(text.lines().count(), 1, "{what}: {text}");
    assert!(text.starts_with("wharf: "), "{what}: {text}");
    assert!(output.stdout.is_empty(), "{what}");
}

#[test]
fn a_mistake_gets_one_line_and_exit_code_2() {
    refused(&["hold", "127.0.0.1:70000"], "0 to 65535");
    refused(&["hold", "127.0.0.1:9-8"], "lower port first");
    refused(&["hold", "::1:80"], "brackets");
    refused(&["hold", "--driver", "select"], "auto, iocp, uring, poll");
    refused(&["echo", "--threads", "0"], "from 1 to 256");
    refused(&["echo", "--threads", "many"], "write a whole number");
    refused(&["echo", "--backlog", "0"], "--backlog");
    refused(&["hold", "--keepalive", "1"], "write it as \"10s\"");
    refused(&["hold", "--keepalive", "10h"], "9h at most");
    refused(&["hold", "--notice", "maybe"], "never");
    refused(&["echo", "-q", "-v"], "cannot be used with");
    let both = "'--verbose' cannot be used with '--quiet': leave one of them out";
    refused(&["echo", "-v", "-q"], both);
    refused(
        &["echo", "-v", "-v"],
        "'--verbose' is there twice: say it once",
    );
    refused(
        &["echo", "--verbose=yes"],
        "takes no value: leave '=yes' out",
    );
    refused(&["echo", "--notice"], "is an option of 'hold'");
    refused(&["hold", "--notice"], "name one of leave, never");
    refused(
        &["holt"],
        "there is no command 'holt'; did you mean 'hold'?",
    );
    refused(&["serve"], "name one of hold, echo, load, compare");
    refused(&["load"], "<MODE> is missing: name one of connect, hold");
    refused(&["compare"], "<A> and <B> are missing");
    refused(&["doctor", "now"], "'now'; --help says");
    refused(
        &["bench", "--quick", "million"],
        "'--quick' is not for 'million'",
    );
    // Too long for a name, so there is no lookup.
    let nameless = format!("{}:1", "a".repeat(70));
    refused(&["hold", &nameless], "correct the name");
    refused(&["load", "hold", "--connect-timeout", "0s"], "1ms at least");
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
    // An address from the range for documentation; no machine has it.
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
fn an_impossible_path_gets_a_hint() {
    if !is_native() || !cfg!(unix) {
        return;
    }
    let missing = format!("unix:{}/nowhere/socket", env!("CARGO_TARGET_TMPDIR"));
    refused(&["hold", &missing], "make its directory first");
    refused(&["load", "hold", &missing], "start its server first");
    let no_socket = format!("unix:{}", env!("CARGO_TARGET_TMPDIR"));
    refused(
        &["hold", &no_socket],
        "that is no socket, choose another path",
    );
    let no_file = format!("{}/nowhere/file", env!("CARGO_TARGET_TMPDIR"));
    let hdr = ["load", "hold", "127.0.0.1:9", "--hdr"];
    refused(
        &[&hdr[..], &[&no_file]].concat(),
        "make its directory first",
    );
    let directory = env!("CARGO_TARGET_TMPDIR");
    refused(&[&hdr[..], &[directory]].concat(), "name a file in it");
    refused(&["compare", &no_file, &no_file], "name a file with what");
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

/// Values that the program uses internally are not offered.
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

/// A minus starts no option here: no user means `-1` as one.
#[test]
fn a_negative_number_gets_what_the_option_takes() {
    for (line, option, cure) in [
        ("echo --max-connections -1", "--max-connections", "from 1"),
        ("echo --max-connections=-1", "--max-connections", "from 1"),
        ("load hold --rate -2.5", "--rate", "such as \"1000\""),
        ("load hold --for -1s", "--for", "\"500ms\""),
        ("load hold --touch -1%", "--touch", "1% or 0.1%"),
        ("load hold --leave-memory -.5GiB", "--leave-memory", "2GiB"),
        ("bench --rounds -3", "--rounds", "from 1 to 1000"),
        ("doctor --goal -5 --no-measure", "--goal", "from 1"),
        ("load --compat-rust-echo-bench -c -5", "--number", "from 1"),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        refused(&words, cure);
        refused(&words, &format!("for '{option} <"));
    }
    // An option that follows another stays an option, and is not its value.
    refused(&["hold", "--max-connections", "-q"], "a value is required");
    refused(&["hold", "-5"], "unexpected argument '-5'");
}

/// The same with environment variables.
fn refused_with(variables: &[(&str, &OsStr)], arguments: &[&str], expected: &str) {
    let mut program = program();
    program.args(arguments).envs(variables.iter().copied());
    let output = program.output().expect("the program starts");
    refuses(&output, &format!("{variables:?} {arguments:?}"), expected);
}

#[test]
fn a_wrong_variable_is_named_and_not_its_option() {
    let cases: [(&str, &str, &[&str], &str); 14] = [
        ("DRIVER", "select", &["echo"], "name one of auto, iocp"),
        ("THREADS", "0", &["echo"], "write a whole number from 1"),
        ("ADDRESS", "127.0.0.1:x", &["echo"], "\"x\" is no port"),
        ("MAX_CONNECTIONS", "few", &["hold"], "write a whole number"),
        ("BACKLOG", "-1", &["echo"], "write a whole number"),
        ("FORMAT", "xml", &["hold"], "name one of text, json"),
        ("NOTICE", "Never", &["hold"], "name one of leave, never"),
        ("VERBOSE", "perhaps", &["echo"], "write true, yes, on or 1"),
        (
            "CONNECTIONS",
            "abc",
            &["load", "hold"],
            "write a whole number",
        ),
        (
            "RESET",
            "maybe",
            &["load", "hold"],
            "write true, yes, on or 1",
        ),
        ("FOR", "1", &["load", "hold"], "write it as"),
        ("ROUNDS", "", &["bench"], "write a whole number"),
        ("QUIET", "2", &["bench", "million"], "write true, yes"),
        ("GOAL", "1e6", &["doctor"], "write a whole number"),
    ];
    for (name, value, arguments, cure) in cases {
        let variable = format!("WHARF_{name}");
        let variables = [(&variable[..], OsStr::new(value))];
        let expected = format!("wharf: {variable}={value}: {cure}");
        refused_with(&variables, arguments, &expected);
    }
    // Only a part of it is wrong.
    let two = [("WHARF_ADDRESS", OsStr::new("127.0.0.1:1,x"))];
    refused_with(&two, &["hold"], "'x' in WHARF_ADDRESS=127.0.0.1:1,x: write");
}

#[test]
fn what_is_wrong_on_the_command_line_is_not_blamed_on_a_variable() {
    let variables = [
        ("WHARF_CONNECTIONS", OsStr::new("abc")),
        ("WHARF_RATE", OsStr::new("5")),
    ];
    let connections = ["load", "hold", "--connections", "def"];
    refused_with(&variables, &connections, "'def' for '--connections <N>'");
    let rate = ["load", "hold", "--connections", "1", "--rate", "x"];
    refused_with(&variables, &rate, "'x' for '--rate <PER SECOND>'");
}

#[test]
fn a_variable_that_excludes_an_option_is_named() {
    let verbose = |value| [("WHARF_VERBOSE", OsStr::new(value))];
    refused_with(&verbose("1"), &["hold", "-q"], "; WHARF_VERBOSE=1 is set");
    // A variable that switches an option off excludes nothing.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let taken = taken.local_addr().expect("it is bound").to_string();
    refused_with(&verbose("no"), &["hold", "-q", &taken], "address in use");
    let compat = [("WHARF_COMPAT_RUST_ECHO_BENCH", OsStr::new("off"))];
    let far = ["load", "echo", "192.0.2.1:1"];
    // Wine binds any address, so each address seems to be local there.
    if is_native() {
        refused_with(&compat, &far, "is a public address");
    }
    refused_with(&compat, &["load"], "<MODE>");
}

#[cfg(unix)]
#[test]
fn what_is_not_utf_8_is_shown() {
    use std::os::unix::ffi::OsStrExt;

    use crate::program::needs_native;
    if !needs_native() {
        return;
    }
    let cafe = OsStr::from_bytes(b"caf\xe9");
    for (arguments, expected) in [
        (&["hold"][..], "'caf\u{fffd}' is not UTF-8"),
        (
            &["hold", "--congestion-control"],
            "'--congestion-control caf\u{fffd}' is not UTF-8",
        ),
        (&["man"], "'caf\u{fffd}' is not UTF-8"),
        // A path may be any bytes.
        (&["compare", "nothing"], "cannot read nothing"),
    ] {
        let output = program().args(arguments).arg(cafe).output();
        let output = output.expect("the program starts");
        refuses(&output, &format!("{arguments:?}"), expected);
    }
    let mut after_a_path = program();
    after_a_path.args(["load", "hold", "--hdr"]).arg(cafe);
    after_a_path.arg("--congestion-control").arg(cafe);
    let output = after_a_path.output().expect("the program starts");
    refuses(
        &output,
        "after a path",
        "'--congestion-control caf\u{fffd}'",
    );

    let variables = [("WHARF_HDR", cafe), ("WHARF_CONGESTION_CONTROL", cafe)];
    let expected = "wharf: WHARF_CONGESTION_CONTROL=caf\u{fffd} is not UTF-8";
    refused_with(&variables, &["load", "hold"], expected);
}

/// If a result is lost, no command reports success.
#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_written_is_said_once_and_fails() {
    use std::fs::File;

    use crate::program::needs_native;
    if !needs_native() {
        return;
    }
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = nobody.local_addr().expect("it is bound").to_string();
    let load = format!("load connect {address}");
    for line in ["--help", "man", "doctor --no-measure", &load] {
        for format in ["text", "json"] {
            let mut words: Vec<&str> = line.split(' ').collect();
            if words.len() > 1 {
                words.extend(["--format", format]);
            }
            let full = File::options().write(true).open("/dev/full");
            let output = program()
                .args(&words)
                .stdout(full.expect("Linux has it"))
                .output();
            let output = output.expect("the program starts");
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(code_of(output.status), Some(1), "{words:?}: {text}");
            assert!(text.starts_with("wharf: cannot write"), "{words:?}: {text}");
            assert_eq!(text.lines().count(), 1, "{words:?}: {text}");
        }
    }
    let hdr = [&load, " --hdr /dev/full"].concat();
    let output = run(&hdr.split(' ').collect::<Vec<_>>());
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code_of(output.status), Some(1), "{text}");
    assert!(text.contains("cannot write /dev/full"), "{text}");
}

#[test]
fn no_line_of_help_is_wider_than_80_columns() {
    for line in [
        "",
        "hold",
        "echo",
        "load",
        "compare",
        "bench",
        "bench million",
        "doctor",
        "man",
        "completions",
    ] {
        for help in ["-h", "--help"] {
            let mut program = program();
            program.args(line.split_whitespace()).arg(help);
            let output = program.env("COLUMNS", "200").output();
            let output = output.expect("the program starts");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("Usage: wharf"), "{line}: {text}");
            let wide = text.lines().find(|it| it.chars().count() > 80);
            assert_eq!(wide, None, "{line} {help}");
        }
    }
    let text = run(&["load", "--help"]).stdout;
    let text = String::from_utf8_lossy(&text);
    assert!(
        text.contains("wharf load [OPTIONS] <MODE> [ADDRESS]"),
        "{text}"
    );
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
