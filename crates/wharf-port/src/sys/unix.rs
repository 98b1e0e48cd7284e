//! Unix: descriptors, error codes, and the non-blocking calls of the readiness driver.
//!
//! System calls go through `rustix`, whose wrappers are safe. What remains unsafe here is the
//! memory of the buffer pool, a socket option, and the count of forks.

use std::ffi::c_void;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use rustix::net::{self, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::{AcceptFault, SocketKind};
use crate::error::{Error, ErrorKind, Operation};

#[path = "unix/standard.rs"]
mod standard;

#[path = "unix/advice.rs"]
mod advice;
pub(crate) use advice::{descriptor_advice, full_advice};

#[cfg(target_os = "linux")]
#[path = "unix/handle.rs"]
mod handle;
#[cfg(target_os = "linux")]
pub(crate) use handle::Handle;

#[cfg(all(test, target_os = "linux"))]
#[path = "unix/tests.rs"]
mod tests;

/// An open socket.
#[cfg(not(target_os = "linux"))]
pub(crate) type Handle = OwnedFd;

pub(crate) fn raw_number(handle: &Handle) -> u64 {
    #[cfg(target_os = "linux")]
    let number = handle.number();
    #[cfg(not(target_os = "linux"))]
    let number = handle.as_raw_fd();
    u64::try_from(number).expect("open descriptors are not negative")
}

/// Whether the socket has no descriptor, but is an entry in a ring's own table.
pub(crate) fn is_direct(handle: &Handle) -> bool {
    #[cfg(target_os = "linux")]
    return handle.place().is_some();
    #[cfg(not(target_os = "linux"))]
    {
        let _ = handle;
        false
    }
}

/// Returns the descriptor, if the socket has one.
pub(crate) fn descriptor(handle: &Handle) -> Option<BorrowedFd<'_>> {
    (!is_direct(handle)).then(|| handle.as_fd())
}

pub(crate) fn from_descriptor(descriptor: OwnedFd) -> Handle {
    #[cfg(target_os = "linux")]
    return descriptor.into();
    #[cfg(not(target_os = "linux"))]
    descriptor
}

/// Returns the descriptor. If the socket has none, returns the handle unchanged.
pub(crate) fn into_descriptor(handle: Handle) -> Result<OwnedFd, Handle> {
    #[cfg(target_os = "linux")]
    return handle.into_descriptor();
    #[cfg(not(target_os = "linux"))]
    Ok(handle)
}

/// Returns another handle to the same socket.
pub(crate) fn duplicate(handle: &Handle) -> io::Result<Handle> {
    handle.try_clone()
}

/// Returns the kind of a system code. An event has the same kind on every system.
pub(crate) fn error_kind(code: i32) -> ErrorKind {
    match Errno::from_raw_os_error(code) {
        Errno::CONNRESET | Errno::PIPE => ErrorKind::Reset,
        Errno::CONNREFUSED => ErrorKind::Refused,
        Errno::CONNABORTED => ErrorKind::Aborted,
        Errno::CANCELED => ErrorKind::Cancelled,
        Errno::TIMEDOUT => ErrorKind::TimedOut,
        Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::NETDOWN | Errno::HOSTDOWN => {
            ErrorKind::Unreachable
        }
        Errno::ADDRINUSE => ErrorKind::AddressInUse,
        Errno::ADDRNOTAVAIL => ErrorKind::AddressUnavailable,
        Errno::ACCESS | Errno::PERM => ErrorKind::PermissionDenied,
        Errno::MFILE | Errno::NFILE => ErrorKind::TooManyOpenFiles,
        Errno::NOMEM | Errno::NOBUFS => ErrorKind::OutOfMemory,
        // The backlog of a Unix socket is full and no timer is left for another try, or an epoll
        // set has as many members as it may.
        Errno::AGAIN | Errno::NOSPC => ErrorKind::Full,
        Errno::NOTCONN => ErrorKind::NotConnected,
        Errno::INVAL => ErrorKind::InvalidInput,
        Errno::OPNOTSUPP | Errno::AFNOSUPPORT | Errno::NOSYS | Errno::PROTONOSUPPORT => {
            ErrorKind::Unsupported
        }
        _ => ErrorKind::Other,
    }
}

/// Returns the kind of a code with which the connect itself failed, after its bind. connect(2)
/// fails with EADDRNOTAVAIL if all ports of the source address are taken.
pub(crate) fn connect_error_kind(code: i32) -> ErrorKind {
    match Errno::from_raw_os_error(code) {
        Errno::ADDRNOTAVAIL => ErrorKind::AddressInUse,
        _ => error_kind(code),
    }
}

