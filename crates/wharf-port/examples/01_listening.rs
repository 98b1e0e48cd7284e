//! Listening: a port, a socket associated with it, and the end.
//!
//! Does what the series' `01 - Listening.py` does, which binds, listens, prints `SUCCESS` and ends.
//! This program listens on the requested address, and prints it with the port number that the
//! system chose.
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

    // The program closes what it made, last made first. If a step fails, `?` closes what the
    // earlier steps made, each thing once. No code has to be written for that.
    let port = Port::builder().build()?;
    let listener = port.listen(address, LISTENER)?;

    println!("LISTENING ON {}", listener.local_addr()?);
    println!("SUCCESS");
    Ok(())
}
