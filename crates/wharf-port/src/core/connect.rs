//! Connecting: where to, from where, and how long it may take.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockAddr;

use crate::address::Address;
use crate::core::deadlines::TimerTarget;
use crate::core::slot::{Receiving, SlotId, SocketState, flag};
use crate::core::{Core, Out};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::keepalive::Keepalive;
use crate::key::Key;
use crate::lock;
use crate::op::{Op, OpKind};
use crate::packet::{End, Event};
use crate::stream::Stream;
use crate::sys;

/// How long a connect to a Unix socket waits before it tries again; doubled each time.
const RETRY_FIRST: Duration = Duration::from_millis(1);
const RETRY_LAST: Duration = Duration::from_millis(100);

/// How to connect: what [`Port::connect`](crate::Port::connect) takes. Any address converts into
/// it.
///
/// ```
/// use std::time::Duration;
/// use wharf_port::ConnectOptions;
/// let options = ConnectOptions::new(([127, 0, 0, 1], 10101)).at_most(Duration::from_secs(3));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ConnectOptions {
    pub(crate) address: Address,
    pub(crate) source: Option<SocketAddr>,
    pub(crate) at_most: Option<Duration>,
    pub(crate) no_delay: bool,
    pub(crate) congestion_control: Option<Arc<str>>,
    pub(crate) keepalive: Option<Keepalive>,
}

impl ConnectOptions {
    /// Connects to this address. One at which nobody listens is refused, also where the system
    /// connects the socket with itself: a source port that is by chance the one it connects to. A
    /// Unix socket whose backlog is full makes the connect wait for room, for which it takes one of
    /// the port's timers, and fail as full where none is left.
    ///
    /// ```
    /// let options = wharf_port::ConnectOptions::new(([127, 0, 0, 1], 10101));
    /// ```
    pub fn new(address: impl Into<Address>) -> Self {
        ConnectOptions {
            address: address.into(),
            source: None,
            at_most: None,
            no_delay: true,
            congestion_control: None,
            keepalive: None,
        }
    }

    /// Connects from this address of the machine; port 0 lets the system choose one.
    ///
    /// ```
    /// use wharf_port::ConnectOptions;
    /// let options = ConnectOptions::new(([127, 0, 0, 1], 80)).source(([127, 0, 0, 2], 0).into());
    /// ```
    pub fn source(mut self, source: SocketAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// Ends the connect as timed out after this long; the system's own limit applies as well. It
    /// takes one of the port's timers, and is refused as full where none is left.
    ///
    /// ```
    /// use std::time::Duration;
    /// use wharf_port::ConnectOptions;
    /// let options = ConnectOptions::new(([127, 0, 0, 1], 80)).at_most(Duration::from_secs(1));
    /// ```
    pub fn at_most(mut self, limit: Duration) -> Self {
        self.at_most = Some(limit);
        self
    }

    /// Whether small sends go out at once (`TCP_NODELAY`); yes by default.
    ///
    /// ```
    /// let options = wharf_port::ConnectOptions::new(([127, 0, 0, 1], 80)).no_delay(false);
    /// ```
    pub fn no_delay(mut self, no_delay: bool) -> Self {
        self.no_delay = no_delay;
        self
    }

    /// The algorithm that decides how fast the connection sends (`TCP_CONGESTION`), such as
    /// `cubic`; the system's own choice by default. Where it is refused stands with
    /// [`ListenOptions::congestion_control`](crate::ListenOptions::congestion_control).
    ///
    /// ```
    /// use wharf_port::ConnectOptions;
    /// let options = ConnectOptions::new(([127, 0, 0, 1], 80)).congestion_control("cubic");
    /// ```
    pub fn congestion_control(mut self, name: impl Into<Arc<str>>) -> Self {
        self.congestion_control = Some(name.into());
        self
    }

    /// Asks the peer whether it is still there when it is silent for long (`SO_KEEPALIVE`);
    /// no by default. A figure that the system does not take is refused as
    /// [`ErrorKind::InvalidInput`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use wharf_port::{ConnectOptions, Keepalive};
    /// let keepalive = Keepalive::after(Duration::from_secs(60));
    /// let options = ConnectOptions::new(([127, 0, 0, 1], 80)).keepalive(keepalive);
    /// ```
    pub fn keepalive(mut self, keepalive: Keepalive) -> Self {
        self.keepalive = Some(keepalive);
        self
    }
}

impl<A: Into<Address>> From<A> for ConnectOptions {
    fn from(address: A) -> Self {
        ConnectOptions::new(address)
    }
}

impl Core {
    pub(crate) fn connect(self: &Arc<Self>, to: &ConnectOptions, key: Key) -> Result<Op> {
        let failed = |error: std::io::Error| Error::from_io(Operation::Connect, &error);
        if self.takes_no_sockets() {
            return Err(Error::new(Operation::Connect, ErrorKind::Closed));
        }
        let handle = self.driver.open_connector(to).map_err(failed)?;
        let (id, mut guard) = match self.admit(false) {
            Ok(admitted) => admitted,
            Err(kind) => {
                self.driver.abandon(handle);
                return Err(Error::new(Operation::Connect, kind));
            }
        };
        let state = &mut *guard;
        state.key = key;
        state.handle = Some(handle);
        state.set(flag::CONNECTING);
        let associated = self.driver.associate(id, state, false);
        let address = to.address.to_system().map_err(failed);
        let deadline = TimerTarget::Deadline(id);
        let limited = to
            .at_most
            .is_none_or(|time| self.set_limit(state, time, deadline));
        if let (Ok(()), Ok(address), true) = (associated, &address, limited) {
            state.receiving = Receiving::Connect;
            state.receive_sequence = state.next_sequence();
            let op = Op::of(self.id, id, state.receive_sequence, OpKind::Connect);
            self.work(state).connect_to = Some(address.clone());
            self.driver.arm(self, id, state, &mut Out::queue());
            return Ok(op);
        }
        self.end_limit(state);
        self.recycle(state);
        let handle = state.handle.take().expect("set above");
        self.turn_away(id, state, false);
        drop(guard);
        self.driver.abandon(handle);
        if !limited {
            return Err(Error::new(Operation::Connect, ErrorKind::Full));
        }
        associated.map_err(|code| Error::from_os(Operation::Connect, code))?;
        Err(address
            .err()
            .unwrap_or(Error::new(Operation::Connect, ErrorKind::Other)))
    }

