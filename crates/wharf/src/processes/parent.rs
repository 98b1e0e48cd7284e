//! The parent's side: its children, the latest report of each, and its status.
//!
//! A thread for each child reads its reports. To read the current state, the parent sends an order
//! to all and waits until each child that lives has replied. So the replies belong to one moment.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::{Order, Part, Told};
use crate::processes::division::PART;
use crate::text::output;
use crate::{sys, threads};

/// How long a child may take to start.
const STARTS_WITHIN: Duration = Duration::from_secs(60);
/// How long a child may take to reply. A process that is not scheduled for seconds still lives.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// The child processes. They end with this process, however it ends.
#[derive(Debug)]
pub(crate) struct Parent<S> {
    processes: u32,
    children: Vec<Arc<Mutex<Child>>>,
    /// Threads that print the error output of children that have no console.
    complaints: Vec<JoinHandle<()>>,
    shared: Arc<Shared<S>>,
}

#[derive(Debug)]
struct Shared<S> {
    /// One reader at a time, so that no reply is taken for a later one.
    asking: Mutex<()>,
    members: Mutex<Vec<State<S>>>,
    changed: Condvar,
    /// They have the order to stop.
    stopping: AtomicBool,
}

/// What the parent knows of one child.
#[derive(Debug)]
struct State<S> {
    orders: Option<ChildStdin>,
    ready: Option<Vec<String>>,
    /// Replies that it owes, and the latest one.
    owed: u32,
    latest: Option<S>,
    /// The child waits for the order to leave.
    holds: bool,
    status: Status,
}

/// The status of a child.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Status {
    Lives,
    /// It has reported its final state.
    Over,
    /// It could not begin, or not go on, and reported why.
    Failed(String),
    /// It is gone without a report.
    Died,
}

/// A child, as `ask` reports it.
#[derive(Clone, Debug)]
pub(crate) struct Member<S> {
    pub(crate) latest: Option<S>,
    pub(crate) status: Status,
}

