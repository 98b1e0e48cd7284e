//! The workspace is tidy, and each check finds what it is for.

use super::ratchet::Ratchet;
use super::{File, check_files, prose};

#[test]
fn the_workspace_is_tidy() {
    super::check().expect("cargo xtask tidy prints the places");
}

/// Checks one file and returns the problems, one a line.
fn found(path: &str, text: &str) -> String {
    found_in(&[(path, text)], "")
}

fn found_in(files: &[(&str, &str)], ratchet: &str) -> String {
    let files: Vec<File> = files
        .iter()
        .map(|(path, text)| File {
            path: (*path).to_owned(),
            text: (*text).to_owned(),
        })
        .collect();
    let ratchet = Ratchet::parse(ratchet).expect("the test's ratchet is well formed");
    let problems = check_files(&files, &ratchet);
    problems
        .into_iter()
        .map(|problem| problem.0 + "\n")
        .collect()
}

/// Each row: a path, a text, and a part of the expected problem; empty if there is none.
#[track_caller]
fn check_rows(rows: &[(&str, &str, &str)]) {
    for (path, text, expected) in rows {
        let found = found(path, text);
        let holds = if expected.is_empty() {
            found.is_empty()
        } else {
            found.contains(expected)
        };
        assert!(
            holds,
            "{path}\n{text}\nexpected {expected:?}, found {found:?}"
        );
    }
}

const PORT: &str = "crates/wharf-port/src/port.rs";
const DRIVER: &str = "crates/wharf-port/src/driver/uring/queue.rs";

#[test]
fn a_file_opens_with_what_it_is_for() {
    check_rows(&[
        (PORT, "//! The port.\n", ""),
        (PORT, "// The port.\n", "port.rs:1: the file does not open"),
        (
            PORT,
            "use std::io;\n//! The port.\n",
            "port.rs:1: the file does not open",
        ),
    ]);
}

#[test]
fn unsafe_code_stays_where_the_architecture_has_it() {
    let code = "//! T.\nfn f() {\n    unsafe { g() }\n}\n";
    check_rows(&[
        (DRIVER, code, ""),
        ("crates/wharf-port/src/core/pool.rs", code, ""),
        (
            "crates/wharf-port/src/core/slot.rs",
            code,
            "slot.rs:3: unsafe code outside",
        ),
        ("crates/wharf-port/tests/it/cases/fork.rs", code, ""),
        (PORT, code, "port.rs:3: unsafe code outside"),
        (
            "crates/wharf-port/src/slots.rs",
            code,
            "slots.rs:3: unsafe code outside",
        ),
        (
            "crates/wharf-port/tests/it/main.rs",
            code,
            "main.rs:3: unsafe code outside",
        ),
        (
            "crates/wharf-async/src/driver.rs",
            code,
            "driver.rs:3: unsafe code outside",
        ),
        (
            PORT,
            "//! T.\nm! { unsafe { g() } }\n",
            "port.rs:2: unsafe code outside",
        ),
        (
            PORT,
            "//! An unsafe word.\nconst WORD: &str = \"unsafe\"; // unsafe\n",
            "",
        ),
        (PORT, "//! T.\n#![deny(unsafe_op_in_unsafe_fn)]\n", ""),
    ]);
}

#[test]
fn a_place_for_unsafe_code_has_some_and_pages_name_it() {
    let found = |page: &str, pool: &str| {
        let code = "//! T.\nunsafe fn f() {}\n";
        let files = [
            ("CONTRIBUTING.md", page),
            ("crates/wharf-port/src/core/pool.rs", pool),
            ("crates/wharf-port/src/driver/uring.rs", code),
            ("crates/wharf-port/src/sys/unix.rs", code),
            ("crates/wharf-port/tests/it/cases/fork.rs", code),
            ("crates/wharf-port/tests/it/rig/open_handles.rs", code),
            ("bench/bare/src/bin/bare-uring.rs", code),
        ];
        let files = files.map(|(path, text)| File {
            path: path.to_owned(),
            text: text.to_owned(),
        });
        let problems = super::layout::check(&files);
        problems.into_iter().map(|it| it.0).collect::<Vec<_>>()
    };
    let page = "Allowed in `driver`,\n  `sys` and `core/pool`.\n";
    let code = "//! T.\nfn f() { unsafe { g() } }\n";
    assert_eq!(found(page, code), [""; 0]);
    let idle = found(page, "//! Nothing unsafe.\n");
    assert!(
        idle[0].contains("core/pool.rs has no unsafe code"),
        "{idle:?}"
    );
    let stale = found(
        "Allowed in `driver`, `sys`, `buffer` and `core/pool`.\n",
        code,
    );
    assert!(
        stale[0].starts_with("CONTRIBUTING.md:1: the page does not say"),
        "{stale:?}"
    );
}

