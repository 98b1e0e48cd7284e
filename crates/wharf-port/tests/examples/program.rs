//! An example as a running program: its lines one by one, a signal, its end.
//!
//! Every wait has a generous deadline, because it only ends a hang: Wine takes seconds to start a
//! program. Separate threads read lines, so a program that waits for a reader of its errors cannot
//! stop its test.

use std::env;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::codes::{Code, code_of};

const PATIENCE: Duration = Duration::from_secs(180);

/// A directory with other builds of the examples, after the command that runs them: `wine64
/// /path/to/examples`.
const ELSEWHERE: &str = "WHARF_TEST_EXAMPLES";

/// Whether a signal shuts a program down gracefully here. On Windows only Ctrl-C at its own console
/// does; there a test closes the program instead.
pub(crate) const SIGNALS: bool = cfg!(unix);

#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

/// The result of a program that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `None` if a signal ended it or the test closed it.
    pub(crate) code: Code,
    /// The lines that the test had not read.
    pub(crate) lines: Vec<String>,
    pub(crate) errors: String,
}

/// Whether the examples under test are those that cargo built next to this binary.
pub(crate) fn are_native() -> bool {
    env::var_os(ELSEWHERE).is_none()
}

/// The words that start the example `name`.
pub(crate) fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = match env::var(ELSEWHERE) {
        Ok(words) => words.split_whitespace().map(str::to_owned).collect(),
        Err(_) => vec![next_to_this_binary().display().to_string()],
    };
    let directory = PathBuf::from(words.pop().expect("a directory is named"));
    let file = [format!("{name}.exe"), name.to_owned()]
        .map(|file| directory.join(file))
        .into_iter()
        .find(|file| file.exists());
    let file = file.unwrap_or_else(|| {
        panic!(
            "no {name} in {}: cargo build --examples",
            directory.display()
        );
    });
    if are_native() {
        assert_fresh(&file, name);
    }
    words.push(file.display().to_string());
    words
}

/// Refuses to test a stale program: cargo builds examples only for a plain `cargo test`.
fn assert_fresh(file: &Path, name: &str) {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = [
        package.join("src"),
        package.join("examples").join(format!("{name}.rs")),
    ];
    let changed = sources.iter().map(|source| last_change(source)).max();
    assert!(
        changed <= Some(last_change(file)),
        "{} is older than its sources: cargo build --examples",
        file.display()
    );
}

/// When a file, or the newest file of a directory, was changed.
fn last_change(path: &Path) -> SystemTime {
    let about = path.metadata().expect("the sources are there");
    if !about.is_dir() {
        return about.modified().expect("every system has this time");
    }
    let inner = path.read_dir().expect("a directory can be read");
    let inner = inner.map(|entry| last_change(&entry.expect("it stays there").path()));
    inner.max().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// `target/debug/examples`, seen from `target/debug/deps`.
fn next_to_this_binary() -> PathBuf {
    let binary = env::current_exe().expect("this binary has a path");
    let profile = binary.parent().and_then(Path::parent);
    profile
        .expect("cargo puts tests into deps")
        .join("examples")
}

impl Program {
    pub(crate) fn start(name: &str, arguments: &[&str]) -> Self {
        let words = words(name);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(arguments);
        Self::spawn(name, command)
    }

    pub(crate) fn spawn(name: &str, mut command: Command) -> Self {
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Program {
            name: name.to_owned(),
            lines: lines_of(child.stdout.take().expect("piped")),
            errors: lines_of(child.stderr.take().expect("piped")),
            child,
        }
    }

    /// Starts an example on a free port of the loopback interface; returns its address too.
    pub(crate) fn serve(name: &str, arguments: &[&str]) -> (Self, SocketAddr) {
        let mut words = vec!["127.0.0.1:0"];
        words.extend(arguments);
        let mut program = Self::start(name, &words);
        let address = program.address();
        (program, address)
    }

    /// Reads the line that says where the program listens.
    pub(crate) fn address(&mut self) -> SocketAddr {
        let line = self.line();
        let address = line.strip_prefix("LISTENING ON ");
        let address = address.unwrap_or_else(|| panic!("{}: {line}", self.name));
        address.parse().expect("an address follows")
    }

    /// The next line of its output.
    pub(crate) fn line(&mut self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("{}: no line in {PATIENCE:?}", self.name),
            Err(RecvTimeoutError::Disconnected) => {
                let errors: Vec<String> = self.errors.iter().collect();
                panic!("{} ended: {}", self.name, errors.join("\n"))
            }
        }
    }

    pub(crate) fn expect(&mut self, line: &str) {
        assert_eq!(self.line(), line, "{}", self.name);
    }

    /// The next line, already printed or not; `None` when the output is over.
    #[cfg(target_os = "linux")]
    pub(crate) fn line_or_end(&mut self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("{}: no line in {PATIENCE:?}", self.name),
        }
    }

    /// Sends Ctrl-C where signals exist; elsewhere the program is closed, and prints nothing more.
    pub(crate) fn interrupt(&mut self) {
        #[cfg(unix)]
        {
            let pid = i32::try_from(self.child.id()).expect("a process number fits");
            let pid = rustix::process::Pid::from_raw(pid).expect("it is not 0");
            rustix::process::kill_process(pid, rustix::process::Signal::INT)
                .expect("the program is still there");
        }
        #[cfg(not(unix))]
        self.child.kill().expect("the program is still there");
    }

    /// Interrupts a server and checks its last words.
    pub(crate) fn interrupt_and_end(mut self) {
        self.interrupt();
        let ended = self.end();
        if SIGNALS {
            assert_eq!(ended.code, Some(0), "{}", ended.errors);
            assert_eq!(ended.lines, ["*** Keyboard interrupt."]);
        }
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        // Its output ends with it, so no polling is needed.
        let lines = rest_of(&self.lines, deadline);
        let errors = rest_of(&self.errors, deadline).join("\n");
        let status = self.child.wait().expect("a child can be waited for");
        let code = code_of(status, are_native());
        Ended {
            code,
            lines,
            errors,
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A failed test leaves no server behind; one that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(output: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            let Ok(line) = line else { break };
            // The test may be over before the program is.
            if sender.send(line.trim_end().to_owned()).is_err() {
                break;
            }
        }
    });
    receiver
}

fn rest_of(lines: &Receiver<String>, deadline: Instant) -> Vec<String> {
    let mut rest = Vec::new();
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => rest.push(line),
            Err(RecvTimeoutError::Disconnected) => return rest,
            Err(RecvTimeoutError::Timeout) => panic!("the program does not end: {rest:?}"),
        }
    }
}
