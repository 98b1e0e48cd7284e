//! The server: threads, each waiting on its own port, and the shutdown.
//!
//! Each thread has a single-waiter port (thread-per-core). On Linux every thread has its own
//! listener, and the system distributes the connections. If addresses cannot be shared, the first
//! thread accepts and distributes them round-robin (`dealer`): an accepted socket may go to any
//! port. A posted packet ends a thread.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use wharf_port::{
    Accepted, Address, Error, ErrorKind, Event, Key, Listener, Operation, Packet, PauseReason,
    Port, Refused, Stream, Unassociated, Wait, Waiter,
};

use crate::account::{Account, Ledger, Left, PartAccount};
use crate::machine::congestion;
use crate::processes::Part;
use crate::processes::descriptors::Descriptors;
use crate::server::options::ServingOptions;
use crate::server::report::Output;
use crate::signals::{self, Signals};
use crate::text::output;
use crate::threads::{self, Gate};
use admin::{Admin, Answering};
use dealer::{Comer, Dealer, Dealt};
use listening::{Opened, SocketFiles, listener_number};
use service::{Bytes, Kind, Service};
use visitors::{Met, Visitors};

mod admin;
mod dealer;
mod listening;
pub(crate) mod options;
pub(crate) mod report;
pub(crate) mod service;
mod split;
mod visitors;

/// After a stop request the server keeps draining its queue, so that peers which had already left
/// are counted as such: for at most 200 ms, but always at least `LAST_OF_EACH` packets per
/// connection plus `LAST_BESIDES`. A server that was not scheduled for 200 ms once reported such
/// peers as closed by itself.
const LAST_AT_MOST: Duration = Duration::from_millis(200);
const LAST_OF_EACH: u64 = 2;
const LAST_BESIDES: u64 = 4_096;

/// The key of the first connection, as in the series; the next connection has the next key.
const CONNECTION_FIRST: u64 = 100;

/// What all threads of a server share.
#[derive(Debug)]
struct Server {
    kind: Kind,
    output: Output,
    ledger: Ledger,
    /// The number of connections that have a key.
    keyed: AtomicU64,
    part: Part,
    ports: Vec<Port>,
    /// The addresses of the listeners, in their order.
    addresses: Vec<Address>,
    files: SocketFiles,
    /// Which thread serves a connection, if the first one accepts for all.
    dealer: Option<Dealer<Comer>>,
    connections_max: Option<u32>,
    /// All threads accept from the same listeners. A full thread leaves connections to the others.
    together: bool,
    /// Reports each connection (`-v`).
    visitors: Option<Visitors>,
    /// The reasons for which accepting has paused so far. Each is printed once.
    paused_for: Mutex<Vec<PauseReason>>,
}

/// Runs a service until it is stopped; returns the exit code.
pub(crate) fn run(kind: Kind, options: &ServingOptions) -> ExitCode {
    if options.division.part {
        return split::follow(kind, options);
    }
    serve(kind, options).unwrap_or_else(|text| {
        output::complaint(&text);
        ExitCode::from(2)
    })
}

fn serve(kind: Kind, options: &ServingOptions) -> Result<ExitCode, String> {
    let plan = split::plan(options)?;
    let congestion_control = options.congestion_control.as_deref();
    congestion_control.map_or(Ok(()), congestion::check)?;
    if plan.processes > 1 {
        return split::lead(kind, options, plan);
    }
    let output = Output::new(options);
    let signals = Signals::listen()?;
    signals.come_at_end_of_input(options.until_eof)?;
    let admin = options.admin.as_ref().map(Admin::open).transpose()?;
    let part = Part::whole();
    let addresses = listening::addresses(options);
    let opened = listening::open(options, plan.threads_of(&part), &addresses)?;
    let (server, listeners) = Server::new(kind, options, part, opened)?;
    signals.end_work_on(&server.ports);
    let door = admin.as_ref().map(|admin| &admin.address);
    server.run_with(admin.as_ref(), listeners, || {
        let (ports, name) = (&server.ports, kind.name());
        for address in &server.addresses {
            let threads = ports.len() as u32;
            output.listening(name, address, ports[0].driver(), door, (1, threads));
        }
        Ok(())
    })?;
    server.refuse_waiting();
    output.account(&PartAccount::merged([server.ledger.account()], 1));
    server.ports.iter().for_each(Port::close);
    Ok(ExitCode::SUCCESS)
}

fn text(error: Error) -> String {
    error.to_string()
}

