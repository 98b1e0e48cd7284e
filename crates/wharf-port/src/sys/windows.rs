//! Windows: socket handles, and the calls that leave no request with the system.
//!
//! `windows/codes.rs` has the meaning of the codes. `socket2` makes the sockets: they are
//! overlapped, child processes do not inherit them, and Winsock is started before the first one.
//! Compared with `unix.rs`, the calls that only a readiness driver makes are missing.

use std::ffi::{CStr, c_char, c_void};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::windows::io::{AsRawSocket, AsSocket, BorrowedSocket, OwnedSocket};
use std::path::PathBuf;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use windows_sys::Win32::Foundation as win32;
use windows_sys::Win32::Networking::WinSock as winsock;
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetProcAddress};
use windows_sys::Win32::System::Memory as memory;

use super::SocketKind;
use crate::error::{Error, Operation};
pub(crate) use codes::{
    CANCELLED, accept_fault, bind_error_kind, code_of_status, connect_error_kind, error_kind, hint,
    is_broken_pipe, is_cancelled,
};

#[path = "windows/codes.rs"]
mod codes;

/// An open socket.
pub(crate) type Handle = OwnedSocket;

pub(crate) fn raw_number(handle: &Handle) -> u64 {
    handle.as_raw_socket()
}

/// Whether the socket has no descriptor, but is an entry in the table of a ring: never here.
pub(crate) fn is_direct(_handle: &Handle) -> bool {
    false
}

/// Returns the socket itself: each handle is one.
#[allow(
    clippy::unnecessary_wraps,
    reason = "on Linux there are sockets without a descriptor"
)]
pub(crate) fn descriptor(handle: &Handle) -> Option<BorrowedSocket<'_>> {
    Some(handle.as_socket())
}

pub(crate) fn from_descriptor(socket: OwnedSocket) -> Handle {
    socket
}

#[allow(
    clippy::unnecessary_wraps,
    reason = "on Linux there are sockets without a descriptor"
)]
pub(crate) fn into_descriptor(handle: Handle) -> Result<OwnedSocket, Handle> {
    Ok(handle)
}

/// Unsupported: another handle to the same socket would belong to the same completion port.
pub(crate) fn duplicate(_handle: &Handle) -> io::Result<Handle> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Codes that say what this machine lacks, for any operation: buffers.
#[cfg(test)]
pub(crate) const LACKS: [i32; 1] = [winsock::WSAENOBUFS];
/// Codes of a send that failed without saying how the connection ended.
#[cfg(test)]
pub(crate) const WITHOUT_A_WORD: &[i32] = &[];
/// The code of a connection that the peer has reset.
#[cfg(test)]
pub(crate) const RESET: i32 = winsock::WSAECONNRESET;

/// Returns what to do about a bound that the system reports.
pub(crate) fn full_advice(_code: i32) -> &'static str {
    crate::error::AT_BOUND
}

/// Returns what to do about too many open files, as the end of a sentence.
pub(crate) fn descriptor_advice() -> String {
    ": this process has used up its handles, find what leaks them".into()
}

/// Windows has no fork.
pub(crate) fn forks() -> u32 {
    0
}

