//! The server that the README shows is the one that is compiled and run here.

use super::program::Program;
use super::{connect, reset};

const README: &str = include_str!("../../README.md");
const EXAMPLE: &str = include_str!("../../examples/readme.rs");

#[test]
fn the_readme_shows_the_server_that_is_tested() {
    let (_, code) = EXAMPLE.split_once("\n\n").expect("a head, then code");
    assert!(
        README.contains(&format!("```rust,no_run\n{code}```\n")),
        "README.md and examples/readme.rs differ"
    );
    assert!(code.lines().count() <= 40, "40 lines are enough");
}

#[test]
fn the_server_of_the_readme_holds_connections_until_they_leave() {
    let mut program = Program::start("readme", &["127.0.0.1:0"]);
    let line = program.line();
    let (address, driver) = line.split_once(" on ").expect("where, and on which driver");
    assert!(!driver.is_empty());
    let address = address.parse().expect("an address");

    let first = connect(address);
    program.expect("100 came");
    let second = connect(address);
    program.expect("101 came");
    drop(first);
    program.expect("100 left: Finished");
    reset(second);
    program.expect("101 left: Reset");
}
