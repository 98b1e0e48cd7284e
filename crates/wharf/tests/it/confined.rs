//! What the system refuses, and what a control group limits: reported in one line, before a server
//! announces its address.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::program::{code_of, needs_native};
use crate::running::{Server, drivers};

/// A control group for one test, below one that has the limit.
struct Group {
    outer: PathBuf,
    inner: PathBuf,
}

impl Group {
    /// `None` if this process may not make one; the test says so and skips.
    fn new(controller: &str, name: &str, (one, two): (&str, &str), limit: &str) -> Option<Self> {
        let made = Group::made_below(&format!("/sys/fs/cgroup/{controller}"), name, one, limit);
        let made = made.or_else(|| Group::made_below("/sys/fs/cgroup", name, two, limit));
        if made.is_none() {
            println!("skipped: no control group with {controller} can be made here");
        }
        made
    }

    fn made_below(root: &str, name: &str, file: &str, limit: &str) -> Option<Self> {
        let name = format!("wharf-test-{}-{name}", std::process::id());
        let outer = PathBuf::from(root).join(name);
        let inner = outer.join("inner");
        fs::create_dir(&outer).ok()?;
        let group = Group { outer, inner };
        fs::create_dir(&group.inner).ok()?;
        fs::write(group.outer.join(file), limit).ok()?;
        Some(group)
    }

    /// The program in the group; a shell joins it first.
    fn command(&self, line: &str) -> Command {
        let procs = self.inner.join("cgroup.procs");
        let program = env!("CARGO_BIN_EXE_wharf");
        shell(&format!(
            "echo $$ > {} && exec {program} {line}",
            procs.display()
        ))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel removes a group a moment after its last process ends.
        while fs::remove_dir(&self.inner)
            .is_err_and(|error| error.kind() == std::io::ErrorKind::ResourceBusy)
        {
            std::thread::yield_now();
        }
        let _ = fs::remove_dir(&self.outer);
    }
}

fn shell(line: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line]).stdin(Stdio::null());
    command
}

fn output(mut command: Command) -> Output {
    command.output().expect("a shell")
}

/// Exits with 2 and one line, without an announced address.
fn refused(output: &Output, what: &str, expected: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(code_of(output.status), Some(2), "{what}: {told}{text}");
    assert!(text.contains(expected), "{what}: {text}");
    assert_eq!(text.lines().count(), 1, "{what}: {text}");
    assert!(text.starts_with("wharf: "), "{what}: {text}");
    assert!(told.is_empty(), "{what}: {told}");
}

const MEMORY: (&str, &str) = ("memory.limit_in_bytes", "memory.max");
const TASKS: (&str, &str) = ("pids.max", "pids.max");
const LIMIT_BYTES: u64 = 256 << 20;

#[test]
fn the_memory_of_a_group_above_this_one_is_what_there_is() {
    if !needs_native() {
        return;
    }
    let limit = LIMIT_BYTES.to_string();
    let Some(group) = Group::new("memory", "memory", MEMORY, &limit) else {
        return;
    };
    let output = output(group.command("doctor --no-measure --format json"));
    let told: Value = serde_json::from_slice(&output.stdout).expect("an object");
    let memory = &told["facts"]["memory"];
    assert_eq!(memory["total_bytes"], LIMIT_BYTES, "{memory}");
    assert_eq!(memory["limited_by_container"], true, "{memory}");
    assert!(memory["available_bytes"].as_u64() <= Some(LIMIT_BYTES));
    assert_eq!(told["facts"]["cgroup"]["memory_max_bytes"], LIMIT_BYTES);
}

#[test]
fn a_load_leaves_the_memory_of_its_group() {
    if !needs_native() {
        return;
    }
    let limit = LIMIT_BYTES.to_string();
    let Some(group) = Group::new("memory", "leave", MEMORY, &limit) else {
        return;
    };
    let (_server, address) = Server::somewhere("hold", "");
    let load = format!(
        "load hold {address} --connections 50 --for 100ms --leave-memory 255MiB --format json"
    );
    let output = output(group.command(&load));
    let told: Value = serde_json::from_slice(&output.stdout).expect("an object");
    assert_eq!(told["held_back"], 50, "{told}");
}

