//! Who may import whom: the layers of the architecture, read from the code's own paths.
//!
//! An arrow is a path that begins with `crate` or `super`, in a `use`, in an expression or in a
//! macro. Code only for tests is left out, because a test may import anything. A path that begins
//! with the name of a child module stays within its part, and is no arrow. A path that begins with an
//! imported name is one. Not found: a module under another name (`as`), and links in comments, which
//! are no imports.
//!
//! The compiler knows no layers within a crate. A crate for each layer was rejected: the core and a
//! driver call each other, and both need what the public must not see.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr as _;

use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};

use super::{File, Problem};

/// A part of a crate: modules of its root, each with all below it, or a module further down.
type Part = &'static [&'static str];

/// Files of one part that import nothing from another.
struct Never {
    from: Part,
    /// Modules of `from` that may.
    but: Part,
    to: Part,
    why: &'static str,
}

const FACE: Part = &[
    "batch", "builder", "listener", "port", "sim", "socket", "table", "waiter",
];
const WORDS: Part = &[
    "accepted",
    "address",
    "buffer",
    "connect",
    "error",
    "keepalive",
    "key",
    "listen",
    "op",
    "packet",
    "reference",
    "stream",
];
/// The drivers, and the choice among them, which knows all of them.
const DRIVERS: Part = &[
    "driver::choice",
    "driver::iocp",
    "driver::poll",
    "driver::sim",
    "driver::uring",
];

/// The rules of the library.
const LIBRARY: &[Never] = &[
    Never {
        from: &["core", "driver", "sys"],
        but: &[],
        to: FACE,
        why: "nothing below the face imports it",
    },
    Never {
        from: WORDS,
        but: &[],
        to: FACE,
        why: "the words of the API know no operation of the face",
    },
    Never {
        from: &["core"],
        but: &[],
        to: DRIVERS,
        why: "the core knows the seam, and no driver",
    },
    Never {
        from: WORDS,
        but: &[],
        to: DRIVERS,
        why: "the words of the API know no driver",
    },
    Never {
        from: &["driver::iocp"],
        but: &[],
        to: &[
            "driver::choice",
            "driver::poll",
            "driver::sim",
            "driver::uring",
        ],
        why: "drivers do not know each other",
    },
    Never {
        from: &["driver::poll"],
        but: &[],
        to: &[
            "driver::choice",
            "driver::iocp",
            "driver::sim",
            "driver::uring",
        ],
        why: "drivers do not know each other",
    },
    Never {
        from: &["driver::sim"],
        but: &[],
        to: &[
            "driver::choice",
            "driver::iocp",
            "driver::poll",
            "driver::uring",
        ],
        why: "drivers do not know each other",
    },
    Never {
        from: &["driver::uring"],
        but: &[],
        to: &[
            "driver::choice",
            "driver::iocp",
            "driver::poll",
            "driver::sim",
        ],
        why: "drivers do not know each other",
    },
    Never {
        from: &["sys"],
        but: &[],
        to: &["core", "driver"],
        why: "sys knows neither the core nor a driver",
    },
];

const GROUND: Part = &["machine", "signals", "sys", "text", "threads", "values"];
const COMMANDS: Part = &["bench", "compare", "doctor", "load", "server"];

/// The rules of the program.
const PROGRAM: &[Never] = &[
    Never {
        from: &[""],
        but: &["main", "cli"],
        to: &["cli"],
        why: "only main imports the command line",
    },
    Never {
        from: GROUND,
        but: &[],
        to: &["account", "processes"],
        why: "the ground imports nothing above it",
    },
    Never {
        from: GROUND,
        but: &[],
        to: COMMANDS,
        why: "the ground imports nothing above it",
    },
    Never {
        from: &["account", "processes"],
        but: &[],
        to: COMMANDS,
        why: "what several commands share knows none of them",
    },
    Never {
        from: &["compare"],
        but: &[],
        to: &["bench", "doctor", "load", "server"],
        why: "only bench imports other commands",
    },
    Never {
        from: &["doctor"],
        but: &[],
        to: &["bench", "compare", "load", "server"],
        why: "only bench imports other commands",
    },
    Never {
        from: &["load"],
        but: &[],
        to: &["bench", "compare", "doctor", "server"],
        why: "only bench imports other commands",
    },
    Never {
        from: &["server"],
        but: &[],
        to: &["bench", "compare", "doctor", "load"],
        why: "only bench imports other commands",
    },
];

const CRATES: [(&str, &[Never]); 2] = [
    ("crates/wharf-port/src/", LIBRARY),
    ("crates/wharf/src/", PROGRAM),
];

