//! Consoles of guests that hang, panic, or say less than they have to.

use super::*;

const USES: &str = "accepts that stream; receives of one message each; \
                    requests with an index; sleeps shown as waiting for a disk";

fn good() -> String {
    let mut text = String::new();
    let mut step = |name: &str, lines: &str, code: i32| {
        text.push_str(&format!(
            "@@ begin {name}\r\n{lines}\r\n@@ done {name} {code}\r\n"
        ));
    };
    step("version", "6.1.0-56-cloud-amd64", 0);
    step("doctor", "driver uring  works, with much", 0);
    let shared = format!("uring/shared uses: {USES}; wake-ups by eventfd");
    let deferred = "completions deferred until the waiter asks";
    let single = format!("test x ... uring/single uses: {USES}; {deferred}");
    let result = "test result: \u{1b}[32mok\u{1b}[0m. 2 passed";
    step(
        "choice",
        &format!("auto chose uring\n{shared}\n{single}\n{result}"),
        0,
    );
    step("units", result, 0);
    step("hold", "on uring", 0);
    step("echo", "on uring", 0);
    step(
        "direct",
        "direct descriptors need Linux 6.8 or later: leave",
        98,
    );
    step("suite", result, 0);
    text + "@@ end\r\n"
}

fn judged(text: &str) -> Result<()> {
    Console::read(text).require((6, 1))
}

#[test]
fn a_guest_that_shows_everything_passes() {
    judged(&good()).expect("it shows everything");
}

#[test]
fn a_guest_that_stops_early_fails_wherever_it_stops() {
    let good = good();
    let lines: Vec<_> = good.lines().collect();
    for end in 0..lines.len() {
        let text = lines[..end].join("\n");
        assert!(judged(&text).is_err(), "it passed with\n{text}");
    }
}

#[test]
fn whatever_is_missing_or_wrong_fails() {
    for (right, wrong) in [
        ("6.1.0", "6.12.0"),
        ("works, with", "does not work"),
        ("auto chose uring", "auto chose poll"),
        ("@@ done suite 0", "@@ done suite 101"),
        ("@@ done echo 0", "@@ done echo x"),
        ("wake-ups by eventfd", "wake-ups by message"),
        (
            "receives of one message each",
            "receives that stream, capped",
        ),
        ("uring/single uses", "uring/direct uses"),
        ("@@ done direct 98", "@@ done direct 0"),
        ("direct descriptors need", "nothing needs"),
    ] {
        let text = good().replace(right, wrong);
        assert_ne!(text, good(), "{right}");
        assert!(judged(&text).is_err(), "it passed with {wrong}");
    }
}