/// For root too, to whom the limit of a user does not apply.
#[test]
fn threads_that_a_group_refuses_are_reported_before_the_address() {
    if !needs_native() {
        return;
    }
    let (_server, address) = Server::somewhere("hold", "");
    for driver in drivers() {
        for line in [
            "hold 127.0.0.1:0".to_owned(),
            "echo 127.0.0.1:0".to_owned(),
            // Each thread stays as long as its connections.
            format!("load hold {address} --connections 64 --for 3s"),
        ] {
            let Some(group) = Group::new("pids", "threads", TASKS, "12") else {
                return;
            };
            let line = format!("{line} --threads 32 --format json --driver {driver}");
            let output = output(group.command(&line));
            refused(&output, &line, "cannot start a thread");
        }
    }
}

#[test]
fn the_thread_of_the_door_is_refused_like_the_others() {
    if !needs_native() {
        return;
    }
    // The main thread, the writers, the two of signals, and the server's: one too few.
    for most in 1..=7 {
        let name = format!("door-{most}");
        let Some(group) = Group::new("pids", &name, TASKS, &most.to_string()) else {
            return;
        };
        let line = "hold 127.0.0.1:0 --admin 127.0.0.1:0 --until-eof --format json";
        let output = output(group.command(line));
        if code_of(output.status) == Some(0) {
            assert!(most > 5, "with {most} tasks it cannot have begun");
        } else {
            refused(&output, line, "cannot start a thread");
        }
    }
}

#[test]
fn processes_whose_threads_are_refused_report_it_in_one_line() {
    if !needs_native() || !crate::processes::can_share() {
        return;
    }
    for most in [12, 20, 40] {
        let name = format!("several-{most}");
        let Some(group) = Group::new("pids", &name, TASKS, &most.to_string()) else {
            return;
        };
        let line = "hold 127.0.0.1:0 --processes 3 --threads 32 --format json";
        let output = output(group.command(line));
        refused(&output, line, "cannot start");
    }
}

/// A limit of memory refuses the stack of a thread. At a few of many limits Rust's runtime itself
/// has no memory for data that belongs to a stack: it aborts the process, or hangs while it reports
/// so, and is killed here. But at no limit does the program announce an address.
#[test]
fn threads_without_memory_are_reported_before_the_address() {
    if !needs_native() || !cfg!(target_os = "linux") {
        return;
    }
    let program = env!("CARGO_BIN_EXE_wharf");
    let limits: Vec<u32> = (40_000..100_000).step_by(6_007).collect();
    for driver in drivers() {
        let line = format!("hold 127.0.0.1:0 --threads 64 --driver {driver}");
        let mut told = 0;
        for kilobytes in &limits {
            let limited = format!("ulimit -v {kilobytes}; exec timeout -s KILL 10");
            let line = format!("{limited} {program} {line}");
            let mut command = shell(&line);
            command.env_remove("RUST_BACKTRACE");
            let output = output(command);
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success(), "{line}: {text}");
            assert!(output.stdout.is_empty(), "{line}: {text}");
            assert!(!text.contains("panicked at crates"), "{line}: {text}");
            told += usize::from(output.status.code() == Some(2) && text.lines().count() == 1);
        }
        assert!(told > limits.len() / 2, "{driver}: {told} of {limits:?}");
    }
}

/// An empty mount over `/proc`, for one program.
fn without_proc(line: &str) -> Option<Output> {
    let program = env!("CARGO_BIN_EXE_wharf");
    let hidden = "mount -t tmpfs none /proc && echo hidden >&2";
    let line = format!("{hidden} && exec {program} {line}");
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", &line])
        .stdin(Stdio::null());
    let mut output = command.output().ok()?;
    let Some(rest) = output.stderr.strip_prefix(b"hidden\n") else {
        println!("skipped: no /proc can be hidden here");
        return None;
    };
    output.stderr = rest.to_vec();
    Some(output)
}

#[test]
fn without_proc_the_doctor_reports_what_it_can() {
    if !needs_native() || !cfg!(target_os = "linux") {
        return;
    }
    let Some(output) = without_proc("doctor --format json") else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code_of(output.status), Some(0), "{text}");
    let told: Value = serde_json::from_slice(&output.stdout).expect("an object");
    let facts = &told["facts"];
    assert!(
        facts["memory"]["total_bytes"].as_u64() > Some(1 << 20),
        "{facts}"
    );
    assert!(facts["source_ports"].is_null(), "{facts}");
    let (_server, address) = Server::somewhere("hold", "");
    let load = format!("load hold {address} --connections 5 --for 50ms --leave-memory 1MiB");
    let output = without_proc(&load).expect("as before");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code_of(output.status), Some(0), "{text}");
    let line = "hold 127.0.0.1:0 --until-eof --admin 127.0.0.1:0 -v";
    let output = without_proc(line).expect("as before");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code_of(output.status), Some(0), "{text}");
}
