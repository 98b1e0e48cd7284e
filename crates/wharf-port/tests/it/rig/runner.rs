//! Runs one case: under a watchdog, and in its own process if it needs one.
//!
//! A case that hangs fails with the packets it saw and the state of its port, which a reader would
//! examine first. Its thread is left behind; in its own process it ends with it.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};

use crate::rig::case::{Case, Where};
use crate::rig::system::{self, patience};
use crate::rig::{OBSERVED, Observed, lock};

/// Set for the process of one case: the name of its test.
pub(crate) const ALONE: &str = "WHARF_TEST_ALONE";

thread_local! {
    /// The text of a panic on the thread of a case.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
    static IS_CASE: RefCell<bool> = const { RefCell::new(false) };
}

/// Keeps the text of a failed case for its report, instead of mixing it with others.
pub(crate) fn keep_panics() {
    let ordinary = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if IS_CASE.with_borrow(|is_case| *is_case) {
            let place = info.location().map(ToString::to_string);
            let words = words_of(info.payload());
            SAID.set(Some(format!("{}: {words}", place.unwrap_or_default())));
        } else {
            ordinary(info);
        }
    }));
}

fn words_of(payload: &(dyn Any + Send)) -> &str {
    let words = payload.downcast_ref::<&str>().copied();
    let words = words.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    words.unwrap_or("it panicked without words")
}

/// The test of a case on a driver in a mode.
pub(crate) fn trial(case: &'static Case, at: Where) -> Trial {
    let name = name_of(case, &at);
    match (case.skip)(&at) {
        Some(reason) => {
            let refused = Failed::from(format!("skipped here: {reason}"));
            Trial::test(name, move || Err(refused))
                .with_kind(format!("skipped: {reason}"))
                .with_ignored_flag(true)
        }
        None if case.alone => Trial::test(name.clone(), move || run_in_child(&name, case)),
        None => Trial::test(name, move || run_in_thread(case, at)),
    }
}

pub(crate) fn name_of(case: &Case, at: &Where) -> String {
    format!("{at}/{}", case.name)
}

fn run_in_thread(case: &'static Case, at: Where) -> Result<(), Failed> {
    let observed = Arc::new(Observed::default());
    let of_case = Arc::clone(&observed);
    let (tell, told) = channel();
    let run = move || {
        let result = run_here(case, &at, of_case);
        let failed = result.is_err();
        // The receiver is gone if the watchdog was first.
        let _ = tell.send(result);
        if failed {
            // The end of this thread would end the waiters that the case has left on it.
            loop {
                thread::park();
            }
        }
    };
    let thread = thread::Builder::new().name(case.name.into()).spawn(run);
    let thread = thread.map_err(|error| format!("no thread for the case: {error}"))?;
    match told.recv_timeout(patience(case.seconds_max)) {
        Ok(result) => {
            if result.is_ok() {
                // It has reported everything; only the thread's own end is left.
                let _ = thread.join();
            }
            result.map_err(Failed::from)
        }
        Err(RecvTimeoutError::Timeout) => Err(hung(case, &observed).into()),
        Err(RecvTimeoutError::Disconnected) => Err("the case ended without a word".into()),
    }
}

/// Runs a case on this thread and returns its error text.
fn run_here(case: &Case, at: &Where, observed: Arc<Observed>) -> Result<(), String> {
    OBSERVED.set(observed);
    caught(|| (case.run)(at))
}

/// Runs a part of a case on this thread, and returns its error text.
pub(crate) fn caught<T>(part: impl FnOnce() -> T) -> Result<T, String> {
    IS_CASE.set(true);
    catch_unwind(AssertUnwindSafe(part)).map_err(|payload| {
        let said = SAID.take();
        said.unwrap_or_else(|| words_of(&*payload).to_owned())
    })
}

fn hung(case: &Case, observed: &Arc<Observed>) -> String {
    let log = match observed.log.try_lock() {
        Ok(log) => log.join("\n    "),
        Err(_) => "(in use)".into(),
    };
    let limit = patience(case.seconds_max);
    let state = state_of(observed);
    let threads = system::threads().join("\n    ");
    format!(
        "still at it after {limit:?}\n  packets so far:\n    {log}\n  {state}\n  threads:\n    {threads}"
    )
}

/// The port's state, read on another thread: the port itself may hang.
fn state_of(observed: &Arc<Observed>) -> String {
    let (tell, told) = channel();
    let observed = Arc::clone(observed);
    thread::spawn(move || {
        let state = match &*lock(&observed.port) {
            Some(port) => format!("{:?}", port.stats()),
            None => "the case has no port now".into(),
        };
        let _ = tell.send(state);
    });
    let state = told.recv_timeout(Duration::from_secs(1));
    state.unwrap_or_else(|_| "the port does not tell its state either".into())
}

/// Runs this binary again for one case.
fn run_in_child(name: &str, case: &Case) -> Result<(), Failed> {
    let program = std::env::current_exe()?;
    let mut child = Command::new(program)
        .env(ALONE, name)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // Its own watchdog comes first, unless even that hangs.
    let deadline = Instant::now() + patience(case.seconds_max + 5);
    let gone = loop {
        if child.try_wait()?.is_some() {
            break true;
        }
        if Instant::now() > deadline {
            break false;
        }
        thread::sleep(Duration::from_millis(5));
    };
    finish(child, gone)
}

fn finish(mut child: Child, gone: bool) -> Result<(), Failed> {
    if !gone {
        child.kill()?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let (out, err) = (output.stdout, output.stderr);
    let (out, err) = (String::from_utf8_lossy(&out), String::from_utf8_lossy(&err));
    Err(format!("in a process of its own, {}:\n{out}{err}", output.status).into())
}

/// The whole of the process that `run_in_child` starts: the case on its first thread.
pub(crate) fn run_alone(case: &'static Case, at: &Where) -> ! {
    let observed = Arc::new(Observed::default());
    let watched = Arc::clone(&observed);
    thread::spawn(move || {
        thread::sleep(patience(case.seconds_max));
        println!("{}", hung(case, &watched));
        std::process::exit(3);
    });
    match run_here(case, at, observed) {
        Ok(()) => std::process::exit(0),
        Err(said) => {
            println!("{said}");
            std::process::exit(1);
        }
    }
}
