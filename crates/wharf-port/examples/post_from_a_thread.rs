//! Posting from a thread: results of work done elsewhere arrive as packets.
//!
//! The series' port had only packets of sockets. Here any thread posts a number under a key. None
//! is lost, and those of one thread arrive in order. A full queue refuses and returns the number,
//! so a fast worker cannot overrun a slow reader.
//!
//! ```sh
//! cargo run --example post_from_a_thread
//! ```

use std::error::Error;
use std::thread;

use wharf_port::{ErrorKind, Event, Key, Port, Wait};

const THREADS: u64 = 3;
/// The squares that each thread computes, and then a 0 to say that it is done.
const NUMBERS: u64 = 1_000;
const DONE: u64 = 0;

fn main() {
    if let Err(error) = add_up() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn add_up() -> Result<(), Box<dyn Error>> {
    // The bound is so small that the threads have to wait.
    let port = Port::builder().posts_max(16).build()?;
    let mut waiter = port.waiter()?;
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let port = &port;
            scope.spawn(move || compute(port, Key(thread)));
        }
        let mut last = [0; THREADS as usize];
        let (mut sum, mut done) = (0, 0);
        while done < THREADS {
            let Wait::Packets(packets) = waiter.wait(None)? else {
                return Err("the port was closed".into());
            };
            for packet in packets {
                match packet.event {
                    Event::Posted(DONE) => {
                        println!("THREAD {} IS DONE", packet.key);
                        done += 1;
                    }
                    Event::Posted(square) => {
                        let last = &mut last[packet.key.0 as usize];
                        assert!(square > *last, "what one thread posts arrives in order");
                        *last = square;
                        sum += square;
                    }
                    event => eprintln!("{} {event:?}", packet.key),
                }
            }
        }
        println!("SUM {sum}");
        Ok(())
    })
}

fn compute(port: &Port, key: Key) {
    for value in (1..=NUMBERS).map(|number| number * number).chain([DONE]) {
        // If the queue is full, the number comes back and the thread tries again. A closed port is
        // the end.
        while let Err(refused) = port.post(key, value) {
            if refused.error.kind() != ErrorKind::Full {
                return;
            }
            thread::yield_now();
        }
    }
}
