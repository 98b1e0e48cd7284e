//! Async sockets on Wharf's completion port.
//!
//! There is no async layer yet: this crate is empty and reserves its place in
//! the workspace. Use `wharf-port`, whose completion port it will stand on.

#![forbid(unsafe_code)]
