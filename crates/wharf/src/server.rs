//! The server: ports, listeners, threads, and the end.
//!
//! Each thread has a single-waiter port. On Linux every thread listens for itself and the system
//! deals the connections out; where addresses cannot be shared the first thread accepts and deals
//! them out in turn, since an accepted socket may go to any port. The end is a posted packet.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use wharf_port::{
    Accepted, Address, Error, ErrorKind, Event, Key, ListenOptions, Listener, Operation, Port, Wait,
};

use crate::account::{Ledger, Left};
use crate::command::ServingOptions;
use crate::output::Output;
use crate::service::{Kind, Service, Step};

/// The key of a posted stop; listeners count up from 90 as far as below it and then from
/// `LISTENERS_MORE`, connections from 100: no two are ever alike.
const STOP: Key = Key(1);
const LISTENER_FIRST: u64 = 90;
const LISTENERS_FEW: u64 = 10;
const LISTENERS_MORE: u64 = 1 << 63;
const CONNECTION_FIRST: u64 = 100;

/// Warnings of one kind come at most this often.
const WARNING_EVERY: Duration = Duration::from_secs(1);

/// What all threads of a server share.
#[derive(Debug)]
struct Server {
    kind: Kind,
    output: Output,
    ledger: Ledger,
    next_key: AtomicU64,
    ports: Vec<Port>,
    /// The port that gets the next connection, where one thread deals them out.
    next_port: AtomicU64,
}

/// Runs a service until it is told to stop; answers the exit code.
pub(crate) fn run(kind: Kind, options: &ServingOptions) -> ExitCode {
    let output = Output::new(options);
    // Without the higher limit the server holds fewer, and says so when it is reached.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    match serve(kind, options, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            output.warning(&text);
            ExitCode::from(2)
        }
    }
}

fn serve(kind: Kind, options: &ServingOptions, output: Output) -> Result<(), String> {
    let addresses: Vec<Address> = options
        .addresses
        .iter()
        .flat_map(|place| place.addresses.clone())
        .collect();
    let ports = build_ports(options, addresses.len())?;
    let (listeners, deals) = listen(&ports, &addresses, options)?;
    for listener in &listeners[0] {
        let address = listener
            .local_address()
            .map_err(|error| error.to_string())?;
        output.listening(kind.name(), &address, ports[0].driver());
    }
    let server = Server {
        kind,
        output,
        ledger: Ledger::new(),
        next_key: AtomicU64::new(CONNECTION_FIRST),
        next_port: AtomicU64::new(0),
        ports,
    };
    let server = Arc::new(server);
    stop_on_signals(&server)?;
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (port, listeners) in server.ports.iter().zip(listeners) {
            let server = &server;
            threads.push(scope.spawn(move || server.work(port, &listeners, deals)));
        }
        let ended = threads.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err("a thread of the server panicked".into()))
        });
        ended.collect::<Result<Vec<()>, String>>()
    })?;
    output.account(&server.ledger.account());
    for port in &server.ports {
        port.close();
    }
    Ok(())
}

fn build_ports(options: &ServingOptions, listeners: usize) -> Result<Vec<Port>, String> {
    let threads = u32::from(options.threads);
    let build = |thread: u32| {
        let mut builder = Port::builder().driver(options.driver).single_waiter();
        if let Some(connections_max) = options.max_connections {
            // Each thread has its share; the first ones have what is left over.
            let share = connections_max / threads + u32::from(thread < connections_max % threads);
            builder = builder.sockets_max(share + u32::try_from(listeners).unwrap_or(u32::MAX));
        }
        builder.build().map_err(|error: Error| error.to_string())
    };
    (0..threads).map(build).collect()
}

/// Opens the listeners of each thread; answers also whether the first thread deals connections
/// out because the addresses cannot be shared.
fn listen(
    ports: &[Port],
    addresses: &[Address],
    options: &ServingOptions,
) -> Result<(Vec<Vec<Listener>>, bool), String> {
    let internet = addresses.iter().all(|address| address.internet().is_some());
    let shares = ports.len() > 1 && internet;
    let mut opened = listen_on(ports, addresses, options, shares);
    let mut deals = ports.len() > 1 && !internet;
    if matches!(&opened, Err((ErrorKind::Unsupported, _))) && shares {
        opened = listen_on(ports, addresses, options, false);
        deals = true;
    }
    let mut listeners = opened.map_err(|(_, text)| text)?;
    listeners.resize_with(ports.len(), Vec::new);
    Ok((listeners, deals))
}