pub(super) fn check(files: &[File]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (source, rules) in CRATES {
        let own = |file: &&File| file.path.starts_with(source) && file.path.ends_with(".rs");
        let own: Vec<&File> = files.iter().filter(own).collect();
        let root = own.iter().find(|file| file.path.ends_with("src/lib.rs"));
        let faces = root.map_or_else(BTreeMap::new, |root| faces(&root.text));
        for file in own {
            let Some(module) = module(&file.path[source.len()..]) else {
                continue;
            };
            problems.extend(check_file(file, &module, rules, &faces));
        }
    }
    problems
}

fn check_file(
    file: &File,
    module: &str,
    rules: &[Never],
    faces: &BTreeMap<String, String>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let tokens = TokenStream::from_str(&file.text).unwrap_or_default();
    let here: Vec<String> = module.split("::").map(str::to_owned).collect();
    let mut seen = BTreeSet::new();
    let names = imports(tokens.clone(), &here);
    arrows(tokens, &here, &names, &mut |path, line| {
        // A name that the root re-exports is of the module that has it.
        let to = match path {
            [name, ..] if faces.contains_key(name) => faces[name].clone(),
            _ => path.join("::"),
        };
        let broken = rules.iter().find(|rule| {
            is_in(module, rule.from) && !is_in(module, rule.but) && is_in(&to, rule.to)
        });
        if let Some(rule) = broken
            && seen.insert((line, rule.why))
        {
            let what = format!("{module} imports {to}: {}", rule.why);
            problems.push(Problem::new(&file.path, line, what));
        }
    });
    problems
}

/// The module of a file below `src`; none for a root and for tests.
fn module(path: &str) -> Option<String> {
    let path = path.strip_suffix(".rs")?;
    let is_test = path.split('/').any(|part| part == "tests");
    (path != "lib" && !is_test).then(|| path.replace('/', "::"))
}

fn is_in(path: &str, part: Part) -> bool {
    part.iter().any(|module| {
        let below = path.strip_prefix(module);
        below.is_some_and(|it| module.is_empty() || it.is_empty() || it.starts_with("::"))
    })
}

/// What the root re-exports: each name, and the path of what it names.
fn faces(root: &str) -> BTreeMap<String, String> {
    let trees: Vec<TokenTree> = TokenStream::from_str(root)
        .unwrap_or_default()
        .into_iter()
        .collect();
    let mut faces = BTreeMap::new();
    for (at, tree) in trees.iter().enumerate() {
        if matches!(tree, TokenTree::Ident(word) if word == "use") {
            path(&trees[at + 1..], Vec::new(), &mut |path| {
                if let Some(name) = path.last() {
                    faces.insert(name.clone(), path.join("::"));
                }
            });
        }
    }
    faces
}

/// What the file imports from its crate: each name, and the path of what it names.
fn imports(tokens: TokenStream, here: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut names = BTreeMap::new();
    super::source::walk(tokens, &mut |trees| {
        if matches!(&trees[0], TokenTree::Ident(word) if word == "use")
            && trees.len() > 2
            && starts_path(trees, 1)
        {
            let (base, skip) = base(&trees[1..], here);
            path(&trees[1 + skip..], base, &mut |path| {
                names.extend(path.last().map(|name| (name.clone(), path.to_vec())));
            });
        }
    });
    names
}