impl Server {
    /// A server with these ports, and the listeners of its threads.
    fn new(
        kind: Kind,
        options: &ServingOptions,
        part: Part,
        opened: Opened,
    ) -> Result<(Self, Vec<Vec<Listener>>), String> {
        let Opened {
            ports,
            listeners,
            dealer,
            files,
        } = opened;
        let addresses = listeners[0].iter().map(Listener::local_addr);
        let addresses: Vec<Address> = addresses.collect::<Result<_, _>>().map_err(text)?;
        let output = Output::new(options);
        let tells = output.is_verbose();
        let server = Server {
            kind,
            output,
            ledger: Ledger::new(&ports),
            keyed: AtomicU64::new(0),
            part,
            ports,
            files,
            dealer,
            connections_max: options.max_connections,
            together: options.division.descriptors == Descriptors::Direct,
            visitors: tells.then(|| Visitors::new(addresses.clone())),
            addresses,
            paused_for: Mutex::default(),
        };
        Ok((server, listeners))
    }

    /// Serves until it is stopped, and reports its account on `--admin` meanwhile.
    fn run_with(
        &self,
        admin: Option<&Admin>,
        listeners: Vec<Vec<Listener>>,
        announce: impl FnOnce() -> Result<(), String>,
    ) -> Result<(), String> {
        thread::scope(|scope| {
            let answering = admin.map(|admin| admin.start_in(scope, || self.standing()));
            let answering = answering.transpose()?;
            let served = self.run_threads(listeners, announce);
            served.and(answering.map_or(Ok(()), Answering::end))
        })
    }

    /// The current account of a server in one process.
    fn standing(&self) -> Account {
        PartAccount::merged([self.ledger.standing()], 1)
    }

    /// Runs one thread for each port, until all are stopped. Announces the server once all threads
    /// are ready: after that nothing can fail to start.
    fn run_threads(
        &self,
        listeners: Vec<Vec<Listener>>,
        announce: impl FnOnce() -> Result<(), String>,
    ) -> Result<(), String> {
        let gate = &Gate::default();
        thread::scope(|scope| {
            let mut threads = Vec::new();
            // Start one thread after the other. If memory is short, the thread that allocates more
            // then reports it. In parallel, an allocation of another thread could fail and abort
            // the process.
            let mut start = |(thread, listeners)| {
                let (ready, is_ready) = mpsc::channel();
                let work = move || self.work(thread, listeners, &ready, gate);
                threads.push(threads::start_in(scope, "server", work)?);
                let panicked = |_| Err("a thread of the server panicked".into());
                is_ready.recv().unwrap_or_else(panicked)
            };
            let mut all = listeners.into_iter().enumerate();
            let begun: Result<(), String> = all.try_for_each(&mut start);
            let begun = begun.and_then(|()| announce());
            gate.decide(begun.is_ok());
            let ends = threads.into_iter().map(|thread| {
                let panicked = |_| Err("a thread of the server panicked".into());
                thread.join().unwrap_or_else(panicked)
            });
            begun.and(ends.collect::<Result<Vec<()>, String>>().map(drop))
        })
    }

    /// One thread: waits for packets until it is stopped. If it fails, the others stop too.
    fn work(
        &self,
        thread: usize,
        listeners: Vec<Listener>,
        ready: &Sender<Result<(), String>>,
        gate: &Gate,
    ) -> Result<(), String> {
        let (told, waiter) = match self.ports[thread].waiter() {
            Ok(waiter) => (Ok(()), Some(waiter)),
            Err(error) => (Err(text(error)), None),
        };
        // The other side waits for it.
        let _ = ready.send(told);
        let Some(waiter) = waiter.filter(|_| gate.pass()) else {
            self.files.remove();
            return Ok(());
        };
        let result = self.wait_and_serve(waiter, thread, &listeners);
        if result.is_err() {
            signals::stop(&self.ports);
        }
        // No client finds the path of a server that no longer accepts.
        self.files.remove();
        // The system refuses connections in the backlog from now on.
        drop(listeners);
        result
    }

    fn wait_and_serve(
        &self,
        mut waiter: Waiter,
        thread: usize,
        listeners: &[Listener],
    ) -> Result<(), String> {
        let mut service = self.kind.start(self.visitors.is_some());
        for listener in listeners {
            listener.socket().accept().map_err(text)?;
        }
        let (mut give_up_at, mut last) = (None, 0);
        loop {
            let patience = give_up_at.map(|_| Duration::ZERO);
            let Wait::Packets(packets) = waiter.wait(patience).map_err(text)? else {
                return Ok(());
            };
            for packet in packets {
                last = u64::saturating_sub(last, 1);
                match packet.op.operation() {
                    // Count what happened before the stop: drain the queue. A peer that saw the
                    // last FIN and stopped the server at once was once not counted as having left.
                    Operation::Post => {
                        last = LAST_OF_EACH * self.ledger.held() + LAST_BESIDES;
                        give_up_at.get_or_insert_with(|| Instant::now() + LAST_AT_MOST);
                    }
                    Operation::Accept => self.handle_accept(thread, packet.key, packet.event)?,
                    _ => self.serve_connection(&mut service, thread, packet),
                }
            }
            if last == 0 && give_up_at.is_some_and(|at| Instant::now() >= at) {
                return Ok(());
            }
        }
    }

