//! `wharf bench`: a short run on every driver, its end by a signal, and that nothing stays behind.

use std::process::{Command, Output};

use serde_json::Value;

use crate::codes::Code;
use crate::direct::{DIRECT, has_direct};
use crate::program::{code_of, needs_native, program, run};
use crate::running::drivers;
use crate::shortage::with_descriptors;

/// As short as possible. The figures themselves depend on the machine.
const SHORT: [&str; 6] = [
    "--duration",
    "50ms",
    "--rounds",
    "1",
    "--connections",
    "300",
];

fn bench(arguments: &[&str]) -> (Value, Code) {
    let output = run(&[&["bench", "--format", "json"], arguments].concat());
    let complaint = String::from_utf8_lossy(&output.stderr);
    let value = serde_json::from_slice(&output.stdout);
    let value = value.unwrap_or_else(|error| panic!("{error}: {complaint}"));
    (value, code_of(output.status))
}

/// The figure is a number, and its spread is around it.
fn is_figure(value: &Value, what: &str) {
    let of = |name: &str| {
        value[name]
            .as_f64()
            .unwrap_or_else(|| panic!("{what}: {value}"))
    };
    assert!(of("low") > 0.0, "{what}: {value}");
    assert!(
        of("low") <= of("median") && of("median") <= of("high"),
        "{what}: {value}"
    );
}

#[test]
fn everything_is_measured_on_every_driver() {
    let drivers = drivers();
    let (told, code) = bench(&SHORT);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(
        (&told["event"], &told["version"]),
        (&"bench".into(), &1.into())
    );
    assert_eq!(told["faults"].as_array().map(Vec::len), Some(0), "{told}");
    assert_eq!(told["interrupted"], false, "{told}");
    let measured = told["drivers"].as_array().expect("a list");
    let names: Vec<&str> = measured
        .iter()
        .filter_map(|it| it["driver"].as_str())
        .collect();
    assert_eq!(names.len(), drivers.len(), "{names:?}");
    for on in measured {
        let echo = on["echo"].as_array().expect("a list");
        let connections: Vec<u64> = echo
            .iter()
            .filter_map(|it| it["connections"].as_u64())
            .collect();
        assert_eq!(connections, [1, 64, 1_000], "{on}");
        for part in echo.iter().chain([&on["bulk"], &on["accept"], &on["hold"]]) {
            assert_eq!(part["runs"], 1, "{part}");
            // Windows counts processor time in ticks of 15.6 ms: a short run may see none.
            let ticks = on["driver"] == "iocp" && part["server_us"]["low"] == 0.0;
            if !ticks {
                is_figure(&part["server_us"], "server_us");
            }
            is_figure(&part["per_second"], "per_second");
            is_figure(&part["latency_us"]["p99_9"], "p99_9");
        }
        for part in ["accept", "hold"] {
            let over_time = on[part]["over_time"].as_array().expect("a list");
            assert!(!over_time.is_empty(), "{on}");
        }
        let each = &on["hold"]["bytes_per_connection"];
        is_figure(&each["wharf"], "wharf");
        // A chunk of the table has 1,024 sockets, of at most 64 bytes, on Windows 160.
        let most = if on["driver"] == "iocp" { 700.0 } else { 300.0 };
        assert!(each["wharf"]["median"].as_f64() < Some(most), "{each}");
        if let Some(kernel) = each["kernel_both_ends"]["median"].as_f64() {
            assert!((3_000.0..40_000.0).contains(&kernel), "{each}");
        }
    }
}

#[test]
fn both_ends_have_a_processor_to_themselves_where_there_are_two() {
    if !needs_native() {
        return;
    }
    let driver = &drivers()[0];
    let (told, _) = bench(&[&SHORT[..], &["--driver", driver]].concat());
    let (server, load) = (
        told["settings"]["server_processor"].as_u64(),
        told["settings"]["load_processor"].as_u64(),
    );
    let two = std::thread::available_parallelism().is_ok_and(|count| count.get() > 1);
    if cfg!(target_os = "linux") && two {
        assert!(
            server.is_some() && load.is_some() && server != load,
            "{told}"
        );
    } else {
        assert_eq!((server, load), (None, None), "{told}");
    }
    assert_eq!(told["drivers"].as_array().map(Vec::len), Some(1), "{told}");
}

