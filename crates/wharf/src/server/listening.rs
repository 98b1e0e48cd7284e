//! The ports and listeners of a server: one port for each thread, and which thread accepts.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use wharf_port::{Address, Error, ErrorKind, Keepalive, Key, ListenOptions, Listener, Port};

use crate::processes::descriptors::{self, Descriptors};
use crate::processes::{Threads, raise_descriptors};
use crate::server::dealer::{Comer, Dealer, Maximum};
use crate::server::options::ServingOptions;
use crate::sys::{self, FileIdentity};

/// Keys of listeners start at 90, as in the series, and stop below the first key of connections.
/// Further ones continue at a number that connections never reach.
const LISTENER_FIRST: u64 = 90;
const LISTENERS_FEW: u64 = 10;
const LISTENERS_MORE: u64 = 1 << 63;

/// Everything a server has opened before it begins.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) ports: Vec<Port>,
    /// The listeners of each port.
    pub(super) listeners: Vec<Vec<Listener>>,
    /// If the first thread accepts for all, because the addresses cannot be shared.
    pub(super) dealer: Option<Dealer<Comer>>,
    pub(super) files: SocketFiles,
}

/// The files of the Unix sockets that a server listens on. It removes them when it ends.
///
/// It removes a file only if it is still its own, and while its listener is open: until then the
/// system gives the inode number to no other file. A successor at the same path keeps its own file.
#[derive(Debug, Default)]
pub(super) struct SocketFiles(Mutex<Vec<(PathBuf, Option<FileIdentity>)>>);

impl SocketFiles {
    /// Listens on a Unix socket, even if a server that was killed has left its file.
    pub(super) fn listen_at(
        &self,
        path: &Path,
        listen: impl Fn() -> Result<Listener, Error>,
    ) -> Result<Listener, Error> {
        let mut listener = listen();
        let in_use = |error: &Error| error.kind() == ErrorKind::AddressInUse;
        if listener.as_ref().is_err_and(in_use) && sys::clear_stale_socket(path) {
            listener = listen();
        }
        if listener.is_ok() {
            let file = (path.to_owned(), sys::file_identity(path));
            self.lock().push(file);
        }
        listener
    }

