//! The codes that the simulated network reports: those of the system on which it runs.
//!
//! The core knows the codes of its own system only. A simulated network with its own codes would
//! test a translation that no real driver uses.

#[cfg(unix)]
mod imp {
    use libc as os;

    pub(crate) const RESET: i32 = os::ECONNRESET;
    /// A write after the connection was reset.
    pub(crate) const BROKEN_PIPE: i32 = os::EPIPE;
    pub(crate) const REFUSED: i32 = os::ECONNREFUSED;
    pub(crate) const TIMED_OUT: i32 = os::ETIMEDOUT;
    pub(crate) const UNREACHABLE: i32 = os::EHOSTUNREACH;
    pub(crate) const CANCELLED: i32 = os::ECANCELED;
    pub(crate) const TOO_MANY_FILES: i32 = os::EMFILE;
    /// The error of one connection that an accept reports.
    pub(crate) const CONNECTION_GONE: i32 = os::ECONNABORTED;
    pub(crate) const OUT_OF_MEMORY: i32 = os::ENOMEM;
    pub(crate) const NOT_CONNECTED: i32 = os::ENOTCONN;
    pub(crate) const ADDRESS_IN_USE: i32 = os::EADDRINUSE;
    /// A handle that this network did not make.
    pub(crate) const FOREIGN: i32 = os::EOPNOTSUPP;
}

#[cfg(windows)]
mod imp {
    use windows_sys::Win32::Foundation::ERROR_OPERATION_ABORTED;
    use windows_sys::Win32::Networking::WinSock as os;

    pub(crate) const RESET: i32 = os::WSAECONNRESET;
    /// A write after the connection was reset. Windows has no separate code for it.
    pub(crate) const BROKEN_PIPE: i32 = os::WSAECONNRESET;
    pub(crate) const REFUSED: i32 = os::WSAECONNREFUSED;
    pub(crate) const TIMED_OUT: i32 = os::WSAETIMEDOUT;
    pub(crate) const UNREACHABLE: i32 = os::WSAEHOSTUNREACH;
    pub(crate) const CANCELLED: i32 = ERROR_OPERATION_ABORTED as i32;
    pub(crate) const TOO_MANY_FILES: i32 = os::WSAEMFILE;
    /// The error of one connection that an accept reports.
    pub(crate) const CONNECTION_GONE: i32 = os::WSAECONNRESET;
    pub(crate) const OUT_OF_MEMORY: i32 = os::WSAENOBUFS;
    pub(crate) const NOT_CONNECTED: i32 = os::WSAENOTCONN;
    pub(crate) const ADDRESS_IN_USE: i32 = os::WSAEADDRINUSE;
    /// A handle that this network did not make.
    pub(crate) const FOREIGN: i32 = os::WSAEOPNOTSUPP;
}

pub(super) use imp::*;
