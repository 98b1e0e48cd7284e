//! The library spawns no thread and prints nothing: a program decides about both.
//!
//! Code only for tests is left out.

use std::str::FromStr as _;

use proc_macro2::{TokenStream, TokenTree};

use super::arrows::{is_test_only, item};
use super::layout::is_test_or_example;
use super::{File, Problem};

const LIBRARY: &str = "crates/wharf-port/src/";

/// For the program, and no part of the port: the system calls its handler on a thread of its own.
const OF_THE_PROGRAM: &str = "crates/wharf-port/src/sys/windows/program.rs";

const PRINTS: [&str; 5] = ["print", "println", "eprint", "eprintln", "dbg"];
const SPAWNS: [&str; 2] = ["spawn", "Builder"];

pub(super) fn check(file: &File) -> Vec<Problem> {
    let is_library = file.path.starts_with(LIBRARY) && file.path != OF_THE_PROGRAM;
    let mut problems = Vec::new();
    if is_library && !is_test_or_example(&file.path) && !file.path.ends_with("/tests.rs") {
        let tokens = TokenStream::from_str(&file.text).unwrap_or_default();
        look(tokens, &mut |line, what| {
            problems.push(Problem::new(&file.path, line, what));
        });
    }
    problems
}

fn look(tokens: TokenStream, add: &mut impl FnMut(usize, &str)) {
    let trees: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < trees.len() {
        if is_test_only(&trees[at..]) {
            at += item(&trees[at..]);
            continue;
        }
        match &trees[at..] {
            [TokenTree::Ident(word), TokenTree::Punct(bang), ..]
                if bang.as_char() == '!' && PRINTS.iter().any(|it| word == it) =>
            {
                add(word.span().start().line, "the library prints nothing");
            }
            [TokenTree::Ident(word), _, _, TokenTree::Ident(what), ..]
                if word == "thread" && SPAWNS.iter().any(|it| what == it) =>
            {
                add(word.span().start().line, "the library spawns no thread");
            }
            [TokenTree::Group(group), ..] => look(group.stream(), add),
            _ => {}
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::File;
    use super::{LIBRARY, OF_THE_PROGRAM, check};

    fn found(path: &str, code: &str) -> String {
        let file = File {
            path: path.to_owned(),
            text: format!("//! T.\n{code}\n"),
        };
        let problems = check(&file);
        problems.into_iter().map(|it| it.0 + "\n").collect()
    }

    #[test]
    fn the_library_spawns_no_thread_and_prints_nothing() {
        let core = format!("{LIBRARY}core.rs");
        let prints = found(&core, "fn f() { if a { eprintln!(\"a\"); } }");
        assert!(
            prints.contains(":2: the library prints nothing"),
            "{prints}"
        );
        for code in [
            "fn f() { std::thread::spawn(g); }",
            "use std::thread::Builder;",
        ] {
            let spawns = found(&core, code);
            assert!(
                spawns.contains(":2: the library spawns no thread"),
                "{spawns}"
            );
        }
        let spawns = "fn f() { thread::spawn(g); }";
        assert_eq!(found(OF_THE_PROGRAM, spawns), "");
        assert_eq!(found(&format!("{LIBRARY}core/tests.rs"), spawns), "");
        assert_eq!(found("crates/wharf/src/threads.rs", spawns), "");
        let test = format!("#[cfg(test)]\nmod tests {{ {spawns} }}\nfn g() {{ thread::park(); }}");
        assert_eq!(found(&core, &test), "");
    }
}
