//! Texts with mutants woven in: what the compiler reads with none on, and with each.

use std::collections::BTreeMap;

use super::super::list::Mutant;
use super::{ON, weave};

/// A mutant of the word that stands there for the `nth` time, counted from none.
fn mutant(text: &str, genre: &str, word: &str, nth: usize, replacement: &str) -> Mutant {
    let found = text.match_indices(word).nth(nth);
    let (start, _) = found.expect("the word is there");
    let at = |offset: usize| {
        let line_start = text[..offset].rfind('\n').map_or(0, |at| at + 1);
        let line = text[..offset].matches('\n').count() + 1;
        serde_json::json!({ "line": line, "column": offset - line_start + 1 })
    };
    let json = serde_json::json!({
        "name": format!("src/x.rs:1:1: {genre} {word}"),
        "file": "src/x.rs",
        "genre": genre,
        "replacement": replacement,
        "span": { "start": at(start), "end": at(start + word.len()) },
    });
    Mutant::from_json(&json, &mut BTreeMap::new()).expect("all fields are there")
}

fn woven(text: &str, mutants: &[Mutant]) -> String {
    let numbered: Vec<_> = (1..).zip(mutants).collect();
    let woven = weave(text, &numbered).expect("it can be woven");
    syn::parse_file(&woven).expect("it is Rust");
    woven.replace(ON, "on")
}

#[test]
fn an_operator_is_changed_in_the_whole_chain_around_it() {
    let text = "fn f() -> bool { a && b || c(d + 1) }";
    let mutants = [
        mutant(text, "BinaryOperator", "&&", 0, "||"),
        mutant(text, "BinaryOperator", "+", 0, "*"),
    ];
    let inner = "c((if on(2) { d * 1 } else { d + 1 }))";
    let chain = format!("(if on(1) {{ a || b || {inner} }} else {{ a && b || {inner} }})");
    assert_eq!(
        woven(text, &mutants),
        format!("fn f() -> bool {{ {chain} }}")
    );
}

#[test]
fn several_mutants_share_an_operator() {
    let text = "fn f() { if a < b {} }";
    let mutants = [
        mutant(text, "BinaryOperator", "<", 0, "=="),
        mutant(text, "BinaryOperator", "<", 0, "<="),
    ];
    let choice = "(if on(1) { a == b } else if on(2) { a <= b } else { a < b })";
    assert_eq!(
        woven(text, &mutants),
        format!("fn f() {{ if {choice} {{}} }}")
    );
}

#[test]
fn a_condition_that_binds_names_is_left_outside() {
    let text = "fn f() { if let Some(a) = b && a < c {} }";
    let mutants = [mutant(text, "BinaryOperator", "<", 0, ">")];
    let choice = "(if on(1) { a > c } else { a < c })";
    let expected = format!("fn f() {{ if let Some(a) = b && {choice} {{}} }}");
    assert_eq!(woven(text, &mutants), expected);
}

#[test]
fn a_body_returns_early_and_goes_on_with_its_own_mutants() {
    let text = "fn f() -> bool { !a }\nfn g() {}";
    let mutants = [
        mutant(text, "FnValue", "!a", 0, "true"),
        mutant(text, "UnaryOperator", "!", 0, ""),
    ];
    let body = "{ if on(1) { return true; } (if on(2) { a } else { !a }) }";
    assert_eq!(
        woven(text, &mutants),
        format!("fn f() -> bool {body}\nfn g() {{}}")
    );
}

#[test]
fn an_arm_is_deleted_by_a_guard_and_a_guard_by_a_value() {
    let text = "fn f() { match a { 1 => b(), c if c > d => e(), _ => {} } }";
    let mutants = [
        mutant(text, "MatchArm", "1 => b(),", 0, ""),
        mutant(text, "MatchArmGuard", "c > d", 0, "true"),
        mutant(text, "BinaryOperator", "> ", 1, "< "),
    ];
    let guard = "(if on(2) { true } else if on(3) { c < d } else { c > d })";
    let expected =
        format!("fn f() {{ match a {{ 1 if !on(1) => b(), c if {guard} => e(), _ => {{}} }} }}");
    assert_eq!(woven(text, &mutants), expected);
}
