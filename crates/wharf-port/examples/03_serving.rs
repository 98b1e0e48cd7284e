//! Serving: accepts every connection, gives it its own key, sets it aside and ignores it.
//!
//! Does what the series' `03 - Serving.py` does, and prints the same lines; the key exists before
//! its client does. The series waited in steps of 500 ms because no call could wake it. `--polling`
//! does the same; without it Ctrl-C is a packet like any other. `--stray` posts one under a key
//! that the program does not expect.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{collections::BTreeMap, env, error::Error, net::SocketAddr, time::Duration};

use wharf_port::{Event, Key, Port, Stream, Wait};

const LISTENER: Key = Key(90);
const INTERRUPT: Key = Key(91);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static PORT: Mutex<Option<Port>> = Mutex::new(None);

fn main() {
    let result = serve(&env::args().skip(1).collect::<Vec<_>>());
    *PORT.lock().unwrap() = None; // Not before the handler of Ctrl-C is done with it.
    if let Err(error) = result {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn serve(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let has = |option: &str| arguments.iter().any(|it| it == option);
    let step = has("--polling").then_some(Duration::from_millis(500));
    let address = arguments.iter().find(|it| !it.starts_with("--"));
    let address: SocketAddr = address.map_or("127.0.0.1:10101", |it| it).parse()?;
    // The locals drop last made first: connections, listener, waiter, port; each handle once.
    let port = Port::builder().build()?;
    *PORT.lock().unwrap() = Some(port.clone());
    let mut waiter = port.waiter()?;
    let listener = port.listen(address, LISTENER)?.accept()?; // Dropping it closes it.
    let mut connections: BTreeMap<Key, Stream> = BTreeMap::new();

    ctrlc::set_handler(move || match &*PORT.lock().unwrap() {
        Some(port) if step.is_none() => port.post(INTERRUPT, 0).unwrap_or_default(),
        _ => INTERRUPTED.store(true, Ordering::Relaxed),
    })?;
    if has("--stray") {
        port.post(Key(7), 0)?;
    }
    println!("LISTENING ON {}", listener.local_addr()?);
    let mut key = Key(100);
    println!("WAITING FOR CONNECTION {key}");
    while !INTERRUPTED.load(Ordering::Relaxed) {
        let Wait::Packets(packets) = waiter.wait(step)? else {
            continue;
        };
        for packet in packets {
            match (packet.key, packet.event) {
                // The series associated the new socket first, expected the accept under that
                // socket's key, and saw the listener's. Here an accepted socket has no key yet.
                (LISTENER, Event::Accepted(accepted)) => {
                    let socket = accepted.raw_descriptor();
                    // No `?`: one peer's fault is not the server's. The key waits for the next
                    // peer.
                    if let Ok(stream) = port.associate(accepted, key) {
                        println!("STORING SOCKET {socket} FOR KEY {key}");
                        connections.insert(key, stream);
                        key = Key(key.0 + 1);
                        println!("WAITING FOR CONNECTION {key}");
                    }
                }
                (LISTENER, Event::Ended { how, .. }) => Err(format!("accept: {how:?}"))?,
                (LISTENER, event) => eprintln!("{event:?}"), // Out of descriptors, and back again.
                (INTERRUPT, _) => INTERRUPTED.store(true, Ordering::Relaxed),
                (key, _) => Err(format!(
                    "unexpected completion key {key}, expected {LISTENER}"
                ))?,
            }
        }
    }
    println!("*** Keyboard interrupt.");
    Ok(())
}