/// Calls `see` with each path from the root of the crate and its line.
fn arrows(
    tokens: TokenStream,
    here: &[String],
    names: &BTreeMap<String, Vec<String>>,
    see: &mut impl FnMut(&[String], usize),
) {
    let trees: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < trees.len() {
        if is_test_only(&trees[at..]) {
            at += item(&trees[at..]);
            continue;
        }
        match &trees[at] {
            TokenTree::Ident(word) if starts_path(&trees, at) => {
                let line = word.span().start().line;
                let (base, skip) = base(&trees[at..], here);
                path(&trees[at + skip..], base, &mut |path| see(path, line));
                at = end_of_path(&trees, at);
                continue;
            }
            TokenTree::Ident(word) if goes_on(&trees, at) => {
                if let Some(base) = names.get(&word.to_string()) {
                    let line = word.span().start().line;
                    path(&trees[at + 3..], base.clone(), &mut |path| see(path, line));
                }
                at = end_of_path(&trees, at);
                continue;
            }
            TokenTree::Group(group) => {
                let inner = within(&trees, at, group, here);
                arrows(group.stream(), &inner, names, see);
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
        at += 1;
    }
}

/// The module within a group: one deeper behind `mod name`.
fn within(trees: &[TokenTree], at: usize, group: &Group, here: &[String]) -> Vec<String> {
    let mut inner = here.to_vec();
    if group.delimiter() == Delimiter::Brace
        && at >= 2
        && let [TokenTree::Ident(word), TokenTree::Ident(name)] = &trees[at - 2..at]
        && word == "mod"
    {
        inner.push(name.to_string());
    }
    inner
}

/// Whether `crate::` or `super::` begins here.
fn starts_path(trees: &[TokenTree], at: usize) -> bool {
    let word = matches!(&trees[at], TokenTree::Ident(word) if word == "crate" || word == "super");
    word && goes_on(trees, at)
}

/// Whether the word here is the first of a path of several.
fn goes_on(trees: &[TokenTree], at: usize) -> bool {
    let inside = at >= 2 && is_separator(trees, at - 2);
    !inside && is_separator(trees, at + 1)
}

/// Whether `::` is here. A single colon, as before a type, separates nothing.
fn is_separator(trees: &[TokenTree], at: usize) -> bool {
    let is_joint =
        |tree: &TokenTree| matches!(tree, TokenTree::Punct(it) if it.spacing() == Spacing::Joint);
    let second = trees.get(at + 1).is_some_and(is_colon);
    second && is_colon(&trees[at]) && is_joint(&trees[at])
}

/// Behind the path that begins here. What is nested in braces is a part of it, and no new one.
fn end_of_path(trees: &[TokenTree], mut at: usize) -> usize {
    while matches!(trees.get(at), Some(TokenTree::Ident(_))) && is_separator(trees, at + 1) {
        at += 3;
    }
    at + 1
}

/// Where a path starts, and how many tokens say so.
fn base(trees: &[TokenTree], here: &[String]) -> (Vec<String>, usize) {
    if matches!(&trees[0], TokenTree::Ident(word) if word == "crate") {
        return (Vec::new(), 3);
    }
    let mut base = here.to_vec();
    let mut at = 0;
    while matches!(trees.get(at), Some(TokenTree::Ident(word)) if word == "super") {
        base.pop();
        at += 3;
    }
    (base, at)
}

/// Calls `see` with each path of the tree that goes on from `prefix`.
pub(super) fn path(trees: &[TokenTree], mut prefix: Vec<String>, see: &mut impl FnMut(&[String])) {
    let mut at = 0;
    loop {
        match trees.get(at) {
            Some(TokenTree::Ident(word)) if word == "self" => return see(&prefix),
            Some(TokenTree::Ident(word)) => prefix.push(word.to_string()),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                let is_comma =
                    |tree: &TokenTree| matches!(tree, TokenTree::Punct(it) if it.as_char() == ',');
                for one in inner.split(is_comma).filter(|one| !one.is_empty()) {
                    path(one, prefix.clone(), see);
                }
                return;
            }
            _ => return see(&prefix),
        }
        if !(trees.get(at + 1).is_some_and(is_colon) && trees.get(at + 2).is_some_and(is_colon)) {
            return see(&prefix);
        }
        at += 3;
    }
}

fn is_colon(tree: &TokenTree) -> bool {
    matches!(tree, TokenTree::Punct(punct) if punct.as_char() == ':')
}

/// Whether `#[cfg(test)]` or `#[cfg(all(test, ...))]` stands here.
pub(super) fn is_test_only(trees: &[TokenTree]) -> bool {
    let [TokenTree::Punct(hash), TokenTree::Group(group), ..] = trees else {
        return false;
    };
    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
    let [TokenTree::Ident(cfg), TokenTree::Group(predicate)] = &inner[..] else {
        return false;
    };
    hash.as_char() == '#' && cfg == "cfg" && needs_test(predicate)
}

fn needs_test(predicate: &Group) -> bool {
    let inner: Vec<TokenTree> = predicate.stream().into_iter().collect();
    match &inner[..] {
        [TokenTree::Ident(all), TokenTree::Group(group)] if all == "all" => needs_test(group),
        [TokenTree::Ident(first), ..] => first == "test",
        _ => false,
    }
}

/// How many tokens an item has, with its attributes: up to its semicolon or its braces.
pub(super) fn item(trees: &[TokenTree]) -> usize {
    let end = |tree: &TokenTree| match tree {
        TokenTree::Punct(punct) => punct.as_char() == ';',
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Ident(_) | TokenTree::Literal(_) => false,
    };
    trees
        .iter()
        .position(end)
        .map_or(trees.len(), |last| last + 1)
}