/// Returns the kind of a code with which a bind failed.
pub(crate) fn bind_error_kind(code: i32) -> ErrorKind {
    error_kind(code)
}

/// Returns a hint that applies to this system only.
pub(crate) fn hint(_: ErrorKind, _: Operation, _: Option<i32>) -> Option<&'static str> {
    None
}

pub(crate) fn is_cancelled(code: i32) -> bool {
    code == Errno::CANCELED.raw_os_error()
}

/// Whether this code of a failed send means that nothing can be sent any more, without a reason.
pub(crate) fn is_broken_pipe(code: i32) -> bool {
    code == Errno::PIPE.raw_os_error()
}

pub(crate) fn accept_fault(code: i32) -> AcceptFault {
    match Errno::from_raw_os_error(code) {
        Errno::MFILE | Errno::NFILE => AcceptFault::Descriptors,
        Errno::NOBUFS | Errno::NOMEM => AcceptFault::Memory,
        // accept(2), "Error handling": accept also returns errors of the new connection itself.
        Errno::INVAL | Errno::BADF | Errno::NOTSOCK | Errno::OPNOTSUPP | Errno::FAULT => {
            AcceptFault::Listener
        }
        _ => AcceptFault::ThisConnection,
    }
}

/// Codes for what this machine lacks, in any operation: space in an epoll set, memory, buffers.
#[cfg(test)]
pub(crate) const LACKS: [i32; 3] = [libc::ENOSPC, libc::ENOMEM, libc::ENOBUFS];
/// Codes of a send that failed without saying how the connection ended.
#[cfg(test)]
pub(crate) const WITHOUT_A_WORD: &[i32] = &[libc::EPIPE];
/// The code of a connection that the peer has reset.
#[cfg(test)]
pub(crate) const RESET: i32 = libc::ECONNRESET;

/// Returns a count of forks: a child process gets a larger number than its parent.
pub(crate) fn forks() -> u32 {
    static FORKS: AtomicU32 = AtomicU32::new(0);
    // No `Once`: if the parent forked while another of its threads was inside it, the child would
    // wait for that thread forever. If two threads register the handler, each fork counts twice,
    // which does no harm.
    static COUNTING: AtomicBool = AtomicBool::new(false);
    extern "C" fn in_child() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    if !COUNTING.load(Ordering::Relaxed) {
        // SAFETY: the handler only adds to an atomic, which is safe between fork and exec. If there
        // is no memory to register the handler, forks are not noticed, and nothing else changes.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        COUNTING.store(true, Ordering::Relaxed);
    }
    FORKS.load(Ordering::Relaxed)
}

pub(crate) fn new_socket(domain: Domain, protocol: Option<Protocol>) -> io::Result<Socket> {
    Socket::new(domain, Type::STREAM, protocol)
}

/// A restart must not wait for connections in TIME_WAIT. A second live listener is still refused.
pub(crate) fn prepare_bind(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_address(true)
}

pub(crate) fn share_port(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

/// tcp(7): `TCP_CONGESTION` fails with ENOENT for a name that the system does not have. That code
/// would not tell the caller that the name is wrong.
#[cfg(any(target_os = "linux", target_os = "freebsd"))]
pub(crate) fn set_congestion_control(socket: &Socket, name: &str) -> io::Result<()> {
    socket
        .set_tcp_congestion(name.as_bytes())
        .map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::NOENT) => io::ErrorKind::InvalidInput.into(),
            _ => error,
        })
}

