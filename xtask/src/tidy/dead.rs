//! What `allow(dead_code)` hides: an item that no system and no driver uses.
//!
//! The library has items that only the driver of one system uses, and the compiler of another
//! system must not warn of them. So it warns on no system once the last use is gone. Here an item
//! under such an attribute needs one use by name, on whatever system. Uses by tests do not count.

use std::collections::BTreeMap;
use std::str::FromStr as _;

use proc_macro2::{TokenStream, TokenTree};

use super::arrows::{is_test_only, item};
use super::layout::is_test_or_example;
use super::{File, Problem};

const LIBRARY: &str = "crates/wharf-port/src/";

/// What names an item.
const KINDS: [&str; 6] = ["fn", "const", "static", "struct", "enum", "type"];

/// The names of the library: how often each occurs, and which `allow(dead_code)` is about.
#[derive(Default)]
struct Names {
    occurs: BTreeMap<String, usize>,
    allowed: Vec<(String, usize, String)>,
}

pub(super) fn check(files: &[File]) -> Vec<Problem> {
    let mut names = Names::default();
    for file in files {
        let is_code = file.path.starts_with(LIBRARY) && !is_test_or_example(&file.path);
        if is_code && !file.path.ends_with("/tests.rs") {
            let tokens = TokenStream::from_str(&file.text).unwrap_or_default();
            names.look(&file.path, tokens);
        }
    }
    let Names { occurs, allowed } = names;
    let unused = allowed
        .into_iter()
        .filter(|(_, _, name)| occurs.get(name).is_none_or(|count| *count < 2));
    let tell = |(path, line, name): (String, usize, String)| {
        Problem::new(
            &path,
            line,
            format!("no driver uses {name}: take it out, with its allow(dead_code)"),
        )
    };
    unused.map(tell).collect()
}

impl Names {
    fn look(&mut self, path: &str, tokens: TokenStream) {
        let trees: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < trees.len() {
            if is_test_only(&trees[at..]) {
                at += item(&trees[at..]);
                continue;
            }
            if allows_dead_code(&trees[at..]) {
                self.allowed.extend(
                    named(&trees[at + 2..]).map(|(line, name)| (path.to_owned(), line, name)),
                );
            }
            match &trees[at] {
                TokenTree::Ident(word) => {
                    *self.occurs.entry(word.to_string()).or_default() += 1;
                }
                TokenTree::Group(group) => self.look(path, group.stream()),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
            at += 1;
        }
    }
}

/// Whether an attribute begins here that allows dead code, on all systems or on some.
fn allows_dead_code(trees: &[TokenTree]) -> bool {
    let [TokenTree::Punct(hash), TokenTree::Group(attribute), ..] = trees else {
        return false;
    };
    let words = attribute.stream().to_string();
    hash.as_char() == '#' && words.contains("allow") && words.contains("dead_code")
}

/// The name of the item that these tokens begin with, after its attributes, and its line.
fn named(trees: &[TokenTree]) -> Option<(usize, String)> {
    let ends = |tree: &TokenTree| match tree {
        TokenTree::Punct(mark) => matches!(mark.as_char(), ';' | ','),
        _ => false,
    };
    let head = trees.iter().take_while(|tree| !ends(tree));
    let words: Vec<_> = head
        .filter_map(|tree| match tree {
            TokenTree::Ident(word) => Some(word),
            _ => None,
        })
        .collect();
    let kind = words
        .iter()
        .position(|word| KINDS.iter().any(|kind| *word == kind))?;
    let of_function = words.get(kind + 1).filter(|word| **word == "fn");
    let name = words.get(kind + 1 + usize::from(of_function.is_some()))?;
    Some((name.span().start().line, name.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::File;
    use super::{LIBRARY, check};

    fn found(files: &[(&str, &str)]) -> String {
        let files: Vec<File> = files
            .iter()
            .map(|(path, code)| File {
                path: format!("{LIBRARY}{path}"),
                text: format!("//! T.\n{code}\n"),
            })
            .collect();
        let problems = check(&files);
        problems.into_iter().map(|it| it.0 + "\n").collect()
    }

    #[test]
    fn what_no_driver_uses_is_found_behind_its_attribute() {
        let hidden = "#[allow(dead_code, reason = \"a driver\")]\n#[inline]\npub(crate) const fn lonely() {}";
        let here = found(&[("core.rs", hidden)]);
        assert!(here.contains("core.rs:4: no driver uses lonely"), "{here}");
        let used = found(&[("core.rs", hidden), ("driver/a.rs", "fn f() { lonely(); }")]);
        assert_eq!(used, "");
        let tested = "#[cfg(test)]\nmod tests { fn f() { lonely(); } }";
        let tested = found(&[("core.rs", hidden), ("driver/a.rs", tested)]);
        assert!(tested.contains("lonely"), "{tested}");
        let some = "#[cfg_attr(windows, allow(dead_code))]\nstruct Lonely;";
        assert!(found(&[("core.rs", some)]).contains("core.rs:3: no driver uses Lonely"));
        assert_eq!(found(&[("core.rs", "fn plain() {}")]), "");
    }
}
