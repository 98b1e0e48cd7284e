//! The files of two systems have the same names in the same order, so that they can be compared line
//! by line.
//!
//! The names are those that the rest of the crate sees: items and re-exports at the top level that
//! are not private. A name that is re-exported has no order, because its file has one of its own.
//! [`ALONE`] has the names that one system needs and the other does not.

#[cfg(test)]
mod tests;

use std::str::FromStr as _;

use proc_macro2::{TokenStream, TokenTree};

use super::arrows::path;
use super::{File, Problem};

const PORT: [&str; 2] = [
    "crates/wharf-port/src/sys/unix.rs",
    "crates/wharf-port/src/sys/windows.rs",
];
const PROGRAM: [&str; 2] = [
    "crates/wharf/src/sys/unix.rs",
    "crates/wharf/src/sys/windows.rs",
];

/// Names that only one system has: the file, the name, and why.
const ALONE: [(&str, &str, &str); 15] = [
    (PORT[0], "accept", READINESS),
    (PORT[0], "connect", READINESS),
    (PORT[0], "connect_at_once", DIRECT),
    (PORT[0], "send", READINESS),
    (PORT[0], "in_progress", READINESS),
    (PORT[0], "take_error", READINESS),
    (PORT[0], "shutdown_both", RINGS),
    (PORT[0], "disconnect", RINGS),
    (PORT[0], "prepare_graceful_close", DIRECT),
    (PORT[1], "CANCELLED", CODES),
    (PORT[1], "code_of_status", CODES),
    (PORT[1], "lacks_buffers", CODES),
    (
        PORT[1],
        "wine_version",
        "only Windows programs run under Wine",
    ),
    (PORT[1], "last_error", CODES),
    (PORT[1], "socket_error", CODES),
];

const READINESS: &str = "only a readiness driver makes this call itself";
const RINGS: &str = "the requests of a ring end when the socket is shut down; IOCP has CancelIoEx";
const DIRECT: &str = "direct descriptors have no call of their own for it";
const CODES: &str = "Windows has three kinds of codes, and reports them out of band";

/// A name, its line, and whether it is defined here and not re-exported.
struct Name {
    name: String,
    line: usize,
    is_defined: bool,
}

pub(super) fn check(files: &[File]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for pair in [PORT, PROGRAM] {
        let [Some(one), Some(other)] = pair.map(|path| files.iter().find(|it| it.path == path))
        else {
            continue;
        };
        let (names, others) = (names(&one.text), names(&other.text));
        problems.extend(missing(one, &names, other, &others));
        problems.extend(missing(other, &others, one, &names));
        problems.extend(unordered(one, &names, other, &others));
    }
    problems
}

fn has(names: &[Name], name: &str) -> bool {
    names.iter().any(|it| it.name == name)
}

/// Names of `one` that `other` lacks, and entries of [`ALONE`] that are not true.
fn missing(one: &File, names: &[Name], other: &File, others: &[Name]) -> Vec<Problem> {
    let alone = || ALONE.iter().filter(|(path, ..)| *path == one.path);
    let mut problems = Vec::new();
    for Name { name, line, .. } in names {
        if !has(others, name) && !alone().any(|(_, it, _)| it == name) {
            let what = format!(
                "{name}: {} has no such name; if it needs none, xtask/src/tidy/systems.rs says why",
                other.path
            );
            problems.push(Problem::new(&one.path, *line, what));
        }
    }
    for (_, name, _) in alone() {
        if !has(names, name) || has(others, name) {
            let what = format!("{name} is listed as a name of this system alone, and is not");
            problems.push(Problem::new(&one.path, 1, what));
        }
    }
    problems
}

/// The first name that both files define and that is at another place in one of them.
fn unordered(one: &File, names: &[Name], other: &File, others: &[Name]) -> Option<Problem> {
    let shared = |of: &[Name], with: &[Name]| -> Vec<(String, usize)> {
        let defined = |name: &Name| {
            let same = with.iter().find(|it| it.name == name.name);
            name.is_defined && same.is_some_and(|it| it.is_defined)
        };
        let shared = of.iter().filter(|name| defined(name));
        shared.map(|it| (it.name.clone(), it.line)).collect()
    };
    let pairs = shared(names, others).into_iter().zip(shared(others, names));
    let ((here, line), (there, _)) = pairs.into_iter().find(|(one, other)| one.0 != other.0)?;
    let what = format!("{here} stands where {} has {there}", other.path);
    Some(Problem::new(&one.path, line, what))
}

/// The names of a file that are not private, each once.
fn names(text: &str) -> Vec<Name> {
    let trees: Vec<TokenTree> = TokenStream::from_str(text)
        .unwrap_or_default()
        .into_iter()
        .collect();
    let mut names: Vec<Name> = Vec::new();
    let mut add = |name: String, line, is_defined| match names.iter_mut().find(|it| it.name == name)
    {
        Some(known) => known.is_defined |= is_defined,
        None => names.push(Name {
            name,
            line,
            is_defined,
        }),
    };
    for (at, tree) in trees.iter().enumerate() {
        let TokenTree::Ident(first) = tree else {
            continue;
        };
        let line = first.span().start().line;
        if !is_visible(&trees[..at]) {
            continue;
        }
        if first == "use" {
            path(&trees[at + 1..], Vec::new(), &mut |path| {
                add(path.last().cloned().unwrap_or_default(), line, false);
            });
            continue;
        }
        let words = trees[at..].iter().map_while(|tree| match tree {
            TokenTree::Ident(word) => Some(word.to_string()),
            TokenTree::Group(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => None,
        });
        // The name is the last word before a bracket or a colon, as in `unsafe fn name(`.
        if let Some(name) = words.last() {
            add(name, line, true);
        }
    }
    names
}

/// Whether `pub` or `pub(...)` stands last.
fn is_visible(before: &[TokenTree]) -> bool {
    let is_pub = |tree: &TokenTree| matches!(tree, TokenTree::Ident(word) if word == "pub");
    match before {
        [.., visible, TokenTree::Group(_)] => is_pub(visible),
        [.., visible] => is_pub(visible),
        [] => false,
    }
}
