//! `wharf load hold` and its held connections: it proves that they live, closes them without a
//! trace, and opens no more than the machine has memory for.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::load::load;
use crate::patience::{enough, given_time, milliseconds};
use crate::program::{code_of, program, run, words};
use crate::running::{Server, drivers};

/// A silent connection looks like one whose peer has vanished. These prove that they live.
#[test]
fn a_random_part_of_what_is_held_is_touched_at_the_end() {
    for driver in drivers() {
        given_time(|factor| {
            let (mut server, address) = Server::somewhere("echo", &format!("-v --driver {driver}"));
            let time = milliseconds(1_000, factor);
            let size = format!("--connections 600 --threads 2 --for {time} --driver {driver}");
            let touch = "--reset --touch 10% --seed 3";
            let (told, code) = load(&words(&format!("hold {address} {size} {touch}")));
            assert_eq!(code, Some(0), "{told}");
            // A connection that is not started in time is not held. On a busy machine the time was
            // once up before the first 512, which are all that are in flight at once, had
            // connected.
            enough(told["asked"] == 600, &told)?;
            assert_eq!(told["held"], 600, "{told}");
            let touched = told["touched"].as_u64().expect("a number");
            assert!((20..150).contains(&touched), "{told}");
            assert_eq!(told["messages"], touched, "{told}");
            assert_eq!(told["bytes_received"], touched * 64, "{told}");
            // The load has reset them all, and the server may not have noticed some yet.
            server.wait_for("left", 600);
            let account = server.stop();
            // None of them was closed cleanly, so none of their ports waits.
            assert_eq!(account["left_by_reset"], 600, "{account}");
            assert_eq!(account["bytes_in"], touched * 64, "{account}");
            Ok(())
        });
    }
}

/// Under Wine a load of one second once touched nothing: all of it connected later than that.
#[test]
fn what_connects_when_the_time_is_up_is_touched_too() {
    let (server, address) = Server::somewhere("echo", "");
    let options = "--connections 400 --for 1ms --touch 100%";
    let (told, code) = load(&words(&format!("hold {address} {options}")));
    assert_eq!(code, Some(0), "{told}");
    assert!(told["held"].as_u64() > Some(0), "{told}");
    assert_eq!(
        (&told["touched"], &told["messages"]),
        (&told["held"], &told["held"]),
        "{told}"
    );
    server.stop();
}

#[test]
fn what_is_touched_and_silent_is_lost() {
    let (server, address) = Server::somewhere("hold", "");
    given_time(|factor| {
        let options = format!("--connections 20 --for {}ms --touch 100%", 200 * factor);
        let (told, code) = load(&words(&format!("hold {address} {options}")));
        enough(told["asked"] == 20, &told)?;
        assert_eq!(code, Some(3), "{told}");
        assert_eq!(told["touched"], 20, "{told}");
        assert_eq!(
            (&told["lost"], &told["held"]),
            (&20.into(), &0.into()),
            "{told}"
        );
        let verdict = told["verdict"].as_str().expect("a sentence");
        assert!(
            verdict.contains("of 20 touched, only 0 echoed"),
            "{verdict}"
        );
        Ok(())
    });
    server.stop();
}

/// A connection to be touched has a receive and no watch, and its end is noticed all the same.
#[test]
fn what_is_to_be_touched_is_lost_when_its_peer_goes() {
    let (server, address) = Server::somewhere("echo", "");
    let mut child = program();
    let touch = "--connections 50 --touch 50% --format json --interval 10ms";
    child.args(words(&format!("load hold {address} {touch}")));
    let mut child = child.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let is_connected = |line: &str| line.contains("\"held\":50");
    let connected = lines
        .by_ref()
        .map_while(Result::ok)
        .find(|line| is_connected(line));
    assert!(connected.is_some(), "it ended before all were connected");
    server.stop();
    let last = lines.map_while(Result::ok).last().expect("its account");
    let told: Value = serde_json::from_str(&last).expect("an object");
    assert_eq!(
        (&told["lost"], &told["held"]),
        (&50.into(), &0.into()),
        "{told}"
    );
    child.wait().expect("it ends once nothing is left");
}

#[test]
fn a_load_leaves_the_requested_memory() {
    let (server, address) = Server::somewhere("hold", "");
    let options = "--connections 50 --for 100ms --leave-memory 1000TiB";
    let (told, code) = load(&words(&format!("hold {address} {options}")));
    assert_eq!(code, Some(1), "{told}");
    assert_eq!(told["held_back"], 50, "{told}");
    assert_eq!(told["asked"], 0, "{told}");
    let (told, code) = load(&["hold", &address, "--for", "100ms", "--leave-memory", "1MiB"]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(told["held_back"], 0, "{told}");
    let output = run(&["load", "echo", &address, "--touch", "1%"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code_of(output.status), Some(2), "{text}");
    assert!(text.contains("--touch is for hold"), "{text}");
    server.stop();
}
