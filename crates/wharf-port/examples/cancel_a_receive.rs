//! Cancelling a receive: a deadline for a peer that says nothing, and no byte lost.
//!
//! The series knew no deadlines and no cancel. Here a timer is a packet, and cancelling is a
//! request: the outcome is in the last packet of the receive. What arrived before is delivered
//! first, what arrives later stays in the socket until it is asked for again.
//!
//! ```sh
//! cargo run --example cancel_a_receive
//! ```

use std::error::Error;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use wharf_port::{End, Event, Key, Port, Wait};

const CONNECTION: Key = Key(100);
const TIMER: Key = Key(200);

fn main() {
    if let Err(error) = talk() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn talk() -> Result<(), Box<dyn Error>> {
    let port = Port::builder().build()?;
    let mut waiter = port.waiter()?;

    // Both ends are in this program: the peer is an ordinary socket of the standard library, and
    // so is the one that it talks to, until it is associated. With no other peer to serve, `?` is
    // right on calls about this one socket; in a server it never is.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut peer = TcpStream::connect(listener.local_addr()?)?;
    let (accepted, _) = listener.accept()?;
    let stream = port.associate(accepted, CONNECTION)?;

    peer.write_all(b"first")?;
    let mut receive = stream.socket().receive()?;
    loop {
        let Wait::Packets(packets) = waiter.wait(None)? else {
            return Err("the port was closed".into());
        };
        for packet in packets {
            match packet.event {
                Event::Received(data) => {
                    println!("RECEIVED {}", String::from_utf8_lossy(&data));
                    if *data == *b"second" {
                        return Ok(());
                    }
                    port.timer(Instant::now() + Duration::from_millis(100), TIMER)?;
                }
                Event::Timer => {
                    println!("NOTHING MORE CAME; CANCEL: {:?}", port.cancel(receive));
                }
                Event::Ended {
                    how: End::Cancelled,
                    ..
                } => {
                    println!("CANCELLED; ONCE MORE: {:?}", port.cancel(receive));
                    peer.write_all(b"second")?;
                    receive = stream.socket().receive()?;
                }
                event => return Err(format!("{} {event:?}", packet.key).into()),
            }
        }
    }
}
