//! Cancelling a receive: a deadline for a peer that sends nothing, and no byte lost.
//!
//! The series had no deadlines and no cancel. Here a timer is a packet, and a cancel is a request:
//! the last packet of the receive has its outcome. What arrived before comes first. What arrives
//! later stays in the socket until the program asks for it again.
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

    // Both ends are in this program. The peer is a socket of the standard library, and so is the
    // socket at this end until it is associated. There is no other peer to serve, so `?` is right
    // on calls about this one socket. In a server it never is.
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
