//! Where the layout of the workspace allows what is forbidden elsewhere.
//!
//! A new entry here is a change of the architecture and not a way to make tidy pass. `CONTRIBUTING.md`
//! and `ARCHITECTURE.md` name the places with unsafe code, and [`check`] compares them with the list.

use super::{File, Problem, source};

/// The only crate that may have unsafe code.
const UNSAFE_CRATE: &str = "crates/wharf-port/";

/// Its places with unsafe code: a file, or a directory with a `/` at the end.
const UNSAFE_PLACES: [&str; 5] = [
    "src/driver/",
    "src/sys/",
    // It lends bytes of mapped pages.
    "src/core/pool.rs",
    // A test that forks, which no safe call does.
    "tests/it/cases/fork.rs",
    // It asks Windows about each open handle, which no safe call does.
    "tests/it/rig/open_handles.rs",
];

/// Outside that crate: the benchmark's limit, a server that uses the rings directly.
const UNSAFE_LIMIT: &str = "bench/bare/src/bin/bare-uring.rs";

/// The pages that say where unsafe code is allowed.
const PAGES: [&str; 2] = ["ARCHITECTURE.md", "CONTRIBUTING.md"];

/// In every crate, the places that may ask which operating system this is.
const OS_PLACES: [&str; 4] = ["src/driver.rs", "src/driver/", "src/sys.rs", "src/sys/"];

/// Places that need no unsafe code any more, and pages that name others.
pub(super) fn check(files: &[File]) -> Vec<Problem> {
    let here = "xtask/src/tidy/layout.rs";
    let places = UNSAFE_PLACES.map(|place| format!("{UNSAFE_CRATE}{place}"));
    let mut problems = Vec::new();
    for place in places.iter().map(String::as_str).chain([UNSAFE_LIMIT]) {
        let mut inside = files.iter().filter(|file| is_in(&file.path, &[place]));
        if !inside.any(|file| source::has_unsafe(&file.text)) {
            let what = format!("{place} has no unsafe code: take it out of the list");
            problems.push(Problem::new(here, 1, what));
        }
    }
    let list = unsafe_places();
    for file in files.iter().filter(|it| PAGES.contains(&&*it.path)) {
        let words: Vec<&str> = file.text.split_whitespace().collect();
        if !words.join(" ").contains(&list) {
            let what = format!("the page does not say where unsafe code is allowed: in {list}");
            problems.push(Problem::new(&file.path, 1, what));
        }
    }
    problems
}

/// The places of the library, as a sentence names them.
fn unsafe_places() -> String {
    let sources = UNSAFE_PLACES
        .iter()
        .filter_map(|it| it.strip_prefix("src/"));
    let names: Vec<String> = sources
        .map(|it| format!("`{}`", it.trim_end_matches(".rs").trim_end_matches('/')))
        .collect();
    let (last, others) = names.split_last().expect("the list has places");
    format!("{} and {last}", others.join(", "))
}

pub(super) fn may_be_unsafe(path: &str) -> bool {
    path == UNSAFE_LIMIT
        || path
            .strip_prefix(UNSAFE_CRATE)
            .is_some_and(|inner| is_in(inner, &UNSAFE_PLACES))
}

/// Whether the root file `path` has to forbid unsafe code for its whole crate.
pub(super) fn must_forbid_unsafe(path: &str) -> bool {
    let is_root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
    is_root && !path.starts_with(UNSAFE_CRATE)
}

pub(super) fn may_ask_for_os(path: &str) -> bool {
    match in_crate(path) {
        Some(inner) => is_in(inner, &OS_PLACES) || is_test_or_example(path),
        None => true,
    }
}

/// Whether a `get_` in front of a function's name is refused there.
pub(super) fn is_public_face(path: &str) -> bool {
    path.starts_with("crates/wharf-port/src/")
}

pub(super) fn is_test_or_example(path: &str) -> bool {
    path.ends_with("/tests.rs")
        || ["/tests/", "/examples/", "/benches/"]
            .iter()
            .any(|part| path.contains(part))
}

/// The path inside its crate, for files of `crates/`.
fn in_crate(path: &str) -> Option<&str> {
    let (_, inner) = path.strip_prefix("crates/")?.split_once('/')?;
    Some(inner)
}

fn is_in(inner: &str, places: &[&str]) -> bool {
    places.iter().any(|place| {
        if place.ends_with('/') {
            inner.starts_with(place)
        } else {
            inner == *place
        }
    })
}
