//! The heads of the patches, and the page that is made from them.

use std::fs;

use super::{PAGE, Planted, page, parse, read_all};
use crate::command::root;

const PATCH: &str = "\
A lease is
forgotten.

red: poll/single/leases_return
green: sim_seeds/all, because it counts no leases

diff --git a/a b/a
";

#[test]
fn a_head_says_what_is_wrong_and_which_tests_see_it() {
    let planted = parse("lease", PATCH).expect("it is complete");
    let expected = Planted {
        name: "lease".into(),
        what: "A lease is forgotten.".into(),
        red: vec!["poll/single/leases_return".into()],
        green: vec![("sim_seeds/all".into(), "because it counts no leases".into())],
    };
    assert_eq!(planted, expected);
}

#[test]
fn a_head_that_names_no_test_is_refused() {
    let nobody = PATCH.replace("red: ", "");
    let nobody = nobody.replace("green: sim_seeds/all, because", "");
    assert!(parse("lease", &nobody).is_err());
}

#[test]
fn the_page_is_current() {
    let written = fs::read_to_string(root().join(PAGE)).expect("the page is kept");
    let made = page(&read_all().expect("every head can be read"));
    assert!(
        written == made,
        "write it again: cargo xtask planted --write"
    );
}
