//! A client: connects within a time, sends, and reads what comes back until the server ends.
//!
//! A connect is an operation like any other. Its packet brings the stream, or says how the connect
//! failed. `timeout` bounds it, because a system alone may try for two minutes.
//!
//! ```sh
//! cargo run --example 04_echoing
//! cargo run --example client 127.0.0.1:10101 hello
//! ```

use std::io::Write;
use std::{env, error::Error, net::SocketAddr, time::Duration};

use wharf_port::{Close, ConnectOptions, End, Event, Key, Port, Wait};

const SERVER: Key = Key(100);

fn main() {
    if let Err(error) = talk() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn talk() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:10101".into());
    let address: SocketAddr = address.parse()?;
    let text = env::args().nth(2).unwrap_or("hello".into());
    let port = Port::builder().build()?;
    let mut waiter = port.waiter()?;

    let to = ConnectOptions::new(address).timeout(Duration::from_secs(10));
    port.connect(to, SERVER)?;
    // The owner: dropping it closes the connection.
    let mut server = None;
    loop {
        let Wait::Packets(packets) = waiter.wait(None)? else {
            return Err("the port was closed".into());
        };
        for packet in packets {
            match packet.event {
                Event::Connected(stream) => {
                    stream.send(text.clone())?;
                    stream.shutdown()?; // A FIN behind the text: the server knows that it is all.
                    server = Some(stream.receive()?);
                }
                Event::ConnectFailed { how, .. } => {
                    return Err(format!("{address}: {how:?}").into());
                }
                Event::Received(data) => std::io::stdout().write_all(&data)?,
                Event::Ended { how, .. } => {
                    println!();
                    if how != End::Finished {
                        return Err(format!("{address}: {how:?}").into());
                    }
                    if let Some(stream) = server.take() {
                        stream.close(Close::Flush)?;
                    }
                }
                Event::Closed => return Ok(()),
                _ => {}
            }
        }
    }
}