impl<S: DeserializeOwned + Clone + Send + 'static> Parent<S> {
    /// For this number of processes, none of them started yet.
    pub(crate) fn new(processes: u32) -> Self {
        Parent {
            processes,
            children: Vec::new(),
            complaints: Vec::new(),
            shared: Arc::new(Shared {
                asking: Mutex::default(),
                members: Mutex::new(Vec::new()),
                changed: Condvar::new(),
                stopping: AtomicBool::new(false),
            }),
        }
    }

    /// Starts the next child: this program, with the same command line.
    pub(crate) fn start(&mut self, addresses: Vec<String>) -> Result<(), String> {
        let part = Part {
            addresses,
            ..Part::new(self.children.len() as u32, self.processes)
        };
        let name = part.name().unwrap_or_default();
        let failed = |error: std::io::Error| format!("cannot start {name}: {error}");
        let text = serde_json::to_string(&part).map_err(|error| error.to_string())?;
        let mut child = command().and_then(|mut it| it.spawn()).map_err(failed)?;
        let mut orders = child.stdin.take().expect("piped");
        let lines = child.stdout.take().expect("piped");
        let complaints = child.stderr.take();
        let child = Arc::new(Mutex::new(child));
        self.children.push(Arc::clone(&child));
        if let Some(complaints) = complaints {
            let pass_on = move || pass_on(complaints);
            self.complaints.push(threads::start("complaints", pass_on)?);
        }
        // A long list of addresses does not fit into a pipe, so this write may wait for the child,
        // and it does not hold the lock. A child that is gone reads nothing; its closed output
        // shows that.
        let _ = orders.write_all(format!("{text}\n").as_bytes());
        let mut members = self.lock();
        members.push(State {
            orders: Some(orders),
            ready: None,
            owed: 0,
            latest: None,
            holds: false,
            status: Status::Lives,
        });
        drop(members);
        let shared = Arc::clone(&self.shared);
        threads::start("processes", move || shared.listen(&part, &child, lines)).map(drop)
    }

    /// Waits until a child is ready; returns its report.
    pub(crate) fn wait_until_ready(&self, process: u32) -> Result<Vec<String>, String> {
        let give_up_at = Instant::now() + STARTS_WITHIN;
        let mut members = self.lock();
        loop {
            if self.shared.stopping.load(Ordering::Relaxed) {
                return Err("it was stopped before it began".into());
            }
            let member = &members[process as usize];
            let number = process + 1;
            match (&member.ready, &member.status) {
                (Some(addresses), _) => return Ok(addresses.clone()),
                (_, Status::Failed(text)) => return Err(text.clone()),
                (_, Status::Died | Status::Over) => {
                    return Err(format!("process {number} ended before it could begin"));
                }
                (_, Status::Lives) if Instant::now() >= give_up_at => {
                    return Err(format!("process {number} did not start in time"));
                }
                (_, Status::Lives) => members = self.wait(members, give_up_at),
            }
        }
    }

    pub(crate) fn begin(&self) {
        self.shared.order_all(Order::Begin);
    }

    /// A function that stops all children, those too that have not begun.
    pub(crate) fn stopper(&self) -> impl Fn() + Send + 'static {
        let shared = Arc::clone(&self.shared);
        move || {
            shared.stopping.store(true, Ordering::Relaxed);
            shared.order_all(Order::Stop);
            shared.changed.notify_all();
        }
    }

    /// Whether a signal may be the reason that they did not begin: they were stopped, or a child is
    /// gone without a report. The signal that killed it may be about to reach this process too.
    pub(crate) fn may_have_been_stopped(&self) -> bool {
        let stopping = self.shared.stopping.load(Ordering::Relaxed);
        let died = |member: &State<S>| member.status == Status::Died;
        stopping || self.lock().iter().any(died)
    }

    /// Reads the state of all children, and waits for those that live.
    pub(crate) fn ask(&self) -> Vec<Member<S>> {
        let _next = lock(&self.shared.asking);
        let give_up_at = Instant::now() + ANSWERS_WITHIN;
        let mut members = self.lock();
        for member in members.iter_mut() {
            // A child that still owes a reply gets no further order.
            if member.status == Status::Lives && member.owed == 0 {
                member.owed += 1;
                member.order(Order::Tell.word());
            }
        }
        let owes = |member: &State<S>| member.status == Status::Lives && member.owed > 0;
        while members.iter().any(owes) && Instant::now() < give_up_at {
            members = self.wait(members, give_up_at);
        }
        members.iter().map(State::as_member).collect()
    }

    /// The latest state of each child.
    pub(crate) fn members(&self) -> Vec<Member<S>> {
        self.lock().iter().map(State::as_member).collect()
    }

    /// Why a child could not begin or go on; the first error if there are several.
    pub(crate) fn failure(&self) -> Option<String> {
        self.lock().iter().find_map(|member| match &member.status {
            Status::Failed(text) => Some(text.clone()),
            Status::Lives | Status::Over | Status::Died => None,
        })
    }

    /// Whether all children that live wait for the order to leave.
    pub(crate) fn all_hold(&self) -> bool {
        all_hold(&self.lock())
    }

    /// Orders them to leave.
    pub(crate) fn leave(&self) {
        for member in self.lock().iter_mut() {
            member.holds = false;
        }
        self.shared.order_all(Order::Leave);
    }

    /// Waits until no child lives, or all that live wait to leave, or the time is up; returns
    /// whether none lives.
    pub(crate) fn wait_for_end(&self, at_most: Duration) -> bool {
        // A time too far to compute is waited for in pieces.
        let give_up_at = Instant::now() + at_most.min(STARTS_WITHIN);
        let mut members = self.lock();
        loop {
            let ended = members.iter().all(|member| member.status != Status::Lives);
            if ended || all_hold(&members) || Instant::now() >= give_up_at {
                return ended;
            }
            members = self.wait(members, give_up_at);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<State<S>>> {
        lock(&self.shared.members)
    }

    fn wait<'a>(
        &self,
        members: MutexGuard<'a, Vec<State<S>>>,
        until: Instant,
    ) -> MutexGuard<'a, Vec<State<S>>> {
        let at_most = until.saturating_duration_since(Instant::now());
        let waited = self.shared.changed.wait_timeout(members, at_most);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl<S> Drop for Parent<S> {
    fn drop(&mut self) {
        for member in lock(&self.shared.members).iter_mut() {
            // No child is waited for any more, and none is reported as dead.
            if member.status == Status::Lives {
                member.status = Status::Over;
            }
            member.orders = None;
        }
        for child in &self.children {
            let mut child = lock(child);
            // A child that has ended cannot be killed.
            let _ = child.kill();
            let _ = child.wait();
        }
        for complaints in self.complaints.drain(..) {
            // Print the children's error output before this process ends.
            let _ = complaints.join();
        }
    }
}

impl<S: Clone> State<S> {
    fn as_member(&self) -> Member<S> {
        Member {
            latest: self.latest.clone(),
            status: self.status.clone(),
        }
    }
}

impl<S> State<S> {
    fn order(&mut self, line: &str) {
        if let Some(orders) = &mut self.orders {
            // A child that is gone reads nothing; its closed output shows that.
            let _ = orders.write_all(format!("{line}\n").as_bytes());
        }
    }

    fn hear(&mut self, told: Told<S>) {
        match told {
            Told::Ready(addresses) => self.ready = Some(addresses),
            Told::Line(text) => output::news(&text),
            Told::Standing(standing) => {
                self.latest = Some(standing);
                self.owed = self.owed.saturating_sub(1);
            }
            Told::Holds => self.holds = true,
            Told::Over(standing) => {
                self.latest = Some(standing);
                self.status = Status::Over;
            }
            Told::Failed(text) => self.status = Status::Failed(text),
        }
    }
}

impl<S: DeserializeOwned> Shared<S> {
    /// Reads the reports of a child until its output closes, and records them.
    fn listen(&self, part: &Part, child: &Mutex<Child>, lines: ChildStdout) {
        let process = part.process as usize;
        for line in BufReader::new(lines).lines().map_while(Result::ok) {
            if let Ok(told) = serde_json::from_str(&line) {
                lock(&self.members)[process].hear(told);
                self.changed.notify_all();
            }
        }
        let mut members = lock(&self.members);
        let died = members[process].status == Status::Lives;
        if died {
            members[process].status = Status::Died;
        }
        drop(members);
        self.changed.notify_all();
        if died {
            let status = lock(child).wait();
            let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            let name = part.name().unwrap_or_default();
            output::complaint(&format!("{name} died ({how}), and its connections with it"));
        }
    }
}

impl<S> Shared<S> {
    fn order_all(&self, order: Order) {
        for member in lock(&self.members).iter_mut() {
            member.order(order.word());
        }
    }
}

/// Prints the error output of a child.
fn pass_on(complaints: ChildStderr) {
    let lines = BufReader::new(complaints).split(b'\n');
    for line in lines.map_while(Result::ok) {
        let text = String::from_utf8_lossy(&line);
        output::complaint_as_is(&format!("{}\n", text.trim_end()));
    }
}

fn all_hold<S>(members: &[State<S>]) -> bool {
    let mut living = members
        .iter()
        .filter(|it| it.status == Status::Lives)
        .peekable();
    living.peek().is_some() && living.all(|it| it.holds)
}

/// This program with its command line, as a child.
fn command() -> std::io::Result<Command> {
    let mut words = std::env::args_os().skip(1);
    let mut command = Command::new(sys::program()?);
    // The word comes after the name of the command, where no option before it can take it as its
    // value.
    command.args(words.next()).arg(PART).args(words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    // A child that is starting would die of the terminal's Ctrl-C; it learns of it from an order.
    // Until it has left the process group it still does, and the code that starts it checks for
    // that.
    sys::keep_from_terminal(&mut command);
    Ok(command)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parent(statuses: &[Status]) -> Parent<u32> {
        let parent = Parent::new(statuses.len() as u32);
        parent.lock().extend(statuses.iter().map(|status| State {
            orders: None,
            ready: None,
            owed: 0,
            latest: None,
            holds: false,
            status: status.clone(),
        }));
        parent
    }

    /// If a child reports an error, the parent need not wait to see whether a signal comes.
    #[test]
    fn only_a_process_that_died_may_have_been_stopped_by_a_signal() {
        let failed = || Status::Failed("address in use".to_owned());
        assert!(!parent(&[Status::Lives, failed()]).may_have_been_stopped());
        assert!(parent(&[Status::Lives, Status::Died]).may_have_been_stopped());
        let stopped = parent(&[Status::Lives]);
        (stopped.stopper())();
        assert!(stopped.may_have_been_stopped());
        let why = stopped.wait_until_ready(0).expect_err("it was stopped");
        assert!(why.contains("stopped before it began"), "{why}");
    }

    #[test]
    fn a_failure_is_reported_after_all_children_are_gone() {
        let failed = || Status::Failed("no memory".to_owned());
        let all = parent(&[Status::Over, failed(), failed()]);
        assert!(all.wait_for_end(Duration::ZERO));
        assert_eq!(all.failure().as_deref(), Some("no memory"));
        let some = parent(&[Status::Lives, failed()]);
        assert!(!some.wait_for_end(Duration::ZERO));
        assert_eq!(some.failure().as_deref(), Some("no memory"));
        assert_eq!(parent(&[Status::Over, Status::Died]).failure(), None);
    }
}
