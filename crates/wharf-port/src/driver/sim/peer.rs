//! The far end of a simulated network: its clients, its listeners and its clock.
//!
//! No method here blocks, because the thread that acts as the far end is also the one that waits on
//! the port.

use std::fmt;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::options::{Faults, SimOptions};
use super::queue::Shared;
use super::socket::{Knock, Listener, Owner, Role, Socket, SocketId};
use crate::address::Address;
use crate::driver::Direction;
use crate::error::{Error, ErrorKind, Operation, Result};

/// The network of a port that was built on the simulated driver; made by
/// [`Port::sim`](crate::Port::sim).
///
/// Clones are handles to the same network.
///
/// ```
/// use wharf_port::sim::{Heard, SimOptions};
/// use wharf_port::{Event, Key, Port, Wait};
///
/// # fn main() -> wharf_port::Result<()> {
/// let port = Port::builder().sim(SimOptions::new(1)).build()?;
/// let network = port.sim().unwrap();
/// let mut waiter = port.waiter()?;
/// let listener = port.listen(([127, 0, 0, 1], 10101), Key(90))?;
/// let listener = listener.accept()?;
/// let mut client = network.connect(&listener.local_addr()?)?;
/// client.send(b"hello")?;
/// client.finish();
/// let echoed = loop {
///     let Wait::Packets(packets) = waiter.wait(None)? else { unreachable!() };
///     for packet in packets {
///         match packet.event {
///             Event::Accepted(accepted) => {
///                 let _ = port.associate(accepted, Key(100)).unwrap().set_aside().receive();
///             }
///             Event::Received(lease) => drop(packet.socket.send(lease)),
///             Event::Ended { .. } => drop(packet.socket.close(wharf_port::Close::Flush)),
///             _ => {}
///         }
///     }
///     if let Heard::Bytes(bytes) = client.try_receive(100) {
///         break bytes;
///     }
/// };
/// assert_eq!(echoed, b"hello");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Network {
    pub(super) shared: Arc<Shared>,
}

/// What a receive of a far end returned.
///
/// ```
/// use wharf_port::sim::Heard;
/// assert_ne!(Heard::Finished, Heard::Reset);
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[allow(
    clippy::exhaustive_enums,
    reason = "complete: bytes, none yet, and the two ends that a connection can have"
)]
pub enum Heard {
    /// These bytes, at least one.
    Bytes(Vec<u8>),
    /// Nothing yet.
    Nothing,
    /// FIN.
    Finished,
    /// The connection is broken.
    Reset,
}

/// One far end of a connection. Dropping it closes: with FIN, or with RST if there are bytes that
/// it has not received.
///
/// ```
/// use wharf_port::sim::{Peer, SimOptions};
/// # fn main() -> wharf_port::Result<()> {
/// let port = wharf_port::Port::builder().sim(SimOptions::new(1)).build()?;
/// let listener = port.listen(([127, 0, 0, 1], 7), 90.into())?;
/// let peer: Peer = port.sim().unwrap().connect(&listener.local_addr()?)?;
/// # Ok(()) }
/// ```
pub struct Peer {
    shared: Arc<Shared>,
    id: SocketId,
}

/// A listener of the far side, for the port to connect to; dropping it closes it.
///
/// ```
/// use wharf_port::sim::{PeerListener, SimOptions};
/// # fn main() -> wharf_port::Result<()> {
/// let port = wharf_port::Port::builder().sim(SimOptions::new(1)).build()?;
/// let host: PeerListener = port.sim().unwrap().listen(&([127, 0, 0, 1], 80).into(), 128)?;
/// port.connect(host.address(), 100.into())?;
/// # Ok(()) }
/// ```
pub struct PeerListener {
    shared: Arc<Shared>,
    id: SocketId,
    address: Address,
}

/// Returns the loopback address of the same version, without a port number.
pub(super) fn unspecified_like(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(ip, 0)
}