    /// The driver reports the end of a connect: the system's code when it failed.
    pub(crate) fn connected(
        &self,
        id: SlotId,
        state: &mut SocketState,
        result: Result<(), i32>,
        out: &mut Out<'_>,
    ) {
        state.clear(flag::ARMED);
        state.receiving = Receiving::Nothing;
        let name = (state.receive_sequence, OpKind::Connect);
        let to = state.work.as_mut().and_then(|work| work.connect_to.take());
        let how = match result {
            _ if state.has(flag::CLOSING) => End::Aborted,
            Ok(()) if self.meets_itself(state, to.as_ref()) => {
                // Closed in order it would stay in TIME_WAIT, and the port number with it.
                state.set(flag::CLOSE_RESET);
                End::Failed(Error::new(Operation::Connect, ErrorKind::Refused))
            }
            Ok(()) => {
                self.end_limit(state);
                self.end_retry(state);
                state.clear(flag::CONNECTING | flag::CANCEL_RECEIVE | flag::DEADLINE);
                let stream = Stream::new(self.socket(id));
                self.deliver(id, state, name, Event::Connected(stream), out);
                // A connection that is only held needs none of it.
                return self.recycle(state);
            }
            Err(_) if state.has(flag::DEADLINE) => {
                End::Failed(Error::new(Operation::Connect, ErrorKind::TimedOut))
            }
            Err(_) if state.has(flag::CANCEL_RECEIVE) => End::Cancelled,
            Err(code) => End::Failed(Error::of_connect(code)),
        };
        self.connect_failed(id, state, how, out);
    }

    /// Tells that there will be no stream, and closes the socket that was to be one.
    pub(crate) fn connect_failed(
        &self,
        id: SlotId,
        state: &mut SocketState,
        how: End,
        out: &mut Out<'_>,
    ) {
        let name = (state.receive_sequence, OpKind::Connect);
        state.receiving = Receiving::Nothing;
        self.end_limit(state);
        self.end_retry(state);
        if let Some(work) = &mut state.work {
            work.connect_to = None;
        }
        self.driver.release(id, state);
        self.socket_gone();
        if state.has(flag::SILENT) {
            state.work = None;
            self.free_slot(id, state);
            return;
        }
        // `Closed` is not for the caller, who never had the stream: the slot goes with this packet.
        state.set(flag::HANDLE_CLOSED);
        self.deliver(id, state, name, Event::ConnectFailed { how }, out);
    }

