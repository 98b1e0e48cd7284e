//! Where the layout of the workspace allows what is forbidden elsewhere.
//!
//! `ARCHITECTURE.md` says why each of these places exists. A new entry here is
//! a change of the architecture and not a way to make tidy pass.

/// The only crate that may have unsafe code.
const UNSAFE_CRATE: &str = "crates/wharf-port/";

/// Its places with unsafe code: a file, or a directory with a `/` at the end.
const UNSAFE_PLACES: [&str; 11] = [
    "src/driver.rs",
    "src/driver/",
    "src/sys.rs",
    "src/sys/",
    "src/core/slot.rs",
    "src/buffer.rs",
    "src/core/pool.rs",
    "src/address.rs",
    "src/socket.rs",
    // A test that forks, which no safe call does.
    "tests/it/cases/fork.rs",
    // It asks Windows about each open handle, which no safe call does.
    "tests/it/rig/open_handles.rs",
];

/// Outside that crate: the benchmark's limit, a server that uses the rings directly.
const UNSAFE_LIMIT: &str = "bench/bare/src/bin/bare-uring.rs";

/// In every crate, the places that may ask which operating system this is.
const OS_PLACES: [&str; 4] = ["src/driver.rs", "src/driver/", "src/sys.rs", "src/sys/"];

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
