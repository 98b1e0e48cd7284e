//! The program from outside: started as a user would, driven by plain sockets, stopped by a signal.
//!
//! Each server case runs on every driver that works here. `WHARF_TEST_PROGRAM` names another
//! program to start, words and all, such as a Windows build under its runner, and
//! `WHARF_TEST_DRIVERS` the drivers that it has. On Windows programs are stopped by the end of their
//! input, because no safe call sends a Ctrl-C to another process there (`running`); the Windows
//! build is also tried from Unix, under Wine, where signals stop it.

#[cfg(windows)]
mod absent;
#[cfg(target_os = "linux")]
mod backlog;
mod bench;
mod between;
#[path = "../../../wharf-port/tests/examples/codes.rs"]
mod codes;
mod commands;
#[cfg(target_os = "linux")]
mod confined;
#[cfg(unix)]
mod console;
#[cfg(target_os = "linux")]
mod deaths;
mod direct;
mod doctor;
mod endings;
mod gates;
mod halves;
mod held;
mod ledgers;
mod load;
mod loops;
mod names;
#[cfg(unix)]
mod paths;
mod patience;
mod places;
mod processes;
mod program;
#[cfg(target_os = "linux")]
mod replaced;
mod running;
mod schemas;
mod services;
mod shortage;
mod unread;
