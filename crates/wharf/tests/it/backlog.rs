//! A server whose backlog is full: the connects in flight of a load, and its report.
//!
//! Linux drops connections that do not fit and the client sends again; other systems refuse them.

use socket2::{Domain, Socket, Type};

use crate::load::load;
use crate::patience::{enough, given_time, milliseconds};
use crate::running::drivers;

/// A listener without accepts, with space for one or two connections.
fn full() -> (Socket, String) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let anywhere = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    listener.bind(&anywhere.into()).expect("a port is free");
    listener.listen(1).expect("it is bound");
    let address = listener.local_addr().expect("it is bound");
    let address = address.as_socket().expect("of the internet");
    (listener, address.to_string())
}

#[test]
fn no_more_connects_are_under_way_than_may_be() {
    for driver in drivers() {
        given_time(|factor| {
            let (_listener, address) = full();
            let time = milliseconds(100, factor);
            let place = ["hold", &address, "--connections", "50", "--for", &time];
            let limits = ["--connecting", "3", "--connect-timeout", "5m"];
            let options = [&place[..], &limits, &["--driver", &driver]].concat();
            let (told, code) = load(&options);
            assert_eq!(code, Some(1), "{told}");
            let connected = told["connected"].as_u64().expect("a number");
            assert!(connected < 10, "{told}");
            // The load waits for connects in flight, and starts no others.
            assert!(told["unfinished"].as_u64() <= Some(3), "{told}");
            enough(connected > 0 && told["unfinished"] == 3, &told)?;
            assert_eq!(told["asked"], connected + 3, "{told}");
            let verdict = told["verdict"].as_str().expect("a sentence");
            let cause = "backlog of the server was likely full";
            assert!(verdict.contains(cause), "{verdict}");
            assert!(verdict.contains("--connecting"), "{verdict}");
            Ok(())
        });
    }
}