    fn handle_accept(&self, thread: usize, listener: Key, event: Event) -> Result<(), String> {
        match event {
            Event::Accepted(accepted) => self.place(thread, (listener, accepted)),
            // The port has no place for one more that waits.
            Event::Paused { reason, .. }
                if reason == PauseReason::SocketsMax && self.counts_for_all() => {}
            Event::Paused { reason, .. } => self.say_paused(reason),
            Event::Ended { how, .. } => {
                return Err(format!("a listener ended, {how:?}: start the server again"));
            }
            _ => {}
        }
        Ok(())
    }

    fn say_paused(&self, reason: PauseReason) {
        self.ledger.paused();
        let most = self.connections_max.map_or(0, u64::from);
        if self.together && reason == PauseReason::SocketsMax && self.ledger.held() < most {
            return;
        }
        let mut said = self
            .paused_for
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if said.contains(&reason) {
            return;
        }
        said.push(reason);
        let why = match (reason, self.connections_max) {
            (PauseReason::SocketsMax, Some(connections_max)) => match self.part.name() {
                None => format!("--max-connections {connections_max} is reached"),
                Some(_) => format!("its share of --max-connections {connections_max} is reached"),
            },
            _ => reason.to_string(),
        };
        let who = self.part.name().map_or(String::new(), |name| name + ": ");
        output::complaint(&format!(
            "{who}{why}; held connections stay, others wait until one leaves"
        ));
    }

    /// Whether one count of all threads decides when the maximum is reached.
    fn counts_for_all(&self) -> bool {
        self.dealer.as_ref().is_some_and(Dealer::counts)
    }

    /// Finds the thread that serves a connection; `thread` has accepted it.
    fn place(&self, thread: usize, comer: Comer) {
        let Some(dealer) = &self.dealer else {
            self.welcome(thread, comer);
            return;
        };
        match dealer.deal(comer) {
            Dealt::To(thread, comer) => {
                if !self.welcome(thread, comer) {
                    self.leaves_place(thread);
                }
            }
            Dealt::Waits { first: true } => self.say_paused(PauseReason::SocketsMax),
            Dealt::Waits { first: false } => {}
        }
    }

    /// A connection of this thread is gone. One that waits for a place is served now.
    fn leaves_place(&self, thread: usize) {
        let Some(dealer) = &self.dealer else {
            return;
        };
        while let Some(comer) = dealer.left(thread) {
            if self.welcome(thread, comer) {
                return;
            }
        }
    }

    /// The server ends. Counts the connections that waited for a place in vain, and closes them.
    fn refuse_waiting(&self) {
        let waiting = self.dealer.as_ref().map(Dealer::take_waiting);
        for _ in waiting.into_iter().flatten() {
            self.ledger.refused(ErrorKind::Full);
        }
    }

    /// Begins to serve a connection. Returns whether it is held.
    fn welcome(&self, thread: usize, (listener, accepted): Comer) -> bool {
        // No two processes have a key in common.
        let turn = self.keyed.fetch_add(1, Ordering::Relaxed);
        let (process, processes) = (self.part.process, self.part.processes);
        let key = CONNECTION_FIRST + turn * u64::from(processes) + u64::from(process);
        let visitors = self.visitors.as_ref();
        let met = visitors.map(|_| Met::new(&accepted, listener_number(listener)));
        let stream = match self.associate(thread, accepted, Key(key)) {
            Ok(stream) => stream,
            Err(refused) => {
                self.ledger.refused(refused.error.kind());
                return false;
            }
        };
        self.ledger.accepted();
        if let (Some(visitors), Some(met)) = (visitors, met) {
            self.output.visit(&visitors.comes(key, &met));
        }
        let begun = self.kind.welcome(stream);
        if begun.is_err() {
            self.ledger.left(Left::Error);
            self.tell_left(key, Left::Error, Bytes::default());
        }
        begun.is_ok()
    }

    /// Gives a connection to the port of this thread. Without a maximum, another thread may take it
    /// if that port cannot.
    fn associate(
        &self,
        thread: usize,
        accepted: Accepted,
        key: Key,
    ) -> Result<Stream, Refused<Unassociated>> {
        let mut refused = self.ports[thread].associate(accepted, key);
        if self.dealer.is_none() || self.counts_for_all() {
            return refused;
        }
        for other in self.ports.iter().rev() {
            match refused {
                Err(again) => refused = other.associate(again.value, key),
                Ok(stream) => return Ok(stream),
            }
        }
        refused
    }

    fn serve_connection(&self, service: &mut Service, thread: usize, packet: Packet) {
        let (key, socket) = (packet.key.0, packet.socket);
        if let Some(left) = service.handle(packet, &self.ledger) {
            self.tell_left(key, left, service.take_bytes(socket));
            self.leaves_place(thread);
        }
    }

    fn tell_left(&self, key: u64, how: Left, bytes: Bytes) {
        let visitors = self.visitors.as_ref();
        if let Some(visit) = visitors.and_then(|it| it.leaves(key, how, bytes)) {
            self.output.visit(&visit);
        }
    }
}