pub(crate) fn new_socket(domain: Domain, protocol: Option<Protocol>) -> io::Result<Socket> {
    if domain == Domain::UNIX {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Socket::new(domain, Type::STREAM, protocol)
}

/// No other program may take the address, whatever options it sets. With `SO_REUSEADDR` it could.
pub(crate) fn prepare_bind(socket: &Socket) -> io::Result<()> {
    set_option(socket.as_raw_socket(), winsock::SO_EXCLUSIVEADDRUSE, 1)
}

/// Unsupported: Windows does not distribute connections among listeners. What it calls sharing lets
/// one socket take the address from another.
pub(crate) fn share_port(_socket: &Socket) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Unsupported: the algorithm is a setting of the whole system.
pub(crate) fn set_congestion_control(_socket: &Socket, _name: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Binds a connecting socket, because `ConnectEx` requires it.
pub(crate) fn bind_connector(
    socket: &Socket,
    source: Option<SocketAddr>,
    to: Option<SocketAddr>,
) -> io::Result<()> {
    let any = match to {
        Some(SocketAddr::V6(_)) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        _ => (Ipv4Addr::UNSPECIFIED, 0).into(),
    };
    let source = source.unwrap_or(any);
    if source.port() == 0 {
        // Without this option, each connector reserves one of 16,384 ports for itself, whatever its
        // peer. Versions before Windows 10 do not know the option, and that bound remains there.
        let _ = set_option(socket.as_raw_socket(), winsock::SO_REUSE_UNICASTPORT, 1);
    }
    let taken = |error| Error::from_bind(Operation::Connect, &error).wrapped();
    socket.bind(&source.into()).map_err(taken)
}

fn set_option(socket: u64, option: i32, value: u32) -> io::Result<()> {
    let value = value.to_ne_bytes();
    let bytes = i32::try_from(value.len()).expect("a word is small");
    // SAFETY: the option takes a word, which lives through the call.
    let result = unsafe {
        winsock::setsockopt(
            socket as winsock::SOCKET,
            winsock::SOL_SOCKET,
            option,
            value.as_ptr(),
            bytes,
        )
    };
    if result != 0 {
        return Err(io::Error::from_raw_os_error(socket_error()));
    }
    Ok(())
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

/// A Unix socket of another library may be associated. Its path is not read.
pub(crate) fn unix_path(_address: &SockAddr) -> PathBuf {
    PathBuf::new()
}

/// Whether the system reports which sockets listen.
pub(crate) const KNOWS_LISTENERS: bool = true;

/// Returns what kind of socket this is.
pub(crate) fn socket_kind(handle: &Handle) -> Result<SocketKind, i32> {
    let kind = SockRef::from(handle).r#type();
    if kind.map_err(|error| code_of(&error))? != Type::STREAM {
        return Ok(SocketKind::Other);
    }
    let mut listens = 0u32;
    let mut bytes = size_of::<u32>() as i32;
    let socket = handle.as_raw_socket() as winsock::SOCKET;
    let (level, option) = (winsock::SOL_SOCKET, winsock::SO_ACCEPTCONN);
    let value = (&raw mut listens).cast();
    // SAFETY: the option is four bytes, which live through the call. So does their count.
    let result = unsafe { winsock::getsockopt(socket, level, option, value, &raw mut bytes) };
    match (result, listens) {
        (0, 0) => Ok(SocketKind::Stream),
        (0, _) => Ok(SocketKind::Listening),
        _ => Err(code_of(&io::Error::last_os_error())),
    }
}

/// Resets SO_LINGER: a close returns at once and the connection still closes gracefully, whatever
/// the caller had set.
pub(crate) fn forget_linger(handle: &Handle) -> Result<(), i32> {
    SockRef::from(handle)
        .set_linger(None)
        .map_err(|error| code_of(&error))
}

/// Affects plain calls only. Overlapped requests wait on either kind of socket.
pub(crate) fn set_nonblocking(handle: &Handle, nonblocking: bool) -> Result<(), i32> {
    SockRef::from(handle)
        .set_nonblocking(nonblocking)
        .map_err(|error| code_of(&error))
}

/// Receives into `bytes` without blocking. Returns 0 at the end of the stream.
pub(crate) fn receive(handle: &Handle, bytes: &mut [u8]) -> Result<usize, i32> {
    receive_with(handle, bytes, 0)
}

/// Looks at what a receive would return, without consuming it. Returns 0 at the end of the stream.
pub(crate) fn peek(handle: &Handle) -> Result<usize, i32> {
    receive_with(handle, &mut [0], winsock::MSG_PEEK)
}

fn receive_with(handle: &Handle, bytes: &mut [u8], flags: i32) -> Result<usize, i32> {
    let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
    let socket = handle.as_raw_socket() as winsock::SOCKET;
    // SAFETY: the bytes are borrowed for the call, which fills at most `length` of them.
    let count = unsafe { winsock::recv(socket, bytes.as_mut_ptr(), length, flags) };
    match usize::try_from(count) {
        Ok(0) if hides_resets() && has_failed(socket) => Err(winsock::WSAECONNRESET),
        Ok(count) => Ok(count),
        Err(_) => Err(socket_error()),
    }
}

/// Sends from `bytes` without blocking.
pub(crate) fn send_one(handle: &Handle, bytes: &[u8]) -> Result<usize, i32> {
    let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
    let socket = handle.as_raw_socket() as winsock::SOCKET;
    // SAFETY: the bytes are borrowed for the call, which reads at most `length` of them.
    let count = unsafe { winsock::send(socket, bytes.as_ptr(), length, 0) };
    usize::try_from(count).map_err(|_| socket_error())
}

/// Whether a send failed because the system has no memory for a copy of its bytes.
pub(crate) fn lacks_buffers(code: i32) -> bool {
    code == winsock::WSAENOBUFS
}

/// Whether the connection has failed. Wine 8 reports this only if the socket is polled.
fn has_failed(socket: winsock::SOCKET) -> bool {
    let mut poll = winsock::WSAPOLLFD {
        fd: socket,
        events: winsock::POLLRDNORM,
        revents: 0,
    };
    // SAFETY: one entry, which lives through the call; a limit of 0 does not wait.
    let count = unsafe { winsock::WSAPoll(&raw mut poll, 1, 0) };
    count == 1 && poll.revents & winsock::POLLERR != 0
}

/// Returns the version of Wine, such as "10.0", if this is Wine and not Windows.
pub(crate) fn wine_version() -> Option<&'static str> {
    static VERSION: OnceLock<Option<String>> = OnceLock::new();
    let version = VERSION.get_or_init(|| {
        type Version = unsafe extern "C" fn() -> *const c_char;
        // SAFETY: both names end in a zero byte. The first call looks up a module that every
        // process has. The second looks up a function in it that only Wine has, and which has this
        // type.
        let version = unsafe {
            let ntdll = GetModuleHandleA(c"ntdll.dll".as_ptr().cast());
            let function = GetProcAddress(ntdll, c"wine_get_version".as_ptr().cast())?;
            std::mem::transmute::<unsafe extern "system" fn() -> isize, Version>(function)
        };
        // SAFETY: the function returns a text of its own that is never freed.
        let text = unsafe { CStr::from_ptr(version()) };
        Some(text.to_string_lossy().into_owned())
    });
    version.as_deref()
}

/// Whether this is a version of Wine that reports a reset as the end of the stream if no receive
/// was pending when the reset came. Windows and Wine 10 report a reset.
fn hides_resets() -> bool {
    static HIDES: OnceLock<bool> = OnceLock::new();
    *HIDES.get_or_init(|| {
        let version = wine_version().unwrap_or("10");
        let major = version.split('.').next().unwrap_or_default();
        major.parse().is_ok_and(|major: u32| major < 10)
    })
}

pub(crate) fn would_block(code: i32) -> bool {
    code == winsock::WSAEWOULDBLOCK
}

pub(crate) fn interrupted(code: i32) -> bool {
    code == winsock::WSAEINTR
}

/// Returns the code with which the last call of Windows on this thread failed.
pub(crate) fn last_error() -> i32 {
    // SAFETY: reads a value that belongs to this thread.
    let code = unsafe { win32::GetLastError() };
    code as i32
}

/// Returns the code with which the last call of Winsock on this thread failed.
pub(crate) fn socket_error() -> i32 {
    // SAFETY: reads a value that belongs to this thread.
    unsafe { winsock::WSAGetLastError() }
}

pub(crate) fn shutdown_write(handle: &Handle) -> Result<(), i32> {
    SockRef::from(handle)
        .shutdown(std::net::Shutdown::Write)
        .map_err(|error| code_of(&error))
}

/// The most unread bytes that a close reads and discards.
const DISCARD_BYTES_MAX: usize = 1 << 20;

/// Closes the socket so that everything sent before still arrives. A close with unread bytes would
/// reset the connection and destroy output that is on its way.
pub(crate) fn close_gracefully(handle: Handle) {
    if unread_bytes(&handle) > 0 {
        // It fails if the peer has reset the connection. Then there is nothing to lose either.
        let _ = shutdown_write(&handle);
        let mut away = [0; 16 * 1024];
        let mut discarded = 0;
        while discarded < DISCARD_BYTES_MAX {
            match receive(&handle, &mut away) {
                Ok(count) if count > 0 => discarded += count,
                _ => break,
            }
        }
    }
    drop(handle);
}

fn unread_bytes(handle: &Handle) -> u32 {
    let mut unread = 0;
    let socket = handle.as_raw_socket() as winsock::SOCKET;
    // SAFETY: the call writes one word, which lives through the call.
    let result = unsafe { winsock::ioctlsocket(socket, winsock::FIONREAD, &raw mut unread) };
    if result == 0 { unread } else { 0 }
}

/// Closes with a reset: the peer gets RST and no FIN.
pub(crate) fn close_with_reset(handle: Handle) {
    // If the option fails, the close is graceful. No caller is left to report it to.
    let _ = SockRef::from(&handle).set_linger(Some(std::time::Duration::ZERO));
    drop(handle);
}

pub(crate) fn code_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(winsock::WSAEINVAL)
}

/// Zeroed pages of the pool.
///
/// Invariant: `pointer` is the start of a reservation of `bytes` bytes that this value alone owns.
#[derive(Debug)]
pub(crate) struct Pages {
    pointer: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a reservation belongs to the process, not to a thread.
unsafe impl Send for Pages {}

impl Pages {
    pub(crate) fn new(bytes: usize) -> Option<Self> {
        let kind = memory::MEM_RESERVE | memory::MEM_COMMIT;
        // SAFETY: a fresh reservation at an address that the system chooses touches nothing else.
        let pointer =
            unsafe { memory::VirtualAlloc(ptr::null(), bytes, kind, memory::PAGE_READWRITE) };
        let pointer = NonNull::new(pointer.cast())?;
        Some(Pages { pointer, bytes })
    }

    /// Returns the address `offset` bytes into the pages.
    pub(crate) fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset < self.bytes, "the offset is within the pages");
        // SAFETY: within the reservation, by the assertion.
        unsafe { self.pointer.add(offset) }
    }

    /// Revokes all access. A later write by the system fails with a fault; a later access by the
    /// program ends the program.
    pub(crate) fn revoke(&self) {
        let address: *mut c_void = self.pointer.as_ptr().cast();
        let mut before = 0;
        // SAFETY: the caller owns the only buffer in these pages and gives it up.
        let result = unsafe {
            memory::VirtualProtect(address, self.bytes, memory::PAGE_NOACCESS, &raw mut before)
        };
        debug_assert!(result != 0, "a reservation can be protected");
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let address: *mut c_void = self.pointer.as_ptr().cast();
        // SAFETY: this value owns the reservation, and every buffer in it is gone with the pool. A
        // length of 0 releases the whole reservation.
        let result = unsafe { memory::VirtualFree(address, 0, memory::MEM_RELEASE) };
        debug_assert!(result != 0, "a reservation can be released");
    }
}
