//! The server that README.md shows: accepts every connection and holds it until the peer leaves.
//!
//! A test compares the two and runs this one.

use wharf_port::{Close, Event, Key, Port, Wait};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:10101".into());
    let address: std::net::SocketAddr = address.parse()?;

    let port = Port::builder().build()?;
    let mut waiter = port.waiter()?;
    let listener = port.listen(address, Key(90))?.accept()?;
    println!("{} on {}", listener.local_addr()?, port.driver());

    let mut next_key = 100;
    while let Wait::Packets(packets) = waiter.wait(None)? {
        for packet in packets {
            match packet.event {
                // An accept is a packet of the listener. No `?` on a call about one socket:
                // one peer's fault is not the server's.
                Event::Accepted(accepted) => {
                    let Ok(stream) = port.associate(accepted, Key(next_key)) else {
                        continue;
                    };
                    if let Ok(stream) = stream.watch() {
                        println!("{next_key} came");
                        next_key += 1;
                        stream.set_aside(); // the port keeps it, the program need not
                    }
                }
                // By FIN or by RST; every packet carries the socket it is about.
                Event::PeerLeft(how) => {
                    println!("{} left: {how:?}", packet.key);
                    _ = packet.socket.close(Close::Flush);
                }
                _ => {}
            }
        }
    }
    Ok(())
}
