//! Listening: a port, a socket associated with it, and the end.
//!
//! Answers the series' `01 - Listening.py`, which binds, listens, says `SUCCESS` and ends. Here the
//! address is the one that was asked for, and is printed with the port number the system chose.
//!
//! ```sh
//! cargo run --example 01_listening
//! cargo run --example 01_listening -- 127.0.0.1:0
//! ```

use std::env;
use std::error::Error;
use std::net::SocketAddr;

use wharf_port::{Key, Port};

/// The key that every packet about the listener will carry. Any number would do.
const LISTENER: Key = Key(90);

fn main() {
    if let Err(error) = listen() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn listen() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:10101".into());
    let address: SocketAddr = address.parse()?;

    // What is made first is closed last. Where a step fails, what the steps before it have made is
    // closed on the way out, each thing once; nothing has to be written down for that.
    let port = Port::builder().build()?;
    let listener = port.listen(address, LISTENER)?;

    println!("LISTENING ON {}", listener.local_address()?);
    println!("SUCCESS");
    Ok(())
}