#[test]
fn every_other_crate_forbids_unsafe_code() {
    let root = "crates/wharf/src/main.rs";
    check_rows(&[
        (root, "//! T.\n#![forbid(unsafe_code)]\n", ""),
        (
            root,
            "//! T.\n",
            "main.rs:1: the crate does not forbid unsafe code",
        ),
        ("crates/wharf-port/src/lib.rs", "//! T.\n", ""),
    ]);
}

#[test]
fn only_driver_and_sys_ask_for_the_operating_system() {
    let asks = "asks for the operating system";
    check_rows(&[
        (
            PORT,
            "//! T.\n#[cfg(target_os = \"linux\")]\nmod a;\n",
            asks,
        ),
        (PORT, "//! T.\n#[cfg(not(windows))]\nmod a;\n", asks),
        (
            PORT,
            "//! T.\n#[cfg_attr(unix, path = \"a.rs\")]\nmod a;\n",
            asks,
        ),
        (PORT, "//! T.\nconst A: bool = cfg!(unix);\n", asks),
        (
            PORT,
            "//! T.\ncfg_select! { windows => { mod a; } _ => {} }\n",
            asks,
        ),
        (PORT, "//! T.\n#[cfg(test)]\nmod windows;\n", ""),
        (PORT, "//! T.\n#[cfg(feature = \"unix\")]\nmod a;\n", ""),
        (
            DRIVER,
            "//! T.\n#[cfg(target_os = \"linux\")]\nmod a;\n",
            "",
        ),
        (
            "crates/wharf/src/sys.rs",
            "//! T.\n#[cfg(unix)]\nmod a;\n",
            "",
        ),
        (
            "crates/wharf/src/hold.rs",
            "//! T.\n#[cfg(unix)]\nmod a;\n",
            asks,
        ),
        (
            "crates/wharf-port/tests/it/cases/accept.rs",
            "//! T.\n#[cfg(unix)]\nmod a;\n",
            "",
        ),
        (
            "crates/wharf-port/examples/echo.rs",
            "//! T.\n#[cfg(unix)]\nmod a;\n",
            "",
        ),
        ("xtask/src/command.rs", "//! T.\n#[cfg(unix)]\nmod a;\n", ""),
    ]);
}

#[test]
fn scaffolding_is_gone() {
    check_rows(&[
        (PORT, "//! T.\nfn f() { todo!() }\n", "a left-over todo!"),
        (
            PORT,
            "//! T.\nfn f() { unimplemented!(\"x\") }\n",
            "a left-over unimplemented!",
        ),
        (PORT, "//! T.\nfn f() { dbg!(1); }\n", "a left-over dbg!"),
        (
            PORT,
            concat!("//! T.\n// FIX", "ME: later\n"),
            "port.rs:2: a left-over",
        ),
        (
            PORT,
            concat!("//! T.\n// X", "XX\n"),
            "port.rs:2: a left-over",
        ),
        (PORT, "//! T.\n// XXXX and mktemp.XXXXXX\n", ""),
        (PORT, "//! T.\nfn todo() {}\n", ""),
    ]);
}

#[test]
fn white_space_is_plain() {
    check_rows(&[
        ("docs/a.md", "# A\n", ""),
        ("docs/a.md", "# A \n", "a.md:1: white space at the end"),
        ("docs/a.md", "# A\r\n", "a.md:1: a carriage return"),
        ("docs/a.md", "# A\n\tb\n", "a.md:2: a tab"),
        ("docs/a.md", "# A", "a.md:1: not exactly one newline"),
        ("docs/a.md", "# A\n\n", "not exactly one newline"),
    ]);
}

