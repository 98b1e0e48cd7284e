//! The verbs of a driver: few, and in the same order in every driver.
//!
//! The traits of `driver.rs` have the order. Two drivers can be compared line by line if each
//! `impl` of such a trait has the trait's order, and the `impl`s of one file have the order of the
//! traits. A verb that a driver takes from the trait is left out there. rustc accepts any order.

use std::str::FromStr as _;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use super::source::walk;
use super::{File, Problem};

/// The file with the traits.
const SEAM: &str = "crates/wharf-port/src/driver.rs";
/// The files with the drivers.
const DRIVERS: &str = "crates/wharf-port/src/driver/";

/// The trait that every driver writes itself, and how many verbs it has at most. A new one replaces
/// one, or belongs into another trait.
const MAIN: &str = "Driver";
const VERBS_MAX: usize = 14;

/// A trait, or an `impl` of one: its name, its line, and its verbs with their lines.
struct Verbs {
    of: String,
    line: usize,
    verbs: Vec<(String, usize)>,
}

pub(super) fn check(files: &[File]) -> Vec<Problem> {
    let seam = files.iter().find(|file| file.path == SEAM);
    let traits = seam.map_or_else(Vec::new, |file| find(file, name_of_trait));
    let mut problems = Vec::new();
    for it in &traits {
        if it.of == MAIN && it.verbs.len() > VERBS_MAX {
            let what = format!(
                "trait {MAIN} has {} verbs, over {VERBS_MAX}",
                it.verbs.len()
            );
            problems.push(Problem::new(SEAM, it.line, what));
        }
    }
    let drivers = files.iter().filter(|file| file.path.starts_with(DRIVERS));
    for file in drivers.filter(|file| file.path.ends_with(".rs")) {
        check_file(file, &traits, &mut problems);
    }
    problems
}

fn check_file(file: &File, traits: &[Verbs], problems: &mut Vec<Problem>) {
    let mut last: Option<(usize, &str)> = None;
    for found in find(file, name_of_impl) {
        let Some(place) = traits.iter().position(|it| it.of == found.of) else {
            continue;
        };
        let name = &traits[place].of;
        match last {
            Some((before, other)) if place < before => {
                let what = format!("impl {name} belongs before impl {other}, as in {SEAM}");
                problems.push(Problem::new(&file.path, found.line, what));
            }
            _ => last = Some((place, name)),
        }
        check_order(file, &traits[place], &found, problems);
    }
}

/// Compares the verbs of an `impl` with those of its trait.
fn check_order(file: &File, of: &Verbs, found: &Verbs, problems: &mut Vec<Problem>) {
    let mut last: Option<(usize, &str)> = None;
    for (verb, line) in &found.verbs {
        // rustc refuses a verb that the trait does not have.
        let Some(place) = of.verbs.iter().position(|(it, _)| it == verb) else {
            continue;
        };
        match last {
            Some((before, other)) if place < before => {
                let what = format!("{verb} belongs before {other}, as in trait {}", of.of);
                problems.push(Problem::new(&file.path, *line, what));
            }
            _ => last = Some((place, verb)),
        }
    }
}

/// Everything in a file that has verbs and a name.
fn find(file: &File, name: fn(&[TokenTree]) -> Option<(String, &Group)>) -> Vec<Verbs> {
    let mut found = Vec::new();
    let tokens = TokenStream::from_str(&file.text).unwrap_or_default();
    walk(tokens, &mut |trees| {
        if let Some((of, body)) = name(trees) {
            let line = trees[0].span().start().line;
            let verbs = verbs(body);
            found.push(Verbs { of, line, verbs });
        }
    });
    found
}

/// `trait NAME ... { body }`
fn name_of_trait(trees: &[TokenTree]) -> Option<(String, &Group)> {
    let [TokenTree::Ident(keyword), TokenTree::Ident(name), rest @ ..] = trees else {
        return None;
    };
    let body = rest.iter().find_map(braces)?;
    (keyword == "trait").then(|| (name.to_string(), body))
}

/// `impl ... NAME for TYPE { body }`
fn name_of_impl(trees: &[TokenTree]) -> Option<(String, &Group)> {
    let TokenTree::Ident(keyword) = &trees[0] else {
        return None;
    };
    if keyword != "impl" {
        return None;
    }
    let end = trees.iter().position(|tree| braces(tree).is_some())?;
    let at = trees[..end]
        .iter()
        .position(|tree| matches!(tree, TokenTree::Ident(word) if word == "for"))?;
    let TokenTree::Ident(name) = &trees[at - 1] else {
        return None;
    };
    Some((name.to_string(), braces(&trees[end])?))
}

fn braces(tree: &TokenTree) -> Option<&Group> {
    match tree {
        TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => Some(group),
        TokenTree::Group(_) | TokenTree::Punct(_) | TokenTree::Ident(_) | TokenTree::Literal(_) => {
            None
        }
    }
}

/// The functions of a body, not those within functions.
fn verbs(body: &Group) -> Vec<(String, usize)> {
    let trees: Vec<TokenTree> = body.stream().into_iter().collect();
    let pairs = trees.windows(2).filter_map(|pair| match pair {
        [TokenTree::Ident(keyword), TokenTree::Ident(name)] if keyword == "fn" => {
            Some((name.to_string(), name.span().start().line))
        }
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::{DRIVERS, File, SEAM, check};

    const TRAITS: &str = "trait Driver: Sockets { fn arm(&self); fn poll(&self) { fn in_it() {} } }
                          trait Sockets { fn open(&self) {} fn close(&self) {} }";

    fn found(seam: &str, driver: &str) -> Vec<String> {
        let file = |path: String, text: &str| File {
            path,
            text: text.to_owned(),
        };
        let own = format!("{DRIVERS}own.rs");
        let problems = check(&[file(SEAM.to_owned(), seam), file(own, driver)]);
        problems.into_iter().map(|problem| problem.0).collect()
    }

    #[test]
    fn the_verbs_of_a_driver_have_the_order_of_the_trait() {
        let tidy = "impl Driver for Own { fn arm(&self) {} fn poll(&self) {} }
                    impl Own { fn close(&self) {} fn open(&self) {} }
                    impl fmt::Debug for Own { fn poll(&self) {} fn arm(&self) {} }
                    impl Sockets for Own { #[cfg(unix)] fn close(&self) {} }";
        assert_eq!(found(TRAITS, tidy), [""; 0]);
        let verbs = "impl super::Driver for Own {\n fn poll(&self) {}\n fn arm(&self) {} }";
        assert_eq!(
            found(TRAITS, verbs),
            ["crates/wharf-port/src/driver/own.rs:3: arm belongs before poll, as in trait Driver"]
        );
        let traits = "impl Sockets for Own {}\nimpl Driver for Own {}";
        assert_eq!(
            found(TRAITS, traits),
            [format!(
                "crates/wharf-port/src/driver/own.rs:2: impl Driver belongs before impl Sockets, \
                 as in {SEAM}"
            )]
        );
    }

    #[test]
    fn the_trait_that_every_driver_writes_stays_small() {
        let of = |count: usize| {
            let verbs: String = (0..count).map(|at| format!("fn verb{at}();")).collect();
            format!("trait Driver {{ {verbs} }} trait Sockets {{ {verbs} fn more(); }}")
        };
        assert_eq!(found(&of(14), ""), [""; 0]);
        assert_eq!(
            found(&of(15), ""),
            [format!("{SEAM}:1: trait Driver has 15 verbs, over 14")]
        );
    }
}
