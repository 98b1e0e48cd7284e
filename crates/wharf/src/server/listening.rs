//! The ports and listeners of a server: one port a thread, and who accepts for it.

use std::path::{Path, PathBuf};

use wharf_port::{Address, Error, ErrorKind, Key, ListenOptions, Listener, Port};

use crate::command::ServingOptions;
use crate::sys;

/// Listeners count up from 90, as in the series, as far as below the connections' first key, and
/// then from a number that connections never come to.
const LISTENER_FIRST: u64 = 90;
const LISTENERS_FEW: u64 = 10;
const LISTENERS_MORE: u64 = 1 << 63;

/// Everything a server has opened before it begins.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) ports: Vec<Port>,
    /// Those of each port.
    pub(super) listeners: Vec<Vec<Listener>>,
    /// The first thread accepts for all, because the addresses cannot be shared.
    pub(super) deals: bool,
    pub(super) files: SocketFiles,
}

/// The files of the Unix sockets that a server listens on; they go with it.
#[derive(Debug, Default)]
pub(super) struct SocketFiles(Vec<PathBuf>);

impl Drop for SocketFiles {
    fn drop(&mut self) {
        for path in &self.0 {
            // Somebody else may have removed it.
            let _ = std::fs::remove_file(path);
        }
    }
}

pub(super) fn open(options: &ServingOptions) -> Result<Opened, String> {
    let places = options.addresses.iter();
    let addresses: Vec<Address> = places.flat_map(|place| place.addresses.clone()).collect();
    let ports = build_ports(options, addresses.len())?;
    let internet = addresses.iter().all(|address| address.internet().is_some());
    let shares = ports.len() > 1 && internet;
    let mut opening = Opening {
        options,
        addresses: &addresses,
        files: SocketFiles::default(),
    };
    let mut deals = ports.len() > 1 && !internet;
    let mut opened = opening.listen(&ports, shares);
    if matches!(&opened, Err((ErrorKind::Unsupported, _))) && shares {
        opened = opening.listen(&ports, false);
        deals = true;
    }
    let mut listeners = opened.map_err(|(_, text)| text)?;
    listeners.resize_with(ports.len(), Vec::new);
    Ok(Opened {
        ports,
        listeners,
        deals,
        files: opening.files,
    })
}

fn build_ports(options: &ServingOptions, listeners: usize) -> Result<Vec<Port>, String> {
    let threads = u32::from(options.threads);
    let build = |thread: u32| {
        let builder = Port::builder().driver(options.driver).single_waiter();
        let mut builder = builder.spin_us_max(options.spin_us);
        if let Some(connections_max) = options.max_connections {
            // Each thread has its share; the first ones have what is left over.
            let share = connections_max / threads + u32::from(thread < connections_max % threads);
            builder = builder.sockets_max(share + u32::try_from(listeners).unwrap_or(u32::MAX));
        }
        builder.build().map_err(|error: Error| error.to_string())
    };
    (0..threads).map(build).collect()
}

struct Opening<'a> {
    options: &'a ServingOptions,
    addresses: &'a [Address],
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
                // The first thread may have been given port 0, and the others share what it got.
                let address = match all.first().map(|first| first[number].local_address()) {
                    Some(Ok(chosen)) => chosen,
                    _ => address.clone(),
                };
                let at = ListenOptions::new(address.clone())
                    .backlog(self.options.backlog)
                    .share_port(share);
                let key = listener_key(number as u64);
                let listener = match &address {
                    Address::Unix(path) => {
                        self.listen_at_path(path, || port.listen(at.clone(), key))
                    }
                    _ => port.listen(at, key),
                };
                let told = |error: Error| (error.kind(), format!("{address}: {error}"));
                listeners.push(listener.map_err(told)?);
            }
            all.push(listeners);
        }
        Ok(all)
    }

    /// Listens on a Unix socket, also where a server that was killed has left its file.
    fn listen_at_path(
        &mut self,
        path: &Path,
        listen: impl Fn() -> Result<Listener, Error>,
    ) -> Result<Listener, Error> {
        let mut listener = listen();
        let in_use = |error: &Error| error.kind() == ErrorKind::AddressInUse;
        if listener.as_ref().is_err_and(in_use) && sys::clear_stale_socket(path) {
            listener = listen();
        }
        if listener.is_ok() {
            self.files.0.push(path.to_owned());
        }
        listener
    }
}

fn listener_key(number: u64) -> Key {
    if number < LISTENERS_FEW {
        Key(LISTENER_FIRST + number)
    } else {
        Key(LISTENERS_MORE + number)
    }
}
