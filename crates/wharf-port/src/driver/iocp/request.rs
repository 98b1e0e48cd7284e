//! The requests themselves: one function per system call that leaves a request behind.
//!
//! Each returns `Ok` if a packet will come, and the code if none will. A request that succeeds at
//! once posts its packet like any other. `FILE_SKIP_COMPLETION_PORT_ON_SUCCESS` would save that
//! packet, but each request would then have two ways to end, and it is wrong under layered
//! providers.

use std::ffi::c_void;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::windows::io::AsRawSocket;
use std::ptr;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use windows_sys::Win32::Foundation::{ERROR_IO_PENDING, HANDLE};
use windows_sys::Win32::Networking::WinSock::{
    LPFN_ACCEPTEX, LPFN_CONNECTEX, LPFN_GETACCEPTEXSOCKADDRS, SIO_BASE_HANDLE,
    SIO_GET_EXTENSION_FUNCTION_POINTER, SIO_TCP_INITIAL_RTO, SO_UPDATE_ACCEPT_CONTEXT,
    SO_UPDATE_CONNECT_CONTEXT, SOCKADDR, SOCKADDR_STORAGE, SOCKET, SOL_SOCKET,
    TCP_INITIAL_RTO_PARAMETERS, WSABUF, WSAID_ACCEPTEX, WSAID_CONNECTEX,
    WSAID_GETACCEPTEXSOCKADDRS, WSAIoctl, WSARecv, WSASend, setsockopt,
};
use windows_sys::Win32::System::IO::{CancelIoEx, OVERLAPPED};
use windows_sys::core::GUID;

use crate::sys::{self, Handle};

/// Bytes of one address in what `AcceptEx` writes: the largest address, and 16 bytes of its own.
const ADDRESS_BYTES: usize = size_of::<SOCKADDR_STORAGE>() + 16;

/// Where `AcceptEx` writes the addresses of both sides.
pub(super) type Addresses = [u8; 2 * ADDRESS_BYTES];

/// Functions of Winsock that are found at run time, once for each address family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extensions {
    accept: LPFN_ACCEPTEX,
    addresses: LPFN_GETACCEPTEXSOCKADDRS,
    connect: LPFN_CONNECTEX,
}

impl Extensions {
    pub(super) fn of(domain: Domain) -> Result<Self, i32> {
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP));
        let socket = Handle::from(socket.map_err(|error| sys::code_of(&error))?);
        // SAFETY: each function has the type that its name (the GUID) denotes.
        unsafe {
            Ok(Extensions {
                accept: extension(&socket, &WSAID_ACCEPTEX)?,
                addresses: extension(&socket, &WSAID_GETACCEPTEXSOCKADDRS)?,
                connect: extension(&socket, &WSAID_CONNECTEX)?,
            })
        }
    }

    /// Accepts one connection into `socket`, which is new and of the listener's family.
    ///
    /// # Safety
    /// `addresses` and `overlapped` stay valid, and no other code touches them, until the packet.
    pub(super) unsafe fn accept(
        &self,
        listener: &Handle,
        socket: &Handle,
        addresses: *mut Addresses,
        overlapped: *mut OVERLAPPED,
    ) -> Result<(), i32> {
        let accept = self.accept.expect("found when the driver was made");
        let each = ADDRESS_BYTES as u32;
        let mut received = 0;
        // SAFETY: both sockets are open; the rest is the caller's promise. No byte is received, so
        // the whole buffer is for the addresses.
        let result = unsafe {
            accept(
                raw(listener),
                raw(socket),
                addresses.cast(),
                0,
                each,
                each,
                &raw mut received,
                overlapped,
            )
        };
        issued(result != 0)
    }

    /// Returns the peer from what a successful `AcceptEx` wrote.
    pub(super) fn peer(&self, addresses: &Addresses) -> Option<SockAddr> {
        let split = self.addresses.expect("found when the driver was made");
        let each = ADDRESS_BYTES as u32;
        let (mut local, mut peer): (*mut SOCKADDR, *mut SOCKADDR) =
            (ptr::null_mut(), ptr::null_mut());
        let (mut local_bytes, mut peer_bytes) = (0, 0);
        // SAFETY: the buffer has the lengths that the accept was given; the call only points into
        // it.
        unsafe {
            split(
                addresses.as_ptr().cast(),
                0,
                each,
                each,
                &raw mut local,
                &raw mut local_bytes,
                &raw mut peer,
                &raw mut peer_bytes,
            );
        }
        let bytes = usize::try_from(peer_bytes).ok()?;
        if peer.is_null() || bytes == 0 || bytes > size_of::<SOCKADDR_STORAGE>() {
            return None;
        }
        // SAFETY: `peer` points to `bytes` bytes of an address; the storage has space for them and
        // consists of plain numbers.
        let ((), address) = unsafe {
            SockAddr::try_init(|storage, length| {
                ptr::copy_nonoverlapping(peer.cast::<u8>(), storage.cast::<u8>(), bytes);
                *length = peer_bytes;
                Ok(())
            })
        }
        .ok()?;
        Some(address)
    }

    /// Connects a bound socket.
    ///
    /// # Safety
    /// `overlapped` stays valid, and no other code touches it, until the packet.
    pub(super) unsafe fn connect(
        &self,
        socket: &Handle,
        to: &SockAddr,
        overlapped: *mut OVERLAPPED,
    ) -> Result<(), i32> {
        let connect = self.connect.expect("found when the driver was made");
        let mut sent = 0;
        // SAFETY: the call copies the address; the rest is the caller's promise.
        let result = unsafe {
            connect(
                raw(socket),
                to.as_ptr().cast(),
                to.len(),
                ptr::null(),
                0,
                &raw mut sent,
                overlapped,
            )
        };
        issued(result != 0)
    }
}

