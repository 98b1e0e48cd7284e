//! Names that only one of two systems has, or that are in another order, are found.

use super::super::File;
use super::{ALONE, PORT, PROGRAM, check};

const UNIX: &str = "//! T.\npub(crate) use advice::{one, two};\npub(crate) const A: i32 = 1;\n\
                    fn private() {}\npub(crate) unsafe fn b() {}\n#[cfg(test)]\npub(crate) fn c() {}\n";

/// The problems of two files, one a line.
fn found(unix: &str, windows: &str) -> String {
    let file = |path: &str, text: &str| File {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    let files = [file(PROGRAM[0], unix), file(PROGRAM[1], windows)];
    let problems = check(&files);
    problems.into_iter().map(|it| it.0 + "\n").collect()
}

#[test]
fn two_systems_have_the_same_names_in_the_same_order() {
    assert_eq!(found(UNIX, UNIX), "");
    let elsewhere = "pub const fn two() {}\npub static A: i32 = 1;\npub fn b() {}\n\
                     pub(crate) fn c() {}\npub(crate) use codes::one;\n";
    assert_eq!(found(UNIX, elsewhere), "");
    let lacks = found(UNIX, &elsewhere.replace("A:", "B:"));
    assert!(lacks.contains("unix.rs:3: A: crates/wharf/src/sys/windows.rs has no such name"));
    assert!(lacks.contains("windows.rs:2: B: crates/wharf/src/sys/unix.rs has no such name"));
    let swapped = found(
        UNIX,
        "use x::A;\npub use a::{one, two};\npub fn c() {}\npub fn b() {}\npub static A: i32 = 1;",
    );
    assert!(
        swapped.contains("unix.rs:3: A stands where crates/wharf/src/sys/windows.rs has c"),
        "{swapped}"
    );
}

#[test]
fn a_name_of_one_system_is_one_that_the_other_lacks() {
    let text = |of: &str, also: &str| {
        let names = ALONE.iter().filter(|(path, ..)| *path == of);
        let lines = names.map(|(_, name, _)| format!("pub(crate) fn {name}() {{}}\n"));
        lines.collect::<String>() + also
    };
    let found = |unix: String, windows: String| {
        let file = |path: &str, text| File {
            path: path.to_owned(),
            text,
        };
        let problems = check(&[file(PORT[0], unix), file(PORT[1], windows)]);
        problems
            .into_iter()
            .map(|it| it.0 + "\n")
            .collect::<String>()
    };
    assert_eq!(found(text(PORT[0], ""), text(PORT[1], "")), "");
    let both = found(text(PORT[0], ""), text(PORT[1], "pub fn send() {}\n"));
    assert!(
        both.contains("send is listed as a name of this system alone, and is not"),
        "{both}"
    );
    let gone = found(
        text(PORT[0], "").replace("fn send(", "fn send_all("),
        text(PORT[1], ""),
    );
    assert!(gone.contains("send is listed as a name"), "{gone}");
    assert!(gone.contains("send_all: crates/wharf-port/src/sys/windows.rs has no such name"));
}
