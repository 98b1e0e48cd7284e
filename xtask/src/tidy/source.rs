//! The rules for Rust sources, read as tokens.

use std::str::FromStr as _;

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};

use super::ratchet::{Measured, Size};
use super::{File, Problem, layout};

/// The `cfg` predicates that depend on the operating system.
const OS_PREDICATES: [&str; 6] = [
    "target_os",
    "target_family",
    "target_env",
    "target_vendor",
    "unix",
    "windows",
];

/// What takes such a predicate, as an attribute or as a macro.
const CFG: [&str; 4] = ["cfg", "cfg_attr", "cfg_select", "cfg_if"];

const SCAFFOLDING: [&str; 3] = ["todo", "unimplemented", "dbg"];

pub(super) fn check(file: &File) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut add = |line: usize, what: &str| problems.push(Problem::new(&file.path, line, what));
    if !file.text.starts_with("//!") {
        add(1, "the file does not open with `//!` and what it is for");
    }
    if layout::must_forbid_unsafe(&file.path) && !file.text.contains("#![forbid(unsafe_code)]") {
        add(
            1,
            "the crate does not forbid unsafe code: `#![forbid(unsafe_code)]`",
        );
    }
    match TokenStream::from_str(&file.text) {
        Ok(tokens) => walk(tokens, &mut |trees| check_one(trees, file, &mut add)),
        Err(error) => add(
            error.span().start().line,
            "the file has no valid Rust tokens",
        ),
    }
    problems
}

/// Whether a text has unsafe code, and not only the word.
pub(super) fn has_unsafe(text: &str) -> bool {
    let mut found = false;
    walk(TokenStream::from_str(text).unwrap_or_default(), &mut |it| {
        found |= matches!(&it[0], TokenTree::Ident(word) if word == "unsafe");
    });
    found
}

/// The length of the file and of each of its functions.
pub(super) fn sizes(file: &File) -> Vec<Size> {
    let whole = Size {
        measured: Measured::File(file.path.clone()),
        line: 1,
        lines: file.text.lines().count(),
    };
    let mut sizes = vec![whole];
    let tokens = TokenStream::from_str(&file.text).unwrap_or_default();
    walk(tokens, &mut |trees| {
        let Some((name, body)) = function(trees) else {
            return;
        };
        let line = trees[0].span().start().line;
        let measured = Measured::Function {
            path: file.path.clone(),
            name: name.to_string(),
        };
        sizes.push(Size {
            measured,
            line,
            lines: body.span_close().end().line - line + 1,
        });
    });
    sizes
}

/// Checks the first token of `trees`; the others follow it at its level.
fn check_one(trees: &[TokenTree], file: &File, add: &mut impl FnMut(usize, &str)) {
    let TokenTree::Ident(first) = &trees[0] else {
        return;
    };
    let word = first.to_string();
    let line = line(first.span());
    if word == "unsafe" && !layout::may_be_unsafe(&file.path) {
        add(
            line,
            "unsafe code outside of the places that the architecture names",
        );
    }
    if SCAFFOLDING.contains(&word.as_str()) && is_bang(trees.get(1)) {
        add(line, &format!("a left-over {word}!"));
    }
    if CFG.contains(&word.as_str())
        && !layout::may_ask_for_os(&file.path)
        && argument(trees).is_some_and(asks_for_os)
    {
        add(
            line,
            "asks for the operating system outside of driver and sys",
        );
    }
    if word == "fn"
        && let Some(TokenTree::Ident(name)) = trees.get(1)
        && name.to_string().starts_with("get_")
        && layout::is_public_face(&file.path)
    {
        add(
            line,
            &format!("{name}: a name says what it is, without `get_`"),
        );
    }
}

/// Calls `see` with every token and what follows it, inside groups too.
pub(super) fn walk(tokens: TokenStream, see: &mut impl FnMut(&[TokenTree])) {
    let trees: Vec<TokenTree> = tokens.into_iter().collect();
    for at in 0..trees.len() {
        see(&trees[at..]);
        if let TokenTree::Group(group) = &trees[at] {
            walk(group.stream(), see);
        }
    }
}

/// The name and body of the function that starts at the first token.
fn function(trees: &[TokenTree]) -> Option<(&Ident, &Group)> {
    let [TokenTree::Ident(keyword), TokenTree::Ident(name), rest @ ..] = trees else {
        return None;
    };
    if keyword != "fn" {
        return None;
    }
    for tree in rest {
        match tree {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                return Some((name, group));
            }
            TokenTree::Punct(punct) if punct.as_char() == ';' => return None,
            TokenTree::Group(_)
            | TokenTree::Punct(_)
            | TokenTree::Ident(_)
            | TokenTree::Literal(_) => {}
        }
    }
    None
}

/// The group after `name` or `name!`.
fn argument(trees: &[TokenTree]) -> Option<&Group> {
    let at = if is_bang(trees.get(1)) { 2 } else { 1 };
    match trees.get(at)? {
        TokenTree::Group(group) => Some(group),
        TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => None,
    }
}

fn asks_for_os(group: &Group) -> bool {
    group.stream().into_iter().any(|tree| match tree {
        TokenTree::Ident(word) => OS_PREDICATES.iter().any(|predicate| word == predicate),
        TokenTree::Group(group) => asks_for_os(&group),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

fn is_bang(tree: Option<&TokenTree>) -> bool {
    matches!(tree, Some(TokenTree::Punct(punct)) if punct.as_char() == '!')
}

fn line(span: Span) -> usize {
    span.start().line
}
