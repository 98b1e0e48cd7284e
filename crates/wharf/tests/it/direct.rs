//! `--descriptors direct`: one process with more connections than its limit of open files.

use crate::load::{balances, last_line, load};
use crate::patience::{enough, given_time, milliseconds};
use crate::program::{code_of, needs_native, run};
use crate::running::{Server, drivers};
use crate::shortage::with_descriptors;

/// Only io_uring has direct descriptors, from Linux 6.8 on.
pub(crate) fn has_direct() -> bool {
    let builder = wharf_port::Port::builder().single_waiter();
    let built = builder.direct_descriptors(1).build();
    let reason = match (needs_native(), built) {
        (false, _) => return false,
        (true, Ok(_)) if drivers().contains(&"uring".to_owned()) => return true,
        (true, Ok(_)) => "the driver uring is not among those to test".to_owned(),
        (true, Err(error)) => error.to_string(),
    };
    println!("skipped: {reason}");
    false
}

pub(crate) const DIRECT: [&str; 2] = ["--descriptors", "direct"];

#[test]
fn one_process_holds_more_than_it_may_have_open_files() {
    if !has_direct() {
        return;
    }
    let door = ["hold", "127.0.0.1:0", "--admin", "127.0.0.1:0", "-v"];
    let bound = ["--max-connections", "450"];
    let arguments = [&door[..], &bound, &DIRECT].concat();
    let mut server = Server::start_command(with_descriptors(200, &arguments));
    assert_eq!(server.listening["processes"], 1, "{}", server.listening);
    let address = server.address().to_string();
    let admin = server.admin();
    let size = [
        "--connections",
        "450",
        "--for",
        "1s",
        "--expect",
        "held=450",
    ];
    let told = ["--admin", &admin, "--format", "json"];
    let arguments = [&["load", "hold", &address][..], &size, &told, &DIRECT].concat();
    let output = with_descriptors(200, &arguments).output().expect("it runs");
    let (told, code) = last_line(&output);
    assert_eq!(code, Some(0), "{told}");
    balances(&told);
    assert_eq!(
        (&told["processes"], &told["threads"], &told["held"]),
        (&1.into(), &3.into(), &450.into())
    );
    assert_eq!(told["server"]["balances"], true, "{told}");
    server.wait_for("left", 450);
    // Every entry is free again.
    let arguments = [
        &["load", "hold", &address][..],
        &size,
        &["--format", "json"],
    ]
    .concat();
    let (told, code) = last_line(&run(&arguments));
    assert_eq!(code, Some(0), "{told}");
    server.wait_for("left", 450);
    let account = server.stop();
    assert_eq!(
        (
            &account["accepted"],
            &account["peak"],
            &account["left_by_fin"]
        ),
        (&900.into(), &450.into(), &900.into())
    );
}

#[test]
fn what_goes_through_direct_descriptors_comes_back_whole() {
    if !has_direct() {
        return;
    }
    let arguments = [&["echo", "127.0.0.1:0", "--threads", "2"][..], &DIRECT].concat();
    let server = Server::start(&arguments);
    let address = server.address().to_string();
    for mode in ["echo", "stream", "connect"] {
        given_time(|factor| {
            let time = milliseconds(500, factor);
            let size = ["--connections", "20", "--for", &time, "--threads", "2"];
            let (told, code) = load(&[&[mode, &address][..], &size, &DIRECT].concat());
            assert_eq!(code, Some(0), "{mode}: {told}");
            assert_eq!(told["failed"], 0, "{mode}: {told}");
            assert_eq!(told["bytes_sent"], told["bytes_received"], "{told}");
            let talked = told["messages"].as_u64() > Some(20);
            enough(mode == "connect" || talked, &told)
        });
    }
    let account = server.stop();
    assert_eq!(account["bytes_in"], account["bytes_out"], "{account}");
    assert_eq!(account["left_by_error"], 0, "{account}");
}

/// An entry is free a moment after its connection is closed. Connects that were due in that moment
/// once all failed, 19,000 of 20,000 in this case.
#[test]
fn connects_that_find_no_place_wait_for_one() {
    if !has_direct() {
        return;
    }
    let (server, address) = Server::somewhere("hold", "");
    let rate = ["--connections", "20000", "--rate", "1000000"];
    let told = ["--format", "json"];
    for more in [&[][..], &["--reset"], &["--threads", "4"]] {
        let arguments = [&["load", "connect", &address][..], &rate, &DIRECT, &told].concat();
        let arguments = [&arguments[..], more].concat();
        let output = with_descriptors(1000, &arguments).output();
        let (told, code) = last_line(&output.expect("it runs"));
        assert_eq!(code, Some(0), "{more:?}: {told}");
        let counts = (&told["connected"], &told["failed"]);
        assert_eq!(counts, (&20_000.into(), &0.into()), "{more:?}: {told}");
    }
    server.stop();
}

#[test]
fn a_full_thread_leaves_the_backlog_to_the_others() {
    if !has_direct() {
        return;
    }
    let bound = ["--max-connections", "3", "-v", "--threads", "3"];
    let path = std::env::temp_dir().join(format!("wharf-direct-{}", std::process::id()));
    let path = format!("unix:{}", path.display());
    for place in [
        &["hold", "127.0.0.1:0"][..],
        &["hold", "127.0.0.1:0", &path],
    ] {
        let mut server = Server::start(&[place, &bound, &DIRECT].concat());
        if place.len() > 2 {
            let mut line = String::new();
            std::io::BufRead::read_line(&mut server.lines, &mut line).expect("a line");
            assert!(line.contains(&path), "{line}");
        }
        let mut clients = server.connect_many(5);
        // With a backlog for each thread, the full threads would keep some waiting.
        server.wait_for("accepted", 3);
        clients.drain(..3).for_each(drop);
        server.wait_for("accepted", 2);
        let account = server.stop();
        assert_eq!(account["accepted"], 5, "{account}");
        assert_eq!(account["peak"], 3, "{account}");
    }
}

#[test]
fn direct_descriptors_are_refused_where_they_cannot_be() {
    let here = ["127.0.0.1:9", "--descriptors", "direct"];
    let refused = [
        (vec!["--driver", "poll"], "uring"),
        (vec!["--processes", "2"], "--processes"),
    ];
    for (more, word) in refused {
        if word == "--processes" && !cfg!(target_os = "linux") {
            continue;
        }
        for command in [&["hold"][..], &["load", "hold"]] {
            let output = run(&[command, &here, &more].concat());
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(
                code_of(output.status),
                Some(2),
                "{command:?} {more:?}: {text}"
            );
            assert_eq!(text.trim().lines().count(), 1, "{text}");
            assert!(text.contains(word), "{text}");
        }
    }
}
