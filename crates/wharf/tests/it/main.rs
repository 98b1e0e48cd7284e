//! The program from outside: started as a user would, driven by plain sockets, stopped by a signal.
//!
//! Each server case runs on every driver that works here. `WHARF_TEST_PROGRAM` is the command line
//! of another program to start, such as a Windows build under its runner, and `WHARF_TEST_DRIVERS`
//! lists its drivers. On Windows a program stops when its input closes, because no safe call sends
//! a Ctrl-C to another process there (`running`). The Windows build is also tested from Unix, under
//! Wine, where signals stop it.

#[cfg(windows)]
mod absent;
#[cfg(target_os = "linux")]
mod backlog;
mod bench;
mod between;
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