fn listen_on(
    ports: &[Port],
    addresses: &[Address],
    options: &ServingOptions,
    share: bool,
) -> Result<Vec<Vec<Listener>>, (ErrorKind, String)> {
    let mut all: Vec<Vec<Listener>> = Vec::new();
    let ports = if share { ports } else { &ports[..1] };
    for port in ports {
        let mut listeners = Vec::new();
        for (number, address) in addresses.iter().enumerate() {
            // The first thread may have been given port 0, and the others share what it got.
            let address = match all.first().map(|first| first[number].local_address()) {
                Some(Ok(chosen)) => chosen,
                _ => address.clone(),
            };
            let at = ListenOptions::new(address.clone())
                .backlog(options.backlog)
                .share_port(share);
            let listener = port.listen(at, listener_key(number as u64));
            listeners
                .push(listener.map_err(|error| (error.kind(), format!("{address}: {error}")))?);
        }
        all.push(listeners);
    }
    Ok(all)
}

fn listener_key(number: u64) -> Key {
    if number < LISTENERS_FEW {
        Key(LISTENER_FIRST + number)
    } else {
        Key(LISTENERS_MORE + number)
    }
}

/// The first signal stops the server, the second ends the program at once.
fn stop_on_signals(server: &Arc<Server>) -> Result<(), String> {
    let ports: Vec<Port> = server.ports.clone();
    let mut stopping = false;
    ctrlc::set_handler(move || {
        if std::mem::replace(&mut stopping, true) {
            std::process::exit(130);
        }
        for port in &ports {
            // A port that is full of posts has a stop among them; a closed one has stopped.
            let _ = port.post(STOP, 0);
        }
    })
    .map_err(|error| format!("cannot listen for Ctrl-C: {error}"))
}

impl Server {
    /// One thread: waits for packets until it is told to stop.
    fn work(&self, port: &Port, listeners: &[Listener], deals: bool) -> Result<(), String> {
        let text = |error: Error| error.to_string();
        let mut waiter = port.waiter().map_err(text)?;
        let mut service = self.kind.start();
        let mut warned: Option<Instant> = None;
        for listener in listeners {
            listener.accept().map_err(text)?;
        }
        loop {
            let Wait::Packets(packets) = waiter.wait(None).map_err(text)? else {
                return Ok(());
            };
            for packet in packets {
                match packet.op.operation() {
                    Operation::Post => return Ok(()),
                    Operation::Accept => {}
                    _ => {
                        self.serve_connection(&mut service, packet);
                        continue;
                    }
                }
                match packet.event {
                    Event::Accepted(accepted) => self.welcome(port, accepted, deals),
                    Event::Paused { reason, .. } => {
                        self.ledger.paused();
                        if warned.is_none_or(|at| at.elapsed() > WARNING_EVERY) {
                            warned = Some(Instant::now());
                            self.output
                                .warning(&format!("not accepting for now: {reason}"));
                        }
                    }
                    Event::Ended { how, .. } => {
                        self.output.warning(&format!("a listener ended: {how:?}"));
                    }
                    _ => {}
                }
            }
        }
    }

    fn welcome(&self, port: &Port, accepted: Accepted, deals: bool) {
        let port = if deals {
            let turn = self.next_port.fetch_add(1, Ordering::Relaxed) as usize;
            &self.ports[turn % self.ports.len()]
        } else {
            port
        };
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let socket = accepted.raw_number();
        let stream = match port.associate(accepted, Key(key)) {
            Ok(stream) => stream,
            Err(refused) => return self.ledger.refused(refused.error.kind()),
        };
        self.ledger.accepted();
        self.output
            .connection("accepted", key, || Some(format!("socket {socket}")));
        if self.kind.welcome(stream).is_err() {
            self.ledger.left(Left::Error);
        }
    }

    fn serve_connection(&self, service: &mut Service, packet: wharf_port::Packet) {
        let key = packet.key.0;
        if let Step::Leaves(left) = service.handle(packet, &self.ledger) {
            self.ledger.left(left);
            self.output
                .connection("left", key, || Some(format!("{left:?}").to_lowercase()));
        }
    }
}