impl Network {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Network {
            shared: Arc::clone(shared),
        }
    }

    /// Connects a client of the far side to a listener of the port (or of the far side).
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] if no socket listens there, [`ErrorKind::TimedOut`] if the listener's
    /// backlog is full.
    ///
    /// ```
    /// use wharf_port::{ErrorKind, sim::SimOptions};
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().sim(SimOptions::new(1)).build()?;
    /// let refused = port.sim().unwrap().connect(&([127, 0, 0, 1], 7).into());
    /// assert_eq!(refused.unwrap_err().kind(), ErrorKind::Refused);
    /// # Ok(()) }
    /// ```
    pub fn connect(&self, to: &Address) -> Result<Peer> {
        let failed = |kind| Error::new(Operation::Connect, kind);
        self.shared.with(|world| {
            let local = match to.as_socket_addr() {
                Some(address) => {
                    let mut local = unspecified_like(address);
                    local.set_port(world.fresh_number());
                    local.into()
                }
                None => Address::unix(""),
            };
            let client = Socket::new(Owner::Peer, local, None, Role::Connector);
            let id = world.sockets.insert(client);
            match world.knock(id, to) {
                Knock::Connected => Ok(Peer {
                    shared: Arc::clone(&self.shared),
                    id,
                }),
                knock => {
                    world.close(id, false);
                    Err(failed(match knock {
                        Knock::Refused => ErrorKind::Refused,
                        Knock::Connected | Knock::Unanswered => ErrorKind::TimedOut,
                    }))
                }
            }
        })
    }

    /// Listens on the far side, so that the port can connect to it. With a `backlog_max` of 0 no
    /// connect is accepted or refused.
    ///
    /// # Errors
    /// [`ErrorKind::AddressInUse`] if a socket already listens there.
    ///
    /// ```
    /// use wharf_port::sim::SimOptions;
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().sim(SimOptions::new(1)).build()?;
    /// let mut host = port.sim().unwrap().listen(&([127, 0, 0, 1], 0).into(), 128)?;
    /// assert!(host.try_accept().is_none());
    /// # Ok(()) }
    /// ```
    pub fn listen(&self, at: &Address, backlog_max: usize) -> Result<PeerListener> {
        self.shared.with(|world| {
            let address = super::with_number(world, at);
            if world.sockets.listening_at(&address).is_some() {
                return Err(Error::new(Operation::Listen, ErrorKind::AddressInUse));
            }
            let listener = Listener {
                backlog_max,
                ..Listener::default()
            };
            let role = Role::Listener(listener);
            let socket = Socket::new(Owner::Peer, address.clone(), None, role);
            let id = world.sockets.insert(socket);
            let shared = Arc::clone(&self.shared);
            Ok(PeerListener {
                shared,
                id,
                address,
            })
        })
    }

    /// Returns the time on this network, which is also the time of the port's timers.
    ///
    /// ```
    /// use std::time::Duration;
    /// use wharf_port::{Event, Wait, sim::SimOptions};
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().sim(SimOptions::new(1)).build()?;
    /// let network = port.sim().unwrap();
    /// let noon = network.now() + Duration::from_secs(3600);
    /// port.timer(noon, 5.into())?;
    /// let mut waiter = port.waiter()?;
    /// let Wait::Packets(mut packets) = waiter.wait(None)? else { unreachable!() };
    /// assert!(matches!(packets.next().unwrap().event, Event::Timer));
    /// assert_eq!(network.now(), noon); // an hour, in no time
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn now(&self) -> Instant {
        self.shared.with(|world| world.now())
    }

    /// Lets this much time pass. What is due by then happens at the next wait.
    ///
    /// ```
    /// use std::time::Duration;
    /// use wharf_port::sim::SimOptions;
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().sim(SimOptions::new(1)).build()?;
    /// let network = port.sim().unwrap();
    /// let before = network.now();
    /// network.advance(Duration::from_secs(1));
    /// assert_eq!(network.now() - before, Duration::from_secs(1));
    /// # Ok(()) }
    /// ```
    pub fn advance(&self, span: Duration) {
        self.shared.with(|world| world.now_ns = world.after(span));
        self.shared.wake(0);
    }

    /// Changes how the network behaves from now on. The seed does not change.
    ///
    /// ```
    /// use wharf_port::sim::SimOptions;
    /// # fn main() -> wharf_port::Result<()> {
    /// let stormy = SimOptions { send_errors: 500, ..SimOptions::new(1) };
    /// let port = wharf_port::Port::builder().sim(stormy).build()?;
    /// port.sim().unwrap().behave(SimOptions::new(1)); // the storm is over
    /// # Ok(()) }
    /// ```
    pub fn behave(&self, options: SimOptions) {
        self.shared.with(|world| {
            world.options = options;
            if options.descriptor_shortages == 0 {
                world.shortage_until_ns = world.now_ns;
            }
        });
    }

    /// Returns how many times each fault has happened.
    ///
    /// ```
    /// use wharf_port::sim::{Faults, SimOptions};
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().sim(SimOptions::new(1)).build()?;
    /// assert_eq!(port.sim().unwrap().faults(), Faults::default());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.shared.with(|world| world.faults)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("faults", &self.faults())
            .finish_non_exhaustive()
    }
}

