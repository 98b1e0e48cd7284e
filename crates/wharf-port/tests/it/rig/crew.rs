//! Several threads that wait on one port, for cases about sharing.

use std::sync::Barrier;
use std::thread;

use wharf_port::{Packet, Port, Wait};

/// Runs `work` on this thread while so many others wait, each with a waiter of its own, and hand
/// every packet to `handle` with their number. They end when somebody closes the port.
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
                // Nobody closes the port before everybody has a waiter.
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