/// Finds a function by its name.
///
/// # Safety
/// `F` is the optional function pointer that `name` denotes.
unsafe fn extension<F>(socket: &Handle, name: &GUID) -> Result<F, i32> {
    const { assert!(size_of::<F>() == size_of::<*const c_void>()) };
    let mut function: *const c_void = ptr::null();
    // SAFETY: the request reads a name and writes a pointer.
    unsafe {
        control(
            socket,
            SIO_GET_EXTENSION_FUNCTION_POINTER,
            name,
            &mut function,
        )?;
    }
    // SAFETY: a pointer to the function of that name, or null, which is `None`; of the same size.
    Ok(unsafe { mem::transmute_copy(&function) })
}

/// Waits until there is something to receive, or the stream ends, and consumes nothing.
///
/// # Safety
/// `overlapped` stays valid, and no other code touches it, until the packet.
pub(super) unsafe fn wait_readable(
    socket: &Handle,
    overlapped: *mut OVERLAPPED,
) -> Result<(), i32> {
    // One buffer without a byte: a list without a buffer is an error.
    let nothing = WSABUF {
        len: 0,
        buf: ptr::null_mut(),
    };
    let mut flags = 0;
    // SAFETY: the call copies the list and the flags; the rest is the caller's promise.
    let result = unsafe {
        WSARecv(
            raw(socket),
            &raw const nothing,
            1,
            ptr::null_mut(),
            &raw mut flags,
            overlapped,
            None,
        )
    };
    issued(result == 0)
}

/// Sends what the buffers hold, in order.
///
/// # Safety
/// What `buffers` point to stays valid and unchanged, and `overlapped` valid and untouched, until
/// the packet.
pub(super) unsafe fn send(
    socket: &Handle,
    buffers: &[WSABUF],
    overlapped: *mut OVERLAPPED,
) -> Result<(), i32> {
    // SAFETY: the call copies the list; the rest is the caller's promise.
    let result = unsafe {
        WSASend(
            raw(socket),
            buffers.as_ptr(),
            buffers.len() as u32,
            ptr::null_mut(),
            0,
            overlapped,
            None,
        )
    };
    issued(result == 0)
}

/// Asks for all requests of a socket to end.
pub(super) fn cancel_all(socket: &Handle) {
    cancel(socket, ptr::null_mut());
}

/// Asks for one request of a socket to end. It is no error if the request has ended: its packet is
/// on its way.
pub(super) fn cancel(socket: &Handle, overlapped: *mut OVERLAPPED) {
    // SAFETY: the address only names a request and is not dereferenced.
    unsafe { CancelIoEx(base(socket), overlapped) };
}

