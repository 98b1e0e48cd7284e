//! `wharf doctor`: its report about this machine, and that it is true.

use serde_json::Value;

use crate::codes::Code;
use crate::program::{code_of, is_native, run};

fn doctor(arguments: &[&str]) -> (Value, Code) {
    let output = run(&[&["doctor", "--format", "json"], arguments].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    let value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{complaint}"));
    (value, code_of(output.status))
}

#[test]
fn it_reports_what_limits_this_machine() {
    let (told, code) = doctor(&[]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(
        (&told["event"], &told["version"]),
        (&"doctor".into(), &1.into())
    );
    let process = &told["capacities"]["server_process"];
    assert!(process["connections"].as_u64() > Some(0), "{told}");
    assert!(process["bound_by"].is_string(), "{told}");
    assert!(told["facts"]["memory"]["total_bytes"].as_u64() > Some(1 << 28));
    assert!(told["plan"].is_null());
    let drivers = told["facts"]["drivers"].as_array().expect("a list");
    assert!(
        drivers.iter().any(|driver| driver["works"] == true),
        "{told}"
    );
    if cfg!(target_os = "linux") && is_native() {
        let connection = &told["facts"]["connection"];
        assert!(connection["measured_with"].as_u64() > Some(0), "{told}");
        assert!(connection["kernel_bytes"].as_u64() > Some(1_500), "{told}");
    }
}

#[test]
fn a_goal_is_a_gate() {
    assert_eq!(doctor(&["--goal", "10", "--no-measure"]).1, Some(0));
    let (told, code) = doctor(&["--goal", "100000000", "--no-measure"]);
    assert_eq!(code, Some(3), "{told}");
    assert_eq!(told["plan"]["now"]["server_process"], false, "{told}");
    assert!(told["plan"]["lines"].is_array(), "{told}");
    assert_eq!(told["facts"]["connection"]["measured_with"], 0, "{told}");
}

#[test]
fn people_get_one_screen() {
    let output = run(&["doctor", "--goal", "1000000"]);
    let text = String::from_utf8_lossy(&output.stdout);
    for expected in ["open files", "memory", "driver", "1,000,000 as it is: "] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(text.lines().count() <= 40, "{text}");
    // A command to copy is not wrapped, and has its own line.
    let to_read = text.lines().filter(|line| {
        !line.starts_with("    ") || line.starts_with("    #") || line.starts_with(&" ".repeat(21))
    });
    for line in to_read {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

/// The limit that it reports is the one that a process reaches.
#[cfg(unix)]
#[test]
fn the_limit_it_names_is_where_a_load_divides() {
    if !is_native() {
        return; // Windows has no limit of descriptors to meet.
    }
    let limited = |rest: &str| {
        let program = env!("CARGO_BIN_EXE_wharf");
        let shell = format!("ulimit -n 700; exec {program} {rest}");
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &shell]).output().expect("a shell")
    };
    let output = limited("doctor --format json");
    let told: Value = serde_json::from_slice(&output.stdout).expect("an object");
    let process = &told["capacities"]["server_process"];
    assert_eq!(process["bound_by"], "open_files", "{told}");
    let most = process["connections"].as_u64().expect("a number");
    let at_most = |connections: u64| {
        let rest = format!("load hold 127.0.0.1:9 --connections {connections} --for 1ms");
        let rest = format!("{rest} --format json");
        let alone = limited(&format!("{rest} --processes 1")).status.code();
        let output = limited(&rest).stdout;
        let told: Value = serde_json::from_slice(&output).expect("an object");
        (told["processes"].as_u64(), alone)
    };
    let nothing_connected = Some(1);
    assert_eq!(at_most(most), (Some(1), nothing_connected), "{most} fit");
    let refused = Some(2);
    assert_eq!(at_most(most + 1), (Some(2), refused), "{most} are the most");
}
