//! Comparisons of written results.

use super::*;
use crate::account::joint::{BothEnds, Joint};

fn load(messages: u64, p99: f64) -> String {
    serde_json::json!({
        "event": "load", "mode": "echo", "driver": "uring", "connections": 10, "seconds": 2.0,
        "messages": messages, "bytes_received": messages * 64,
        "connect_us": {"p50": 5.0}, "message_us": {"p50": 10.0, "p99": p99},
    })
    .to_string()
}

fn results(lines: &[String]) -> Results {
    Results::parse("a file".into(), &lines.join("\n")).expect("results")
}

fn figure(a: &[String], b: &[String], name: &str) -> (Option<f64>, Option<bool>) {
    let object = Comparison::new(&results(a), &results(b), None).expect("the same mode");
    let value = serde_json::to_value(&object).expect("an object");
    let figures = value["figures"].as_array().expect("a list");
    let found = figures.iter().find(|figure| figure["name"] == name);
    let found = found.unwrap_or_else(|| panic!("{name}: {value}"));
    (found["ratio"].as_f64(), found["beyond_spread"].as_bool())
}

#[test]
fn a_difference_counts_beyond_the_spread_only() {
    let a = [load(1000, 50.0), load(1100, 60.0), load(1050, 55.0)];
    let faster = [load(2000, 58.0), load(2200, 59.0), load(2100, 90.0)];
    assert_eq!(
        figure(&a, &faster, "messages a second"),
        (Some(2.0), Some(true))
    );
    let (ratio, beyond) = figure(&a, &faster, "message_us p99");
    assert!(ratio > Some(1.0));
    assert_eq!(beyond, Some(false));
}

/// A build that never replied once counted as the fastest.
#[test]
fn what_never_answered_is_slower_and_its_runs_have_failed() {
    let a = [load(1000, 50.0), load(1100, 60.0)];
    let dead = |code: u8| {
        serde_json::json!({
            "event": "load", "mode": "echo", "driver": "uring", "connections": 10,
            "seconds": 2.0, "messages": 0, "bytes_received": 0, "exit_code": code,
            "connect_us": {"p50": 5.0}, "message_us": null, "verdict": "of 10 wanted, 10 were lost.",
        })
        .to_string()
    };
    // An older program wrote zeros, and no code.
    let old = load(0, 0.0).replace("\"seconds\"", "\"lost\":10,\"seconds\"");
    for b in [[dead(1), dead(1)], [old.clone(), old]] {
        let object = Comparison::new(&results(&a), &results(&b), Some(1.5)).expect("one mode");
        assert!(!object.holds());
        let value = serde_json::to_value(&object).expect("an object");
        let figures = value["figures"].as_array().expect("a list");
        let p99 = figures.iter().find(|it| it["name"] == "message_us p99");
        let p99 = p99.unwrap_or_else(|| panic!("{value}"));
        assert_eq!(p99["b_is"], "slower", "{p99}");
        assert!(
            p99["b"]["median"].is_null() && p99["ratio"].is_null(),
            "{p99}"
        );
        assert_eq!(p99["beyond_spread"], true, "{p99}");
        assert_eq!(value["failed_runs"].as_array().map(Vec::len), Some(2));
        let text = object.text();
        assert!(
            text.contains("run 2 has failed") && text.contains("never"),
            "{text}"
        );
        // In the other order B is faster, and still cannot be trusted.
        let turned = Comparison::new(&results(&b), &results(&a), Some(1.5)).expect("one mode");
        assert!(!turned.holds() && turned.text().contains("faster"));
    }
}

#[test]
fn slower_is_what_takes_longer_or_does_less() {
    let a = [load(1000, 50.0), load(1010, 51.0)];
    let slower = [load(500, 100.0), load(505, 101.0)];
    let compare = |a: &[String], b: &[String], most: Option<f64>| {
        Comparison::new(&results(a), &results(b), most).expect("one mode")
    };
    for (a, b, most, holds) in [
        (&a, &slower, None, true),
        (&a, &slower, Some(1.5), false),
        (&a, &slower, Some(2.5), true),
        (&slower, &a, Some(1.0), true),
        (&a, &a, Some(1.0), true),
    ] {
        let object = compare(a, b, most);
        assert_eq!(object.holds(), holds, "{}", object.text());
    }
    let text = compare(&a, &slower, Some(1.5)).text();
    let names = "messages a second, bytes a second, message_us p99";
    assert!(
        text.contains(&format!("more than 1.5 times slower in {names}")),
        "{text}"
    );
    assert!(text.contains("slower, beyond the spread"), "{text}");
    // Within the spread no figure counts as slower.
    let wide = [load(500, 10.0), load(2000, 200.0)];
    assert!(compare(&a, &wide, Some(1.1)).holds());
    // A single run has no known spread, and a gate is a gate.
    assert!(!compare(&a[..1], &slower[..1], Some(1.5)).holds());
}

#[test]
fn a_single_run_has_no_spread_but_that_of_its_intervals() {
    let one = [load(1000, 50.0)];
    assert_eq!(figure(&one, &one, "messages a second"), (Some(1.0), None));
    let interval = |second: u64, messages: u64| {
        serde_json::json!({"event": "interval", "seconds": second, "messages": messages})
            .to_string()
    };
    let steady = |each: u64| -> Vec<String> {
        let intervals = (1..=6).map(|second| interval(second, second * each));
        intervals.chain([load(6 * each, 1.0)]).collect()
    };
    assert_eq!(
        figure(&steady(100), &steady(150), "messages a second"),
        (Some(1.5), Some(true))
    );
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let hold = load(1, 1.0).replace("echo", "hold");
    let error = Comparison::new(&results(&[load(1, 1.0)]), &results(&[hold]), None);
    assert!(error.unwrap_err().contains("nothing to compare"));
    for (text, expected) in [
        ("", "to its end"),
        ("{\"event\":\"interval\"}", "to its end"),
        ("asked 5", "line 1"),
    ] {
        let error = Results::parse("x.json".into(), text).expect_err(text);
        assert!(
            error.contains(expected) && error.contains("x.json"),
            "{error}"
        );
    }
}

#[test]
fn settings_that_differ_are_named() {
    let other = load(1, 1.0).replace("uring", "poll");
    let object = Comparison::new(&results(&[load(1, 1.0)]), &results(&[other]), None);
    let text = object.expect("the same mode").text();
    assert!(text.contains("driver is \"uring\" and \"poll\""), "{text}");
}

#[test]
fn both_ends_have_one_ledger() {
    let agreed = BothEnds {
        connected: 10,
        accepted: 10,
        bytes_sent: 5,
        bytes_in: 5,
        bytes_out: 5,
        bytes_received: 5,
        ..BothEnds::default()
    };
    assert!(Joint::of(agreed).balances);
    let waiting = Joint::of(BothEnds {
        accepted: 7,
        ..agreed
    });
    assert!(waiting.balances);
    assert_eq!(waiting.never_accepted, 3);
    assert!(waiting.verdict.contains("backlog"), "{}", waiting.verdict);
    for wrong in [
        BothEnds {
            accepted: 11,
            ..agreed
        },
        BothEnds {
            bytes_in: 4,
            ..agreed
        },
        BothEnds {
            bytes_received: 4,
            ..agreed
        },
    ] {
        let joint = Joint::of(wrong);
        assert!(!joint.balances, "{joint:?}");
        assert!(joint.verdict.contains("do not agree"), "{joint:?}");
    }
    // The server may have accepted a connect that the load gave up.
    assert!(
        Joint::of(BothEnds {
            accepted: 11,
            unfinished: 1,
            ..agreed
        })
        .balances
    );
}