#[test]
fn a_dependency_says_what_it_is_for() {
    let path = "crates/wharf/Cargo.toml";
    let missing = "no comment says what the dependency is for";
    check_rows(&[
        (
            path,
            "[dependencies]\n# The command line.\nclap = \"4\"\n",
            "",
        ),
        (
            path,
            "[dependencies]\nclap = \"4\" # The command line.\n",
            "",
        ),
        (
            path,
            "[dependencies]\nclap = \"4\"\n",
            "Cargo.toml:2: clap: no comment",
        ),
        (
            path,
            "[dev-dependencies]\n# One.\na = \"1\"\nb = \"1\"\n",
            "Cargo.toml:4: b: no comment",
        ),
        (
            path,
            "[target.'cfg(unix)'.dependencies]\nlibc = \"0.2\"\n",
            missing,
        ),
        (path, "[workspace.dependencies]\nlibc = \"0.2\"\n", missing),
        (path, "[dependencies.a]\nversion = \"1\"\n", missing),
        (path, "[dependencies.a]\n# Why.\nversion = \"1\"\n", ""),
        (path, "# Why.\n[dependencies.a]\nversion = \"1\"\n", ""),
        (path, "[dependencies]\n# Why.\na.workspace = true\n", ""),
        (path, "[dependencies]\na.workspace = true\n", missing),
    ]);
}

#[test]
fn names_of_the_library_have_no_get() {
    let code = "//! T.\npub fn get_stats() {}\n";
    check_rows(&[
        (PORT, code, "port.rs:2: get_stats: a name says what it is"),
        ("crates/wharf/src/hold.rs", code, ""),
        (PORT, "//! T.\npub fn stats() { get_stats(); }\n", ""),
    ]);
}

#[test]
fn a_size_over_its_limit_may_only_shrink() {
    let lines = |count: usize| format!("//! T.\n{}", "// A line.\n".repeat(count - 1));
    let function =
        |count: usize| format!("//! T.\nfn f() {{\n{}}}\n", "    g();\n".repeat(count - 2));
    let file = "file crates/wharf-port/src/port.rs";
    let named = "function crates/wharf-port/src/port.rs f";
    let rows = [
        (lines(500), String::new(), ""),
        (
            lines(501),
            String::new(),
            "has 501 lines, over 500: split it",
        ),
        (lines(501), format!("{file} 501\n"), ""),
        (
            lines(502),
            format!("{file} 501\n"),
            "has grown from 501 to 502",
        ),
        (lines(501), format!("{file} 502\n"), "has shrunk from 502"),
        (lines(500), format!("{file} 502\n"), "has shrunk from 502"),
        (function(70), String::new(), ""),
        (function(71), String::new(), "port.rs:2: function"),
        (function(71), format!("{named} 71\n"), ""),
        (
            function(72),
            format!("{named} 71\n"),
            "has grown from 71 to 72",
        ),
    ];
    for (text, ratchet, expected) in rows {
        let found = found_in(&[(PORT, &text)], &ratchet);
        let holds = if expected.is_empty() {
            found.is_empty()
        } else {
            found.contains(expected)
        };
        assert!(holds, "{ratchet:?}: expected {expected:?}, found {found:?}");
    }
}

#[test]
fn lowering_the_ratchet_never_raises_it() {
    let text = format!("//! T.\n{}", "// A line.\n".repeat(509));
    let file = File {
        path: PORT.to_owned(),
        text,
    };
    let sizes = super::sizes(&[file]);
    let entry = |lines: usize| format!("# Why.\nfile {PORT} {lines}\n");
    for (before, after) in [(600, 510), (510, 510), (505, 505)] {
        let ratchet = Ratchet::parse(&entry(before)).expect("well formed");
        assert_eq!(ratchet.lowered(&sizes).render(&entry(before)), entry(after));
    }
    let gone = "# Why.\nfile crates/gone.rs 600\n";
    let ratchet = Ratchet::parse(gone).expect("well formed");
    assert_eq!(ratchet.lowered(&sizes).render(gone), "# Why.\n");
}

#[test]
fn a_command_in_the_readme_is_run_by_a_test() {
    let readme = "# Wharf\n\n```sh\n# A server:\ncargo run -- hold\n```\n\n```rust\nlet a = 1;\n```\n\
                  ```console\n$ nc ::1 7\nhello\n```\n";
    let test = "crates/wharf/tests/it/main.rs";
    let both = "//! T.\n// README: cargo run -- hold\n// README: nc ::1 7\n";
    assert_eq!(found_in(&[("README.md", readme), (test, both)], ""), "");
    let one = "//! T.\n// README: cargo run -- hold\n";
    let found = found_in(&[("README.md", readme), (test, one)], "");
    assert_eq!(
        found,
        "README.md:12: no test says that it runs this: `// README: nc ::1 7`\n"
    );
}