#[test]
fn people_get_one_page() {
    let driver = &drivers()[0];
    // Longer than the others: with 50 ms a busy machine saw no second moment, and so no bar.
    let longer = ["bench", "--driver", driver, "--duration", "700ms"];
    let output = run(&[&longer[..], &SHORT[2..]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    for expected in [
        "server CPU us",
        "echo 64 B, 1,000 connections",
        "MiB/s each way",
        "accept and hold 300",
        "a bar is",
        "of Wharf's own",
        "the ledgers of both ends agree",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(text.lines().count() <= 24, "{text}");
    fits(&text, 4);
}

/// Only the lines of prose, at the beginning and at the end, are wider than a terminal.
fn fits(text: &str, head: usize) {
    let table = text.lines().skip(head).collect::<Vec<&str>>();
    let (_verdict, table) = table.split_last().expect("a page");
    for line in table {
        assert!(line.chars().count() <= 80, "{line}: {text}");
    }
}

#[test]
fn what_cannot_be_measured_is_said_in_one_line() {
    // The program may be built for another system than the tests.
    let foreign = if drivers().contains(&"iocp".to_owned()) {
        "poll"
    } else {
        "iocp"
    };
    for (arguments, expected) in [
        (&["--duration", "1ms"][..], "from 50ms to 10m"),
        (&["--driver", foreign], "does not exist on this system"),
        (&["--driver", "select"], "all, auto, iocp, uring, poll"),
        (&["--rounds", "0"], "--rounds"),
        (&["million", "--leave-memory", "lots"], "such as 2GiB"),
    ] {
        let output = run(&[&["bench"], arguments].concat());
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(code_of(output.status), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(expected), "{arguments:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

/// The last line of a million, which need not hold a million.
fn million(output: &Output) -> (Value, Code) {
    let complaint = String::from_utf8_lossy(&output.stderr);
    let told = serde_json::from_slice(&output.stdout);
    let told: Value = told.unwrap_or_else(|error| panic!("{error}: {complaint}"));
    assert_eq!(told["event"], "bench_million", "{told}");
    assert_eq!(told["faults"].as_array().map(Vec::len), Some(0), "{told}");
    (told, code_of(output.status))
}

#[test]
#[cfg_attr(
    windows,
    ignore = "Windows has no limit of descriptors, which makes it several"
)]
fn a_million_in_several_processes_is_held_touched_and_ended() {
    if !needs_native() {
        return;
    }
    for driver in drivers() {
        // With this limit of open files each end needs three processes, where a server can have
        // several.
        let several = cfg!(target_os = "linux");
        let count = if several { 1_500 } else { 600 };
        let rest =
            format!("bench million --connections {count} --touch 10% --format json --driver");
        let program = env!("CARGO_BIN_EXE_wharf");
        let shell = format!("ulimit -n 700; exec {program} {rest} {driver}");
        let output = Command::new("sh").args(["-c", &shell]).output();
        let (told, code) = million(&output.expect("there is a shell"));
        assert_eq!(code, Some(0), "{told}");
        assert_eq!(
            (&told["held"], &told["bounded_by"]),
            (&count.into(), &"wanted".into())
        );
        let touched = told["touch"]["connections"].as_u64().expect("a number");
        assert!((20..300).contains(&touched), "{told}");
        assert_eq!(told["touch"]["echoed"], touched, "{told}");
        assert_eq!(told["server"]["accepted"], count, "{told}");
        assert_eq!(told["server"]["balances"], true, "{told}");
        assert!(told["open"]["seconds"].as_f64() > Some(0.0), "{told}");
        assert!(told["close"]["seconds"].is_number(), "{told}");
        if several {
            assert_eq!(
                (&told["server_processes"], &told["load_processes"]),
                (&3.into(), &3.into())
            );
        }
    }
}

#[test]
fn a_million_in_one_process_has_a_ring_for_each_table() {
    if !has_direct() {
        return;
    }
    // 700 open files mean 700 entries in each of five tables, at both ends.
    let size = [
        "--connections",
        "3000",
        "--touch",
        "10%",
        "--format",
        "json",
    ];
    let arguments = [&["bench", "million"][..], &size, &DIRECT].concat();
    let (told, code) = million(&with_descriptors(700, &arguments).output().expect("it runs"));
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(
        (&told["descriptors"], &told["driver"], &told["load_driver"]),
        (&"direct".into(), &"uring".into(), &"uring".into())
    );
    for (of_server, of_load, count) in [
        ("server_processes", "load_processes", 1),
        ("server_rings", "load_rings", 5),
    ] {
        assert_eq!(told[of_server], count, "{told}");
        assert_eq!(told[of_load], count, "{told}");
    }
    assert_eq!(
        (&told["held"], &told["bounded_by"]),
        (&3_000.into(), &"wanted".into())
    );
    let touched = told["touch"]["connections"].as_u64().expect("a number");
    assert!((150..450).contains(&touched), "{told}");
    assert_eq!(told["touch"]["echoed"], touched, "{told}");
    assert_eq!(told["server"]["accepted"], 3_000, "{told}");
    assert_eq!(told["server"]["balances"], true, "{told}");
    assert!(told["close"]["seconds"].is_number(), "{told}");
    let arguments = [&["bench", "million", "--connections", "1500"][..], &DIRECT].concat();
    let output = with_descriptors(700, &arguments).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    for expected in [
        "echo on uring in one process with 3 rings, load on uring in one process with 3 rings, with \
         direct descriptors",
        "all 1,500 were held",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn a_million_with_direct_descriptors_is_refused_where_there_are_none() {
    let foreign = if cfg!(windows) { "iocp" } else { "poll" };
    let mut refused = vec![(vec!["--driver", foreign], "only the driver uring")];
    if has_direct() {
        // 256 tables of that size are not enough.
        refused.push((vec!["--connections", "4000000"], "ulimit"));
    }
    for (more, word) in refused {
        let arguments = [&["bench", "million"][..], &DIRECT, &more].concat();
        let output = with_descriptors(700, &arguments).output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(code_of(output.status), Some(2), "{more:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn a_million_leaves_the_requested_memory() {
    let few = ["bench", "million", "--connections", "400"];
    let output = run(&[&few[..], &["--leave-memory", "1000TiB"]].concat());
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code_of(output.status), Some(2), "{text}");
    assert!(text.contains("--leave-memory"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    let output = run(&few);
    let text = String::from_utf8_lossy(&output.stdout);
    for expected in [
        "held      400 of 400",
        "touched",
        "closed",
        "all 400 were held",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    fits(&text, 1);
    // Variables for bench itself apply here too.
    let output = program()
        .args(&few[..2])
        .env("WHARF_CONNECTIONS", "50")
        .output();
    let output = output.expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("all 50 were held"), "{text}");
}

#[cfg(target_os = "linux")]
mod linux {
    //! Its ends, found through `/proc`.

    use std::fs;
    use std::time::{Duration, Instant};

    use rustix::process::{Pid, Signal, kill_process};
    use serde_json::Value;

    use std::process::{Child, Stdio};

    use super::million;
    use crate::program::code_of;
    use crate::program::{needs_native, program};

    /// A bench that would run for long.
    fn long() -> Child {
        let mut command = program();
        command.args(["bench", "--format", "json", "--duration", "5m"]);
        command.stdout(Stdio::piped()).spawn().expect("it starts")
    }

    /// The processes that it has started; both ends.
    fn ends_of(id: u32) -> Vec<u32> {
        let give_up_at = Instant::now() + Duration::from_secs(180);
        loop {
            let tasks = fs::read_dir(format!("/proc/{id}/task")).expect("it runs");
            let children = tasks
                .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
            let children: String = children.collect::<Vec<_>>().join(" ");
            let ids: Vec<u32> = children
                .split_whitespace()
                .filter_map(|id| id.parse().ok())
                .collect();
            if ids.len() == 2 {
                return ids;
            }
            assert!(
                Instant::now() < give_up_at,
                "it starts no two ends: {ids:?}"
            );
            std::thread::yield_now();
        }
    }

    fn wait_until_gone(ids: &[u32]) {
        let give_up_at = Instant::now() + Duration::from_secs(180);
        let runs = |id: &u32| {
            let state = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            // A process that is not waited for has ended all the same.
            !state.is_empty() && !state.contains(") Z ")
        };
        while ids.iter().any(runs) {
            assert!(Instant::now() < give_up_at, "{ids:?} still run");
            std::thread::yield_now();
        }
    }

    #[test]
    fn ctrl_c_ends_it_with_the_page() {
        if !needs_native() {
            return;
        }
        let bench = long();
        let ends = ends_of(bench.id());
        let id = Pid::from_child(&bench);
        kill_process(id, Signal::INT).expect("it runs");
        let output = bench.wait_with_output().expect("it ends");
        let told: Value = serde_json::from_slice(&output.stdout).expect("an object");
        assert_eq!(code_of(output.status), Some(130), "{told}");
        assert_eq!(told["interrupted"], true, "{told}");
        assert_eq!(told["faults"].as_array().map(Vec::len), Some(0), "{told}");
        wait_until_gone(&ends);
    }

    #[test]
    fn ctrl_c_ends_a_million_with_what_was_open() {
        if !needs_native() {
            return;
        }
        let slowly = [
            "bench",
            "million",
            "--connections",
            "100000",
            "--rate",
            "100",
        ];
        let mut command = program();
        command.args(slowly).args(["--format", "json"]);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let child = child.expect("it starts");
        let ends = ends_of(child.id());
        kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
        let (told, code) = million(&child.wait_with_output().expect("it ends"));
        assert_eq!(code, Some(130), "{told}");
        assert_eq!(told["interrupted"], true, "{told}");
        assert_eq!(told["bounded_by"], "interrupted", "{told}");
        wait_until_gone(&ends);
    }

    /// No process stops them, but their input closes with it.
    #[test]
    fn its_ends_do_not_outlive_it() {
        if !needs_native() {
            return;
        }
        let mut bench = long();
        let ends = ends_of(bench.id());
        bench.kill().expect("it runs");
        bench.wait().expect("it was killed");
        wait_until_gone(&ends);
    }
}
