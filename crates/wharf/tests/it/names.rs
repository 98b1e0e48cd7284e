//! Where a load connects to: the addresses of a name, zones, and what is on this machine.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::process::Command;
use std::thread;

use crate::load::{last_line, load};
use crate::patience::{enough, given_time, milliseconds};
use crate::program::{code_of, needs_native, run};
use crate::running::{drivers, free_ports};

/// An IPv6 listener that keeps what it accepts, if a name for it has an IPv4 address before that.
fn behind_a_name() -> Option<SocketAddr> {
    let listener = TcpListener::bind("[::1]:0").ok()?;
    let address = listener.local_addr().expect("it is bound");
    let found = ("localhost", address.port()).to_socket_addrs().ok()?;
    let found: Vec<SocketAddr> = found.collect();
    let has_both = found.contains(&address) && found.iter().any(SocketAddr::is_ipv4);
    if !has_both {
        return None;
    }
    // It ends with the test process.
    thread::spawn(move || {
        let clients: Vec<_> = listener.incoming().collect();
        drop(clients);
    });
    Some(address)
}

#[test]
fn each_address_of_a_name_is_tried() {
    if !needs_native() {
        return;
    }
    let Some(address) = behind_a_name() else {
        println!("skipped: localhost is not of both versions here");
        return;
    };
    let place = format!("localhost:{}", address.port());
    for driver in drivers() {
        for division in [&["--threads", "2"][..], &["--processes", "2"]] {
            given_time(|factor| {
                let time = milliseconds(200, factor);
                let options = ["hold", &place, "--connections", "6", "--for", &time];
                let options = [&options[..], &["--driver", &driver], division].concat();
                let (told, code) = load(&options);
                enough(told["connected"] == 6, &told)?;
                assert_eq!(code, Some(0), "{told}");
                let asked = &told["asked"];
                assert_eq!((asked, &told["failed"]), (&6.into(), &0.into()), "{told}");
                assert_eq!(told["connected_to"], address.to_string(), "{told}");
                Ok(())
            });
        }
    }
    let text = run(&["load", "hold", &place, "--for", "200ms"]).stdout;
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains(&format!("to {address}")), "{text}");
}

/// It has failed once, and not once for each address.
#[test]
fn a_name_without_a_listener_fails_once() {
    let place = format!("localhost:{}", free_ports(22_000, 1));
    for driver in drivers() {
        let options = ["hold", &place, "--connections", "3", "--driver", &driver];
        let (told, code) = load(&options);
        assert_eq!(code, Some(1), "{told}");
        assert_eq!(told["failed"], 3, "{told}");
        assert!(told["connected_to"].is_null(), "{told}");
    }
}

#[test]
fn a_zone_has_a_name() {
    let nowhere = ["load", "hold", "[fe80::1%nosuch0]:9"];
    let output = run(&nowhere);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code_of(output.status), Some(2), "{text}");
    assert!(text.contains("no interface"), "{text}");
    if !needs_native() || cfg!(not(target_os = "linux")) {
        return;
    }
    // There is no listener; the connect finds out.
    let output = run(&[
        "load",
        "hold",
        "[fe80::1%lo]:9",
        "--for",
        "10ms",
        "--connect-timeout",
        "1s",
    ]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code_of(output.status), Some(1), "{text}");
}

#[test]
fn the_unspecified_address_is_this_machine() {
    let port = free_ports(20_000, 1);
    let output = run(&["load", "hold", &format!("0.0.0.0:{port}"), "--for", "10ms"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!text.contains("--i-own-this-target"), "{text}");
    assert_eq!(code_of(output.status), Some(1), "{text}");
}

/// The system may choose the target's port as the source port. Without a listener, that connection
/// once connected to itself, and all its messages came back right.
#[test]
fn a_load_does_not_meet_itself() {
    if !needs_native() || cfg!(not(target_os = "linux")) {
        return;
    }
    let program = env!("CARGO_BIN_EXE_wharf");
    let in_own_network = |command: &str| {
        // Its clients have two ports to choose from, and one of them is the target's.
        let ports = "echo 40000 40001 > /proc/sys/net/ipv4/ip_local_port_range";
        let script = format!("ip link set lo up && {ports} && exec {command}");
        let mut shell = Command::new("unshare");
        shell.args(["--net", "sh", "-c", &script]).output()
    };
    let works = in_own_network("true").is_ok_and(|it| it.status.success());
    if !works {
        println!("skipped: this needs a network of its own, with unshare and ip, as root");
        return;
    }
    for driver in drivers() {
        let options = format!("--connections 50 --for 200ms --driver {driver}");
        let load = format!("{program} load echo 127.0.0.1:40000 {options} --format json");
        let output = in_own_network(&load).expect("it has worked before");
        let (told, code) = last_line(&output);
        assert_eq!(code, Some(1), "{told}");
        assert_eq!(told["connected"], 0, "{told}");
        let failed = told["failed_by_reason"].as_object().expect("an object");
        let refused = failed["connection refused"].as_u64();
        assert!(refused > Some(0), "{told}");
        assert_eq!(told["messages"], 0, "{told}");
    }
}
