//! Opens sockets for every driver on a real network.
//!
//! Binds are exclusive on Windows, because `SO_REUSEADDR` would let another program take the port
//! there. On Unix they set `SO_REUSEADDR`, which only means that connections in TIME_WAIT do not
//! prevent a restart (contract C19).

use socket2::{Domain, SockRef, Socket};

use super::{
    Handle, KNOWS_LISTENERS, SocketKind, bind_connector, new_socket, prepare_bind,
    set_congestion_control, share_port, socket_kind,
};
use crate::address::Address;
use crate::connect::ConnectOptions;
use crate::error::{Error, ErrorKind, Operation};
use crate::listen::{ListenAt, ListenOptions};

const NO_LISTENER: &str = "this socket does not listen: call its listen first, or associate it";
const NO_STREAMS: &str = "only a socket of type stream can listen: this one has another type";

/// Opens a listening socket, for every driver on a real network.
pub(crate) fn listener(at: &ListenOptions) -> std::io::Result<Handle> {
    match &at.at {
        ListenAt::Address(address) => open_listener(address, at),
        ListenAt::Socket(socket) => take_listener(socket, at),
    }
}

/// Takes another descriptor of a socket that already listens. The caller may keep the first one.
fn take_listener(socket: &Handle, at: &ListenOptions) -> std::io::Result<Handle> {
    let unfit = |advice| {
        let error = Error::advised(Operation::Listen, ErrorKind::InvalidInput, advice);
        Err(error.wrapped())
    };
    match socket_kind(socket).map_err(std::io::Error::from_raw_os_error)? {
        SocketKind::Stream if KNOWS_LISTENERS => return unfit(NO_LISTENER),
        SocketKind::Other => return unfit(NO_STREAMS),
        SocketKind::Stream | SocketKind::Listening => {}
    }
    inherit(&SockRef::from(socket), at, !is_unix(socket)?)?;
    socket.try_clone()
}

/// Whether an open socket is a Unix socket.
pub(crate) fn is_unix(socket: &Handle) -> std::io::Result<bool> {
    Ok(SockRef::from(socket).local_addr()?.domain() == Domain::UNIX)
}

/// Sets the options that accepted sockets inherit.
fn inherit(socket: &Socket, at: &ListenOptions, is_internet: bool) -> std::io::Result<()> {
    if is_internet {
        if at.no_delay {
            socket.set_tcp_nodelay(true)?;
        }
        if let Some(keepalive) = &at.keepalive {
            keepalive.set_on(&socket.into())?;
        }
    }
    if let Some(name) = &at.congestion_control {
        set_congestion_control(socket, name)?;
    }
    Ok(())
}

fn open_listener(address: &Address, at: &ListenOptions) -> std::io::Result<Handle> {
    let name = address.to_system()?;
    let internet = address.as_socket_addr();
    let protocol = internet.map(|_| socket2::Protocol::TCP);
    let socket = new_socket(address.domain(), protocol)?;
    if internet.is_some_and(|address| address.is_ipv6()) {
        socket.set_only_v6(!at.dual_stack)?;
    }
    if internet.is_some() {
        prepare_bind(&socket)?;
    }
    inherit(&socket, at, internet.is_some())?;
    if at.share_port {
        share_port(&socket)?;
    }
    let taken = |error| Error::from_bind(Operation::Listen, &error).wrapped();
    socket.bind(&name).map_err(taken)?;
    socket.listen(i32::try_from(at.backlog.max(1)).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Opens a socket that will connect, for every driver on a real network.
pub(crate) fn connector(to: &ConnectOptions) -> std::io::Result<Handle> {
    let internet = to.address.as_socket_addr();
    let protocol = internet.map(|_| socket2::Protocol::TCP);
    let socket = new_socket(to.address.domain(), protocol)?;
    if internet.is_some() && to.no_delay {
        socket.set_tcp_nodelay(true)?;
    }
    if let (Some(_), Some(keepalive)) = (internet, &to.keepalive) {
        keepalive.set_on(&(&socket).into())?;
    }
    if let Some(name) = &to.congestion_control {
        set_congestion_control(&socket, name)?;
    }
    bind_connector(&socket, to.source, internet)?;
    Ok(socket.into())
}