/// Returns the handle of the lowest provider. A filter (a layered service provider) may hide it
/// behind a handle of its own. Calls that bypass Winsock must use this one.
pub(super) fn base(socket: &Handle) -> HANDLE {
    let mut base: SOCKET = 0;
    // SAFETY: the call writes one handle.
    let asked = unsafe { control(socket, SIO_BASE_HANDLE, &(), &mut base) };
    asked.map_or(raw(socket) as HANDLE, |()| base as HANDLE)
}

/// Returns the address that a connect to this one must use. On Windows no connect goes to the
/// address of all interfaces, which means this machine on other systems.
pub(super) fn reachable(address: SockAddr) -> SockAddr {
    match address.as_socket() {
        Some(SocketAddr::V4(it)) if it.ip().is_unspecified() => {
            SocketAddr::from((Ipv4Addr::LOCALHOST, it.port())).into()
        }
        Some(SocketAddr::V6(it)) if it.ip().is_unspecified() => {
            SocketAddr::from((Ipv6Addr::LOCALHOST, it.port())).into()
        }
        _ => address,
    }
}

/// Lets a refused connect on this machine fail as soon as the refusal arrives. By default Windows
/// tries again for two seconds, which only helps if a network may have lost a packet.
pub(super) fn refuse_at_once(socket: &Handle, to: &SockAddr) {
    let loopback = to.as_socket().is_some_and(|to| to.ip().is_loopback());
    if !loopback {
        return;
    }
    let never_again = TCP_INITIAL_RTO_PARAMETERS {
        Rtt: TCP_INITIAL_RTO_UNSPECIFIED_RTT,
        MaxSynRetransmissions: TCP_INITIAL_RTO_NO_SYN_RETRANSMISSIONS,
    };
    // SAFETY: the call reads the parameters. Where it is not known, a refusal only takes longer.
    let _ = unsafe { control(socket, SIO_TCP_INITIAL_RTO, &never_again, &mut ()) };
}

const TCP_INITIAL_RTO_UNSPECIFIED_RTT: u16 = u16::MAX;
const TCP_INITIAL_RTO_NO_SYN_RETRANSMISSIONS: u8 = 0xFE;

/// Sends a control request to the provider of a socket.
///
/// # Safety
/// The request `code` reads an `I` and writes an `O`.
unsafe fn control<I, O>(socket: &Handle, code: u32, input: &I, output: &mut O) -> Result<(), i32> {
    let mut written = 0;
    // SAFETY: both live through the call and have the sizes that are passed; the rest is the
    // caller's promise.
    let result = unsafe {
        WSAIoctl(
            raw(socket),
            code,
            ptr::from_ref(input).cast(),
            size_of::<I>() as u32,
            ptr::from_mut(output).cast(),
            size_of::<O>() as u32,
            &raw mut written,
            ptr::null_mut(),
            None,
        )
    };
    if result != 0 {
        return Err(sys::socket_error());
    }
    Ok(())
}

/// Completes an accepted socket. Fails if its peer is already gone.
pub(super) fn finish_accept(listener: &Handle, socket: &Handle) -> Result<(), i32> {
    let listener = raw(listener);
    let bytes = (&raw const listener).cast();
    // SAFETY: the option takes the listener itself, which lives through the call.
    unsafe { set_option(socket, SO_UPDATE_ACCEPT_CONTEXT, bytes, size_of::<SOCKET>()) }
}

/// Completes a connected socket.
pub(super) fn finish_connect(socket: &Handle) -> Result<(), i32> {
    // SAFETY: the option takes no value.
    unsafe { set_option(socket, SO_UPDATE_CONNECT_CONTEXT, ptr::null(), 0) }
}

/// # Safety
/// `value` points to `bytes` bytes, as the option takes.
unsafe fn set_option(
    socket: &Handle,
    option: i32,
    value: *const u8,
    bytes: usize,
) -> Result<(), i32> {
    // SAFETY: the caller's promise.
    let result = unsafe { setsockopt(raw(socket), SOL_SOCKET, option, value, bytes as i32) };
    if result != 0 {
        return Err(sys::socket_error());
    }
    Ok(())
}

pub(super) fn raw(socket: &Handle) -> SOCKET {
    socket.as_raw_socket() as SOCKET
}

fn issued(succeeded: bool) -> Result<(), i32> {
    if succeeded {
        return Ok(());
    }
    match sys::socket_error() {
        code if code == ERROR_IO_PENDING as i32 => Ok(()),
        code => Err(code),
    }
}