/// Checks the prose of one file against `list` and returns the problems, one a line.
fn prose_in(path: &str, text: &str, list: &str) -> String {
    let file = File {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    let problems = prose::check(&[file], list);
    problems
        .into_iter()
        .map(|problem| problem.0 + "\n")
        .collect()
}

#[test]
fn prose_uses_the_words_of_the_glossary() {
    let help = "crates/wharf/src/load.rs";
    let refused = "is not in the glossary";
    let rows = [
        (
            PORT,
            "//! What nobody takes.\n",
            "port.rs:1: \"nobody\" is not",
        ),
        (PORT, "//! T.\n    /// It is\n    /// told.\n", "port.rs:3:"),
        (PORT, "//! It waits so\n//! many times.\n", "port.rs:1:"),
        (PORT, "//! T.\n// Nobody.\n", refused),
        (PORT, "//! T.\n\n/// Answers how many.\n", "\"Returns\""),
        (PORT, "//! The server answers.\n", ""),
        (PORT, "//! There are so many that it stops.\n", ""),
        (PORT, "//! They are told apart.\n", ""),
        (PORT, "//! Waits so, many times.\n", ""),
        (PORT, "//! The field `nobody`, and `it is\n//! told`.\n", ""),
        (PORT, "//! T.\n//! ```\n//! let nobody = 1;\n//! ```\n", ""),
        (PORT, "//! T.\nlet nobody = \"nobody\";\n", ""),
        (PORT, "//! T.\nlet a = 1; // Nobody.\n", "port.rs:2:"),
        (PORT, "//! T.\nlet a = \"a // nobody\";\n", ""),
        (
            help,
            "//! T.\nconst A: &str = \"taken by \\\n    whoever\";\n",
            "load.rs:2:",
        ),
        (help, "//! T.\n/// Nobody.\nlet nobody = 1;\n", "load.rs:2:"),
        ("docs/a.md", "# A\n\nRead by\nturns.\n", "a.md:3:"),
        ("docs/a.md", "# A\n\n```sh\nnobody\n```\n", ""),
        ("docs/a.toml", "# nobody\n", ""),
    ];
    for (path, text, expected) in rows {
        let found = prose_in(path, text, "");
        let holds = if expected.is_empty() {
            found.is_empty()
        } else {
            found.contains(expected) && found.lines().count() == 1
        };
        assert!(
            holds,
            "{path}\n{text}\nexpected {expected:?}, found {found:?}"
        );
    }
}

#[test]
fn the_list_of_folders_to_rewrite_shrinks() {
    let list = "# Why.\ncrates/wharf-port/src/port\ncrates/wharf-port/src/\n";
    let found = prose_in(PORT, "//! Nobody.\n", list);
    assert_eq!(
        found,
        "xtask/prose.txt:3: crates/wharf-port/src/ has no refused phrase any more: remove this line\n"
    );
    let found = prose_in(DRIVER, "//! Nobody.\n", list);
    assert!(
        found.starts_with("xtask/prose.txt:2: ") && found.lines().count() == 1,
        "{found}"
    );
}

#[test]
fn the_glossary_has_every_refused_phrase() {
    let text = super::read("CONTRIBUTING.md").expect("the file is there");
    for phrase in &prose::PHRASES {
        let words = phrase.words.join(" ");
        assert!(text.contains(&format!("`{words}`")), "`{words}`");
    }
}

#[test]
fn a_section_of_two_readmes_is_the_same() {
    let whole = "# A\n\n## One\n\ntext\n\n## Licence\n\nhere\n";
    let same = "# B\n\n## One\n\ntext\n\n## Other\n\nmore\n\n## Licence\n\nthere\n";
    let crate_readme = "crates/some/README.md";
    let both = |text| found_in(&[("README.md", whole), (crate_readme, text)], "");
    assert_eq!(both(same), "");
    let other = both("# B\n\nfirst\n\n## One\n\ntexts\n");
    assert!(other.starts_with("crates/some/README.md:5: "), "{other}");
}