#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
pub(crate) fn set_congestion_control(_socket: &Socket, _name: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Binds a connecting socket, if it has a source. Takes no port before the peer is known.
pub(crate) fn bind_connector(
    socket: &Socket,
    source: Option<SocketAddr>,
    _to: Option<SocketAddr>,
) -> io::Result<()> {
    let Some(source) = source else { return Ok(()) };
    #[cfg(target_os = "linux")]
    if source.port() == 0 {
        // Without this option, bind(2) takes one of 28,232 ports for this socket alone.
        let (level, option) = (libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT);
        let on: libc::c_int = 1;
        let bytes = libc::socklen_t::try_from(size_of_val(&on)).expect("an int is small");
        // SAFETY: the option takes an int, which lives through the call.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                level,
                option,
                (&raw const on).cast(),
                bytes,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let taken = |error| Error::from_bind(Operation::Connect, &error).wrapped();
    socket.bind(&source.into()).map_err(taken)
}

pub(crate) fn local_address(handle: &Handle) -> io::Result<crate::Address> {
    SockRef::from(handle)
        .local_addr()
        .map(|address| crate::Address::from_system(&address))
}

pub(crate) fn peer_address(handle: &Handle) -> io::Result<crate::Address> {
    SockRef::from(handle)
        .peer_addr()
        .map(|address| crate::Address::from_system(&address))
}

pub(crate) fn unix_path(address: &SockAddr) -> PathBuf {
    match (address.as_pathname(), address.as_abstract_namespace()) {
        (Some(path), _) => path.to_owned(),
        (None, Some(name)) => {
            let mut path = vec![0];
            path.extend_from_slice(name);
            PathBuf::from(std::ffi::OsStr::from_bytes(&path))
        }
        (None, None) => PathBuf::new(),
    }
}

/// Whether the system reports which sockets listen. Apple's declare the option but lack it.
pub(crate) const KNOWS_LISTENERS: bool = cfg!(not(target_vendor = "apple"));

/// Returns what kind of socket this is.
pub(crate) fn socket_kind(handle: &Handle) -> Result<SocketKind, i32> {
    use net::sockopt;
    let kind = sockopt::socket_type(handle).map_err(Errno::raw_os_error)?;
    if kind != net::SocketType::STREAM {
        return Ok(SocketKind::Other);
    }
    #[cfg(not(target_vendor = "apple"))]
    if sockopt::socket_acceptconn(handle).map_err(Errno::raw_os_error)? {
        return Ok(SocketKind::Listening);
    }
    Ok(SocketKind::Stream)
}

/// Resets SO_LINGER: a close returns at once and the connection still closes gracefully, whatever
/// the caller had set.
pub(crate) fn forget_linger(handle: &Handle) -> Result<(), i32> {
    SockRef::from(handle)
        .set_linger(None)
        .map_err(|error| code_of(&error))
}

pub(crate) fn set_nonblocking(handle: &Handle, nonblocking: bool) -> Result<(), i32> {
    SockRef::from(handle)
        .set_nonblocking(nonblocking)
        .map_err(|error| code_of(&error))
}

/// Accepts one connection as a non-blocking socket that child processes do not inherit.
pub(crate) fn accept(handle: &Handle) -> Result<Handle, i32> {
    #[cfg(target_os = "linux")]
    {
        let flags = net::SocketFlags::CLOEXEC | net::SocketFlags::NONBLOCK;
        let accepted = net::accept_with(handle, flags);
        accepted.map(Handle::from).map_err(Errno::raw_os_error)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let (socket, _) = SockRef::from(handle)
            .accept()
            .map_err(|error| code_of(&error))?;
        socket
            .set_nonblocking(true)
            .map_err(|error| code_of(&error))?;
        Ok(socket.into())
    }
}

/// Starts to connect a non-blocking socket. Fails with `EINPROGRESS` if the kernel continues it.
pub(crate) fn connect(handle: &Handle, to: &SockAddr) -> Result<(), i32> {
    SockRef::from(handle)
        .connect(to)
        .map_err(|error| code_of(&error))
}

/// Connects a blocking socket without waiting.
#[cfg(target_os = "linux")]
pub(crate) fn connect_at_once(handle: &Handle, to: &SockAddr) -> Result<(), i32> {
    set_nonblocking(handle, true)?;
    let connected = connect(handle, to);
    set_nonblocking(handle, false)?;
    connected
}

/// Receives into `bytes` without blocking. Returns 0 at the end of the stream.
pub(crate) fn receive(handle: &Handle, bytes: &mut [u8]) -> Result<usize, i32> {
    match net::recv(handle, bytes, RecvFlags::DONTWAIT) {
        Ok((count, _)) => Ok(count),
        Err(errno) => Err(errno.raw_os_error()),
    }
}

/// Looks at what a receive would return, without consuming it. 0 is the end of the stream.
pub(crate) fn peek(handle: &Handle) -> Result<usize, i32> {
    match net::recv(handle, &mut [0u8; 1], RecvFlags::DONTWAIT | RecvFlags::PEEK) {
        Ok((count, _)) => Ok(count),
        Err(errno) => Err(errno.raw_os_error()),
    }
}

/// Sends without blocking, and without a signal if the peer is gone.
pub(crate) fn send(handle: &Handle, slices: &[IoSlice<'_>]) -> Result<usize, i32> {
    match slices {
        [one] => send_one(handle, one),
        many => {
            let control = &mut SendAncillaryBuffer::default();
            let sent = net::sendmsg(handle, many, control, send_flags());
            sent.map_err(Errno::raw_os_error)
        }
    }
}

/// The same for a single slice.
pub(crate) fn send_one(handle: &Handle, bytes: &[u8]) -> Result<usize, i32> {
    net::send(handle, bytes, send_flags()).map_err(Errno::raw_os_error)
}

fn send_flags() -> SendFlags {
    // Apple's systems have no such flag. There `std` and `socket2` set SO_NOSIGPIPE instead.
    #[cfg(not(target_vendor = "apple"))]
    return SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    #[cfg(target_vendor = "apple")]
    return SendFlags::DONTWAIT;
}

pub(crate) fn would_block(code: i32) -> bool {
    code == Errno::AGAIN.raw_os_error()
}

pub(crate) fn interrupted(code: i32) -> bool {
    code == Errno::INTR.raw_os_error()
}

pub(crate) fn in_progress(code: i32) -> bool {
    code == Errno::INPROGRESS.raw_os_error()
}

/// Returns the pending error of a socket and clears it.
pub(crate) fn take_error(handle: &Handle) -> Option<i32> {
    match SockRef::from(handle).take_error() {
        Ok(error) => error.and_then(|error| error.raw_os_error()),
        Err(error) => Some(code_of(&error)),
    }
}

pub(crate) fn shutdown_write(handle: &Handle) -> Result<(), i32> {
    net::shutdown(handle, Shutdown::Write).map_err(Errno::raw_os_error)
}

/// Shuts both sides down: the peer gets a FIN, and pending requests end at once.
#[cfg(target_os = "linux")]
pub(crate) fn shutdown_both(handle: &Handle) -> Result<(), i32> {
    net::shutdown(handle, Shutdown::Both).map_err(Errno::raw_os_error)
}

/// Ends a TCP connection with a reset at once. The socket stays open.
#[cfg(target_os = "linux")]
pub(crate) fn disconnect(handle: &Handle) -> Result<(), i32> {
    net::connect_unspec(handle).map_err(Errno::raw_os_error)
}

/// The most unread bytes that a close reads and discards.
const DISCARD_BYTES_MAX: usize = 1 << 20;

/// Closes the socket so that everything sent before still arrives.
pub(crate) fn close_gracefully(handle: Handle) {
    prepare_graceful_close(&handle);
    drop(handle);
}

/// Prepares a socket for a graceful close. A close with unread bytes would reset the connection and
/// destroy output that is on its way (measured: 24,576 of 300,000 bytes arrived).
pub(crate) fn prepare_graceful_close(handle: &Handle) {
    let unread = rustix::io::ioctl_fionread(handle).unwrap_or(0);
    if unread > 0 && shutdown_write(handle).is_ok() {
        let mut away = [0; 16 * 1024];
        let mut discarded = 0;
        while discarded < DISCARD_BYTES_MAX {
            match receive(handle, &mut away) {
                Ok(count) if count > 0 => discarded += count,
                _ => break,
            }
        }
    }
}

/// Closes with a reset: the peer gets RST and no FIN.
pub(crate) fn close_with_reset(handle: Handle) {
    // If the option fails, the close is graceful. No caller is left to report it to.
    let _ = SockRef::from(&handle).set_linger(Some(std::time::Duration::ZERO));
    drop(handle);
}

pub(crate) fn code_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error())
}

/// Zeroed pages of the pool.
///
/// Invariant: `pointer` is the start of a mapping of `bytes` bytes that this value alone owns.
#[derive(Debug)]
pub(crate) struct Pages {
    pointer: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread.
unsafe impl Send for Pages {}

impl Pages {
    pub(crate) fn new(bytes: usize) -> Option<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh private mapping at an address that the kernel chooses touches nothing
        // else.
        let pointer = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, access, MapFlags::PRIVATE)
        };
        let pointer = NonNull::new(pointer.ok()?.cast())?;
        Some(Pages { pointer, bytes })
    }

    /// Returns the address `offset` bytes into the pages.
    pub(crate) fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset < self.bytes, "the offset is within the pages");
        // SAFETY: within the mapping, by the assertion.
        unsafe { self.pointer.add(offset) }
    }

    /// Revokes all access. A later write by the kernel fails with EFAULT; a later access by the
    /// program ends the program.
    pub(crate) fn revoke(&self) {
        let address: *mut c_void = self.pointer.as_ptr().cast();
        // SAFETY: the caller owns the only buffer in these pages and gives it up.
        let result = unsafe { rustix::mm::mprotect(address, self.bytes, MprotectFlags::empty()) };
        debug_assert!(result.is_ok(), "a mapping can be protected");
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let address: *mut c_void = self.pointer.as_ptr().cast();
        // SAFETY: this value owns the mapping, and every buffer in it is gone with the pool.
        let result = unsafe { rustix::mm::munmap(address, self.bytes) };
        debug_assert!(result.is_ok(), "a mapping can be unmapped");
    }
}
