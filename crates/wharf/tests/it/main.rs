//! The program from outside: started as a user would, driven by plain sockets, stopped by a signal.
//!
//! Each server case runs on every driver that works here. `WHARF_TEST_PROGRAM` names another
//! program to start, words and all, such as a Windows build under its runner, and
//! `WHARF_TEST_DRIVERS` the drivers that it has. What a server does until it is stopped is tried
//! on Unix only, because no safe call sends a Ctrl-C to another process on Windows; the Windows
//! build is tried from here under Wine.

#[cfg(target_os = "linux")]
mod backlog;
#[cfg(unix)]
mod bench;
#[cfg(unix)]
mod between;
#[path = "../../../wharf-port/tests/examples/codes.rs"]
mod codes;
mod commands;
#[cfg(target_os = "linux")]
mod confined;
#[cfg(target_os = "linux")]
mod deaths;
#[cfg(unix)]
mod direct;
mod doctor;
#[cfg(unix)]
mod endings;
#[cfg(unix)]
mod gates;
#[cfg(unix)]
mod halves;
#[cfg(unix)]
mod held;
#[cfg(unix)]
mod ledgers;
#[cfg(unix)]
mod load;
#[cfg(unix)]
mod loops;
#[cfg(unix)]
mod names;
#[cfg(unix)]
mod patience;
#[cfg(unix)]
mod places;
#[cfg(unix)]
mod processes;
mod program;
#[cfg(target_os = "linux")]
mod replaced;
#[cfg(unix)]
mod schemas;
#[cfg(unix)]
mod services;
#[cfg(unix)]
mod shortage;
#[cfg(unix)]
mod unread;