impl Peer {
    /// Sends as much as there is space for. Returns how many bytes that was.
    ///
    /// # Errors
    /// [`ErrorKind::Reset`] if the connection is broken, [`ErrorKind::Closed`] after
    /// [`Peer::finish`].
    ///
    /// ```
    /// use wharf_port::sim::SimOptions;
    /// # fn main() -> wharf_port::Result<()> {
    /// let options = SimOptions { buffer_bytes: 3, ..SimOptions::new(1) };
    /// let port = wharf_port::Port::builder().sim(options).build()?;
    /// let listener = port.listen(([127, 0, 0, 1], 7), 90.into())?;
    /// let mut peer = port.sim().unwrap().connect(&listener.local_addr()?)?;
    /// assert_eq!(peer.send(b"hello")?, 3);
    /// assert_eq!(peer.send(b"lo")?, 0);
    /// # Ok(()) }
    /// ```
    pub fn send(&mut self, bytes: &[u8]) -> Result<usize> {
        let failed = |kind| Err(Error::new(Operation::Send, kind));
        self.shared.with(|world| {
            let capacity = world.options.buffer_bytes as usize;
            let stream = world.sockets.stream(self.id).expect("a peer's own");
            if stream.broken {
                return failed(ErrorKind::Reset);
            }
            if stream.write_ended {
                return failed(ErrorKind::Closed);
            }
            let Some(other) = stream.other else {
                // The other end is closed, so it replies with a reset.
                stream.broken = true;
                return Ok(bytes.len());
            };
            let far = world.sockets.stream(other).expect("the other end");
            let room = capacity.saturating_sub(far.incoming.len());
            let count = bytes.len().min(room);
            far.incoming.extend(&bytes[..count]);
            if count > 0 {
                world.look_again(other, Direction::Reading);
            }
            Ok(count)
        })
    }

    /// Receives up to `bytes_max` bytes of what has arrived.
    ///
    /// ```
    /// use wharf_port::sim::{Heard, SimOptions};
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().sim(SimOptions::new(1)).build()?;
    /// let listener = port.listen(([127, 0, 0, 1], 7), 90.into())?;
    /// let mut peer = port.sim().unwrap().connect(&listener.local_addr()?)?;
    /// assert_eq!(peer.try_receive(1024), Heard::Nothing);
    /// # Ok(()) }
    /// ```
    pub fn try_receive(&mut self, bytes_max: usize) -> Heard {
        self.shared.with(|world| {
            let stream = world.sockets.stream(self.id).expect("a peer's own");
            let (finished, broken, other) = (stream.finished, stream.broken, stream.other);
            let count = stream.incoming.len().min(bytes_max);
            if count > 0 {
                let mut bytes = vec![0; count];
                let read = stream.incoming.read_exact(&mut bytes);
                read.expect("this many bytes are there");
                if let Some(other) = other {
                    world.look_again(other, Direction::Writing);
                }
                Heard::Bytes(bytes)
            } else if !stream.incoming.is_empty() {
                Heard::Nothing
            } else if finished {
                Heard::Finished
            } else if broken {
                Heard::Reset
            } else {
                Heard::Nothing
            }
        })
    }

