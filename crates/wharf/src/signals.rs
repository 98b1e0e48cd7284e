//! What ends a server: the first signal in order, the second at once.
//!
//! A signal is a packet posted to each port, so that threads that wait without a limit wake up for
//! it. The series looked for Ctrl-C every 500 ms. Signals are listened for before the first
//! address is: whoever can connect can be sure that a signal ends the program with its account.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use wharf_port::{Key, Port};

use crate::sys::Signal;
use crate::{sys, threads};

/// The key of what the program tells its own threads; no connection and no listener has it.
pub(crate) const CONTROL: Key = Key(1);

/// The value of the packet that ends a thread.
pub(crate) const STOP: u64 = 0;

/// The exit code of a program that Ctrl-C has ended: 128 and the number of SIGINT.
const ENDED_BY_SIGNAL: i32 = 130;

/// Signals within this time of the first are the same one: `timeout` sends its own to the program and
/// to its group, and nobody presses Ctrl-C twice as fast to be rid of it.
const SAME_WITHIN: Duration = Duration::from_millis(250);

/// How long one that has ended others may take to be seen here, by a thread that has to be scheduled
/// first. Only one who has lost another process waits for it.
const COMES_WITHIN: Duration = Duration::from_secs(2);

/// How often somebody who waits for one looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The signals that end the program, listened for on a thread of their own.
///
/// That thread takes no lock and writes nothing, so the second signal ends the program whatever the
/// others wait for. What the first one asks for is done on another thread.
#[derive(Debug)]
pub(crate) struct Signals(Arc<Told>);

#[derive(Debug, Default)]
struct Told {
    stopping: AtomicBool,
    work: Mutex<Work>,
    /// Work has begun, which can be stopped.
    begun: Condvar,
}

#[derive(Default)]
struct Work {
    /// It is to be stopped.
    due: bool,
    /// What stops it; nothing while the program still prepares it.
    stop: Option<Box<dyn Fn() + Send>>,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut work = formatter.debug_struct("Work");
        work.field("due", &self.due).finish_non_exhaustive()
    }
}

impl Signals {
    /// Listens from now on. One that comes before there is work is kept for it; one for which no work
    /// comes ends the program, as nobody can know what that waits for.
    pub(crate) fn listen() -> Result<Self, String> {
        Signals::with_end(|| std::process::exit(ENDED_BY_SIGNAL))
    }

    /// The same in a process that was started by another one: whoever signals both means one end, and
    /// at a second one the other ends both, without a word about a process that died.
    pub(crate) fn listen_as_part() -> Result<Self, String> {
        Signals::with_end(|| ())
    }

    fn with_end(end: impl Fn() + Send + Clone + 'static) -> Result<Self, String> {
        let signals = Signals(Arc::default());
        let (first, firsts) = mpsc::channel();
        let told = Arc::clone(&signals.0);
        let end_at_once = end.clone();
        threads::start("stop", move || {
            if firsts.recv().is_ok() && !told.stop_work(Some(COMES_WITHIN)) {
                end_at_once();
            }
        })?;
        let told = Arc::clone(&signals.0);
        on_each(move |signal| {
            if told.stopping.swap(true, Ordering::Relaxed) {
                if signal == Signal::Interrupt {
                    end();
                }
                return;
            }
            // Whoever receives it lives as long as this thread does.
            let _ = first.send(());
        })?;
        Ok(signals)
    }

    /// Whether one has come, or comes in a moment: what it has done to others may be seen before.
    pub(crate) fn have_come(&self) -> bool {
        let give_up_at = Instant::now() + COMES_WITHIN;
        loop {
            let stopping = self.0.stopping.load(Ordering::Relaxed);
            if stopping || Instant::now() >= give_up_at {
                return stopping;
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Takes the end of standard input for a first signal, where asked to. After a signal it is none:
    /// whoever started this program and stopped it may close the pipe as well.
    pub(crate) fn come_at_end_of_input(&self, asked: bool) -> Result<(), String> {
        if !asked {
            return Ok(());
        }
        let told = Arc::clone(&self.0);
        let read = move || {
            let mut away = [0; 4096];
            let mut input = std::io::stdin().lock();
            while input.read(&mut away).is_ok_and(|count| count > 0) {}
            if !told.stopping.swap(true, Ordering::Relaxed) {
                told.stop_work(None);
            }
        };
        threads::start("input", read).map(drop)
    }

    /// Has signals end the work on these ports.
    pub(crate) fn end_work_on(&self, ports: &[Port]) {
        let ports = ports.to_vec();
        self.end_work_with(move || stop(&ports));
    }

    /// Has signals end the work in this way.
    pub(crate) fn end_work_with(&self, stop: impl Fn() + Send + 'static) {
        let mut work = self.0.lock();
        if work.due {
            stop();
        }
        work.stop = Some(Box::new(stop));
        drop(work);
        self.0.begun.notify_all();
    }
}

impl Told {
    /// Stops the work, or has it stop when it begins; whether there is some, or some comes in time.
    fn stop_work(&self, comes_within: Option<Duration>) -> bool {
        let mut work = self.lock();
        work.due = true;
        if let Some(stop) = &work.stop {
            stop();
            return true;
        }
        let Some(comes_within) = comes_within else {
            return true;
        };
        let waiting = |work: &mut Work| work.stop.is_none();
        let waited = self.begun.wait_timeout_while(work, comes_within, waiting);
        let (work, _) = waited.unwrap_or_else(PoisonError::into_inner);
        work.stop.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls `handler` for each signal that asks the program to end, once for one that comes twice.
pub(crate) fn on_each(handler: impl Fn(Signal) + Send + 'static) -> Result<(), String> {
    let mut first_at = None;
    let handler = move |signal| {
        let now = Instant::now();
        let first_at = first_at.get_or_insert(now);
        if *first_at == now || now.duration_since(*first_at) >= SAME_WITHIN {
            handler(signal);
        }
    };
    let failed = |error| format!("cannot listen for Ctrl-C: {error}");
    sys::on_stop_signal(handler).map_err(failed)
}

/// Tells each thread to stop.
pub(crate) fn stop(ports: &[Port]) {
    for port in ports {
        // A closed port has stopped already.
        let _ = port.post(CONTROL, STOP);
    }
}
