//! Several threads that wait on one port, for cases about sharing.

use std::sync::Barrier;
use std::thread;

use wharf_port::{Packet, Port, Wait};

/// Runs `work` on this thread while this number of others wait, each with its own waiter, and pass
/// every packet to `handle` with their number. They end when the port is closed.
pub(crate) fn crew(
    port: &Port,
    threads: usize,
    handle: impl Fn(usize, Packet) + Sync,
    work: impl FnOnce(),
) {
    let ready = Barrier::new(threads + 1);
    thread::scope(|scope| {
        let (handle, ready) = (&handle, &ready);
        for number in 0..threads {
            scope.spawn(move || {
                let mut waiter = port.waiter().expect("there is room for a waiter");
                // The port stays open until all threads have a waiter.
                ready.wait();
                while let Wait::Packets(batch) = waiter.wait(None).expect("waits") {
                    batch.for_each(|packet| handle(number, packet));
                }
            });
        }
        ready.wait();
        work();
    });
}