    /// Sends FIN. Receiving continues.
    ///
    /// ```
    /// use wharf_port::sim::SimOptions;
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().sim(SimOptions::new(1)).build()?;
    /// let listener = port.listen(([127, 0, 0, 1], 7), 90.into())?;
    /// let mut peer = port.sim().unwrap().connect(&listener.local_addr()?)?;
    /// peer.finish();
    /// assert!(peer.send(b"more").is_err());
    /// # Ok(()) }
    /// ```
    pub fn finish(&mut self) {
        self.shared.with(|world| world.finish(self.id));
    }

    /// Closes with RST.
    ///
    /// ```
    /// use wharf_port::sim::SimOptions;
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().sim(SimOptions::new(1)).build()?;
    /// let listener = port.listen(([127, 0, 0, 1], 7), 90.into())?;
    /// port.sim().unwrap().connect(&listener.local_addr()?)?.reset();
    /// # Ok(()) }
    /// ```
    pub fn reset(self) {
        self.shared.with(|world| world.close(self.id, true));
    }

    /// Returns the address of this side, which is the port's peer address.
    ///
    /// ```
    /// use wharf_port::sim::SimOptions;
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().sim(SimOptions::new(1)).build()?;
    /// let listener = port.listen(([127, 0, 0, 1], 7), 90.into())?;
    /// let peer = port.sim().unwrap().connect(&listener.local_addr()?)?;
    /// assert!(peer.address().as_socket_addr().unwrap().ip().is_loopback());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn address(&self) -> Address {
        let address =
            |world: &mut super::World| world.sockets.at(self.id).map(|it| it.local.clone());
        self.shared.with(address).expect("a peer's own")
    }

    /// Returns the address of the port's side.
    ///
    /// ```
    /// use wharf_port::sim::SimOptions;
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().sim(SimOptions::new(1)).build()?;
    /// let listener = port.listen(([127, 0, 0, 1], 7), 90.into())?;
    /// let peer = port.sim().unwrap().connect(&listener.local_addr()?)?;
    /// assert_eq!(peer.peer_addr(), listener.local_addr()?);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn peer_addr(&self) -> Address {
        let address =
            |world: &mut super::World| world.sockets.at(self.id).and_then(|it| it.peer.clone());
        self.shared.with(address).expect("it was connected")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.shared.with(|world| world.leave(self.id));
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({:?})", self.id)
    }
}

impl PeerListener {
    /// Returns the address that it listens at.
    ///
    /// ```
    /// use wharf_port::sim::SimOptions;
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().sim(SimOptions::new(1)).build()?;
    /// let host = port.sim().unwrap().listen(&([127, 0, 0, 1], 80).into(), 128)?;
    /// assert_eq!(host.address(), ([127, 0, 0, 1], 80).into());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn address(&self) -> Address {
        self.address.clone()
    }

    /// Takes a connection of the port, if one has arrived.
    ///
    /// ```
    /// use wharf_port::sim::SimOptions;
    /// # fn main() -> wharf_port::Result<()> {
    /// let port = wharf_port::Port::builder().sim(SimOptions::new(1)).build()?;
    /// let mut host = port.sim().unwrap().listen(&([127, 0, 0, 1], 80).into(), 128)?;
    /// port.connect(host.address(), 100.into())?;
    /// port.waiter()?.wait(None)?; // Connected
    /// assert!(host.try_accept().is_some());
    /// # Ok(()) }
    /// ```
    pub fn try_accept(&mut self) -> Option<Peer> {
        let id = self
            .shared
            .with(|world| world.take_from_backlog(self.id, 0))?;
        let shared = Arc::clone(&self.shared);
        Some(Peer { shared, id })
    }
}

impl Drop for PeerListener {
    fn drop(&mut self) {
        self.shared.with(|world| world.close(self.id, false));
    }
}

impl fmt::Debug for PeerListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerListener({})", self.address)
    }
}
