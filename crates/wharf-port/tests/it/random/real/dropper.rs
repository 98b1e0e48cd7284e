//! A thread that drops leases: some at once, some a moment later.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use wharf_port::Lease;

pub(crate) struct Dropper {
    leases: Option<Sender<Lease>>,
    thread: Option<JoinHandle<()>>,
}

/// It keeps this many until there are more, or none came for a while.
const HELD_MAX: usize = 3;
const WHILE: Duration = Duration::from_micros(500);

impl Dropper {
    pub(crate) fn new() -> Self {
        Dropper {
            leases: None,
            thread: None,
        }
    }

    pub(crate) fn drop_there(&mut self, lease: Lease) {
        let leases = self.leases.get_or_insert_with(|| {
            let (leases, came) = mpsc::channel();
            self.thread = Some(std::thread::spawn(move || {
                let mut held: Vec<Lease> = Vec::new();
                loop {
                    match came.recv_timeout(WHILE) {
                        Ok(lease) if held.len() < HELD_MAX => held.push(lease),
                        // The oldest waits longest.
                        Ok(lease) => drop(std::mem::replace(&mut held[0], lease)),
                        Err(RecvTimeoutError::Timeout) => held.clear(),
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            }));
            leases
        });
        leases.send(lease).expect("its thread takes them all");
    }

    /// Drops everything that it has; returns once it has.
    pub(crate) fn end(&mut self) {
        self.leases = None;
        if let Some(thread) = self.thread.take() {
            thread.join().expect("dropping a lease never fails");
        }
    }
}
