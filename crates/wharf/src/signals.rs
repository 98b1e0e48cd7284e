//! What ends a server: the first signal in order, the second at once.
//!
//! A signal is a packet posted to each port, so that threads that wait without a limit wake up for
//! it. The series looked for Ctrl-C every 500 ms.

use wharf_port::Port;

use crate::server::{CONTROL, STOP};
use crate::sys;

/// The exit code of a program that Ctrl-C has ended: 128 and the number of SIGINT.
const ENDED_BY_SIGNAL: i32 = 130;

/// Listens for signals from now on, on a thread of its own.
pub(crate) fn stop_on_signals(ports: Vec<Port>) -> Result<(), String> {
    let mut stopping = false;
    let handler = move || {
        if std::mem::replace(&mut stopping, true) {
            std::process::exit(ENDED_BY_SIGNAL);
        }
        stop(&ports);
    };
    sys::on_stop_signal(handler).map_err(|error| format!("cannot listen for Ctrl-C: {error}"))
}

/// Tells each thread to stop.
pub(crate) fn stop(ports: &[Port]) {
    for port in ports {
        // A closed port has stopped already.
        let _ = port.post(CONTROL, STOP);
    }
}
