//! One I/O completion port on IOCP, io_uring and readiness.