    /// Removes the files, before the listeners are closed.
    pub(super) fn remove(&self) {
        for (path, made) in self.lock().drain(..) {
            if made.is_some() && sys::file_identity(&path) == made {
                // Another process may have removed it just now.
                let _ = std::fs::remove_file(path);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(PathBuf, Option<FileIdentity>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All addresses of the command line; a range is several.
pub(super) fn addresses(options: &ServingOptions) -> Vec<Address> {
    let places = options.addresses.iter();
    places.flat_map(|place| place.addresses.clone()).collect()
}

/// Opens a port for each of these threads, and their listeners.
pub(super) fn open(
    options: &ServingOptions,
    threads: Threads,
    addresses: &[Address],
) -> Result<Opened, String> {
    let internet = addresses
        .iter()
        .all(|address| address.as_socket_addr().is_some());
    // No other thread can use a direct descriptor. A separate listener of a full thread would keep
    // its backlog waiting. So all threads accept from one listener.
    let direct = options.division.descriptors == Descriptors::Direct;
    let shares = threads.total > 1 && internet && !direct;
    let mut deals = threads.count > 1 && !internet && !direct;
    let maximum = options.max_connections.map(|all| Maximum {
        all,
        first: descriptors::share(threads, 0, all),
    });
    let mut ports = build_ports(options, threads, addresses.len(), deals)?;
    let mut opening = Opening {
        options,
        addresses,
        first: threads.first == 0,
        files: SocketFiles::default(),
    };
    let mut opened = opening.listen(&ports, shares);
    // Several processes are refused if the system does not distribute connections.
    let alone = threads.count == threads.total;
    if matches!(&opened, Err((ErrorKind::Unsupported, _))) && shares && alone {
        ports.iter().for_each(Port::close);
        deals = true;
        ports = build_ports(options, threads, addresses.len(), deals)?;
        opened = opening.listen(&ports, false);
    }
    let mut listeners = opened.map_err(|(_, text)| text)?;
    if direct {
        accept_together(&ports, &mut listeners)?;
    }
    listeners.resize_with(ports.len(), Vec::new);
    Ok(Opened {
        ports,
        listeners,
        dealer: deals.then(|| Dealer::new(threads.count as usize, maximum)),
        files: opening.files,
    })
}

/// Builds the port of each thread, with places for its share of the connections and its listeners.
/// If the first thread `deals` connections to the others, one count bounds them all (`dealer`): the
/// first port has one place more, for a connection that waits, and the others have no bound.
fn build_ports(
    options: &ServingOptions,
    threads: Threads,
    listeners: usize,
    deals: bool,
) -> Result<Vec<Port>, String> {
    let limit = raise_descriptors();
    let build = |thread: u32| {
        let share = options.max_connections;
        // Each thread has its share, also among the threads of other processes.
        let share = share.map(|all| descriptors::share(threads, thread, all));
        let builder = Port::builder().driver(options.driver).single_waiter();
        let builder = builder.spin_max(Duration::from_micros(options.spin_us.into()));
        let mut builder = options.division.descriptors.of_port(builder, share, limit);
        let places = match (share, deals, thread) {
            (Some(share), true, 0) => Some(share + 1),
            (Some(share), false, _) => Some(share),
            (Some(_), true, _) | (None, ..) => None,
        };
        if let Some(places) = places {
            builder = builder.sockets_max(places + u32::try_from(listeners).unwrap_or(u32::MAX));
        }
        builder.build().map_err(|error: Error| error.to_string())
    };
    (0..threads.count).map(build).collect()
}

struct Opening<'a> {
    options: &'a ServingOptions,
    addresses: &'a [Address],
    /// No other process of this server listens yet.
    first: bool,
    files: SocketFiles,
}

impl Opening<'_> {
    /// Listens on all addresses, for each port or for the first alone.
    fn listen(
        &mut self,
        ports: &[Port],
        share: bool,
    ) -> Result<Vec<Vec<Listener>>, (ErrorKind, String)> {
        let mut all: Vec<Vec<Listener>> = Vec::new();
        let ports = if share { ports } else { &ports[..1] };
        for port in ports {
            let mut listeners = Vec::new();
            for (number, address) in self.addresses.iter().enumerate() {
                // The first thread may have port 0, and the others use the port that it got.
                let address = match all.first().map(|first| first[number].local_addr()) {
                    Some(Ok(chosen)) => chosen,
                    _ => address.clone(),
                };
                // If another server listens there, sharing would give it some of our clients.
                // Without sharing, the system refuses with the reason.
                let share = share && !(self.first && all.is_empty() && is_in_use(&address));
                let mut at = ListenOptions::new(address.clone())
                    .backlog(self.options.backlog)
                    .reuse_port(share);
                if !self.options.keepalive.is_zero() && address.as_socket_addr().is_some() {
                    at = at.keepalive(Keepalive::after(self.options.keepalive));
                }
                if let Some(name) = &self.options.congestion_control {
                    at = at.congestion_control(name.as_str());
                }
                let key = listener_key(number as u64);
                let listener = match &address {
                    Address::Unix(path) => {
                        self.files.listen_at(path, || port.listen(at.clone(), key))
                    }
                    _ => port.listen(at, key),
                };
                let told = |error: Error| {
                    self.files.remove();
                    let said = hint_for_path(&address, &error).unwrap_or(error.to_string());
                    (error.kind(), format!("{address}: {said}"))
                };
                listeners.push(listener.map_err(told)?);
            }
            all.push(listeners);
        }
        Ok(all)
    }
}

/// Lets all ports accept from the listeners of the first.
fn accept_together(ports: &[Port], listeners: &mut Vec<Vec<Listener>>) -> Result<(), String> {
    for port in &ports[1..] {
        let shared = (0..).zip(&listeners[0]).map(|(number, listener)| {
            let shared = listener.share_with(port, listener_key(number));
            shared.map_err(|error: Error| error.to_string())
        });
        let shared = shared.collect::<Result<_, _>>()?;
        listeners.push(shared);
    }
    Ok(())
}

/// Whether another program listens there. A bind finds out without a client.
fn is_in_use(address: &Address) -> bool {
    let bound = |address: SocketAddr| {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        // A socket that was closed recently is not in use.
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())
    };
    let bound = address.as_socket_addr().map(bound);
    matches!(bound, Some(Err(error)) if error.kind() == io::ErrorKind::AddrInUse)
}

/// A hint about a path that the system refuses. The library's errors do not know that it is a path.
fn hint_for_path(address: &Address, error: &Error) -> Option<String> {
    let Address::Unix(path) = address else {
        return None;
    };
    let hint = match error.kind() {
        // The library's hint is about ports, which would not help. A file that is not a socket has
        // no owner.
        ErrorKind::AddressInUse => {
            let hint = match sys::is_socket(path) {
                true => "choose another path, or end the program that listens there",
                false => "there is a file that is no socket, choose another path",
            };
            return Some(format!("{}: {}: {hint}", error.operation(), error.kind()));
        }
        ErrorKind::Other if path.parent().is_some_and(is_missing) => "make its directory first",
        ErrorKind::Other => "choose a path where files can be made",
        ErrorKind::InvalidInput => "choose a shorter path, systems take some hundred bytes",
        _ => return None,
    };
    Some(format!("{error}: {hint}"))
}

fn is_missing(directory: &Path) -> bool {
    // The directory of a bare name is the current one, and empty.
    !directory.as_os_str().is_empty() && !directory.exists()
}

fn listener_key(number: u64) -> Key {
    if number < LISTENERS_FEW {
        Key(LISTENER_FIRST + number)
    } else {
        Key(LISTENERS_MORE + number)
    }
}

/// The number of the listener that has this key.
pub(super) fn listener_number(key: Key) -> u64 {
    match key.0.checked_sub(LISTENERS_MORE) {
        Some(number) => number,
        None => key.0 - LISTENER_FIRST,
    }
}
