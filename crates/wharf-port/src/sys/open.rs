//! Opening sockets, as every driver on a real network does.
//!
//! Binds are exclusive on Windows, where `SO_REUSEADDR` would let another program take the port,
//! and set `SO_REUSEADDR` on Unix, where it only means that connections in TIME_WAIT do not stop a
//! restart (contract C19).

use super::{Handle, bind_connector, new_socket, prepare_bind, set_congestion_control, share_port};
use crate::connect::ConnectOptions;
use crate::error::{Error, Operation};
use crate::listen::ListenOptions;

/// Opens the socket the way every driver on a real network does.
pub(crate) fn listener(at: &ListenOptions) -> std::io::Result<Handle> {
    let address = at.address.to_system()?;
    let internet = at.address.internet();
    let protocol = internet.map(|_| socket2::Protocol::TCP);
    let socket = new_socket(at.address.domain(), protocol)?;
    if internet.is_some_and(|address| address.is_ipv6()) {
        socket.set_only_v6(!at.dual_stack)?;
    }
    if internet.is_some() {
        prepare_bind(&socket)?;
        if at.no_delay {
            socket.set_tcp_nodelay(true)?;
        }
        if let Some(keepalive) = &at.keepalive {
            keepalive.set_on(&(&socket).into())?;
        }
    }
    if at.share_port {
        share_port(&socket)?;
    }
    if let Some(name) = &at.congestion_control {
        set_congestion_control(&socket, name)?;
    }
    let taken = |error| Error::from_bind(Operation::Listen, &error).wrapped();
    socket.bind(&address).map_err(taken)?;
    socket.listen(at.backlog.max(1))?;
    Ok(socket.into())
}

/// Opens the socket the way every driver on a real network does.
pub(crate) fn connector(to: &ConnectOptions) -> std::io::Result<Handle> {
    let internet = to.address.internet();
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
