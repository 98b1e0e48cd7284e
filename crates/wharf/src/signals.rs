//! Signals: the first shuts a server down gracefully, the second ends it at once.
//!
//! A signal posts a packet to each port, which wakes threads that wait without a timeout. (The
//! series polled for Ctrl-C every 500 ms.) The program listens for signals before it listens on the
//! first address: once a client can connect, a signal ends the program with its account.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use wharf_port::{Key, Port};

use crate::sys::Signal;
use crate::{sys, threads};

/// The key of packets that the program posts to its own threads. No connection and no listener has
/// it.
pub(crate) const CONTROL: Key = Key(1);

/// The value of the packet that ends a thread.
pub(crate) const STOP: u64 = 0;

/// The exit code after Ctrl-C: 128 plus the number of SIGINT.
const ENDED_BY_SIGNAL: i32 = 130;

/// Signals within this time of the first count as the same one: `timeout` signals the program and
/// its process group. A user does not press Ctrl-C twice that fast.
const SAME_WITHIN: Duration = Duration::from_millis(250);

/// How long a signal that ended other processes may take to be seen here, by a thread that must be
/// scheduled first. Only a parent that has lost a child waits for it.
const COMES_WITHIN: Duration = Duration::from_secs(2);

/// How often a wait for a signal checks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The signals that end the program. A thread listens for them.
///
/// That thread takes no lock and writes nothing, so the second signal ends the program whatever
/// other threads wait for. Another thread does what the first signal requires.
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
    /// It must stop.
    due: bool,
    /// How to stop it; `None` while the program prepares it.
    stop: Option<Box<dyn Fn() + Send>>,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut work = formatter.debug_struct("Work");
        work.field("due", &self.due).finish_non_exhaustive()
    }
}

impl Signals {
    /// Listens from now on. A signal that comes before the work is kept for it. If no work comes,
    /// the signal ends the program.
    pub(crate) fn listen() -> Result<Self, String> {
        Signals::with_end(|| std::process::exit(ENDED_BY_SIGNAL))
    }

    /// The same in a child process. A signal to both processes means one shutdown. At a second
    /// signal the parent ends both, and does not report that a child died.
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
            // The receiver lives as long as this thread.
            let _ = first.send(());
        })?;
        Ok(signals)
    }

    /// Whether a signal has come, or comes in a moment: its effect on other processes may be
    /// visible before.
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

    /// If `asked`, the end of standard input counts as a first signal. After a signal it does not
    /// count: the process that started this one may also close the pipe.
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

    /// Signals end the work on these ports.
    pub(crate) fn end_work_on(&self, ports: &[Port]) {
        let ports = ports.to_vec();
        self.end_work_with(move || stop(&ports));
    }

    /// Signals call `stop` to end the work.
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
    /// Stops the work, or lets it stop when it begins; returns whether there is work, or it comes
    /// in time.
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

/// Calls `handler` for each signal that requests an end; once for a signal that comes twice.
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

/// Posts the stop packet to each thread.
pub(crate) fn stop(ports: &[Port]) {
    for port in ports {
        // A closed port has stopped already.
        let _ = port.post(CONTROL, STOP);
    }
}