    /// Whether a connection has this socket at both ends. TCP opens one where nobody listens and
    /// the system chose the very port number that the connect goes to (RFC 9293, 3.5: simultaneous
    /// open): whoever wrote to it would read its own bytes back.
    fn meets_itself(&self, state: &SocketState, to: Option<&SockAddr>) -> bool {
        let Some(to) = to.and_then(SockAddr::as_socket) else {
            return false;
        };
        let local = self.driver.local_address(state);
        let same_port = |local: &Address| {
            let local = local.internet();
            local.is_some_and(|local| local.port() == to.port())
        };
        let Some(local) = local.ok().filter(same_port) else {
            return false;
        };
        let peer = self.driver.peer_address(state);
        peer.is_ok_and(|peer| peer == local)
    }

    /// A driver has tried to connect a Unix socket, which succeeds or fails at once. Where the
    /// listener's backlog is full no event ever tells that there is room: it tries again, a little
    /// later each time, until the connect is cancelled or its time is over.
    ///
    /// Letting the system wait was rejected: a kernel thread of io_uring sleeps in each such connect.
    #[allow(dead_code, reason = "not every system has a driver that needs it")]
    pub(crate) fn connect_tried(
        &self,
        id: SlotId,
        state: &mut SocketState,
        result: Result<(), i32>,
        out: &mut Out<'_>,
    ) {
        if result.is_err_and(sys::would_block) && self.try_later(id, state) {
            return;
        }
        self.connected(id, state, result, out);
    }

    /// Sets the timer of the next try, unless there are `timers_max`.
    fn try_later(&self, id: SlotId, state: &mut SocketState) -> bool {
        let last = state.work.as_ref().and_then(|work| work.connect_retry);
        let wait = last.map_or(RETRY_FIRST, |(_, wait)| (wait * 2).min(RETRY_LAST));
        let due = self.driver.now() + wait;
        let timer = self.set_timer(due, TimerTarget::Connect(id));
        self.work(state).connect_retry = timer.map(|timer| (timer, wait));
        timer.is_some()
    }

    /// A connect that found no room tries again.
    pub(crate) fn connect_again(self: &Arc<Self>, id: SlotId, out: &mut Out<'_>) {
        if let Some(mut state) = self.slots.lock(id)
            && state.receiving == Receiving::Connect
            && !state.has(flag::ARMED)
        {
            self.driver.arm(self, id, &mut state, out);
        }
    }

    /// Takes back the next try of a connect that is over.
    fn end_retry(&self, state: &mut SocketState) {
        let work = state.work.as_mut();
        if let Some((timer, _)) = work.and_then(|work| work.connect_retry.take()) {
            // One that has run out is not found.
            lock(&self.timers).cancel(timer);
        }
    }

    /// A connect ran into its deadline.
    pub(crate) fn connect_overdue(self: &Arc<Self>, id: SlotId, out: &mut Out<'_>) {
        let Some(mut state) = self.slots.lock(id) else {
            return;
        };
        if state.receiving != Receiving::Connect {
            return;
        }
        state.set(flag::DEADLINE);
        if state.has(flag::ARMED) {
            self.driver.cancel_receive(self, id, &mut state);
        } else {
            self.connected(id, &mut state, Err(0), out);
        }
    }
}

/// Opens the socket the way every driver on a real network does.
pub(crate) fn open(to: &ConnectOptions) -> std::io::Result<sys::Handle> {
    let internet = to.address.internet();
    let protocol = internet.map(|_| socket2::Protocol::TCP);
    let socket = sys::new_socket(to.address.domain(), protocol)?;
    if internet.is_some() && to.no_delay {
        socket.set_tcp_nodelay(true)?;
    }
    if let (Some(_), Some(keepalive)) = (internet, &to.keepalive) {
        keepalive.set_on(&(&socket).into())?;
    }
    if let Some(name) = &to.congestion_control {
        sys::set_congestion_control(&socket, name)?;
    }
    sys::bind_connector(&socket, to.source, internet)?;
    Ok(socket.into())
}
